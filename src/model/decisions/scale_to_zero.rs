//! Scales workloads to zero and back where the HPA cannot. An HPA whose `minReplicas` is at least one
//! ignores a workload of zero replicas (condition `ScalingDisabled`), so that both directions are lagwise's.
//!
//! An HPA whose workload lagwise has set to zero carries the annotation `lagwise.dev/zeroed-since`. Zero
//! replicas without it are a person's off switch, and lagwise leaves them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::enforceable::is_current;
use crate::model::evaluation::idle::IdleSince;
use crate::model::evaluation::{EvaluationsAt, MetricValue, ValueRule};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{Lag, Moment};

/// How long after the write to zero a higher number is taken for the HPA's, which had decided on an older
/// scale. Later it is taken for a person's decision.
pub const REWRITES_WITHIN: Duration = Duration::from_secs(60);

/// Whether a workload has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Unknown, or known only from before the last sweep.
    Unknown,
    /// Its group has never run: without a commit its lag is not known.
    NeverRan,
    /// No: no lag on any metric of ours, and no stuck partition.
    None,
    /// Yes, for this many replicas; at least one.
    Waiting(u32),
}

impl Demand {
    /// The demand of several metrics together: the HPA follows the largest.
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

/// A workload that may be scaled to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it has something to do.
    pub work: Demand,
    /// How long it must have no demand before it is scaled to zero.
    pub cooldown: Duration,
    /// The replica ceiling; `None` where it is unknown or unbounded.
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

/// What is wanted of a workload, and its present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadState {
    /// Whether lagwise is to scale it to zero.
    pub wanted: bool,
    /// Whether its HPA is marked: lagwise has set it to zero, or is about to.
    pub marked: bool,
    /// Its `.spec.replicas`.
    pub replicas: u32,
    /// Whether it has something to do.
    pub work: Demand,
    /// For how long it has had replicas and no demand; `None` while it has demand.
    pub idle: Option<Duration>,
    /// How long that has to be before it is scaled to zero.
    pub cooldown: Duration,
    /// How long ago this process last set it to zero.
    pub zeroed: Option<Duration>,
    /// The fewest and the most replicas to start it with.
    pub bounds: (u32, u32),
}

/// What to do with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroAction {
    /// Nothing.
    Rest,
    /// Mark its HPA, then set it to zero replicas.
    Zero,
    /// Set it to this many replicas, then remove the mark.
    Wake(u32),
    /// Remove the mark: somebody else has started it.
    Unmark,
}

/// Decides what to do with a workload. Level-triggered: the same state gives the same action, so that a
/// lost write is repeated.
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
        // A person has switched it off.
        (0, false) => ZeroAction::Rest,
        (0, true) => match work {
            _ if !wanted => ZeroAction::Wake(situation.start(1)),
            Demand::Waiting(needed) => ZeroAction::Wake(situation.start(needed)),
            // Its lag becomes known only after its consumers have run and committed.
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
