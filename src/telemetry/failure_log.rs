//! Logs a failure once, not at every attempt.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::log_interval::LogInterval;

/// The last failure of a retried operation, so that a failure is logged when it first occurs or changes, and its
/// recovery once.
///
/// Errors with the same cause must compare equal. If their text varies per attempt (a request ID, say), use a type
/// `E` that leaves it out.
#[derive(Clone, Debug)]
pub struct FailureLog<E>(Option<E>);

impl<E> Default for FailureLog<E> {
    fn default() -> Self {
        Self(None)
    }
}

impl<E: PartialEq> FailureLog<E> {
    /// Records a failed attempt. Returns the error to log; `None` if it equals the previous one.
    #[must_use = "log the returned error"]
    pub fn record_failure(&mut self, error: E) -> Option<&E> {
        if self.0.as_ref() == Some(&error) {
            return None;
        }
        Some(self.0.insert(error))
    }

    /// Records a successful attempt. Returns the failure that it ends, if there was one.
    pub fn record_success(&mut self) -> Option<E> {
        self.0.take()
    }

    /// How the last attempt failed; `None` if it did not.
    #[must_use]
    pub fn failure(&self) -> Option<&E> {
        self.0.as_ref()
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.is_some()
    }
}

/// The last logged outcome of requests to another server. Callers may cause requests that fail and succeed in turn, so
/// a change is logged at most once a minute.
#[derive(Debug)]
pub struct RequestFailureLog<E> {
    /// The failure that was logged last; `None` after a success.
    logged: Mutex<Option<E>>,
    interval: LogInterval,
}

impl<E> Default for RequestFailureLog<E> {
    fn default() -> Self {
        Self {
            logged: Mutex::new(None),
            interval: LogInterval::default(),
        }
    }
}

impl<E: PartialEq> RequestFailureLog<E> {
    /// Records the outcome of a request at `now`; `None` for a success. Returns whether to log it.
    #[must_use = "log the outcome"]
    pub fn record(&self, failed: Option<E>, now: Instant) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = *logged != failed && self.interval.is_due(now);
        if is_due {
            *logged = failed;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reports_a_failure_once_until_it_changes_or_ends() {
        let mut log = FailureLog::default();
        assert_eq!(log.record_success(), None);
        assert_eq!(log.record_failure("forbidden"), Some(&"forbidden"));
        assert_eq!(log.record_failure("forbidden"), None);
        assert_eq!(log.record_failure("no answer"), Some(&"no answer"));
        assert!(log.is_failing());
        assert_eq!(log.failure(), Some(&"no answer"));
        assert_eq!(log.record_success(), Some("no answer"));
        assert!(!log.is_failing());
        assert_eq!(log.record_failure("no answer"), Some(&"no answer"));
    }

    #[test]
    fn requests_that_fail_in_turn_are_logged_once_a_minute() {
        let began = Instant::now();
        for kinds in [
            [Some("no answer"), None],
            [Some("no answer"), Some("refused")],
        ] {
            let log = RequestFailureLog::default();
            let lines = (0..1800).filter(|tenths| {
                let failed = kinds[usize::from(tenths % 2 == 1)];
                log.record(failed, began + Duration::from_millis(100 * tenths))
            });
            assert_eq!(lines.count(), 3);
        }
        let log = RequestFailureLog::default();
        assert!(!log.record(None, began));
        assert!(log.record(Some("no answer"), began));
        assert!(!log.record(Some("no answer"), began + Duration::from_secs(100)));
        assert!(log.record(None, began + Duration::from_secs(100)));
    }
}
