//! Counts liveness probes as the kubelet does.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::testbed::BINARY;

/// Timeout of a probe, and number of consecutive failures after which the kubelet restarts a container: Kubernetes'
/// defaults.
const TIMEOUT: Duration = Duration::from_secs(1);
const FAILURE_THRESHOLD: usize = 3;

/// How long each probe took, in their order.
#[derive(Debug, Default)]
pub(crate) struct Probes(Vec<Duration>);

impl Probes {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// An error if the kubelet would have restarted the container. A build that is named by [`BINARY`], such as a
    /// release build, has to answer every probe in time: the debug build takes several times as much CPU time.
    pub(crate) fn check(&self) -> Result<()> {
        let restarts = self.0.windows(FAILURE_THRESHOLD);
        let restarts = restarts.filter(|probes| probes.iter().all(|took| *took >= TIMEOUT));
        let late = restarts.count();
        ensure!(late == 0, "the kubelet would restart the pod: {self}");
        let is_strict = std::env::var_os(BINARY).is_some();
        let mut all = self.0.iter();
        ensure!(!is_strict || all.all(|took| *took < TIMEOUT), "{self}");
        Ok(())
    }
}

impl std::fmt::Display for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slowest = self.0.iter().max().copied().unwrap_or_default();
        let late = self.0.iter().filter(|took| **took >= TIMEOUT).count();
        write!(
            f,
            "{} probes, the slowest {slowest:?}, {late} over {TIMEOUT:?}",
            self.0.len()
        )
    }
}
