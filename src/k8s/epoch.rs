//! Writes the term of a new leader on the HPAs that it manages, so that nothing an earlier leader has
//! still to write is written over anything: see [`model::fencing`](crate::model::decisions::fencing).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::scale::{ApiError, in_time};
use super::write_guard::WriteGuard;
use crate::model::decisions::fencing::is_managed;
use crate::model::hpa::facts::HpaFacts;
use crate::telemetry::lease::{EpochUnwritten, EpochWritten};

/// Follows the snapshots until there are no more.
pub async fn keep(writing: WriteGuard) {
    let mut reader = writing.reader.clone();
    let mut keeper = EpochWriter {
        writing,
        term: 0,
        claimed: BTreeSet::new(),
        failing: None,
    };
    while reader.changed().await {
        keeper.turn().await;
    }
}

struct EpochWriter {
    writing: WriteGuard,
    term: u64,
    /// The HPAs that carry the term, by their uids.
    claimed: BTreeSet<Arc<str>>,
    failing: Option<ApiError>,
}

impl EpochWriter {
    async fn turn(&mut self) {
        let Some(snapshot) = self.writing.begin().filter(|snapshot| snapshot.term > 0) else {
            return;
        };
        if snapshot.term != self.term {
            self.term = snapshot.term;
            self.claimed.clear();
            self.failing = None;
        }
        // Without a sweep nothing may be written yet.
        if self.writing.within().is_err() {
            return;
        }
        let Some(hpas) = self.writing.hpas.borrow().clone() else {
            return;
        };
        let default = self.writing.rules.cap;
        let managed = hpas.iter().filter(|hpa| is_managed(hpa, default));
        let managed: BTreeSet<_> = managed.map(|hpa| Arc::clone(&hpa.uid)).collect();
        // One that comes back is one to be written again.
        self.claimed.retain(|uid| managed.contains(uid));
        let is_new =
            |hpa: &&Arc<HpaFacts>| managed.contains(&hpa.uid) && !self.claimed.contains(&hpa.uid);
        let new: Vec<_> = hpas.iter().filter(is_new).collect();
        let (mut written, mut failed) = (0, None);
        for hpa in new {
            match self.claim(hpa).await {
                Ok(()) => {
                    written += 1;
                    self.claimed.insert(Arc::clone(&hpa.uid));
                }
                // Somebody else wrote, or there is another leader: the next turn sees.
                Err(ApiError::Changed) => {}
                Err(error) => failed = Some(error),
            }
        }
        if written > 0 {
            let term = self.term;
            EpochWritten {
                term,
                hpas: written,
            }
            .emit();
        }
        if let Some(reason) = failed.as_ref().filter(|_| failed != self.failing) {
            EpochUnwritten { reason }.emit();
        }
        self.failing = failed;
    }

    async fn claim(&self, hpa: &HpaFacts) -> Result<(), ApiError> {
        let api = self.writing.api(hpa);
        let read = in_time(self.writing.within()?, api.get_metadata(&hpa.name)).await?;
        if read.metadata.uid.as_deref() != Some(&*hpa.uid) {
            return Err(ApiError::Changed);
        }
        self.writing.claim(&api, read.metadata).await.map(drop)
    }
}
