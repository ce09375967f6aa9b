//! Logs to how many HPAs the leader's term was written, in few lines.

use std::collections::BTreeMap;
use std::time::Instant;

use super::MAX_BACKOFF;
use super::pass::PassReport;
use super::state::HpaState;
use crate::k8s::api_error::ApiError;
use crate::model::units::hpa_key::HpaKey;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::lease::{TermWriteFailed, TermWritten};

/// Writes of the term to HPAs, for the log.
#[derive(Default)]
pub(super) struct TermLog {
    failures: FailureLog<ApiError>,
    written: usize,
}

impl TermLog {
    pub(super) fn record_pass(&mut self, report: &PassReport, state: &mut HpaState) {
        if report.term == 0 || !state.is_managed || state.written_term == report.term {
            return;
        }
        match &report.term_write {
            Ok(()) => {
                state.term_retry.record_success();
                state.written_term = report.term;
                self.written = self.written.saturating_add(1);
            }
            Err(error) => {
                let _ = state
                    .term_retry
                    .record_failure(error.clone(), MAX_BACKOFF, Instant::now());
                // One line in the log, however many HPAs it concerns.
                if *error != ApiError::Changed
                    && let Some(reason) = self.failures.record_failure(error.clone())
                {
                    TermWriteFailed { reason }.emit();
                }
            }
        }
    }

    /// Logs to how many HPAs the term was written since the last log line.
    pub(super) fn log_written(&mut self, term: u64, hpas: &BTreeMap<HpaKey, HpaState>) {
        let written = std::mem::take(&mut self.written);
        if written > 0 {
            TermWritten {
                term,
                hpas: written,
            }
            .emit();
        }
        if self.failures.is_failing() && !hpas.values().any(|state| state.term_retry.is_failing()) {
            self.failures.record_success();
        }
    }
}
