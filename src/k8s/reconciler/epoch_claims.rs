//! Logs which HPAs were given the term, in few lines.

use std::collections::BTreeMap;
use std::time::Instant;

use super::LONGEST_PAUSE;
use super::pass::PassReport;
use super::state::HpaState;
use crate::k8s::api_error::ApiError;
use crate::model::units::hpa_key::HpaKey;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::lease::{EpochUnwritten, EpochWritten};

/// The HPAs that were given the term, for the log.
#[derive(Default)]
pub(super) struct EpochClaims {
    failures: FailureLog<ApiError>,
    written: usize,
}

impl EpochClaims {
    pub(super) fn record_pass(&mut self, report: &PassReport, state: &mut HpaState) {
        if report.term == 0 || !state.is_managed || state.claimed == report.term {
            return;
        }
        match &report.claim {
            Ok(()) => {
                state.claim.record_success();
                state.claimed = report.term;
                self.written = self.written.saturating_add(1);
            }
            Err(error) => {
                let _ = state
                    .claim
                    .record_failure(error.clone(), LONGEST_PAUSE, Instant::now());
                // One line in the log, however many HPAs it concerns.
                if *error != ApiError::Changed
                    && let Some(reason) = self.failures.record_failure(error.clone())
                {
                    EpochUnwritten { reason }.emit();
                }
            }
        }
    }

    /// Logs how many HPAs were given the term since the last time.
    pub(super) fn log(&mut self, term: u64, hpas: &BTreeMap<HpaKey, HpaState>) {
        let written = std::mem::take(&mut self.written);
        if written > 0 {
            EpochWritten {
                term,
                hpas: written,
            }
            .emit();
        }
        if self.failures.is_failing() && !hpas.values().any(|state| state.claim.is_failing()) {
            self.failures.record_success();
        }
    }
}
