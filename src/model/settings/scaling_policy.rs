//! The scaling policy of a metric: how `kafka_desired_replicas` is made.

use super::form::{Choice, Choices};

/// How the number of replicas of `kafka_desired_replicas` is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalingPolicy {
    /// Lag divided by the lag per replica.
    #[default]
    Lag,
    /// The rate policy, once it has observed the group for long enough.
    Rate,
    /// Lag is served. The rate policy runs too, and its result is only shown.
    Recommend,
}

impl Choices for ScalingPolicy {
    const CHOICES: &'static [(Self, Choice)] = &[
        (
            ScalingPolicy::Lag,
            Choice {
                name: "lag",
                meaning: "Lag divided by `lag-per-replica`.",
            },
        ),
        (
            ScalingPolicy::Rate,
            Choice {
                name: "rate",
                meaning: "The rate policy, once it has observed the group for long enough; until then as `lag`.",
            },
        ),
        (
            ScalingPolicy::Recommend,
            Choice {
                name: "recommend",
                meaning: "As `lag`; what the rate policy would do is shown beside it.",
            },
        ),
    ];
}
