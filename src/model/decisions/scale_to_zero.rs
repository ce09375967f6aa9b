//! Decides when to scale workloads to zero and back, where the HPA controller cannot. It ignores a workload
//! of zero replicas if `minReplicas` is at least 1 (condition `ScalingDisabled`), so lagwise does both.
//!
//! What lagwise has scaled to zero is recorded in its ledger ([`zero_ledger`](super::zero_ledger)). Zero replicas that
//! are not recorded were set by a person, and lagwise leaves them. The annotation `lagwise.dev/zeroed-since` on the HPA
//! only shows people what is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::enforceable::is_current;
use crate::model::evaluation::idle::IdleSince;
use crate::model::evaluation::{EvaluationsAt, MetricValue, ValueRule};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{Lag, Moment};

/// Time after scaling to zero in which new replicas count as the HPA controller's, which decided from an
/// older scale. Later they count as a person's decision.
pub const REWRITES_WITHIN: Duration = Duration::from_secs(60);

/// Whether a workload has work to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Unknown, or known only from before the last sweep.
    Unknown,
    /// Its group has never committed, so its lag is unknown until its consumers have run.
    NeverRan,
    /// No lag and no stuck partition on any metric.
    None,
    /// Work for this many replicas, at least 1.
    Waiting(u32),
}

impl Demand {
    /// Combines the demand of two metrics: the HPA follows the larger one.
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
pub struct ZeroCandidate {
    pub demand: Demand,
    /// How long there must be no demand before it is scaled to zero.
    pub cooldown: Duration,
    /// Replica ceiling; `None` if unknown or unbounded.
    pub ceiling: Option<u32>,
}

impl ZeroCandidate {
    /// Joins the demands of two metrics of an HPA.
    fn and(self, other: Self) -> Self {
        Self {
            demand: self.demand.and(other.demand),
            cooldown: self.cooldown.max(other.cooldown),
            // If the ceiling of one metric is unknown or unbounded, so is that of the HPA.
            ceiling: self.ceiling.zip(other.ceiling).map(|(a, b)| a.max(b)),
        }
    }
}

/// The HPAs whose workload may be scaled to zero.
#[must_use]
pub fn candidates(evaluations: EvaluationsAt<'_>) -> BTreeMap<HpaKey, ZeroCandidate> {
    let targets = evaluations.targets().of_hpas();
    let enabled = targets.filter(|target| target.settings.scale_to_zero());
    // An HPA has a target for each group of each metric.
    let hpas: BTreeSet<_> = enabled.filter_map(|target| target.hpa()).collect();
    let with_candidate = |hpa: &HpaKey| Some((hpa.clone(), candidate(evaluations, hpa)?));
    hpas.into_iter().filter_map(with_candidate).collect()
}

/// Inputs of scale to zero from an HPA; `None` if its workload must not be scaled to zero.
#[must_use]
pub fn candidate(evaluations: EvaluationsAt<'_>, hpa: &HpaKey) -> Option<ZeroCandidate> {
    let targets = evaluations.targets_of(hpa);
    let enabled = targets.filter(|(target, _)| target.settings.scale_to_zero());
    let of_targets = enabled.map(|(target, evaluation)| {
        let value = evaluations.value(&evaluation.metric).ok();
        let ceiling = value.as_ref().and_then(|value| value.ceiling);
        ZeroCandidate {
            demand: value.map_or(Demand::Unknown, |value| {
                demand(&value, is_current(&value, target, evaluations.clusters()))
            }),
            cooldown: target.settings.cooldown(),
            ceiling: ceiling.and_then(|ceiling| ceiling.replicas.bounded()),
        }
    });
    of_targets.reduce(ZeroCandidate::and)
}

fn demand(value: &MetricValue, is_current: bool) -> Demand {
    let needed = Demand::Waiting(value.desired.unwrap_or(1).max(1));
    match (value.rule, value.lag) {
        // A configured fallback replaces the unknown lag.
        (ValueRule::Fallback, _) => needed,
        (_, None) => Demand::Unknown,
        // A hold keeps replicas.
        (ValueRule::Held, _) if value.desired > Some(0) => needed,
        (_, Some(lag)) if lag > Lag(0) => needed,
        _ if !is_current => Demand::Unknown,
        (ValueRule::NeverRan, _) => Demand::NeverRan,
        _ => Demand::None,
    }
}

/// Time since which each candidate has had no demand, as of `now`. Unknown demand also restarts the time.
#[must_use]
pub fn idle_since(
    before: &IdleSince,
    candidates: &BTreeMap<HpaKey, ZeroCandidate>,
    now: &Moment,
) -> IdleSince {
    let candidates = candidates.iter();
    let idle = candidates.filter(|(_, candidate)| candidate.demand == Demand::None);
    idle.map(|(hpa, _)| (hpa.clone(), before.get(hpa).copied().unwrap_or(*now)))
        .collect()
}

/// The state of a workload and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadState {
    /// Whether its HPA sets scale to zero.
    pub is_enabled: bool,
    /// Whether it is recorded: lagwise has scaled it to zero, or is about to.
    pub recorded: bool,
    /// Whether its HPA has the annotation `zeroed-since`, which everybody who may write the HPA can set.
    pub annotated: bool,
    /// `spec.replicas`.
    pub replicas: u32,
    pub demand: Demand,
    /// How long it has had replicas and no demand; `None` while it has demand.
    pub idle: Option<Duration>,
    /// How long it must be idle before it is scaled to zero.
    pub cooldown: Duration,
    /// Time since this process last scaled it to zero.
    pub zeroed: Option<Duration>,
    /// Fewest and most replicas to wake it with.
    pub bounds: (u32, u32),
}

/// What to do with a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroAction {
    Keep,
    /// Record the workload and annotate the HPA, then scale the workload to zero.
    Zero,
    /// Scale the workload to this many replicas, then remove the annotation and the record.
    Wake(u32),
    /// Remove the annotation and the record, because the workload was started by a user or another controller.
    RemoveAnnotation,
}

/// Decides what to do with a workload. Level-triggered: the same state gives the same action, so a lost
/// write is repeated.
#[must_use]
pub fn decide(state: &WorkloadState) -> ZeroAction {
    let WorkloadState {
        is_enabled,
        recorded,
        replicas,
        demand,
        ..
    } = *state;
    match (replicas, recorded) {
        // A person has scaled it to zero.
        (0, false) => ZeroAction::Keep,
        (0, true) => match demand {
            _ if !is_enabled => ZeroAction::Wake(state.wake_replicas(1)),
            Demand::Waiting(needed) => ZeroAction::Wake(state.wake_replicas(needed)),
            // Its lag becomes known only after its consumers have run and committed.
            Demand::NeverRan => ZeroAction::Wake(state.wake_replicas(1)),
            Demand::None | Demand::Unknown => ZeroAction::Keep,
        },
        (_, true) => {
            let is_rewritten = state.zeroed.is_some_and(|ago| ago < REWRITES_WITHIN);
            match demand {
                Demand::None if is_enabled && is_rewritten => ZeroAction::Zero,
                _ => ZeroAction::RemoveAnnotation,
            }
        }
        (_, false) => {
            let is_idle = state.idle.is_some_and(|idle| idle >= state.cooldown);
            match demand {
                Demand::None if is_enabled && is_idle => ZeroAction::Zero,
                // The annotation of an earlier time misleads people.
                _ if is_enabled && state.annotated => ZeroAction::RemoveAnnotation,
                _ => ZeroAction::Keep,
            }
        }
    }
}

impl WorkloadState {
    /// The replicas to wake it with: those that are needed, within its bounds.
    fn wake_replicas(&self, needed: u32) -> u32 {
        let (fewest, most) = self.bounds;
        let fewest = fewest.max(1);
        needed.clamp(fewest, most.max(fewest))
    }
}

#[cfg(test)]
mod tests;
