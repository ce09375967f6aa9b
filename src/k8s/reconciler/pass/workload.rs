//! The workload of an HPA in a pass: its state for scale to zero, and its record in the ledger.

use std::time::{Duration, Instant, SystemTime};

use super::{Pass, ZeroInput};
use crate::k8s::api_error::ApiError;
use crate::k8s::scale::Scale;
use crate::k8s::zero_ledger::RecordError;
use crate::model::decisions::scale_to_zero::{Demand, WorkloadState, ZeroAction, decide};
use crate::model::decisions::zero_ledger::{LedgerMatch, ZeroRecord, ZeroRefusal};
use crate::model::hpa::facts::{
    HpaFacts, has_zeroed_annotation, min_replicas, scales_to_zero_natively,
};

/// The state of a workload, and what to do about it.
pub(super) struct WorkloadReading {
    pub(super) up_since: Option<Instant>,
    /// Whether lagwise has scaled it to zero.
    pub(super) is_recorded: bool,
    pub(super) refusal: Option<ZeroRefusal>,
    pub(super) found: Result<(ZeroAction, Scale), ApiError>,
}

impl Pass {
    /// Reads the workload's scale, and whether lagwise has scaled it to zero.
    async fn read_scale(&self, facts: &HpaFacts) -> Result<(Scale, LedgerMatch), ApiError> {
        let (namespace, target) = (&facts.namespace, &facts.scale_target);
        let timeout = self.guard.time_for_write()?;
        let scale = self.scales.read(namespace, target, timeout).await?;
        let timeout = self.guard.time_for_write()?;
        let ledger = self.ledger.as_ref().ok_or(ApiError::Changed)?;
        let ledger = ledger.read(self.guard.from.term, timeout).await?;
        let found = ledger.find(&facts.uid, scale.uid.as_deref());
        Ok((scale, found))
    }

    /// Reads the workload and decides what to do about it.
    pub(super) async fn read_workload(
        &self,
        facts: &HpaFacts,
        input: ZeroInput,
    ) -> WorkloadReading {
        let (scale, recorded) = match self.read_scale(facts).await {
            Ok(read) => read,
            Err(error) => {
                return WorkloadReading {
                    up_since: input.up_since,
                    is_recorded: self.is_recorded,
                    refusal: None,
                    found: Err(error),
                };
            }
        };
        // If the workload was at zero when it was last read, it has had replicas since now at the earliest. Otherwise
        // it is unknown since when, so count from now.
        let now = Instant::now();
        let up_since = (scale.replicas > 0).then(|| input.up_since.unwrap_or(now));
        let max = facts.max_replicas;
        let ceiling = input.candidate.and_then(|candidate| candidate.ceiling);
        let idle = input.idle.zip(up_since);
        let state = WorkloadState {
            is_enabled: input.candidate.is_some() && !scales_to_zero_natively(facts),
            recorded: recorded == LedgerMatch::Recorded,
            annotated: has_zeroed_annotation(facts),
            replicas: scale.replicas,
            demand: input.candidate.map_or(Demand::Unknown, |c| c.demand),
            idle: idle.map(|(idle, up)| idle.min(now.saturating_duration_since(up))),
            cooldown: input.candidate.map_or(Duration::MAX, |c| c.cooldown),
            zeroed: input.zeroed_at.map(|at| now.saturating_duration_since(at)),
            bounds: (
                min_replicas(facts),
                ceiling.map_or(max, |ceiling| ceiling.min(max)),
            ),
        };
        let is_other_target = recorded == LedgerMatch::OtherTarget && scale.replicas == 0;
        WorkloadReading {
            up_since,
            is_recorded: state.recorded,
            refusal: is_other_target.then_some(ZeroRefusal::OtherTarget),
            found: Ok((decide(&state), scale)),
        }
    }

    /// Records the workload before it is scaled to zero, if it is not recorded yet. Without a record it is not scaled.
    /// Returns whether the record is new.
    pub(super) async fn record(&self, facts: &HpaFacts, reading: &mut WorkloadReading) -> bool {
        let Ok((action, scale)) = &mut reading.found else {
            return false;
        };
        if *action != ZeroAction::Zero || reading.is_recorded {
            return false;
        }
        let Some(target_uid) = scale.uid.clone() else {
            *action = ZeroAction::Keep;
            reading.refusal = Some(ZeroRefusal::NoTargetUid);
            return false;
        };
        let target = &facts.scale_target;
        let since = humantime::format_rfc3339_seconds(SystemTime::now());
        let record = ZeroRecord {
            namespace: facts.namespace.to_string(),
            hpa: facts.name.to_string(),
            api_version: target.api_version.to_string(),
            kind: target.kind.to_string(),
            name: target.name.to_string(),
            target_uid,
            replicas: scale.replicas,
            since: since.to_string(),
        };
        match self.write_record(facts, Some(record)).await {
            Ok(()) => true,
            Err(RecordError::Full) => {
                *action = ZeroAction::Keep;
                reading.refusal = Some(ZeroRefusal::LedgerFull);
                false
            }
            Err(RecordError::Api(error)) => {
                if let ApiError::Refused(reason) | ApiError::Forbidden(reason) = &error {
                    reading.refusal = Some(ZeroRefusal::NoLedger(reason.clone()));
                }
                reading.found = Err(error);
                false
            }
        }
    }

    /// Writes the record for the HPA, or removes it.
    pub(super) async fn write_record(
        &self,
        facts: &HpaFacts,
        record: Option<ZeroRecord>,
    ) -> Result<(), RecordError> {
        let timeout = self.guard.time_for_write().map_err(RecordError::Api)?;
        let ledger = self.ledger.as_ref();
        let ledger = ledger.ok_or(RecordError::Api(ApiError::Changed))?;
        let term = self.guard.from.term;
        ledger.write(term, timeout, &facts.uid, record).await
    }
}
