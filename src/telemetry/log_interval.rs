//! Bounds how often an event is logged that its cause may repeat at will.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one log line pass in each minute.
#[derive(Debug, Default)]
pub struct LogInterval(Mutex<Option<Instant>>);

impl LogInterval {
    const MINUTE: Duration = Duration::from_secs(60);

    /// Whether to log at `now`; if so, not again for a minute.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged.is_none_or(|at| now.saturating_duration_since(at) >= Self::MINUTE);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_one_line_a_minute() {
        let log = LogInterval::default();
        let began = Instant::now();
        let lines = (0..300).filter(|s| log.is_due(began + Duration::from_secs(*s)));
        assert_eq!(lines.collect::<Vec<_>>(), [0, 60, 120, 180, 240]);
    }
}
