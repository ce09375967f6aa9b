//! Keeps the shared certificates: reads them, and while leading makes, renews, repairs and publishes them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::rotation::{self, Publication, RotationStep};
use super::set::{CertificateSet, Data, Unusable};
use crate::leader_election::Leadership;
use crate::telemetry::certificates::{
    BundlePublished, BundleUnpublished, CertificatesChanged, CertificatesUnread,
    CertificatesUnusable, CertificatesUnwritten,
};

/// How often they are read: a third of what [`rotation::SPREAD`] gives the other replicas.
const EVERY: Duration = Duration::from_secs(5);

/// The pause after the first look, doubled with each that finds nothing to serve with.
const FIRST: Duration = Duration::from_millis(500);

/// The longest that one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What was found where the certificates are kept.
#[derive(Clone, Default)]
#[allow(missing_debug_implementations, reason = "it holds keys")]
pub struct Stored {
    /// What a write must find unchanged.
    pub version: Option<String>,
    /// Whether lagwise made it, and may change it.
    pub is_ours: bool,
    /// What it holds.
    pub data: Data,
}

/// Why something could not be read or written, in words that stay the same while the cause does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateStoreError {
    /// Somebody else wrote in between: whoever wants to write has to look again.
    #[error("it was changed meanwhile")]
    Changed,
    /// What the other side says, or that it says nothing.
    #[error("{0}")]
    Told(String),
}

/// Where the certificates are kept.
pub trait CertificateStore: Send + Sync + 'static {
    /// What and where it is, for people.
    fn place(&self) -> String;

    /// What is kept; `None` where nothing is.
    fn load(
        &self,
        within: Duration,
    ) -> impl Future<Output = Result<Option<Stored>, CertificateStoreError>> + Send;

    /// Keeps this instead of what was found (`None`: nothing), if that is still so.
    fn save(
        &self,
        data: &Data,
        over: Option<&Stored>,
        within: Duration,
    ) -> impl Future<Output = Result<(), CertificateStoreError>> + Send;
}

/// What became of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// Clients had it already.
    Known,
    /// They have been given it.
    Told,
    /// Nobody is registered whose bundle it could be.
    Absent,
    /// Another server is registered, and stays so: its Service.
    Another(String),
}

/// Where clients find which authorities to trust.
pub trait Registration: Send + Sync + 'static {
    /// Sees to it that clients trust exactly this bundle.
    fn publish(
        &self,
        bundle: &str,
        within: Duration,
    ) -> impl Future<Output = Result<Registered, CertificateStoreError>> + Send;
}

/// What the keeper works with.
#[derive(Debug)]
pub struct CertificateManagerOptions<S, R> {
    /// Where the certificates are kept.
    pub store: S,
    /// Whom to tell of the authorities; `None` where somebody else does.
    pub registration: Option<R>,
    /// The names to serve under: first the one that the API server asks by.
    pub names: Vec<String>,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// Where the certificates to serve with are handed on.
    pub served: watch::Sender<Option<Arc<CertificateSet>>>,
}

/// Keeps the certificates for ever. `clock` is the wall clock.
pub async fn keep<S: CertificateStore, R: Registration>(
    keeping: CertificateManagerOptions<S, R>,
    clock: impl Fn() -> SystemTime + Send,
) {
    let mut keeper = CertificateManager::new(keeping);
    let mut pause = FIRST;
    loop {
        keeper.turn(clock()).await;
        let is_settled = keeper.known.is_some();
        pause = if is_settled { EVERY } else { pause };
        tokio::time::sleep(pause).await;
        pause = EVERY.min(pause.saturating_mul(2));
    }
}

struct CertificateManager<S, R> {
    with: CertificateManagerOptions<S, R>,
    place: String,
    /// What is served with: the last that could be.
    known: Option<Arc<CertificateSet>>,
    /// Which bundle clients have, and since when.
    published: Option<(String, Instant)>,
    /// Whether nobody is registered here who could be told.
    is_unseen: bool,
    told: LastReported,
}

/// What was said last, so that it is said once.
#[derive(Default)]
struct LastReported {
    unread: Option<CertificateStoreError>,
    unwritten: Option<CertificateStoreError>,
    unusable: Option<Option<Unusable>>,
    unpublished: Option<String>,
}

impl<S: CertificateStore, R: Registration> CertificateManager<S, R> {
    fn new(with: CertificateManagerOptions<S, R>) -> Self {
        Self {
            place: with.store.place(),
            is_unseen: with.registration.is_none(),
            with,
            known: None,
            published: None,
            told: LastReported::default(),
        }
    }

    async fn turn(&mut self, now: SystemTime) {
        let found = match self.with.store.load(REQUEST_WITHIN).await {
            Ok(found) => found,
            Err(error) => return self.unread(error),
        };
        self.told.unread = None;
        if found.as_ref().is_some_and(|found| !found.is_ours) {
            // Somebody else's, who may need it.
            return self.unusable(None);
        }
        let read = found.as_ref().map(|found| self.read(&found.data, now));
        let kept = match read {
            Some((set, None)) => {
                self.told.unusable = None;
                Some(self.serve(set))
            }
            Some((set, Some(reason))) => {
                self.unusable(Some(reason));
                Some(Arc::new(set))
            }
            None => None,
        };
        if self.within().is_some() {
            self.renew(found.as_ref(), kept.as_deref(), now).await;
            self.publish().await;
        } else {
            // Whoever leads sees to it meanwhile.
            self.published = None;
        }
    }

    fn read(&self, data: &Data, now: SystemTime) -> (CertificateSet, Option<Unusable>) {
        let host = self.with.names.first().map_or("", String::as_str);
        CertificateSet::read(data, host, now)
    }

    /// Serves with them from now on.
    fn serve(&mut self, set: CertificateSet) -> Arc<CertificateSet> {
        if let Some(known) = self
            .known
            .as_ref()
            .filter(|known| known.data() == set.data())
        {
            return Arc::clone(known);
        }
        let set = Arc::new(set);
        self.known = Some(Arc::clone(&set));
        self.with.served.send_replace(Some(Arc::clone(&set)));
        set
    }

    /// Takes the next step, if there is one.
    async fn renew(
        &mut self,
        found: Option<&Stored>,
        kept: Option<&CertificateSet>,
        now: SystemTime,
    ) {
        let nothing = CertificateSet::read(&Data::new(), "", now).0;
        let known = self.known.clone();
        let known = known.as_deref();
        let is_good = |set: &CertificateSet| set.usable(now).leaf.is_some();
        let (step, data) = match (kept, known) {
            // Spoilt: what was there before is put back.
            (Some(kept), Some(known)) if !is_good(kept) && self.still_good(known, now) => {
                (None, Ok(known.data()))
            }
            (kept, known) => {
                let set = kept.or(known.filter(|known| self.still_good(known, now)));
                let set = set.unwrap_or(&nothing);
                let mut usable = set.usable(now);
                if kept.is_none() {
                    // Taken away: its key is not to sign any more.
                    usable.signer = None;
                }
                let Some(step) = rotation::next(&usable, self.publication(set), now) else {
                    return;
                };
                (Some(step), set.after(step, &self.with.names, now))
            }
        };
        let data = match data {
            Ok(data) => data,
            Err(error) => return self.unwritten(CertificateStoreError::Told(error.to_string())),
        };
        let Some(within) = self.within() else {
            return;
        };
        match self.with.store.save(&data, found, within).await {
            Ok(()) => {
                self.told.unwritten = None;
                CertificatesChanged {
                    place: &self.place,
                    change: step.map_or("restore", RotationStep::label),
                }
                .emit();
                if let (set, None) = self.read(&data, now) {
                    self.told.unusable = None;
                    self.serve(set);
                }
            }
            // Looked at again the next time.
            Err(CertificateStoreError::Changed) => {}
            Err(error) => self.unwritten(error),
        }
    }

    fn still_good(&self, known: &CertificateSet, now: SystemTime) -> bool {
        self.read(&known.data(), now).1.is_none()
    }

    /// Sees to it that clients trust the authorities of what is served.
    async fn publish(&mut self) {
        let (Some(registration), Some(known)) = (&self.with.registration, &self.known) else {
            return;
        };
        let Some(within) = self.within() else {
            return;
        };
        let bundle = known.bundle();
        let outcome = registration.publish(&bundle, within).await;
        self.is_unseen = matches!(&outcome, Ok(Registered::Absent | Registered::Another(_)));
        let unpublished = match outcome {
            Ok(Registered::Known | Registered::Told) => {
                if outcome == Ok(Registered::Told) {
                    BundlePublished.emit();
                }
                self.told.unpublished = None;
                if self
                    .published
                    .as_ref()
                    .is_none_or(|(had, _)| *had != bundle)
                {
                    self.published = Some((bundle, Instant::now()));
                }
                return;
            }
            Ok(Registered::Absent) => "it does not exist".to_owned(),
            Ok(Registered::Another(service)) => {
                format!("it is registered for another server, the Service {service}")
            }
            Err(CertificateStoreError::Changed) => return,
            Err(CertificateStoreError::Told(reason)) => reason,
        };
        self.published = None;
        if self.told.unpublished.as_ref() != Some(&unpublished) {
            BundleUnpublished {
                reason: &unpublished,
            }
            .emit();
        }
        self.told.unpublished = Some(unpublished);
    }

    fn publication(&self, set: &CertificateSet) -> Publication {
        match &self.published {
            _ if self.is_unseen => Publication::Unseen,
            Some((bundle, since)) if *bundle == set.bundle() => Publication::Since(since.elapsed()),
            _ => Publication::Pending,
        }
    }

    /// How long a request may take, so that it is over before another process may lead; `None` while
    /// another may.
    fn within(&self) -> Option<Duration> {
        let now = std::time::Instant::now();
        let left = self.with.leadership.term(now)?.left(now)?;
        Some(left.min(REQUEST_WITHIN))
    }

    fn unread(&mut self, error: CertificateStoreError) {
        if self.told.unread.as_ref() != Some(&error) {
            CertificatesUnread {
                place: &self.place,
                reason: &error,
            }
            .emit();
        }
        self.told.unread = Some(error);
    }

    fn unwritten(&mut self, error: CertificateStoreError) {
        if self.told.unwritten.as_ref() != Some(&error) {
            CertificatesUnwritten {
                place: &self.place,
                reason: &error,
            }
            .emit();
        }
        self.told.unwritten = Some(error);
    }

    /// `None` where it is somebody else's.
    fn unusable(&mut self, reason: Option<Unusable>) {
        if self.told.unusable != Some(reason) {
            let text = match reason {
                Some(reason) => reason.to_string(),
                None => "it was not made by lagwise: delete it, or name another in \
                         server.external_metrics.secret"
                    .to_owned(),
            };
            CertificatesUnusable {
                place: &self.place,
                reason: &text,
            }
            .emit();
        }
        self.told.unusable = Some(reason);
    }
}

#[cfg(test)]
mod tests;
