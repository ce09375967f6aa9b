//! Rate limits of scaling: the policies of `behavior`, or the default without it.

use std::time::Duration;

use super::{Behavior, Policy, PolicyKind, ScalingRules, Select, to_replicas};

/// A change of replicas by a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScaleEvent {
    pub(super) at: Duration,
    pub(super) change: u32,
    /// Older than the period of every policy, so the next event replaces it.
    pub(super) outdated: bool,
}

/// Scale-up limit without `behavior` (`calculateScaleUpLimit`).
pub(super) fn default_up_limit(current: u32) -> u32 {
    current.saturating_mul(2).max(4)
}

/// Most replicas to which the HPA controller raises `current` in one sync, if nothing has changed for a while.
#[must_use]
pub fn raise_limit(behavior: Option<&Behavior>, current: u32) -> u32 {
    let none = ScaleEvents {
        ups: &[],
        downs: &[],
    };
    match behavior {
        Some(behavior) => none.up_limit(&behavior.up, current, Duration::ZERO),
        None => default_up_limit(current),
    }
}

/// Recent changes in both directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScaleEvents<'a> {
    pub(super) ups: &'a [ScaleEvent],
    pub(super) downs: &'a [ScaleEvent],
}

impl ScaleEvents<'_> {
    /// Replicas at the start of the period of a policy.
    fn start(&self, policy: &Policy, current: u32, now: Duration) -> i64 {
        let changed = |events: &[ScaleEvent]| {
            let recent = events.iter().filter(|event| {
                // An event exactly one period ago no longer counts.
                event.at.saturating_add(policy.period()) > now
            });
            recent.fold(0i64, |sum, e| sum.saturating_add(i64::from(e.change)))
        };
        i64::from(current)
            .saturating_sub(changed(self.ups))
            .saturating_add(changed(self.downs))
    }

    /// Largest number of replicas that the rules allow, at least the current one
    /// (`calculateScaleUpLimitWithScalingRules`).
    pub(super) fn up_limit(&self, rules: &ScalingRules, current: u32, now: Duration) -> u32 {
        let allowed = rules.policies.iter().map(|policy| {
            let start = self.start(policy, current, now);
            match policy.change {
                PolicyKind::Pods(pods) => start.saturating_add(i64::from(pods)),
                PolicyKind::Percent(percent) => {
                    to_replicas((float(start) * (1.0 + f64::from(percent) / 100.0)).ceil()).into()
                }
            }
        });
        let limit = match rules.select {
            Select::Disabled => None,
            Select::Min => allowed.min(),
            Select::Max => allowed.max(),
        };
        in_replicas(limit.unwrap_or(i64::from(current))).max(current)
    }

    /// Smallest number of replicas that the rules allow, at most the current one
    /// (`calculateScaleDownLimitWithBehaviors`).
    pub(super) fn down_limit(&self, rules: &ScalingRules, current: u32, now: Duration) -> u32 {
        let allowed = rules.policies.iter().map(|policy| {
            let start = self.start(policy, current, now);
            match policy.change {
                PolicyKind::Pods(pods) => start.saturating_sub(i64::from(pods)),
                PolicyKind::Percent(percent) => {
                    to_replicas((float(start) * (1.0 - f64::from(percent) / 100.0)).trunc()).into()
                }
            }
        });
        let limit = match rules.select {
            Select::Disabled => None,
            Select::Min => allowed.max(),
            Select::Max => allowed.min(),
        };
        in_replicas(limit.unwrap_or(i64::from(current))).min(current)
    }
}

fn in_replicas(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "exact: a sum of replicas is far below 2^53"
)]
fn float(replicas: i64) -> f64 {
    replicas as f64
}
