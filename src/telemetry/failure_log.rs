//! Logs a failure once, not at every attempt.

/// Remembers the last failure of something that is tried again and again, so that only a failure that
/// is new is logged, and its recovery once.
///
/// `E` must stay equal while the cause does: errors whose text differs at every attempt need a type
/// that leaves the difference out.
#[derive(Clone, Debug)]
pub struct FailureLog<E>(Option<E>);

impl<E> Default for FailureLog<E> {
    fn default() -> Self {
        Self(None)
    }
}

impl<E: PartialEq> FailureLog<E> {
    /// Records a failed attempt. Returns the error if it differs from the last one, so is to be logged.
    #[must_use = "a new failure is to be logged"]
    pub fn failed(&mut self, error: E) -> Option<&E> {
        if self.0.as_ref() == Some(&error) {
            return None;
        }
        Some(self.0.insert(error))
    }

    /// Records a successful attempt. Returns the failure that it ends, if there was one.
    pub fn succeeded(&mut self) -> Option<E> {
        self.0.take()
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
        assert_eq!(log.succeeded(), None);
        assert_eq!(log.failed("forbidden"), Some(&"forbidden"));
        assert_eq!(log.failed("forbidden"), None);
        assert_eq!(log.failed("no answer"), Some(&"no answer"));
        assert!(log.is_failing());
        assert_eq!(log.succeeded(), Some("no answer"));
        assert!(!log.is_failing());
        assert_eq!(log.failed("no answer"), Some(&"no answer"));
    }
}
