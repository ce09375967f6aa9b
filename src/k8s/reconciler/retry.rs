//! Backoff and logging of an operation that is retried.

use std::time::{Duration, Instant};

use crate::k8s::api_error::ApiError;
use crate::telemetry::failure_log::FailureLog;

/// Backoff after the first failure; every further one doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// State of one operation that is retried: its backoff, and the failure that was last logged.
#[derive(Debug, Default)]
pub(super) struct RetryState {
    failures: FailureLog<ApiError>,
    backoff: Duration,
    not_before: Option<Instant>,
}

impl RetryState {
    /// Whether the backoff allows an attempt at `now`.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }

    /// Whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures.is_failing()
    }

    pub(super) fn record_success(&mut self) {
        *self = Self::default();
    }

    /// Records a failure and doubles the backoff before the next attempt, up to `max_backoff`. Returns the error if
    /// it has to be logged. [`ApiError::Changed`] is not a failure: the next snapshot decides again from a
    /// new read.
    #[must_use = "log the returned error"]
    pub(super) fn record_failure(
        &mut self,
        error: ApiError,
        max_backoff: Duration,
        now: Instant,
    ) -> Option<&ApiError> {
        if error == ApiError::Changed {
            return None;
        }
        let doubled = self.backoff.saturating_mul(2);
        self.backoff = doubled.clamp(FIRST_BACKOFF, max_backoff.max(FIRST_BACKOFF));
        self.not_before = now.checked_add(self.backoff);
        self.failures.record_failure(error)
    }
}

#[cfg(test)]
impl RetryState {
    /// Ends the backoff, so that the next attempt may start.
    pub(super) fn end_backoff(&mut self) {
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_a_maximum_and_resets_on_success() {
        let mut retry = RetryState::default();
        let start = Instant::now();
        let longest = Duration::from_secs(10);
        let refused = || ApiError::Refused("no".into());
        let mut now = start;
        let mut pauses = Vec::new();
        for attempt in 0..6 {
            assert!(retry.may_start(now));
            let logged = retry.record_failure(refused(), longest, now).is_some();
            assert_eq!(logged, attempt == 0);
            let mut paused = 0;
            while !retry.may_start(now) {
                now += Duration::from_secs(1);
                paused += 1;
            }
            pauses.push(paused);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert!(
            retry
                .record_failure(ApiError::timed_out(), longest, now)
                .is_some()
        );
        retry.record_success();
        assert!(retry.may_start(now) && !retry.is_failing());
        // A conflict causes no backoff.
        assert!(
            retry
                .record_failure(ApiError::Changed, longest, now)
                .is_none()
        );
        assert!(retry.may_start(now) && !retry.is_failing());
    }
}
