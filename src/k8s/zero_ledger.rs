//! The ledger of scale to zero in a ConfigMap of lagwise's own namespace, with one key for each HPA.
//!
//! Every write names the version that was read, so that nothing is lost if two daemons write. Many HPAs may be scaled
//! to zero at the same time: their records are collected while a write is in progress, and written together by the next
//! one.

mod config_map;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::api_error::ApiError;
use crate::model::decisions::zero_ledger::{LedgerChanges, LedgerUpdate, ZeroLedger, ZeroRecord};
use crate::model::hpa::facts::HpaMap;

pub(super) use config_map::StoredLedger;
pub use config_map::{InvalidLedgerKey, LedgerConfigMap, LedgerKey};

/// Maximum size of the ledger, in bytes. The API server accepts 1 MiB of data, keys included; the rest is room for the
/// escaped quotes in a request.
const MAX_LEDGER_BYTES: usize = 900 * 1024;

/// How long the ledger that was read is used before its version is compared again.
const VERIFICATION_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of attempts at a write. Only an operator, or a daemon that has just lost its Lease, writes at the
/// same time.
const MAX_ATTEMPTS: u32 = 5;

/// Maximum number of requests that wait for a write. Fewer passes run at the same time.
const MAX_PENDING_REQUESTS: usize = 64;

/// Why a record was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// There is no room for it.
    Full,
    Api(ApiError),
}

/// The ledger as it was last read or written.
#[derive(Clone, Debug, Default)]
pub(super) enum LedgerView {
    #[default]
    Unread,
    Read(Arc<ZeroLedger>),
    /// It cannot be read.
    Failed(ApiError),
}

/// How long a request may take, and in which term.
#[derive(Clone, Copy, Debug)]
struct RequestBounds {
    term: u64,
    until: Instant,
}

struct LedgerRequest {
    bounds: RequestBounds,
    /// The record to write for the HPA with this UID, or to remove; `None` to only read.
    change: Option<(Arc<str>, Option<ZeroRecord>)>,
    reply: oneshot::Sender<Result<Arc<ZeroLedger>, RecordError>>,
}

/// Reads and writes the ledger through one task, which ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct LedgerHandle {
    requests: mpsc::Sender<LedgerRequest>,
    view: watch::Receiver<LedgerView>,
}

impl LedgerHandle {
    /// Starts the task. `hpas` and `namespaces` (the watched ones, empty = all) show which records belong to deleted
    /// HPAs.
    pub(super) fn start(
        map: LedgerConfigMap,
        hpas: watch::Receiver<Option<HpaMap>>,
        namespaces: Vec<String>,
    ) -> Self {
        let (requests, received) = mpsc::channel(MAX_PENDING_REQUESTS);
        let (published, view) = watch::channel(LedgerView::default());
        let task = LedgerTask {
            map,
            hpas,
            namespaces,
            stored: None,
            published,
        };
        tokio::spawn(task.run(received));
        Self { requests, view }
    }

    /// A ledger with this content, which cannot be read again or written.
    #[cfg(test)]
    pub(super) fn fixed(ledger: ZeroLedger) -> Self {
        Self {
            requests: mpsc::channel(1).0,
            view: watch::channel(LedgerView::Read(Arc::new(ledger))).1,
        }
    }

    /// The ledger as it was last read or written.
    pub(super) fn view(&self) -> LedgerView {
        self.view.borrow().clone()
    }

    /// The ledger as it is now, or was a second ago.
    pub(super) async fn read(
        &self,
        term: u64,
        timeout: Duration,
    ) -> Result<Arc<ZeroLedger>, ApiError> {
        match self.send(term, timeout, None).await {
            Err(RecordError::Api(error)) => Err(error),
            // Never happens: a request without a change needs no room.
            Err(RecordError::Full) => Err(ApiError::Changed),
            Ok(ledger) => Ok(ledger),
        }
    }

    /// Writes a record, or removes it.
    pub(super) async fn write(
        &self,
        term: u64,
        timeout: Duration,
        hpa_uid: &Arc<str>,
        record: Option<ZeroRecord>,
    ) -> Result<(), RecordError> {
        let change = Some((Arc::clone(hpa_uid), record));
        self.send(term, timeout, change).await.map(drop)
    }

    async fn send(
        &self,
        term: u64,
        timeout: Duration,
        change: Option<(Arc<str>, Option<ZeroRecord>)>,
    ) -> Result<Arc<ZeroLedger>, RecordError> {
        let (reply, answer) = oneshot::channel();
        let now = Instant::now();
        let until = now.checked_add(timeout).unwrap_or(now);
        let request = LedgerRequest {
            bounds: RequestBounds { term, until },
            change,
            reply,
        };
        let answer = async {
            self.requests.send(request).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(Some(answer)) => answer,
            // Its task has ended, and the process is about to.
            Ok(None) => Err(RecordError::Api(ApiError::Changed)),
            Err(_) => Err(RecordError::Api(ApiError::timed_out())),
        }
    }
}

/// The task behind [`LedgerHandle`].
struct LedgerTask {
    map: LedgerConfigMap,
    hpas: watch::Receiver<Option<HpaMap>>,
    namespaces: Vec<String>,
    /// The ledger that was read, the term of the read, and when it was last confirmed.
    stored: Option<(u64, Instant, StoredLedger)>,
    published: watch::Sender<LedgerView>,
}

impl LedgerTask {
    async fn run(mut self, mut received: mpsc::Receiver<LedgerRequest>) {
        let mut batch = Vec::new();
        while received.recv_many(&mut batch, MAX_PENDING_REQUESTS).await > 0 {
            self.serve(std::mem::take(&mut batch)).await;
        }
    }

    /// Answers requests, with one write for all of them.
    async fn serve(&mut self, batch: Vec<LedgerRequest>) {
        let now = Instant::now();
        let (batch, late): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|request| request.bounds.until > now);
        for request in late {
            let _ = request.reply.send(Err(RecordError::Api(ApiError::Changed)));
        }
        let bounds = batch.iter().map(|request| request.bounds);
        // Requests of former terms are late, so all of these are of one term.
        let Some(bounds) = bounds.reduce(|a, b| RequestBounds {
            term: a.term.max(b.term),
            until: a.until.min(b.until),
        }) else {
            return;
        };
        let mut wanted = LedgerChanges::new();
        for request in &batch {
            if let Some((uid, record)) = &request.change {
                wanted.insert(Arc::clone(uid), record.clone());
            }
        }
        let outcome = self.update(&wanted, bounds).await;
        self.published.send_replace(match &outcome {
            Ok((ledger, _)) => LedgerView::Read(Arc::clone(ledger)),
            Err(error) => match &self.stored {
                // The write has failed, or the API server does not respond.
                Some((_, _, stored)) => LedgerView::Read(Arc::clone(&stored.ledger)),
                None if *error == ApiError::Changed => self.published.borrow().clone(),
                None => LedgerView::Failed(error.clone()),
            },
        });
        for request in batch {
            let uid = request.change.as_ref().map(|(uid, _)| uid);
            let answer = match &outcome {
                Err(error) => Err(RecordError::Api(error.clone())),
                Ok((_, refused)) if uid.is_some_and(|uid| refused.contains(uid)) => {
                    Err(RecordError::Full)
                }
                Ok((ledger, _)) => Ok(Arc::clone(ledger)),
            };
            let _ = request.reply.send(answer);
        }
    }

    /// Reads the ledger, if it may have changed, and writes the requested changes. Also returns the HPAs for which
    /// there was no room.
    async fn update(
        &mut self,
        wanted: &LedgerChanges,
        bounds: RequestBounds,
    ) -> Result<(Arc<ZeroLedger>, BTreeSet<Arc<str>>), ApiError> {
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.current(bounds).await?;
            let update = {
                // Cloned, so that the watch is not blocked.
                let hpas = self.hpas.borrow().clone();
                let is_deleted =
                    |uid: &str, record: &ZeroRecord| self.is_deleted(&hpas, uid, record);
                match wanted.is_empty() {
                    true => LedgerUpdate::default(),
                    false => {
                        stored
                            .ledger
                            .plan_update(wanted.clone(), is_deleted, MAX_LEDGER_BYTES)
                    }
                }
            };
            if update.changes.is_empty() {
                return Ok((stored.ledger, update.refused));
            }
            let timeout = time_left(bounds)?;
            match self.map.write(&stored, &update.changes, timeout).await {
                Ok(written) => {
                    let ledger = Arc::clone(&written.ledger);
                    self.stored = Some((bounds.term, Instant::now(), written));
                    return Ok((ledger, update.refused));
                }
                // Read it again.
                Err(ApiError::Changed) => self.stored = None,
                Err(error) => {
                    if matches!(error, ApiError::NoAnswer(_)) {
                        // It may have been written.
                        self.stored = None;
                    }
                    return Err(error);
                }
            }
        }
        Err(ApiError::Changed)
    }

    /// The ledger as it is now, or was within [`VERIFICATION_INTERVAL`].
    async fn current(&mut self, bounds: RequestBounds) -> Result<StoredLedger, ApiError> {
        if let Some((term, seen, stored)) = &mut self.stored
            && *term == bounds.term
        {
            if seen.elapsed() < VERIFICATION_INTERVAL {
                return Ok(stored.clone());
            }
            match self.map.is_current(stored, time_left(bounds)?).await {
                Ok(true) => {
                    *seen = Instant::now();
                    return Ok(stored.clone());
                }
                Ok(false) => {}
                Err(error) => {
                    // Without the right to read the ledger, an earlier read is no longer valid.
                    if matches!(error, ApiError::Refused(_) | ApiError::Forbidden(_)) {
                        self.stored = None;
                    }
                    return Err(error);
                }
            }
        }
        self.stored = None;
        let stored = self.map.read(time_left(bounds)?).await?;
        self.stored = Some((bounds.term, Instant::now(), stored.clone()));
        Ok(stored)
    }

    /// Whether the HPA of a record is known to be deleted: its namespace is watched, and the HPA is not in it.
    fn is_deleted(&self, hpas: &Option<HpaMap>, uid: &str, record: &ZeroRecord) -> bool {
        let is_watched = self.namespaces.is_empty() || self.namespaces.contains(&record.namespace);
        let Some(hpas) = hpas.as_ref().filter(|_| is_watched) else {
            return false;
        };
        hpas.get(&record.hpa_key())
            .is_none_or(|hpa| &*hpa.uid != uid)
    }
}

fn time_left(bounds: RequestBounds) -> Result<Duration, ApiError> {
    let left = bounds.until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ApiError::Changed),
        false => Ok(left),
    }
}

#[cfg(test)]
mod tests;
