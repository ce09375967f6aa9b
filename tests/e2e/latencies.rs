//! How long answers took.

use std::time::Duration;

use anyhow::{Result, ensure};

/// How long each answer took.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// The time within which `percent` of them came; zero if there were none.
    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = sorted.len() * percent / 100;
        let index = index.min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default()
    }

    /// Ratios of these latencies to those of an undisturbed time. They are printed and not checked, because the
    /// scenarios share the cores, also with the attacker.
    pub(crate) fn beside(&self, undisturbed: &Self) -> Result<String> {
        ensure!(self.len() > 0, "no answer beside the attack");
        ensure!(undisturbed.len() > 0, "no answer before the attack");
        let ratio = |now: Duration, before: Duration| now.as_secs_f64() / before.as_secs_f64();
        Ok(format!(
            "{self} (undisturbed {undisturbed}: {:.1} and {:.1} times)",
            ratio(self.p50(), undisturbed.p50()),
            ratio(self.p99(), undisturbed.p99()),
        ))
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.1?} p99 {:.1?}", self.p50(), self.p99())
    }
}
