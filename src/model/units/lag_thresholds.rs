//! Thresholds that classify lag: residual (small and idle), stuck (large and not consumed) or forgotten (the committed
//! offset expired).

use std::time::Duration;

use super::newtypes::Lag;

/// Thresholds that classify the lag of a partition. `Copy`, because the sweep plan holds one per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagThresholds {
    /// Largest lag that can be residual; a larger one can be stuck.
    pub residual_max: Lag,
    /// How long the committed offset and the log-end offset must be unchanged before a lag of at most `residual_max` is
    /// residual.
    pub residual_after: Duration,
    /// How long the committed offset must be unchanged before a partition with a larger lag is stuck.
    pub stuck_after: Duration,
    /// How long the last known committed offset is used after Kafka no longer returns it, for example because it
    /// expired.
    pub forget_after: Duration,
    /// Whether the lag of a stuck partition counts towards the number of replicas. If the whole group is stuck, it
    /// counts regardless. A stuck partition always prevents scale to zero.
    pub stuck_counts: bool,
}

impl LagThresholds {
    /// The default thresholds.
    pub const DEFAULT: Self = Self {
        residual_max: Lag(10),
        residual_after: Duration::from_secs(5 * 60),
        stuck_after: Duration::from_secs(5 * 60),
        forget_after: Duration::from_secs(7 * 24 * 3600),
        stuck_counts: true,
    };
}

impl Default for LagThresholds {
    fn default() -> Self {
        Self::DEFAULT
    }
}
