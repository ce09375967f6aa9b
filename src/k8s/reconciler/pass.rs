//! One pass over one HPA: reads it, plans its writes and makes them.
//!
//! Every write is decided from a read in the same pass and names the version that was read, so that the API server
//! refuses it after another write in between. It is only made within the term.

mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;

use crate::k8s::api_error::{ApiError, in_time};
use crate::k8s::hpa::facts_of;
use crate::k8s::hpa_patch::patch_hpa;
use crate::k8s::scale::{Scale, Scales};
use crate::k8s::write_guard::WriteGuard;
use crate::k8s::zero_ledger::{LedgerHandle, RecordError};
use crate::model::decisions::cap::{AnnotationChange, CapGoal, HpaFields};
use crate::model::decisions::fencing::TERM;
use crate::model::decisions::hpa_write::{
    HpaGoals, HpaPatch, HpaWritePlan, ObservedHpa, plan_hpa_write,
};
use crate::model::decisions::scale_to_zero::{ZeroAction, ZeroCandidate};
use crate::model::decisions::zero_ledger::ZeroRefusal;
use crate::model::hpa::facts::{HpaFacts, is_paused};
use workload::WorkloadReading;

/// Inputs of a pass.
pub(super) struct Pass {
    pub(super) guard: WriteGuard,
    pub(super) scales: Scales,
    /// What lagwise has scaled to zero; `None` if there is no place to record it.
    pub(super) ledger: Option<LedgerHandle>,
    /// Whether the ledger had a record for the HPA when the pass was decided on.
    pub(super) is_recorded: bool,
    /// The HPA as the watch shows it.
    pub(super) hpa: Arc<HpaFacts>,
    /// The goal of the cap, if it has something to write.
    pub(super) cap: Option<CapGoal>,
    /// What scale to zero knows of the workload; `None` if the pass need not read it.
    pub(super) zero: Option<ZeroInput>,
}

/// What scale to zero knows of a workload before it reads its scale.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ZeroInput {
    /// Inputs from the HPA; `None` if it has no scale to zero.
    pub(super) candidate: Option<ZeroCandidate>,
    /// How long there has been no demand.
    pub(super) idle: Option<Duration>,
    /// Time since which it has replicas, as far as was seen.
    pub(super) up_since: Option<Instant>,
    /// When this process set it to zero.
    pub(super) zeroed_at: Option<Instant>,
}

/// Outcome of a pass.
#[derive(Debug)]
pub(super) struct PassReport {
    pub(super) hpa: Arc<HpaFacts>,
    pub(super) term: u64,
    /// Whether the HPA carries the term, or needs none.
    pub(super) term_write: Result<(), ApiError>,
    /// `None` if the cap was not attempted.
    pub(super) cap: Option<Result<Option<CapWrite>, ApiError>>,
    /// `None` if the workload was not read.
    pub(super) zero: Option<ZeroReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CapWrite {
    pub(super) goal: CapGoal,
    pub(super) before: HpaFields,
    pub(super) after: HpaFields,
}

/// State of a workload, and the action taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ZeroReport {
    /// Time since which it has replicas, as far as was seen.
    pub(super) up_since: Option<Instant>,
    /// The action that was taken, even if a later step failed.
    pub(super) done: Option<ZeroAction>,
    /// Why it is not scaled to zero or not woken, although that may be expected.
    pub(super) refusal: Option<ZeroRefusal>,
    pub(super) error: Option<ApiError>,
}

impl Pass {
    /// Reads the HPA and, if needed, its workload, and makes the writes that are due.
    pub(super) async fn run(self) -> PassReport {
        let api = self.guard.hpa_api(&self.hpa);
        match self.read(&api).await {
            Ok((object, facts)) => self.reconcile(&api, object, facts).await,
            Err(error) => self.report_failure(&error),
        }
    }

    /// Reads the HPA, because the watch may be behind, even behind lagwise's last write.
    async fn read(
        &self,
        api: &Api<HorizontalPodAutoscaler>,
    ) -> Result<(HorizontalPodAutoscaler, HpaFacts), ApiError> {
        let timeout = self.guard.time_for_write()?;
        let object = in_time(timeout, api.get(&self.hpa.name)).await?;
        let facts = facts_of(&object);
        if facts.uid != self.hpa.uid || is_paused(&facts) {
            return Err(ApiError::Changed);
        }
        Ok((object, facts))
    }

    async fn reconcile(
        &self,
        api: &Api<HorizontalPodAutoscaler>,
        object: HorizontalPodAutoscaler,
        facts: HpaFacts,
    ) -> PassReport {
        let mut workload = match self.zero {
            Some(input) => Some(self.read_workload(&facts, input).await),
            None => None,
        };
        let is_new_record = match &mut workload {
            Some(reading) => self.record(&facts, reading).await,
            None => false,
        };
        let found = workload
            .as_ref()
            .and_then(|reading| reading.found.as_ref().ok());
        let action = found.map_or(ZeroAction::Keep, |(action, _)| *action);
        let is_recorded = workload.as_ref().map_or(self.is_recorded, |reading| {
            reading.is_recorded || is_new_record
        });
        let annotations = object.metadata.annotations.as_ref();
        let term = annotations.and_then(|all| all.get(TERM));
        let observed = ObservedHpa {
            facts: &facts,
            term: term.map(String::as_str),
            is_recorded,
        };
        let plan = plan_hpa_write(
            observed,
            &HpaGoals {
                term: self.guard.from.term,
                policy: &self.guard.policy,
                cap: self.cap,
                zero: action,
                now: SystemTime::now(),
            },
        );
        let mut metadata = object.metadata.clone();
        let first = self.write(api, &mut metadata, &plan.first).await;
        let scaled = match (&first, plan.scale, found) {
            (Ok(_), Some(replicas), Some((_, scale))) => {
                self.set_replicas(&facts, scale, replicas).await
            }
            (Err(error), Some(_), _) => Err(error.clone()),
            _ => Ok(()),
        };
        let mut rest = plan.last;
        if let Err(error) = &scaled {
            // The annotation stays while the workload may be at zero. But if another writer has scaled it right after
            // it was annotated, that writer may have set zero, and the annotation would claim it for lagwise.
            let was_annotated = matches!(plan.first.zeroed, Some(AnnotationChange::Set(_)));
            rest.zeroed = (was_annotated && *error == ApiError::Changed && first.is_ok())
                .then_some(AnnotationChange::Remove);
        }
        let last = match &first {
            Ok(_) => self.write(api, &mut metadata, &rest).await,
            Err(error) => Err(error.clone()),
        };
        let writes = Writes {
            plan,
            first,
            scaled,
            last,
            rest,
        };
        let is_obsolete = is_recorded && writes.is_record_obsolete(action, is_new_record);
        let record_removal = match is_obsolete {
            true => self.write_record(&facts, None).await,
            false => Ok(()),
        };
        PassReport {
            term_write: writes.term_result(),
            cap: self.cap.and_then(|goal| writes.cap_result(goal, &facts)),
            zero: workload.map(|reading| writes.zero_report(reading, action, record_removal)),
            ..self.report()
        }
    }

    /// Writes a patch unless it is empty, if the HPA still has the version in `metadata`. Replaces `metadata` by that
    /// of the written HPA.
    async fn write(
        &self,
        api: &Api<HorizontalPodAutoscaler>,
        metadata: &mut ObjectMeta,
        patch: &HpaPatch,
    ) -> Result<Option<HpaFields>, ApiError> {
        if patch.is_empty() {
            return Ok(None);
        }
        let timeout = self.guard.time_for_write()?;
        let written = patch_hpa(api, metadata, patch, timeout).await?;
        let fields = HpaFields::of(&facts_of(&written));
        *metadata = written.metadata;
        Ok(Some(fields))
    }

    async fn set_replicas(
        &self,
        facts: &HpaFacts,
        read: &Scale,
        replicas: u32,
    ) -> Result<(), ApiError> {
        let timeout = self.guard.time_for_write()?;
        let (namespace, target) = (&facts.namespace, &facts.scale_target);
        let set = self.scales.set(namespace, target, read, replicas, timeout);
        set.await
    }

    fn report(&self) -> PassReport {
        PassReport {
            hpa: Arc::clone(&self.hpa),
            term: self.guard.from.term,
            term_write: Ok(()),
            cap: None,
            zero: None,
        }
    }

    /// The report of a pass that could not read the HPA, so that everything it was to do has failed.
    fn report_failure(&self, error: &ApiError) -> PassReport {
        PassReport {
            term_write: Err(error.clone()),
            cap: self.cap.map(|_| Err(error.clone())),
            zero: self.zero.map(|input| ZeroReport {
                up_since: input.up_since,
                done: None,
                refusal: None,
                error: Some(error.clone()),
            }),
            ..self.report()
        }
    }
}

/// The writes of a pass and the outcome of each.
struct Writes {
    plan: HpaWritePlan,
    first: Result<Option<HpaFields>, ApiError>,
    scaled: Result<(), ApiError>,
    /// The last patch that was written: the planned one, unless the workload could not be scaled.
    rest: HpaPatch,
    last: Result<Option<HpaFields>, ApiError>,
}

impl Writes {
    fn term_result(&self) -> Result<(), ApiError> {
        let patch = match (self.plan.first.term, self.plan.last.term) {
            (Some(_), _) => &self.first,
            (None, Some(_)) => &self.last,
            (None, None) => return Ok(()),
        };
        patch.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn cap_result(
        &self,
        goal: CapGoal,
        facts: &HpaFacts,
    ) -> Option<Result<Option<CapWrite>, ApiError>> {
        let before = HpaFields::of(facts);
        let patch = if !self.plan.first.cap.is_empty() {
            &self.first
        } else if !self.plan.last.cap.is_empty() {
            &self.last
        } else {
            // Nothing to write, or left for the next pass.
            return goal.patch(before).is_empty().then_some(Ok(None));
        };
        let written = |after: HpaFields| CapWrite {
            goal,
            before,
            after,
        };
        Some(patch.clone().map(|after| after.map(written)))
    }

    /// Whether the record of the workload is to be removed: because the workload runs again, or because it was not
    /// scaled to zero after all. The record stays while the workload may be at zero by lagwise's doing.
    fn is_record_obsolete(&self, action: ZeroAction, is_new: bool) -> bool {
        match action {
            ZeroAction::Keep => false,
            ZeroAction::Zero => {
                // Another writer may have scaled the workload to zero. With the record, lagwise would wake it.
                is_new && (self.first.is_err() || self.scaled == Err(ApiError::Changed))
            }
            ZeroAction::Wake(_) => self.scaled.is_ok() && self.last.is_ok(),
            ZeroAction::RemoveAnnotation => self.first.is_ok(),
        }
    }

    fn zero_report(
        self,
        reading: WorkloadReading,
        action: ZeroAction,
        record_removal: Result<(), RecordError>,
    ) -> ZeroReport {
        let mut report = ZeroReport {
            up_since: reading.up_since,
            done: None,
            refusal: reading.refusal,
            error: reading.found.err(),
        };
        let first_error = self.plan.first.zeroed.and(self.first.err());
        let last_error = self.rest.zeroed.and(self.last.err());
        let is_done = match action {
            ZeroAction::Keep => return report,
            ZeroAction::Zero | ZeroAction::Wake(_) => self.scaled.is_ok(),
            ZeroAction::RemoveAnnotation => first_error.is_none(),
        };
        if is_done {
            report.done = Some(action);
            report.up_since = match action {
                ZeroAction::Zero => None,
                ZeroAction::Wake(_) => Some(Instant::now()),
                ZeroAction::Keep | ZeroAction::RemoveAnnotation => report.up_since,
            };
        }
        let removal_error = match record_removal {
            Err(RecordError::Api(error)) => Some(error),
            Ok(()) | Err(RecordError::Full) => None,
        };
        let error = last_error.or(first_error).or(self.scaled.err());
        report.error = error.or(removal_error);
        report
    }
}

#[cfg(test)]
mod tests;
