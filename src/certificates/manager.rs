//! Maintains the shared certificates: reads them and, while leading, creates, renews, repairs and
//! publishes them.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::rotation::{self, Publication, RotationStep};
use super::set::{CertificateProblem, CertificateSet, SecretData};
use crate::leader_election::Leadership;
use crate::model::diagnostics::preflight::registration::find_lost_slot;
use crate::model::findings::ReportedFindings;
use crate::telemetry::certificates::{
    BundlePublished, BundleUnpublished, CertificatesChanged, CertificatesUnread,
    CertificatesUnusable, CertificatesUnwritten,
};
use crate::telemetry::failure_log::FailureLog;

/// Interval at which the certificates are read: a third of [`rotation::SPREAD`], the time that rotation allows for the
/// other replicas to read them.
const INTERVAL: Duration = Duration::from_secs(5);

/// First interval. It is doubled until there is a usable certificate.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
#[allow(missing_debug_implementations, reason = "it holds keys")]
pub struct StoredCertificates {
    /// Precondition of the next write (resourceVersion).
    pub version: Option<String>,
    /// Whether lagwise created the Secret, and so may change it.
    pub is_ours: bool,
    pub data: SecretData,
}

/// Why a read or write failed. The text stays the same while the cause does, so that it is logged once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateStoreError {
    /// Another process wrote in between; read again before the next write.
    #[error("another writer changed it in the meantime")]
    Changed,
    /// The server's error, or a timeout.
    #[error("{0}")]
    Failed(String),
}

/// Storage of the certificates.
pub trait CertificateStore: Send + Sync + 'static {
    /// Kind and name, for log lines.
    fn place(&self) -> String;

    /// Loads the certificates; `None` if there are none.
    fn load(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<Option<StoredCertificates>, CertificateStoreError>> + Send;

    /// Replaces the stored certificates if they are still `expected`, or with `None` if there are none.
    fn save(
        &self,
        data: &SecretData,
        expected: Option<&StoredCertificates>,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), CertificateStoreError>> + Send;
}

/// Outcome of publishing the CA bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The bundle was already published.
    Unchanged,
    /// The bundle was written.
    Updated,
    /// There is no APIService.
    Absent,
    /// The APIService belongs to another Service, named here, and is left alone.
    OtherService(String),
}

/// Publishes the CA bundle, in the APIService.
pub trait Registration: Send + Sync + 'static {
    /// Makes clients trust exactly this bundle.
    fn publish(
        &self,
        bundle: &str,
        timeout: Duration,
    ) -> impl Future<Output = Result<PublishOutcome, CertificateStoreError>> + Send;
}

#[derive(Debug)]
pub struct CertificateManagerOptions<S, R> {
    /// Storage of the certificates.
    pub store: S,
    /// Where to publish the CA bundle; `None` if the administrator or another tool publishes it.
    pub registration: Option<R>,
    /// Server names; the first is the one that the API server uses.
    pub names: Vec<String>,
    /// Writes happen only while leading.
    pub leadership: Leadership,
    /// Receives the certificates to serve with.
    pub served: watch::Sender<Option<Arc<CertificateSet>>>,
    /// Receives a finding for as long as the APIService names another Service. Only the leader checks that.
    pub findings: watch::Sender<ReportedFindings>,
}

/// Maintains the certificates forever. `clock` is the wall clock.
pub async fn maintain<S: CertificateStore, R: Registration>(
    options: CertificateManagerOptions<S, R>,
    clock: impl Fn() -> SystemTime + Send,
) {
    let mut manager = CertificateManager::new(options);
    let mut pause = FIRST_INTERVAL;
    loop {
        manager.reconcile(clock()).await;
        let is_settled = manager.known.is_some();
        pause = if is_settled { INTERVAL } else { pause };
        tokio::time::sleep(pause).await;
        pause = INTERVAL.min(pause.saturating_mul(2));
    }
}

struct CertificateManager<S, R> {
    options: CertificateManagerOptions<S, R>,
    place: String,
    /// The last usable certificates, which are served.
    known: Option<Arc<CertificateSet>>,
    /// The published bundle, and when it was first seen to be published.
    published: Option<(String, Instant)>,
    /// Whether publication cannot be observed, because no APIService of lagwise's is written or found.
    is_unseen: bool,
    failures: Failures,
}

/// The last failure of each step.
#[derive(Default)]
struct Failures {
    read: FailureLog<CertificateStoreError>,
    write: FailureLog<CertificateStoreError>,
    /// The problem with the stored certificates; `None` if lagwise did not create the Secret.
    contents: FailureLog<Option<CertificateProblem>>,
    publish: FailureLog<String>,
}

impl<S: CertificateStore, R: Registration> CertificateManager<S, R> {
    fn new(options: CertificateManagerOptions<S, R>) -> Self {
        Self {
            place: options.store.place(),
            is_unseen: options.registration.is_none(),
            options,
            known: None,
            published: None,
            failures: Failures::default(),
        }
    }

    async fn reconcile(&mut self, now: SystemTime) {
        let found = match self.options.store.load(REQUEST_TIMEOUT).await {
            Ok(found) => found,
            Err(error) => return self.report_unread(error),
        };
        self.failures.read.record_success();
        if found.as_ref().is_some_and(|found| !found.is_ours) {
            // Not created by lagwise, so its owner may need it.
            return self.report_unusable(None);
        }
        let read = found.as_ref().map(|found| self.read(&found.data, now));
        let kept = match read {
            Some((set, None)) => {
                self.failures.contents.record_success();
                Some(self.serve(set))
            }
            Some((set, Some(reason))) => {
                self.report_unusable(Some(reason));
                Some(Arc::new(set))
            }
            None => None,
        };
        if self.request_timeout().is_some() {
            self.renew(found.as_ref(), kept.as_deref(), now).await;
            self.publish().await;
        } else {
            // The leader publishes the bundle.
            self.published = None;
            self.report_slot_holder(None);
        }
    }

    fn read(
        &self,
        data: &SecretData,
        now: SystemTime,
    ) -> (CertificateSet, Option<CertificateProblem>) {
        let host = self.options.names.first().map_or("", String::as_str);
        CertificateSet::read(data, host, now)
    }

    /// Starts serving these certificates, unless they are already served.
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
        self.options.served.send_replace(Some(Arc::clone(&set)));
        set
    }

    /// Performs the next rotation step, if any.
    async fn renew(
        &mut self,
        found: Option<&StoredCertificates>,
        kept: Option<&CertificateSet>,
        now: SystemTime,
    ) {
        let empty = CertificateSet::read(&SecretData::new(), "", now).0;
        let known = self.known.clone();
        let known = known.as_deref();
        let is_usable = |set: &CertificateSet| set.usable(now).leaf.is_some();
        let (step, data) = match (kept, known) {
            // The stored set became unusable: restore the last good one.
            (Some(kept), Some(known)) if !is_usable(kept) && self.is_still_usable(known, now) => {
                (None, Ok(known.data()))
            }
            (kept, known) => {
                let set = kept.or(known.filter(|known| self.is_still_usable(known, now)));
                let set = set.unwrap_or(&empty);
                let mut usable = set.usable(now);
                if kept.is_none() {
                    // The Secret was deleted, perhaps to revoke it: do not sign with its key again.
                    usable.signer = None;
                }
                let Some(step) = rotation::next_step(&usable, self.publication(set), now) else {
                    return;
                };
                (Some(step), set.apply(step, &self.options.names, now))
            }
        };
        let data = match data {
            Ok(data) => data,
            Err(error) => {
                return self.report_unwritten(CertificateStoreError::Failed(error.to_string()));
            }
        };
        let Some(timeout) = self.request_timeout() else {
            return;
        };
        match self.options.store.save(&data, found, timeout).await {
            Ok(()) => {
                self.failures.write.record_success();
                CertificatesChanged {
                    place: &self.place,
                    change: step.map_or("restore", RotationStep::label),
                }
                .emit();
                if let (set, None) = self.read(&data, now) {
                    self.failures.contents.record_success();
                    self.serve(set);
                }
            }
            // Read again at the next interval.
            Err(CertificateStoreError::Changed) => {}
            Err(error) => self.report_unwritten(error),
        }
    }

    fn is_still_usable(&self, known: &CertificateSet, now: SystemTime) -> bool {
        self.read(&known.data(), now).1.is_none()
    }

    /// Publishes the CA bundle of the served certificates.
    async fn publish(&mut self) {
        let (Some(registration), Some(known)) = (&self.options.registration, &self.known) else {
            return;
        };
        let Some(timeout) = self.request_timeout() else {
            return;
        };
        let bundle = known.bundle();
        let outcome = registration.publish(&bundle, timeout).await;
        match &outcome {
            Ok(PublishOutcome::OtherService(service)) => self.report_slot_holder(Some(service)),
            // A failed request does not show which Service holds the slot.
            Err(_) => {}
            Ok(_) => self.report_slot_holder(None),
        }
        self.is_unseen = matches!(
            &outcome,
            Ok(PublishOutcome::Absent | PublishOutcome::OtherService(_))
        );
        let unpublished = match outcome {
            Ok(PublishOutcome::Unchanged | PublishOutcome::Updated) => {
                if outcome == Ok(PublishOutcome::Updated) {
                    BundlePublished.emit();
                }
                self.failures.publish.record_success();
                if self
                    .published
                    .as_ref()
                    .is_none_or(|(had, _)| *had != bundle)
                {
                    self.published = Some((bundle, Instant::now()));
                }
                return;
            }
            Ok(PublishOutcome::Absent) => "the APIService does not exist".to_owned(),
            Ok(PublishOutcome::OtherService(service)) => {
                format!("the APIService belongs to another Service, {service}")
            }
            Err(CertificateStoreError::Changed) => return,
            Err(CertificateStoreError::Failed(reason)) => reason,
        };
        self.published = None;
        if let Some(reason) = self.failures.publish.record_failure(unpublished) {
            BundleUnpublished { reason }.emit();
        }
    }

    fn report_slot_holder(&self, holder: Option<&str>) {
        let found = holder.into_iter().map(find_lost_slot).collect();
        self.options.findings.send_if_modified(|known| {
            let is_other = **known != found;
            if is_other {
                *known = Arc::new(found);
            }
            is_other
        });
    }

    fn publication(&self, set: &CertificateSet) -> Publication {
        match &self.published {
            _ if self.is_unseen => Publication::Unseen,
            Some((bundle, since)) if *bundle == set.bundle() => Publication::Since(since.elapsed()),
            _ => Publication::Pending,
        }
    }

    /// Timeout of a request that must end before another process may lead; `None` while another
    /// may.
    fn request_timeout(&self) -> Option<Duration> {
        let now = std::time::Instant::now();
        let left = self.options.leadership.term(now)?.time_left(now)?;
        Some(left.min(REQUEST_TIMEOUT))
    }

    fn report_unread(&mut self, error: CertificateStoreError) {
        if let Some(reason) = self.failures.read.record_failure(error) {
            let place = &self.place;
            CertificatesUnread { place, reason }.emit();
        }
    }

    fn report_unwritten(&mut self, error: CertificateStoreError) {
        if let Some(reason) = self.failures.write.record_failure(error) {
            let place = &self.place;
            CertificatesUnwritten { place, reason }.emit();
        }
    }

    /// `None` means that lagwise did not create the Secret.
    fn report_unusable(&mut self, reason: Option<CertificateProblem>) {
        if self.failures.contents.record_failure(reason).is_none() {
            return;
        }
        let reason = match reason {
            Some(reason) => reason.to_string(),
            None => "lagwise did not create this Secret: delete it, or set another name in \
                     server.external_metrics.secret"
                .to_owned(),
        };
        CertificatesUnusable {
            place: &self.place,
            reason: &reason,
        }
        .emit();
    }
}

#[cfg(test)]
mod tests;
