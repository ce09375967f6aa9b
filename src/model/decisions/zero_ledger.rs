//! The ledger of scale to zero: which workloads lagwise has scaled to zero, and for which HPA.
//!
//! Every user who may write an HPA can set its annotation `lagwise.dev/zeroed-since`, so lagwise does not rely on that
//! annotation. The ledger, which is in lagwise's own namespace, decides what lagwise may wake. A record is valid for
//! one HPA object and one workload object, which it identifies by their UIDs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{HpaFacts, scale_target_name, start_hint};
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
    /// For this HPA, lagwise has scaled another object to zero: the workload was deleted and created again, or the HPA
    /// had another scale target then.
    OtherTarget,
    /// Nothing is recorded for this HPA.
    NotRecorded,
}

/// Changes to records, by the UID of the HPA: a new record, or `None` to remove it.
pub type LedgerChanges = BTreeMap<Arc<str>, Option<ZeroRecord>>;

/// The records, by the UID of their HPA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZeroLedger {
    records: BTreeMap<Arc<str>, StoredRecord>,
    /// Bytes of all records, and of stored entries that are not readable as records, which are left as they are.
    used: UsedBytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredRecord {
    record: Arc<ZeroRecord>,
    /// Stored size with its key.
    bytes: usize,
}

/// What to write to the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerUpdate {
    pub changes: LedgerChanges,
    /// HPAs whose new record has no room.
    pub refused: BTreeSet<Arc<str>>,
}

impl ZeroLedger {
    /// Parses the stored records. Entries that are not records of lagwise are ignored.
    pub fn decode<'a>(stored: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut ledger = Self::default();
        for (uid, text) in stored {
            let bytes = uid.len().saturating_add(text.len());
            match serde_json::from_str(text) {
                Ok(record) => {
                    let record = Arc::new(record);
                    ledger.insert(uid.into(), StoredRecord { record, bytes });
                }
                Err(_) => ledger.used.all = ledger.used.all.saturating_add(bytes),
            }
        }
        ledger
    }

    /// The record for an HPA.
    #[must_use]
    pub fn record(&self, hpa_uid: &str) -> Option<&ZeroRecord> {
        self.records.get(hpa_uid).map(|stored| &*stored.record)
    }

    /// All records, with the UIDs of their HPAs.
    pub fn records(&self) -> impl Iterator<Item = (&Arc<str>, &ZeroRecord)> {
        let records = self.records.iter();
        records.map(|(uid, stored)| (uid, &*stored.record))
    }

    fn insert(&mut self, hpa_uid: Arc<str>, stored: StoredRecord) {
        self.used.add(&stored);
        if let Some(before) = self.records.insert(hpa_uid, stored) {
            self.used.remove(&before);
        }
    }

    fn remove(&mut self, hpa_uid: &str) {
        if let Some(removed) = self.records.remove(hpa_uid) {
            self.used.remove(&removed);
        }
    }

    /// Whether lagwise has scaled a workload to zero for this HPA. An object without a UID never matches, because it
    /// cannot be distinguished from another object of the same name.
    #[must_use]
    pub fn find(&self, hpa_uid: &str, target_uid: Option<&str>) -> LedgerMatch {
        match self.record(hpa_uid) {
            None => LedgerMatch::NotRecorded,
            Some(_) if hpa_uid.is_empty() => LedgerMatch::NotRecorded,
            Some(record) if target_uid == Some(&*record.target_uid) => LedgerMatch::Recorded,
            Some(_) => LedgerMatch::OtherTarget,
        }
    }

    /// Plans a write of these changes. Also removes the records of deleted HPAs, and refuses new records for which
    /// there is no room: the ledger has at most `max_bytes`, and the records of one namespace at most half of what the
    /// others leave, so that there is always room for a namespace without records.
    #[must_use]
    pub fn plan_update(
        &self,
        wanted: LedgerChanges,
        is_deleted: impl Fn(&str, &ZeroRecord) -> bool,
        max_bytes: usize,
    ) -> LedgerUpdate {
        let mut update = LedgerUpdate::default();
        let mut used = self.used.clone();
        for (uid, stored) in &self.records {
            let is_deleted = is_deleted(uid, &stored.record);
            if is_deleted {
                update.changes.insert(Arc::clone(uid), None);
            }
            if is_deleted || wanted.contains_key(uid) {
                used.remove(stored);
            }
        }
        for (uid, record) in wanted {
            let Some(record) = record else {
                if self.records.contains_key(&uid) {
                    update.changes.insert(uid, None);
                }
                continue;
            };
            let new = StoredRecord::new(&uid, &record);
            if used.has_room(&new, max_bytes) {
                used.add(&new);
                update.changes.insert(uid, Some(record));
            } else {
                // The record that it has, if any, stays.
                if let Some(kept) = self.records.get(&uid) {
                    used.add(kept);
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
                Some(record) => self.insert(Arc::clone(uid), StoredRecord::new(uid, record)),
                None => self.remove(uid),
            }
        }
        self
    }
}

impl StoredRecord {
    fn new(hpa_uid: &str, record: &ZeroRecord) -> Self {
        Self {
            bytes: hpa_uid.len().saturating_add(record.encode().len()),
            record: Arc::new(record.clone()),
        }
    }
}

/// Bytes that records take, in total and by namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UsedBytes {
    all: usize,
    /// Only namespaces that have records.
    by_namespace: BTreeMap<String, usize>,
}

impl UsedBytes {
    fn add(&mut self, stored: &StoredRecord) {
        self.all = self.all.saturating_add(stored.bytes);
        let namespace = &stored.record.namespace;
        match self.by_namespace.get_mut(namespace) {
            Some(own) => *own = own.saturating_add(stored.bytes),
            None => {
                self.by_namespace.insert(namespace.clone(), stored.bytes);
            }
        }
    }

    fn remove(&mut self, stored: &StoredRecord) {
        self.all = self.all.saturating_sub(stored.bytes);
        let namespace = &stored.record.namespace;
        if let Some(own) = self.by_namespace.get_mut(namespace) {
            *own = own.saturating_sub(stored.bytes);
            if *own == 0 {
                self.by_namespace.remove(namespace);
            }
        }
    }

    fn has_room(&self, new: &StoredRecord, max_bytes: usize) -> bool {
        let own = self.by_namespace.get(&new.record.namespace);
        let own = own.copied().unwrap_or_default();
        let left_by_others = max_bytes.saturating_sub(self.all.saturating_sub(own));
        own.saturating_add(new.bytes) <= left_by_others / 2
    }
}

/// Why lagwise does not scale a workload to zero, or does not wake it, although its HPA suggests that it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZeroRefusal {
    /// The HPA has the annotation `zeroed-since`, but nothing is recorded for it.
    NotRecorded,
    /// The record of the HPA is about another object.
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
                    start_hint(hpa)
                ),
            ),
            ZeroRefusal::OtherTarget => (
                FindingCode::ZeroNotRecorded,
                format!(
                    "lagwise has scaled another object to zero for it, not the present {target}, and does not wake that{}",
                    start_hint(hpa)
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

/// Records for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::ZeroRecord;

    /// A record of an HPA in `shop` that scales a Deployment of the same name.
    pub(crate) fn record(hpa: &str, target_uid: &str) -> ZeroRecord {
        ZeroRecord {
            namespace: "shop".into(),
            hpa: hpa.into(),
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: hpa.into(),
            target_uid: target_uid.into(),
            replicas: 3,
            since: "2026-01-01T00:00:00Z".into(),
        }
    }
}

#[cfg(test)]
mod tests;
