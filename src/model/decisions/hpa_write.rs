//! Plans the writes of one reconciler pass to an HPA and to the workload that it scales.
//!
//! Three decisions affect one object: the leader's term ([`fencing`]), the cap ([`cap`](super::cap)) and the
//! annotation of scale to zero ([`scale_to_zero`](super::scale_to_zero)). They go into one patch where the order
//! of the writes allows it.

use std::time::SystemTime;

use super::cap::{AnnotationChange, CapGoal, CapPatch, HpaFields};
use super::fencing::{self, is_managed, is_managed_for_zero};
use super::scale_to_zero::ZeroAction;
use crate::model::evaluation::ServingPolicy;
use crate::model::hpa::facts::{HpaFacts, has_zeroed_annotation};

/// An HPA as just read.
#[derive(Clone, Copy, Debug)]
pub struct ObservedHpa<'a> {
    pub facts: &'a HpaFacts,
    /// Its [`TERM`](fencing::TERM) annotation.
    pub term: Option<&'a str>,
    /// Whether the ledger of scale to zero has a record for it.
    pub is_recorded: bool,
}

/// The intended state of an HPA.
#[derive(Clone, Copy, Debug)]
pub struct HpaGoals<'a> {
    /// The term of this leader; 0 without leader election.
    pub term: u64,
    /// The cap mode of HPAs that do not set one, and where lagwise may write.
    pub policy: &'a ServingPolicy,
    /// `None` to leave the cap as it is.
    pub cap: Option<CapGoal>,
    pub zero: ZeroAction,
    /// The time to write into the annotation of scale to zero.
    pub now: SystemTime,
}

/// The writes of one pass, in this order. Each part may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HpaWritePlan {
    /// The patch before the workload is scaled.
    pub first: HpaPatch,
    /// The replicas to set on the workload.
    pub scale: Option<u32>,
    /// The patch after the workload was scaled.
    pub last: HpaPatch,
}

/// Changes to one HPA; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HpaPatch {
    /// The annotation [`TERM`](fencing::TERM).
    pub term: Option<AnnotationChange<u64>>,
    pub cap: CapPatch,
    /// The annotation [`ZEROED_SINCE`](crate::model::settings::annotation_keys::ZEROED_SINCE).
    pub zeroed: Option<AnnotationChange<SystemTime>>,
}

impl HpaPatch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Plans the writes of one pass.
///
/// The order keeps two invariants, even if the process crashes between any two writes:
///
/// - An HPA carries the annotation of scale to zero as long as lagwise keeps its workload at zero. So the annotation is
///   written before the workload is scaled to zero, and removed after it is woken. The record in the ledger is written
///   before all of these, and removed after them. In the other order, a crash would leave zero replicas that look like
///   a person's choice and are never woken.
/// - An HPA carries the leader's term before the leader writes anything else to it or to its workload: see
///   [`fencing`]. So waking a workload takes two patches in the pass that writes the term, one before and
///   one after; every other pass takes at most one.
#[must_use]
pub fn plan_hpa_write(hpa: ObservedHpa<'_>, goals: &HpaGoals<'_>) -> HpaWritePlan {
    let is_annotated = has_zeroed_annotation(hpa.facts);
    let zeroed = match goals.zero {
        ZeroAction::Keep => None,
        ZeroAction::Zero => (!is_annotated).then_some(AnnotationChange::Set(goals.now)),
        ZeroAction::Wake(_) | ZeroAction::RemoveAnnotation => {
            is_annotated.then_some(AnnotationChange::Remove)
        }
    };
    let scale = match goals.zero {
        ZeroAction::Keep | ZeroAction::RemoveAnnotation => None,
        ZeroAction::Zero => Some(0),
        ZeroAction::Wake(replicas) => Some(replicas),
    };
    let fields = HpaFields::of(hpa.facts);
    let cap = goals
        .cap
        .map_or_else(CapPatch::default, |goal| goal.patch(fields));
    let has_writes = !cap.is_empty() || zeroed.is_some() || scale.is_some();
    let new_term = (has_writes || is_managed(hpa.facts, goals.policy, hpa.is_recorded))
        .then(|| fencing::term_to_write(hpa.term, goals.term))
        .flatten();
    // A cap that the API server refuses must not block the other writes.
    let is_deferred =
        goals.cap.is_some_and(|goal| goal.was_refused) && (new_term.is_some() || zeroed.is_some());
    let cap = if is_deferred {
        CapPatch::default()
    } else {
        cap
    };
    // The last write of the cap leaves nothing of lagwise on the HPA, unless scale to zero needs it.
    let term = if cap.is_last() && !is_managed_for_zero(hpa.facts, goals.policy, hpa.is_recorded) {
        hpa.term.map(|_| AnnotationChange::Remove)
    } else {
        new_term.map(AnnotationChange::Set)
    };
    match goals.zero {
        ZeroAction::Wake(_) if new_term.is_some() => HpaWritePlan {
            first: HpaPatch {
                term,
                cap,
                zeroed: None,
            },
            scale,
            last: HpaPatch {
                zeroed,
                ..HpaPatch::default()
            },
        },
        ZeroAction::Wake(_) => HpaWritePlan {
            first: HpaPatch::default(),
            scale,
            last: HpaPatch { term, cap, zeroed },
        },
        ZeroAction::Keep | ZeroAction::RemoveAnnotation | ZeroAction::Zero => HpaWritePlan {
            first: HpaPatch { term, cap, zeroed },
            scale,
            last: HpaPatch::default(),
        },
    }
}

#[cfg(test)]
mod tests;
