//! How long answers took.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::testbed::BINARY;

/// Maximum factor by which latencies may grow during an attack, relative to the growth of the bystander's.
const MAX_FACTOR_BEYOND_BYSTANDER: f64 = 2.0;

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

    /// How many times as late as undisturbed the slowest hundredth comes.
    fn p99_ratio(&self, undisturbed: &Self) -> f64 {
        self.p99().as_secs_f64() / undisturbed.p99().as_secs_f64()
    }

    /// Formats these latencies during an attack and those of a bystander, each with the undisturbed ones, and the
    /// factor by which these have grown relative to the bystander's. The factor is checked for a build that is named by
    /// [`BINARY`]: the debug build takes several times as much CPU time, so that its responses wait for one another.
    ///
    /// # Errors
    /// They have grown by more than [`MAX_FACTOR_BEYOND_BYSTANDER`] times.
    pub(crate) fn beside_bystander(
        &self,
        undisturbed: &Self,
        (bystander, bystander_undisturbed): (&Self, &Self),
    ) -> Result<String> {
        let (own, other) = (
            self.beside(undisturbed)?,
            bystander.beside(bystander_undisturbed)?,
        );
        let grown = bystander.p99_ratio(bystander_undisturbed).max(1.0);
        let beyond = self.p99_ratio(undisturbed) / grown;
        let figures = format!(
            "{own}; a bystander {other}; p99 {beyond:.1} times beyond the bystander (limit {MAX_FACTOR_BEYOND_BYSTANDER})"
        );
        let is_checked = std::env::var_os(BINARY).is_some();
        ensure!(
            !is_checked || beyond <= MAX_FACTOR_BEYOND_BYSTANDER,
            "{figures}"
        );
        Ok(figures)
    }

    /// Ratios of these latencies to those of an undisturbed time. They are printed and not checked, because the
    /// scenarios share the cores, also with the attacker.
    fn beside(&self, undisturbed: &Self) -> Result<String> {
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
