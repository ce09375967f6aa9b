//! Thresholds that classify lag as residual, stuck or forgotten.

use std::time::Duration;

use crate::model::units::newtypes::Lag;

/// What makes a lag one that is no work, or one that work does not lessen. Small and `Copy`: every
/// group's plan carries its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagRules {
    /// The most messages that can be a residue, and the fewest less one that can be stuck.
    pub residual_max: Lag,
    /// How long commit and log end stand still before so few messages are a residue.
    pub residual_after: Duration,
    /// How long a commit stands still before the partition is stuck.
    pub stuck_after: Duration,
    /// How long a commit that vanished is remembered.
    pub forget_after: Duration,
    /// Whether a stuck partition counts for the number of replicas. One of a group that is stuck as
    /// a whole always does, and none ever lets the group go to zero.
    pub stuck_counts: bool,
}

impl Default for LagRules {
    fn default() -> Self {
        Self {
            residual_max: Lag(10),
            residual_after: Duration::from_secs(5 * 60),
            stuck_after: Duration::from_secs(5 * 60),
            forget_after: Duration::from_secs(7 * 24 * 3600),
            stuck_counts: true,
        }
    }
}

impl LagRules {
    /// These rules with the changes made.
    #[must_use]
    pub fn with(self, changes: &LagRuleChanges) -> Self {
        Self {
            residual_max: changes.residual_max.unwrap_or(self.residual_max),
            residual_after: changes.residual_after.unwrap_or(self.residual_after),
            stuck_after: changes.stuck_after.unwrap_or(self.stuck_after),
            forget_after: changes.forget_after.unwrap_or(self.forget_after),
            stuck_counts: changes.stuck_counts.unwrap_or(self.stuck_counts),
        }
    }
}

/// What a target wants of the rules; `None` leaves a rule as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagRuleChanges {
    /// As [`LagRules::residual_max`].
    pub residual_max: Option<Lag>,
    /// As [`LagRules::residual_after`].
    pub residual_after: Option<Duration>,
    /// As [`LagRules::stuck_after`].
    pub stuck_after: Option<Duration>,
    /// As [`LagRules::forget_after`].
    pub forget_after: Option<Duration>,
    /// As [`LagRules::stuck_counts`].
    pub stuck_counts: Option<bool>,
}

impl LagRuleChanges {
    /// These changes, and those of `base` where they make none.
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        Self {
            residual_max: self.residual_max.or(base.residual_max),
            residual_after: self.residual_after.or(base.residual_after),
            stuck_after: self.stuck_after.or(base.stuck_after),
            forget_after: self.forget_after.or(base.forget_after),
            stuck_counts: self.stuck_counts.or(base.stuck_counts),
        }
    }
}
