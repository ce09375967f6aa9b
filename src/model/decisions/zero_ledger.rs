//! The ledger of scale to zero: which workloads lagwise has scaled to zero, and for which HPA.
//!
//! Everybody who may write an HPA can write the annotation `lagwise.dev/zeroed-since` on it, so that annotation
//! only informs people. What lagwise may wake is decided by the ledger, which is in lagwise's own namespace. A record
//! holds for one HPA object and one workload object, told apart from others of the same name by their UIDs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{HpaFacts, scale_target_name};
use crate::model::units::hpa_key::HpaKey;

/// A workload that lagwise has scaled to zero, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZeroRecord {
    /// The namespace of the HPA and of the workload.
    pub namespace: String,
    /// The name of the HPA.
    pub hpa: String,
    /// API group and version of the workload, such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// The name of the workload.
    pub name: String,
    /// The UID of the workload.
    pub target_uid: String,
    /// The replicas that it had before.
    pub replicas: u32,
    /// When it was recorded, in RFC 3339.
    pub since: String,
}

impl ZeroRecord {
    /// The HPA that it was scaled to zero for.
    #[must_use]
    pub fn hpa_key(&self) -> HpaKey {
        HpaKey::new(self.namespace.as_str(), self.hpa.as_str())
    }

    /// The text that is stored.
    #[must_use]
    pub fn encode(&self) -> String {
        // Names and numbers cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the ledger says about a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerMatch {
    /// lagwise has scaled this object to zero for this HPA.
    Recorded,
    /// For this HPA, lagwise has scaled another object to zero: the workload was deleted and created anew, or the HPA
    /// scaled another one then.
    OtherTarget,
    /// Nothing is recorded for this HPA.
    NotRecorded,
}

/// Changes to records, by the UID of the HPA: a new record, or `None` to remove it.
pub type LedgerChanges = BTreeMap<Arc<str>, Option<ZeroRecord>>;

/// The records, by the UID of their HPA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZeroLedger {
    records: BTreeMap<Arc<str>, ZeroRecord>,
    /// The size of what is stored and is no record. It is left as it is.
    unreadable_bytes: usize,
}

/// What to write to the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerUpdate {
    pub changes: LedgerChanges,
    /// HPAs whose new record has no room.
    pub refused: BTreeSet<Arc<str>>,
}

impl ZeroLedger {
    /// Reads what is stored. What is no record of lagwise counts as absent.
    pub fn decode<'a>(stored: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut ledger = Self::default();
        for (uid, text) in stored {
            match serde_json::from_str(text) {
                Ok(record) => {
                    ledger.records.insert(uid.into(), record);
                }
                Err(_) => {
                    let bytes = uid.len().saturating_add(text.len());
                    ledger.unreadable_bytes = ledger.unreadable_bytes.saturating_add(bytes);
                }
            }
        }
        ledger
    }

    /// The record for an HPA.
    #[must_use]
    pub fn record(&self, hpa_uid: &str) -> Option<&ZeroRecord> {
        self.records.get(hpa_uid)
    }

    /// All records, with the UIDs of their HPAs.
    pub fn records(&self) -> impl Iterator<Item = (&Arc<str>, &ZeroRecord)> {
        self.records.iter()
    }

    /// Whether lagwise has scaled a workload to zero for this HPA. An object without a UID cannot be told apart from
    /// another one of its name, so it never matches.
    #[must_use]
    pub fn find(&self, hpa_uid: &str, target_uid: Option<&str>) -> LedgerMatch {
        match self.records.get(hpa_uid) {
            None => LedgerMatch::NotRecorded,
            Some(_) if hpa_uid.is_empty() => LedgerMatch::NotRecorded,
            Some(record) if target_uid == Some(&*record.target_uid) => LedgerMatch::Recorded,
            Some(_) => LedgerMatch::OtherTarget,
        }
    }

    /// Plans a write of these changes. Also removes the records of HPAs that are gone, and refuses new records for which
    /// there is no room: the ledger has at most `max_bytes`, and the records of one namespace at most half of what the
    /// others leave of it, so that there is always room for a namespace that had none.
    #[must_use]
    pub fn plan_update(
        &self,
        wanted: LedgerChanges,
        is_gone: impl Fn(&str, &ZeroRecord) -> bool,
        max_bytes: usize,
    ) -> LedgerUpdate {
        let mut update = LedgerUpdate::default();
        let mut used = UsedBytes {
            all: self.unreadable_bytes,
            ..UsedBytes::default()
        };
        for (uid, record) in &self.records {
            if is_gone(uid, record) {
                update.changes.insert(Arc::clone(uid), None);
            } else if !wanted.contains_key(uid) {
                used.add(uid, record);
            }
        }
        for (uid, record) in wanted {
            let Some(record) = record else {
                if self.records.contains_key(&uid) {
                    update.changes.insert(uid, None);
                }
                continue;
            };
            if used.has_room(&uid, &record, max_bytes) {
                used.add(&uid, &record);
                update.changes.insert(uid, Some(record));
            } else {
                // The record that it has, if any, stays.
                if let Some(kept) = self.records.get(&uid) {
                    used.add(&uid, kept);
                }
                update.refused.insert(uid);
            }
        }
        update
    }

    /// The ledger after these changes.
    #[must_use]
    pub fn with(mut self, changes: &LedgerChanges) -> Self {
        for (uid, record) in changes {
            match record {
                Some(record) => {
                    self.records.insert(Arc::clone(uid), record.clone());
                }
                None => {
                    self.records.remove(uid);
                }
            }
        }
        self
    }
}

/// What records take.
#[derive(Debug, Default)]
struct UsedBytes {
    all: usize,
    by_namespace: BTreeMap<String, usize>,
}

impl UsedBytes {
    fn add(&mut self, uid: &str, record: &ZeroRecord) {
        let bytes = stored_bytes(uid, record);
        self.all = self.all.saturating_add(bytes);
        let of_namespace = self.by_namespace.entry(record.namespace.clone());
        let of_namespace = of_namespace.or_default();
        *of_namespace = of_namespace.saturating_add(bytes);
    }

    fn has_room(&self, uid: &str, record: &ZeroRecord, max_bytes: usize) -> bool {
        let own = self.by_namespace.get(&record.namespace);
        let own = own.copied().unwrap_or_default();
        let left_by_others = max_bytes.saturating_sub(self.all.saturating_sub(own));
        own.saturating_add(stored_bytes(uid, record)) <= left_by_others / 2
    }
}

fn stored_bytes(uid: &str, record: &ZeroRecord) -> usize {
    uid.len().saturating_add(record.encode().len())
}

/// Why lagwise does not scale a workload to zero, or does not wake it, although its HPA suggests that it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZeroRefusal {
    /// The HPA is marked, but nothing is recorded for it.
    NotRecorded,
    /// What is recorded for the HPA is another object.
    OtherTarget,
    /// The record has no room.
    LedgerFull,
    /// The workload's scale has no UID, so that it cannot be recorded.
    NoTargetUid,
    /// The ledger cannot be read or written.
    NoLedger(String),
}

impl ZeroRefusal {
    /// The finding about it.
    #[must_use]
    pub fn finding(&self, hpa: &HpaFacts) -> Finding {
        let target = scale_target_name(hpa);
        let (code, message) = match self {
            ZeroRefusal::NotRecorded => (
                FindingCode::ZeroNotRecorded,
                format!(
                    "it has the annotation lagwise.dev/zeroed-since, but lagwise has no record of having scaled {target} to zero, and does not wake it{}",
                    scale_command(hpa)
                ),
            ),
            ZeroRefusal::OtherTarget => (
                FindingCode::ZeroNotRecorded,
                format!(
                    "lagwise has scaled another object to zero for it, not the present {target}, and does not wake that{}",
                    scale_command(hpa)
                ),
            ),
            ZeroRefusal::LedgerFull => (
                FindingCode::ZeroLedgerUnusable,
                format!("the ledger of scale to zero is full, so {target} is not scaled to zero"),
            ),
            ZeroRefusal::NoTargetUid => (
                FindingCode::ZeroLedgerUnusable,
                format!(
                    "the scale of {target} has no UID by which to record it, so it is not scaled to zero"
                ),
            ),
            ZeroRefusal::NoLedger(reason) => (
                FindingCode::ZeroLedgerUnusable,
                format!("{target} is neither scaled to zero nor woken: {reason}"),
            ),
        };
        Finding::new(code, hpa.key(), message)
    }
}

/// The command that starts the workload, as the end of a sentence. Nothing if it would not be safe to paste.
fn scale_command(hpa: &HpaFacts) -> String {
    let target = &hpa.scale_target;
    if target.check().is_err() {
        return String::new();
    }
    let kind = target.kind.to_lowercase();
    let group = match target.api_version.split_once('/') {
        Some((group, _)) => format!(".{group}"),
        None => String::new(),
    };
    format!(
        "; to start it: `kubectl scale --namespace {} {kind}{group}/{} --replicas={}`",
        hpa.namespace,
        target.name,
        hpa.min_replicas.unwrap_or(1).max(1)
    )
}

#[cfg(test)]
mod tests;
