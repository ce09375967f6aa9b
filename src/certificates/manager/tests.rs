use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::certificates::validity_of;
use crate::leader_election::Term;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOST: &str = "lagwise.shop.svc";

/// A cluster with one Secret and one APIService.
#[derive(Clone, Default)]
struct FakeCertificateStore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    secret: Option<StoredCertificates>,
    version: u32,
    writes: usize,
    bundle: String,
    /// The APIService belongs to another Service.
    is_foreign: bool,
    fails: bool,
    /// Another client writes just before the next write.
    races: bool,
}

impl FakeCertificateStore {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> SecretData {
        self.lock().secret.clone().unwrap().data
    }

    fn bundle(&self) -> String {
        self.lock().bundle.clone()
    }

    fn writes(&self) -> usize {
        self.lock().writes
    }

    fn set_data(&self, data: SecretData, is_ours: bool) {
        let mut state = self.lock();
        state.version += 1;
        state.secret = Some(StoredCertificates {
            version: Some(state.version.to_string()),
            is_ours,
            data,
        });
    }

    fn manager(
        &self,
        leadership: Leadership,
    ) -> CertificateManager<FakeCertificateStore, FakeCertificateStore> {
        CertificateManager::new(CertificateManagerOptions {
            store: self.clone(),
            registration: Some(self.clone()),
            names: [HOST, "localhost"].map(str::to_owned).into(),
            leadership,
            served: watch::channel(None).0,
            findings: watch::channel(ReportedFindings::default()).0,
        })
    }

    fn leader(&self) -> CertificateManager<FakeCertificateStore, FakeCertificateStore> {
        self.manager(Leadership::alone())
    }

    fn follower(&self) -> CertificateManager<FakeCertificateStore, FakeCertificateStore> {
        self.manager(Leadership::new(watch::channel(None::<Term>).1))
    }

    fn refused(&self) -> Result<(), CertificateStoreError> {
        match self.lock().fails {
            true => Err(CertificateStoreError::Failed("not now".into())),
            false => Ok(()),
        }
    }
}

impl CertificateStore for FakeCertificateStore {
    fn place(&self) -> String {
        "Secret shop/lagwise-tls".into()
    }

    async fn load(&self, _: Duration) -> Result<Option<StoredCertificates>, CertificateStoreError> {
        self.refused()?;
        Ok(self.lock().secret.clone())
    }

    async fn save(
        &self,
        data: &SecretData,
        expected: Option<&StoredCertificates>,
        _: Duration,
    ) -> Result<(), CertificateStoreError> {
        self.refused()?;
        {
            let mut state = self.lock();
            let known = expected.map(|expected| expected.version.clone());
            let is_as_found = known == state.secret.as_ref().map(|s| s.version.clone());
            if std::mem::take(&mut state.races) || !is_as_found {
                return Err(CertificateStoreError::Changed);
            }
            state.writes += 1;
        }
        self.set_data(data.clone(), true);
        Ok(())
    }
}

impl Registration for FakeCertificateStore {
    async fn publish(
        &self,
        bundle: &str,
        _: Duration,
    ) -> Result<PublishOutcome, CertificateStoreError> {
        self.refused()?;
        let mut state = self.lock();
        if state.is_foreign {
            return Ok(PublishOutcome::OtherService("other/adapter".into()));
        }
        if state.bundle == bundle {
            return Ok(PublishOutcome::Unchanged);
        }
        state.bundle = bundle.to_owned();
        Ok(PublishOutcome::Updated)
    }
}

/// Whether a client that trusts `bundle` accepts the certificate that the manager serves.
fn is_trusted(
    manager: &CertificateManager<FakeCertificateStore, FakeCertificateStore>,
    bundle: &str,
    now: SystemTime,
) -> bool {
    let mut data = manager.options.served.borrow().clone().unwrap().data();
    data.insert("ca.crt".into(), bundle.into());
    CertificateSet::read(&data, HOST, now).1.is_none()
}

fn leaf(manager: &CertificateManager<FakeCertificateStore, FakeCertificateStore>) -> String {
    manager.options.served.borrow().clone().unwrap().data()["tls.crt"].clone()
}

#[tokio::test(start_paused = true)]
async fn leader_creates_and_followers_serve() {
    let cluster = FakeCertificateStore::default();
    let now = SystemTime::now();
    let (mut leader, mut follower) = (cluster.leader(), cluster.follower());
    follower.reconcile(now).await;
    assert!(follower.options.served.borrow().is_none() && cluster.lock().secret.is_none());
    leader.reconcile(now).await;
    follower.reconcile(now).await;
    assert_eq!(leaf(&leader), leaf(&follower));
    assert_eq!(cluster.data()["ca.crt"], cluster.bundle());
    // After that nothing is written.
    for _ in 0..5 {
        leader.reconcile(now).await;
    }
    assert_eq!(cluster.writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn rotates_without_distrust_for_twelve_years() {
    let cluster = FakeCertificateStore::default();
    let start = SystemTime::now();
    let (mut leader, mut follower) = (cluster.leader(), cluster.follower());
    let (mut leaves, mut bundles) = (Vec::new(), Vec::new());
    let mut longest = 0;
    for week in 0..900 {
        let now = start + DAY * 7 * week;
        // The API server reads the bundle a week before the next step.
        leader.reconcile(now).await;
        let bundle = cluster.bundle();
        follower.reconcile(now).await;
        for manager in [&leader, &follower] {
            assert!(is_trusted(manager, &bundle, now), "week {week}");
        }
        let leaf = leaf(&leader);
        if leaves.last() != Some(&leaf) {
            leaves.push(leaf);
        }
        longest = longest.max(bundle.matches("BEGIN").count());
        if bundles.last() != Some(&bundle) {
            // Clients with the previous bundle still trust the served certificate.
            if let Some(before) = bundles.last() {
                assert!(is_trusted(&leader, before, now), "week {week}");
            }
            bundles.push(bundle);
        }
        tokio::time::advance(DAY * 7).await;
    }
    // 6300 days: one certificate in 60 days, one authority in 2433, which leaves after 3650.
    assert!((85..120).contains(&leaves.len()), "{}", leaves.len());
    assert_eq!(longest, 2);
    assert!((4..=6).contains(&bundles.len()), "{}", bundles.len());
}

#[tokio::test(start_paused = true)]
async fn new_authority_signs_only_after_its_bundle_has_spread() {
    let cluster = FakeCertificateStore::default();
    let start = SystemTime::now();
    let mut leader = cluster.leader();
    leader.reconcile(start).await;
    let first = leaf(&leader);
    cluster.lock().is_foreign = true;
    let now = start + DAY * 50;
    // The key of the authority is lost, so another authority joins at once.
    let mut data = cluster.data();
    data.insert("ca.key".into(), String::new());
    cluster.set_data(data, true);
    leader.reconcile(now).await;
    assert_eq!(cluster.data()["ca.crt"].matches("BEGIN").count(), 2);
    assert_eq!(leaf(&leader), first);
    tokio::time::advance(DAY).await;
    leader
        .reconcile(now + Duration::from_secs(23 * 3600) - Duration::from_secs(3601))
        .await;
    assert_eq!(leaf(&leader), first, "publication cannot be observed");
    cluster.lock().is_foreign = false;
    leader.reconcile(now).await;
    leader.reconcile(now).await;
    assert_eq!(leaf(&leader), first, "published just now");
    tokio::time::advance(rotation::SPREAD).await;
    cluster.lock().bundle = "foreign".into();
    leader.reconcile(now).await;
    assert_ne!(leaf(&leader), first);
    assert_eq!(cluster.bundle(), cluster.data()["ca.crt"], "corrected");
}

#[tokio::test(start_paused = true)]
async fn restores_damaged_secret_and_recreates_deleted_one() {
    let cluster = FakeCertificateStore::default();
    let now = SystemTime::now();
    let (mut leader, mut follower) = (cluster.leader(), cluster.follower());
    leader.reconcile(now).await;
    follower.reconcile(now).await;
    let good = cluster.data();
    let mut half = good.clone();
    half.insert("tls.crt".into(), good["tls.crt"][..300].into());
    for damaged in [half, SecretData::new()] {
        cluster.set_data(damaged.clone(), true);
        follower.reconcile(now).await;
        assert_eq!(leaf(&follower), good["tls.crt"]);
        assert!(cluster.data() == damaged, "a follower writes nothing");
        leader.reconcile(now).await;
        assert!(cluster.data() == good);
    }
    // A manager without the old certificate issues a new one from the authority that is left.
    let mut without = good.clone();
    without.remove("tls.crt");
    cluster.set_data(without, true);
    let mut new = cluster.leader();
    new.reconcile(now).await;
    assert_eq!(cluster.data()["ca.crt"], good["ca.crt"]);
    assert_ne!(leaf(&new), good["tls.crt"]);

    leader.reconcile(now).await;
    let before = cluster.bundle();
    cluster.lock().secret = None;
    leader.reconcile(now).await;
    let made = cluster.data();
    assert_ne!(
        made["ca.key"], good["ca.key"],
        "the deleted key is not used again"
    );
    assert!(
        made["ca.crt"].ends_with(&before),
        "the old CA stays trusted"
    );
    assert_eq!(made["tls.crt"], leaf(&leader));
}

#[tokio::test(start_paused = true)]
async fn secrets_of_other_owners_are_not_changed() {
    let cluster = FakeCertificateStore::default();
    let now = SystemTime::now();
    let other = FakeCertificateStore::default();
    other.leader().reconcile(now).await;
    cluster.set_data(other.data(), false);
    let mut leader = cluster.leader();
    leader.reconcile(now).await;
    assert!(leader.options.served.borrow().is_none());
    assert_eq!((cluster.writes(), cluster.bundle().as_str()), (0, ""));
    // An APIService of another Service is left alone too.
    let cluster = FakeCertificateStore::default();
    cluster.lock().is_foreign = true;
    let mut leader = cluster.leader();
    let findings = leader.options.findings.subscribe();
    leader.reconcile(now).await;
    assert_eq!((cluster.writes(), cluster.bundle().as_str()), (1, ""));
    let lost = find_lost_slot("other/adapter");
    assert_eq!(Vec::from_iter(findings.borrow().iter()), [&lost]);
    // A failure says nothing about it, and ours again ends it.
    cluster.lock().fails = true;
    leader.reconcile(now).await;
    assert!(!findings.borrow().is_empty());
    cluster.lock().fails = false;
    cluster.lock().is_foreign = false;
    leader.reconcile(now).await;
    assert!(findings.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn keeps_certificates_through_outages_and_conflicts() {
    let cluster = FakeCertificateStore::default();
    let now = SystemTime::now();
    let mut leader = cluster.leader();
    cluster.lock().races = true;
    leader.reconcile(now).await;
    assert!(cluster.lock().secret.is_none() && leader.options.served.borrow().is_none());
    leader.reconcile(now).await;
    let first = leaf(&leader);
    let mut changes = leader.options.served.subscribe();
    changes.mark_unchanged();
    cluster.lock().fails = true;
    for _ in 0..3 {
        leader.reconcile(now + DAY * 80).await;
    }
    assert!(!changes.has_changed().unwrap());
    cluster.lock().fails = false;
    cluster.lock().races = true;
    leader.reconcile(now + DAY * 80).await;
    assert_eq!(leaf(&leader), first);
    leader.reconcile(now + DAY * 80).await;
    assert_ne!(leaf(&leader), first);
    let ends = |text: &str| {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        validity_of(&der).unwrap().ends
    };
    assert!(ends(&leaf(&leader)) > ends(&first));
}
