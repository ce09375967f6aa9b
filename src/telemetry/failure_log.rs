//! Logs a failure once, not at every attempt.

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

#[cfg(test)]
mod tests {
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
}
