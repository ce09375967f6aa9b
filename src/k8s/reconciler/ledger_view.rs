//! The reconciler's view of the ledger of scale to zero, and its findings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::k8s::api_error::ApiError;
use crate::k8s::write_guard::WriteGuard;
use crate::k8s::zero_ledger::{LedgerHandle, LedgerView};
use crate::model::decisions::zero_ledger::{ZeroLedger, ZeroRefusal};
use crate::model::findings::{Finding, ReportedFindings};
use crate::model::hpa::facts::{HpaFacts, has_zeroed_annotation};
use crate::model::units::hpa_key::HpaKey;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::zero::LedgerUnread;

/// How often the ledger is read in addition to the reads of passes, so that an operator's changes to it are seen.
const READ_INTERVAL: Duration = Duration::from_secs(10);

/// Why there is no ledger.
const NO_LEDGER: &str = "lagwise does not run in a pod, and scale_to_zero.config_map names no ConfigMap for its records";

/// The ledger as the reconciler last saw it.
pub(super) struct LedgerFollower {
    /// `None` if there is no place for a ledger.
    pub(super) handle: Option<LedgerHandle>,
    seen: LedgerView,
    read_at: Option<Instant>,
    is_reading: bool,
    failures: FailureLog<ApiError>,
    /// Findings by HPA, without empty entries.
    findings: BTreeMap<HpaKey, BTreeSet<Finding>>,
    /// Whether the findings differ from the published ones.
    is_changed: bool,
    published: watch::Sender<ReportedFindings>,
}

/// The HPAs whose records in the ledger have changed.
pub(super) enum LedgerNews {
    All,
    Some(BTreeSet<HpaKey>),
}

impl LedgerFollower {
    pub(super) fn new(
        handle: Option<LedgerHandle>,
        published: watch::Sender<ReportedFindings>,
    ) -> Self {
        Self {
            handle,
            seen: LedgerView::Unread,
            read_at: None,
            is_reading: false,
            failures: FailureLog::default(),
            findings: BTreeMap::new(),
            is_changed: false,
            published,
        }
    }

    /// Replaces the ledger by a newer read.
    pub(super) fn update(&mut self) -> LedgerNews {
        let Some(handle) = &self.handle else {
            self.seen = LedgerView::Unread;
            return LedgerNews::Some(BTreeSet::new());
        };
        let before = std::mem::replace(&mut self.seen, handle.view());
        match (&before, &self.seen) {
            (LedgerView::Read(before), LedgerView::Read(now)) => {
                LedgerNews::Some(changed_hpas(before, now))
            }
            (LedgerView::Unread, LedgerView::Unread) => LedgerNews::Some(BTreeSet::new()),
            (LedgerView::Failed(before), LedgerView::Failed(now)) if before == now => {
                LedgerNews::Some(BTreeSet::new())
            }
            _ => LedgerNews::All,
        }
    }

    /// Whether the ledger has a record for the HPA with this UID.
    pub(super) fn has_record(&self, hpa_uid: &str) -> bool {
        match &self.seen {
            LedgerView::Read(ledger) => ledger.record(hpa_uid).is_some(),
            LedgerView::Unread | LedgerView::Failed(_) => false,
        }
    }

    /// Records the findings about an HPA, if there are any. `asks_for_zero`: whether lagwise is to scale it to zero;
    /// `refusal` is that of the last read of its workload, `others` are those that do not follow from the ledger.
    pub(super) fn note(
        &mut self,
        hpa: &HpaFacts,
        asks_for_zero: bool,
        refusal: Option<&ZeroRefusal>,
        others: impl Iterator<Item = Finding>,
    ) {
        let is_annotated = has_zeroed_annotation(hpa);
        let found = match (&self.handle, &self.seen) {
            (None, _) if asks_for_zero => Some(ZeroRefusal::NoLedger(NO_LEDGER.to_owned())),
            (_, LedgerView::Failed(error)) if asks_for_zero => {
                Some(ZeroRefusal::NoLedger(error.to_string()))
            }
            (_, LedgerView::Read(ledger)) if is_annotated && ledger.record(&hpa.uid).is_none() => {
                Some(ZeroRefusal::NotRecorded)
            }
            // Without a ledger nothing is recorded.
            (None, _) if is_annotated => Some(ZeroRefusal::NotRecorded),
            _ => refusal.cloned(),
        };
        let found = found.map(|refusal| refusal.finding(hpa));
        let found: BTreeSet<_> = found.into_iter().chain(others).collect();
        let key = hpa.key();
        if found.is_empty() {
            self.remove(&key);
        } else if self.findings.get(&key) != Some(&found) {
            self.findings.insert(key, found);
            self.is_changed = true;
        }
    }

    /// Removes the findings about an HPA.
    pub(super) fn remove(&mut self, hpa: &HpaKey) {
        self.is_changed |= self.findings.remove(hpa).is_some();
    }

    /// Forgets everything, since another process leads.
    pub(super) fn clear(&mut self) {
        self.seen = LedgerView::Unread;
        self.read_at = None;
        self.is_changed |= !self.findings.is_empty();
        self.findings.clear();
        self.publish();
    }

    /// Publishes the findings, if they are others than before.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.is_changed) {
            let findings = self.findings.values().flatten().cloned().collect();
            self.published.send_replace(Arc::new(findings));
        }
    }

    /// The findings as they were last published.
    #[cfg(test)]
    pub(super) fn findings(&self) -> ReportedFindings {
        self.published.borrow().clone()
    }

    /// Reads the ledger, if it was not read lately and is not being read.
    pub(super) fn next_read(
        &mut self,
        guard: &WriteGuard,
    ) -> Option<impl Future<Output = Result<(), ApiError>> + Send + 'static> {
        let is_recent = self.read_at.is_some_and(|at| at.elapsed() < READ_INTERVAL);
        let handle = self.handle.clone()?;
        if self.is_reading || is_recent {
            return None;
        }
        let timeout = guard.time_for_write().ok()?;
        self.is_reading = true;
        let term = guard.from.term;
        Some(async move { handle.read(term, timeout).await.map(drop) })
    }

    /// Records whether the ledger could be read.
    pub(super) fn finish_read(&mut self, read: Result<(), ApiError>) {
        self.is_reading = false;
        match read {
            Ok(()) => {
                self.read_at = Some(Instant::now());
                self.failures.record_success();
            }
            // Another process leads, or the snapshot is too old.
            Err(ApiError::Changed) => {}
            Err(error) => {
                self.read_at = Some(Instant::now());
                if let Some(reason) = self.failures.record_failure(error) {
                    LedgerUnread { reason }.emit();
                }
            }
        }
    }
}

/// The HPAs whose records differ.
fn changed_hpas(before: &Arc<ZeroLedger>, now: &Arc<ZeroLedger>) -> BTreeSet<HpaKey> {
    if Arc::ptr_eq(before, now) {
        return BTreeSet::new();
    }
    let missing_in = |a: &ZeroLedger, b: &ZeroLedger| {
        let records = a.records();
        let differ = records.filter(|(uid, record)| b.record(uid) != Some(record));
        Vec::from_iter(differ.map(|(_, record)| record.hpa_key()))
    };
    let removed = missing_in(before, now);
    removed.into_iter().chain(missing_in(now, before)).collect()
}
