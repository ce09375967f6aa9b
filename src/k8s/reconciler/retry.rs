//! When something that failed is tried again, and when its failure is logged.

use std::time::{Duration, Instant};

use crate::k8s::api_error::ApiError;
use crate::telemetry::failure_log::FailureLog;

/// The pause after the first failure; every further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The attempts at one thing: the failure that was last logged, and the pause until the next attempt.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: FailureLog<ApiError>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Attempts {
    /// Whether it may be tried at `now`.
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

    /// Records a failure, after which nothing is tried for a pause of at most `longest`. Returns the
    /// error if it is to be logged. A write that somebody else's overtook is no failure: the next
    /// snapshot decides anew.
    #[must_use = "a new failure is to be logged"]
    pub(super) fn record_failure(
        &mut self,
        error: ApiError,
        longest: Duration,
        now: Instant,
    ) -> Option<&ApiError> {
        if error == ApiError::Changed {
            return None;
        }
        let doubled = self.pause.saturating_mul(2);
        self.pause = doubled.clamp(FIRST_PAUSE, longest.max(FIRST_PAUSE));
        self.not_before = now.checked_add(self.pause);
        self.failures.record_failure(error)
    }
}

#[cfg(test)]
impl Attempts {
    /// Lets the next attempt start at once.
    pub(super) fn end_pause(&mut self) {
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_to_a_maximum_and_resets_on_success() {
        let mut attempts = Attempts::default();
        let start = Instant::now();
        let longest = Duration::from_secs(10);
        let refused = || ApiError::Refused("no".into());
        let mut now = start;
        let mut pauses = Vec::new();
        for attempt in 0..6 {
            assert!(attempts.may_start(now));
            let logged = attempts.record_failure(refused(), longest, now).is_some();
            assert_eq!(logged, attempt == 0);
            let mut paused = 0;
            while !attempts.may_start(now) {
                now += Duration::from_secs(1);
                paused += 1;
            }
            pauses.push(paused);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert!(
            attempts
                .record_failure(ApiError::NoAnswer, longest, now)
                .is_some()
        );
        attempts.record_success();
        assert!(attempts.may_start(now) && !attempts.is_failing());
        // A conflict is decided anew at once.
        assert!(
            attempts
                .record_failure(ApiError::Changed, longest, now)
                .is_none()
        );
        assert!(attempts.may_start(now) && !attempts.is_failing());
    }
}
