use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::certificates::validity_of;
use crate::leader_election::Term;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOST: &str = "lagwise.shop.svc";

/// A cluster: one Secret and one registration.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    secret: Option<Stored>,
    version: u32,
    writes: usize,
    bundle: String,
    another: bool,
    fails: bool,
    /// Somebody else writes just before the next write.
    races: bool,
}

impl Cluster {
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
        state.secret = Some(Stored {
            version: Some(state.version.to_string()),
            is_ours,
            data,
        });
    }

    fn keeper(&self, leadership: Leadership) -> CertificateManager<Cluster, Cluster> {
        CertificateManager::new(CertificateManagerOptions {
            store: self.clone(),
            registration: Some(self.clone()),
            names: [HOST, "localhost"].map(str::to_owned).into(),
            leadership,
            served: watch::channel(None).0,
        })
    }

    fn leader(&self) -> CertificateManager<Cluster, Cluster> {
        self.keeper(Leadership::alone())
    }

    fn follower(&self) -> CertificateManager<Cluster, Cluster> {
        self.keeper(Leadership::new(watch::channel(None::<Term>).1))
    }

    fn refused(&self) -> Result<(), CertificateStoreError> {
        match self.lock().fails {
            true => Err(CertificateStoreError::Failed("not now".into())),
            false => Ok(()),
        }
    }
}

impl CertificateStore for Cluster {
    fn place(&self) -> String {
        "Secret shop/lagwise-tls".into()
    }

    async fn load(&self, _: Duration) -> Result<Option<Stored>, CertificateStoreError> {
        self.refused()?;
        Ok(self.lock().secret.clone())
    }

    async fn save(
        &self,
        data: &SecretData,
        over: Option<&Stored>,
        _: Duration,
    ) -> Result<(), CertificateStoreError> {
        self.refused()?;
        {
            let mut state = self.lock();
            let known = over.map(|over| over.version.clone());
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

impl Registration for Cluster {
    async fn publish(
        &self,
        bundle: &str,
        _: Duration,
    ) -> Result<Registered, CertificateStoreError> {
        self.refused()?;
        let mut state = self.lock();
        if state.another {
            return Ok(Registered::OtherService("other/adapter".into()));
        }
        if state.bundle == bundle {
            return Ok(Registered::Unchanged);
        }
        state.bundle = bundle.to_owned();
        Ok(Registered::Updated)
    }
}

/// Whether who trusts this bundle takes what the keeper serves with.
fn is_trusted(
    keeper: &CertificateManager<Cluster, Cluster>,
    bundle: &str,
    now: SystemTime,
) -> bool {
    let mut data = keeper.with.served.borrow().clone().unwrap().data();
    data.insert("ca.crt".into(), bundle.into());
    CertificateSet::read(&data, HOST, now).1.is_none()
}

fn leaf(keeper: &CertificateManager<Cluster, Cluster>) -> String {
    keeper.with.served.borrow().clone().unwrap().data()["tls.crt"].clone()
}

#[tokio::test(start_paused = true)]
async fn leader_creates_and_followers_serve() {
    let cluster = Cluster::default();
    let now = SystemTime::now();
    let (mut leader, mut follower) = (cluster.leader(), cluster.follower());
    follower.reconcile(now).await;
    assert!(follower.with.served.borrow().is_none() && cluster.lock().secret.is_none());
    leader.reconcile(now).await;
    follower.reconcile(now).await;
    assert_eq!(leaf(&leader), leaf(&follower));
    assert_eq!(cluster.data()["ca.crt"], cluster.bundle());
    // And then nothing more is written.
    for _ in 0..5 {
        leader.reconcile(now).await;
    }
    assert_eq!(cluster.writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn rotates_without_distrust_for_twelve_years() {
    let cluster = Cluster::default();
    let start = SystemTime::now();
    let (mut leader, mut follower) = (cluster.leader(), cluster.follower());
    let (mut leaves, mut bundles) = (Vec::new(), Vec::new());
    let mut longest = 0;
    for week in 0..900 {
        let now = start + DAY * 7 * week;
        // The API server has the bundle of the last turn when the next one begins.
        leader.reconcile(now).await;
        let bundle = cluster.bundle();
        follower.reconcile(now).await;
        for keeper in [&leader, &follower] {
            assert!(is_trusted(keeper, &bundle, now), "week {week}");
        }
        let leaf = leaf(&leader);
        if leaves.last() != Some(&leaf) {
            leaves.push(leaf);
        }
        longest = longest.max(bundle.matches("BEGIN").count());
        if bundles.last() != Some(&bundle) {
            // Who has the bundle before trusts what is served still: two steps.
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
    let cluster = Cluster::default();
    let start = SystemTime::now();
    let mut leader = cluster.leader();
    leader.reconcile(start).await;
    let first = leaf(&leader);
    cluster.lock().another = true;
    let now = start + DAY * 50;
    // Its key is lost: another authority joins at once.
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
    assert_eq!(leaf(&leader), first, "nobody sees what clients have");
    cluster.lock().another = false;
    leader.reconcile(now).await;
    leader.reconcile(now).await;
    assert_eq!(leaf(&leader), first, "published just now");
    tokio::time::advance(rotation::SPREAD).await;
    cluster.lock().bundle = "somebody's".into();
    leader.reconcile(now).await;
    assert_ne!(leaf(&leader), first);
    assert_eq!(cluster.bundle(), cluster.data()["ca.crt"], "corrected");
}

#[tokio::test(start_paused = true)]
async fn restores_damaged_secret_and_recreates_deleted_one() {
    let cluster = Cluster::default();
    let now = SystemTime::now();
    let (mut leader, mut follower) = (cluster.leader(), cluster.follower());
    leader.reconcile(now).await;
    follower.reconcile(now).await;
    let good = cluster.data();
    let mut half = good.clone();
    half.insert("tls.crt".into(), good["tls.crt"][..300].into());
    for spoilt in [half, SecretData::new()] {
        cluster.set_data(spoilt.clone(), true);
        follower.reconcile(now).await;
        assert_eq!(leaf(&follower), good["tls.crt"]);
        assert!(cluster.data() == spoilt, "a follower writes nothing");
        leader.reconcile(now).await;
        assert!(cluster.data() == good);
    }
    // One that does not remember makes new ones of what is left: the authority is.
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
        "a key that was taken away signs no more"
    );
    assert!(made["ca.crt"].ends_with(&before), "who trusted goes on to");
    assert_eq!(made["tls.crt"], leaf(&leader));
}

#[tokio::test(start_paused = true)]
async fn leaves_secrets_of_others_alone() {
    let cluster = Cluster::default();
    let now = SystemTime::now();
    let other = Cluster::default();
    other.leader().reconcile(now).await;
    cluster.set_data(other.data(), false);
    let mut leader = cluster.leader();
    leader.reconcile(now).await;
    assert!(leader.with.served.borrow().is_none());
    assert_eq!((cluster.writes(), cluster.bundle().as_str()), (0, ""));
    // Their registration likewise.
    let cluster = Cluster::default();
    cluster.lock().another = true;
    cluster.leader().reconcile(now).await;
    assert_eq!((cluster.writes(), cluster.bundle().as_str()), (1, ""));
}

#[tokio::test(start_paused = true)]
async fn keeps_certificates_through_outages_and_conflicts() {
    let cluster = Cluster::default();
    let now = SystemTime::now();
    let mut leader = cluster.leader();
    cluster.lock().races = true;
    leader.reconcile(now).await;
    assert!(cluster.lock().secret.is_none() && leader.with.served.borrow().is_none());
    leader.reconcile(now).await;
    let first = leaf(&leader);
    let mut changes = leader.with.served.subscribe();
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
