//! Scale to zero where the HPA cannot do it: when a workload that has no work is set to zero
//! replicas, and when it is woken. An HPA whose `minReplicas` is at least one leaves a workload of
//! zero replicas alone (condition `ScalingDisabled`), so that both ways are ours.
//!
//! What lagwise has set to zero carries a mark on its HPA ([`MARK`]). Without the mark zero replicas are a
//! person's off switch, and nobody wakes them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::enforceable::is_current;
use crate::model::evaluation::idle::IdleSince;
use crate::model::evaluation::{EvaluationsAt, MetricValue, ValueRule};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{Lag, Moment};

/// How long after the write replicas above zero are taken for the HPA's own, written from what it
/// had read before; later they are somebody's wish.
pub const REWRITES_WITHIN: Duration = Duration::from_secs(60);

/// What there is to do for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nobody knows, or not as of the last sweep.
    Unknown,
    /// Its group has not run yet: without a commit nothing says what it has missed.
    NeverRan,
    /// Nothing: no lag on any metric of ours, nothing stuck.
    None,
    /// Something, for so many replicas; at least one.
    Waiting(u32),
}

impl Demand {
    /// What several metrics have together: the HPA follows the largest.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Demand::Waiting(a), Demand::Waiting(b)) => Demand::Waiting(a.max(b)),
            (Demand::Waiting(n), _) | (_, Demand::Waiting(n)) => Demand::Waiting(n),
            (Demand::Unknown, _) | (_, Demand::Unknown) => Demand::Unknown,
            (Demand::NeverRan, _) | (_, Demand::NeverRan) => Demand::NeverRan,
            (Demand::None, Demand::None) => Demand::None,
        }
    }
}

/// What is wished of one workload, and what there is to do for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What there is to do.
    pub work: Demand,
    /// How long there has to be nothing before it is scaled to zero.
    pub cooldown: Duration,
    /// The replica ceiling, where there is one.
    pub ceiling: Option<u32>,
}

/// The HPAs with a metric of ours that may be scaled to zero.
#[must_use]
pub fn candidates(evaluations: EvaluationsAt<'_>) -> BTreeMap<HpaKey, Candidate> {
    let mut all: BTreeMap<HpaKey, Candidate> = BTreeMap::new();
    let targets = evaluations.hpa_targets();
    for (target, evaluation) in targets.filter(|(target, _)| target.settings.scale_to_zero()) {
        let Some(hpa) = target.hpa() else {
            continue;
        };
        let value = evaluations.value(&evaluation.metric).ok();
        let ceiling = value.as_ref().and_then(|value| value.ceiling);
        let own = Candidate {
            work: value.map_or(Demand::Unknown, |value| {
                demand(&value, is_current(&value, target, evaluations.clusters()))
            }),
            cooldown: target.settings.cooldown(),
            ceiling: ceiling.and_then(|ceiling| ceiling.replicas.bounded()),
        };
        all.entry(hpa.clone())
            .and_modify(|all| {
                *all = Candidate {
                    work: all.work.and(own.work),
                    cooldown: all.cooldown.max(own.cooldown),
                    // An unknown or unbounded ceiling of one metric leaves the HPA without one.
                    ceiling: all.ceiling.zip(own.ceiling).map(|(a, b)| a.max(b)),
                };
            })
            .or_insert(own);
    }
    all
}

fn demand(value: &MetricValue, is_current: bool) -> Demand {
    let needed = Demand::Waiting(value.desired.unwrap_or(1).max(1));
    match (value.rule, value.lag) {
        // Whoever set a fallback prefers its number to not knowing.
        (ValueRule::Fallback, _) => needed,
        (_, None) => Demand::Unknown,
        (_, Some(lag)) if lag > Lag(0) => needed,
        _ if !is_current => Demand::Unknown,
        (ValueRule::NeverRan, _) => Demand::NeverRan,
        _ => Demand::None,
    }
}

/// Since when each candidate has had no demand, as of `now`. A demand that is unknown meanwhile counts as
/// one, so that the time begins anew.
#[must_use]
pub fn idle_since(
    before: &IdleSince,
    candidates: &BTreeMap<HpaKey, Candidate>,
    now: &Moment,
) -> IdleSince {
    let candidates = candidates.iter();
    let idle = candidates.filter(|(_, candidate)| candidate.work == Demand::None);
    idle.map(|(hpa, _)| (hpa.clone(), before.get(hpa).copied().unwrap_or(*now)))
        .collect()
}

/// What is wished of a workload, and what is seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadState {
    /// Whether lagwise is to scale it to zero.
    pub wanted: bool,
    /// Whether its zero replicas would be lagwise's doing.
    pub marked: bool,
    /// Its `.spec.replicas`.
    pub replicas: u32,
    /// What there is to do for it.
    pub work: Demand,
    /// How long there has been nothing, while it had replicas; `None` where there is something.
    pub idle: Option<Duration>,
    /// How long that has to be.
    pub cooldown: Duration,
    /// How long ago this process last set it to zero.
    pub zeroed: Option<Duration>,
    /// The fewest and the most replicas to wake it with.
    pub bounds: (u32, u32),
}

/// What to do about a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroAction {
    /// Nothing.
    Rest,
    /// Mark it, then set it to zero replicas.
    Zero,
    /// Set it to so many replicas, then take the mark away.
    Wake(u32),
    /// Take the mark away: somebody else has woken it.
    Unmark,
}

/// What to do. Level-triggered: the same situation asks for the same step, whatever was done before,
/// so that a write that was lost is made up for.
#[must_use]
pub fn step(situation: &WorkloadState) -> ZeroAction {
    let WorkloadState {
        wanted,
        marked,
        replicas,
        work,
        ..
    } = *situation;
    match (replicas, marked) {
        // A person's off switch.
        (0, false) => ZeroAction::Rest,
        (0, true) => match work {
            _ if !wanted => ZeroAction::Wake(situation.start(1)),
            Demand::Waiting(needed) => ZeroAction::Wake(situation.start(needed)),
            // Only a consumer that runs commits, and only then does a lag say anything.
            Demand::NeverRan => ZeroAction::Wake(situation.start(1)),
            Demand::None | Demand::Unknown => ZeroAction::Rest,
        },
        (_, true) => {
            let rewritten = situation.zeroed.is_some_and(|ago| ago < REWRITES_WITHIN);
            match work {
                Demand::None if wanted && rewritten => ZeroAction::Zero,
                _ => ZeroAction::Unmark,
            }
        }
        (_, false) => {
            let idle = situation
                .idle
                .is_some_and(|idle| idle >= situation.cooldown);
            match work {
                Demand::None if wanted && idle => ZeroAction::Zero,
                _ => ZeroAction::Rest,
            }
        }
    }
}

impl WorkloadState {
    fn start(&self, needed: u32) -> u32 {
        let (fewest, most) = self.bounds;
        let fewest = fewest.max(1);
        needed.clamp(fewest, most.max(fewest))
    }
}

#[cfg(test)]
mod tests;
