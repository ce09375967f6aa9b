//! `lag`: which lags are no work.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::schema::{duration_schema, serialize_duration};
use super::section::Section;
use crate::model::units::lag_thresholds::LagRules;
use crate::model::units::newtypes::Lag;

const SHORTEST: Duration = Duration::from_secs(1);
const STANDING_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const FORGET_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const RESIDUAL_MAX: u64 = 1_000_000;

/// Which lags are no work, and how long a commit that vanished is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct LagConfig {
    /// The most messages of a partition that can be a residue: transaction markers and gaps of
    /// compaction, which nobody will ever read. 0 to 1000000; 0 takes none for a residue.
    #[schemars(range(max = 1_000_000))]
    pub residual_max: u64,
    /// How long commit and log end stand still, under a member that stays, before so few messages
    /// are a residue and count nothing: 1s to 7d.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub residual_after: Duration,
    /// How long a commit stands still, with more messages behind it, before the partition is stuck,
    /// if meanwhile other partitions of the group move or the log grows: 1s to 7d.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub stuck_after: Duration,
    /// Whether a stuck partition's messages count for the number of replicas. If not, it still keeps
    /// its group from zero, and a group of which nothing moves counts in full.
    pub stuck_counts: bool,
    /// How long the last commit of a group is remembered whose commits vanished, as with services
    /// that forget idle groups: 0s to 365d.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub forget_after: Duration,
}

impl Default for LagConfig {
    fn default() -> Self {
        let rules = LagRules::default();
        Self {
            residual_max: rules.residual_max.0,
            residual_after: rules.residual_after,
            stuck_after: rules.stuck_after,
            stuck_counts: rules.stuck_counts,
            forget_after: rules.forget_after,
        }
    }
}

impl LagConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let residual_max = section
            .get("residual_max")
            .and_then(|field| field.whole_number(0, RESIDUAL_MAX));
        let mut duration = |key, min, max| {
            let field = section.get(key);
            field.and_then(|field| field.duration((min, ""), (max, "")))
        };
        let residual_after = duration("residual_after", SHORTEST, STANDING_MAX);
        let stuck_after = duration("stuck_after", SHORTEST, STANDING_MAX);
        let forget_after = duration("forget_after", Duration::ZERO, FORGET_MAX);
        let stuck_counts = section.get("stuck_counts").and_then(|field| field.flag());
        section.finish();
        Self {
            residual_max: residual_max.unwrap_or(default.residual_max),
            residual_after: residual_after.unwrap_or(default.residual_after),
            stuck_after: stuck_after.unwrap_or(default.stuck_after),
            stuck_counts: stuck_counts.unwrap_or(default.stuck_counts),
            forget_after: forget_after.unwrap_or(default.forget_after),
        }
    }

    /// The rules that they are, for targets that want no others.
    #[must_use]
    pub fn rules(&self) -> LagRules {
        LagRules {
            residual_max: Lag(self.residual_max),
            residual_after: self.residual_after,
            stuck_after: self.stuck_after,
            forget_after: self.forget_after,
            stuck_counts: self.stuck_counts,
        }
    }
}
