//! Settings of the rate policy, and its fixed parameters.

use std::time::Duration;

use serde::Serialize;

/// Settings of the rate policy for one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatePolicySettings {
    /// The age that messages may reach before they are processed.
    pub slo: Duration,
    /// Replica-seconds per replica that a step down would have saved before it is taken.
    pub hold: Duration,
    /// Part of the capacity that the mean arrival rate may use.
    pub utilisation: f64,
    /// A rule to leave out, to measure its effect.
    pub without: Option<PolicyRule>,
}

impl Default for RatePolicySettings {
    fn default() -> Self {
        Self {
            slo: Duration::from_secs(60),
            hold: Duration::from_secs(300),
            utilisation: 0.85,
            without: None,
        }
    }
}

impl RatePolicySettings {
    /// Whether a rule applies.
    #[must_use]
    pub fn has(&self, rule: PolicyRule) -> bool {
        self.without != Some(rule)
    }
}

/// A rule of the policy that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyRule {
    /// Scale up on the age expected by the time a change takes effect, instead of the present age.
    ProjectedAge,
    /// Wait longer with a smaller step down, instead of a fixed time.
    HoldPrice,
    /// Do not scale up again while the pods of the last step start.
    OneUpAtATime,
    /// Do not count processed but uncommitted messages as backlog.
    PhantomLag,
    /// Leave stuck partitions out.
    Stuck,
    /// Take back a step up that did not help.
    Ineffective,
    /// Hold replicas for the next burst after one that made messages late.
    Damage,
    /// Measure the arrivals of steps up over 20 s, or over 5 s while they rise, instead of 60 s.
    FastRate,
    /// Expect at most the highest arrivals over a minute, if arrivals over 20 s were as high before.
    RepeatedPeak,
    /// Use the highest observed throughput as a lower bound of the capacity.
    Floor,
    /// Learn the reaction time and the pause of rebalances.
    LearnedReaction,
}

impl PolicyRule {
    /// All rules.
    pub const ALL: [Self; 11] = [
        Self::ProjectedAge,
        Self::HoldPrice,
        Self::OneUpAtATime,
        Self::PhantomLag,
        Self::Stuck,
        Self::Ineffective,
        Self::Damage,
        Self::FastRate,
        Self::RepeatedPeak,
        Self::Floor,
        Self::LearnedReaction,
    ];
}

/// Part of the capacity that the arrival rate of the last 20 s may use after a step up.
pub(super) const BURST_UTILISATION: f64 = 0.90;
/// Part of its capacity that the most heavily loaded consumer may use.
pub(super) const HEAVIEST_UTILISATION: f64 = 0.98;
/// Part of the capacity that the arrival rate of the last minute may use after a step down: peaks of a minute may
/// exceed the capacity by 10 %.
pub(super) const PEAK_UTILISATION: f64 = 1.1;
/// Time in which a step up drains the backlog, in seconds.
pub(super) const CATCH_UP_UP: f64 = 180.0;
/// Time in which the replicas left by a step down drain the backlog, in seconds.
pub(super) const CATCH_UP_DOWN: f64 = 600.0;
/// Price of a late message in percent of cost per percent of messages.
pub(super) const DAMAGE_PRICE: f64 = 5.0;
/// Times without a change after which a step down is considered, in seconds.
pub(super) const HOLDS: [f64; 9] = [
    300.0, 420.0, 600.0, 900.0, 1200.0, 1800.0, 2400.0, 3000.0, 3600.0,
];
