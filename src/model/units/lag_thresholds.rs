//! Thresholds that classify lag as residual, stuck or forgotten.

use std::time::Duration;

use super::newtypes::Lag;

/// Thresholds that classify the lag of a partition. Small and `Copy`: the plan of every group carries
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagRules {
    /// Largest lag that can be residual; a larger one can be stuck.
    pub residual_max: Lag,
    /// How long the committed offset and the log end must not move before such a lag is residual.
    pub residual_after: Duration,
    /// How long a committed offset must not move before its partition is stuck.
    pub stuck_after: Duration,
    /// How long a committed offset that vanished is remembered.
    pub forget_after: Duration,
    /// Whether a stuck partition counts for the number of replicas. One of a group that is stuck as a
    /// whole always does, and no stuck partition ever lets its group go to zero.
    pub stuck_counts: bool,
}

impl LagRules {
    /// The default thresholds.
    pub const DEFAULT: Self = Self {
        residual_max: Lag(10),
        residual_after: Duration::from_secs(5 * 60),
        stuck_after: Duration::from_secs(5 * 60),
        forget_after: Duration::from_secs(7 * 24 * 3600),
        stuck_counts: true,
    };
}

impl Default for LagRules {
    fn default() -> Self {
        Self::DEFAULT
    }
}
