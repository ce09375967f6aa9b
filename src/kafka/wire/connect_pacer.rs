//! The rate at which connections to the brokers of one cluster are opened, and the backoff after failures.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Limits the rate of new connections over all brokers of a cluster, since some services limit it.
#[derive(Debug)]
pub(super) struct ConnectPacer {
    next: Mutex<Instant>,
}

impl ConnectPacer {
    const INTERVAL: Duration = Duration::from_millis(100);
    const BURST: u32 = 16;

    pub(super) fn new() -> Self {
        Self {
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until the next connection may be opened.
    pub(super) async fn wait(&self) {
        let turn = {
            let mut next = self.next.lock().await;
            let now = Instant::now();
            // Unused slots accumulate up to the burst size.
            let earliest = now.checked_sub(Self::INTERVAL * Self::BURST).unwrap_or(now);
            let turn = (*next).max(earliest);
            *next = turn + Self::INTERVAL;
            turn
        };
        sleep_until(turn).await;
    }
}

/// Backoff after a refused login, longer than after other failures because some services lock
/// accounts after repeated failures.
pub(super) const LOGIN_BACKOFF: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(10));

/// Backoff after this number of consecutive failures.
pub(super) fn backoff(least: Duration, most: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
    least.saturating_mul(factor).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_up_to_a_limit() {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(2));
        let pauses: Vec<_> = (0..7)
            .map(|n| backoff(least, most, n).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff(least, most, u32::MAX), most);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_opened_at_a_limited_rate() {
        let pace = ConnectPacer::new();
        let start = Instant::now();
        for _ in 0..40 {
            pace.wait().await;
        }
        assert!(
            start.elapsed() >= Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(
            start.elapsed() <= Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
}
