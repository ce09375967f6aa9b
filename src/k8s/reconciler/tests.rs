//! The loop over many HPAs, and which of them it checks.

mod rate;
mod refusals;

use std::convert::Infallible;

use axum::http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;

use super::pass::ZeroReport;
use super::state::Urgency;
use super::zero_state::ZeroState;
use super::*;
use crate::k8s::write_guard::testing::leader;
use crate::model::decisions::zero_ledger::{ZeroLedger, testing};
use crate::model::fixtures;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, HpaMap};
use crate::model::hpa::selector::Selector;
use crate::model::lag::cluster_snapshot::Sweep;
use crate::model::targets::Targets;
use crate::model::units::metric::LAG_METRIC;
use crate::snapshot_channel::Publisher;

/// Without a ledger of scale to zero.
fn options() -> ReconcilerOptions {
    ReconcilerOptions {
        read_only: false,
        ledger: None,
        findings: watch::channel(Arc::default()).0,
    }
}

/// An HPA `shop/NAME` on a group that was read and has lag, with these annotations of lagwise.
fn hpa(name: &str, annotations: &[(&str, &str)]) -> Arc<HpaFacts> {
    let annotation = |(key, value): &(&str, &str)| (format!("lagwise.dev/{key}"), (*value).into());
    Arc::new(HpaFacts {
        namespace: "shop".into(),
        name: name.into(),
        uid: name.into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse("cluster=main,group=orders,topic=payments").unwrap(),
            target: None,
        }],
        annotations: annotations.iter().map(annotation).collect(),
        max_replicas: 20,
        ..HpaFacts::default()
    })
}

/// The record of a workload that was scaled to zero for the HPA of this name.
fn record(name: &str) -> String {
    testing::record(name, "d1").encode()
}

/// A leader with these HPAs, whose passes are never started.
struct Rig {
    reconciler: Reconciler,
    hpas: watch::Sender<Option<HpaMap>>,
    publisher: Publisher,
    snapshot: LagSnapshot,
}

impl Rig {
    /// Without records of scale to zero.
    fn new() -> Self {
        Self::with_records(&[])
    }

    /// With records for the HPAs of these names.
    fn with_records(names: &[&str]) -> Self {
        let unused = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let client = Client::new(tower::service_fn(unused), "shop");
        let (mut guard, publisher) = leader(client, 7, Duration::from_secs(600));
        let (hpas, receiver) = watch::channel(None);
        guard.hpas = receiver;
        let snapshot = LagSnapshot {
            targets: Arc::new(Targets::merge::<HpaFacts>(
                &["main".into()],
                &[],
                &[],
                BTreeSet::new(),
            )),
            ..fixtures::snapshot()
        };
        let snapshot = snapshot.evaluated(&guard.policy);
        let mut reconciler = Reconciler::new(guard, options());
        let records: Vec<_> = names.iter().map(|name| (*name, record(name))).collect();
        let ledger = ZeroLedger::decode(records.iter().map(|(uid, text)| (*uid, &**text)));
        reconciler.ledger.handle = Some(LedgerHandle::fixed(ledger));
        Self {
            reconciler,
            hpas,
            publisher: publisher.of_term(7),
            snapshot,
        }
    }

    /// Publishes a snapshot of the same sweep, whose targets follow the HPAs, or are still those before.
    fn observe(&mut self, hpas: &HpaMap, targets_follow: bool) {
        self.hpas.send_replace(Some(hpas.clone()));
        if targets_follow {
            let targets = Arc::new(self.snapshot.targets.with_hpas(hpas, None));
            let (clusters, queries) = (&self.snapshot.clusters, std::iter::empty());
            self.snapshot.evaluations = self.snapshot.evaluations.next(clusters, &targets, queries);
            self.snapshot.targets = targets;
        }
        self.publish();
    }

    /// Begins another sweep, which reads the same.
    fn sweep(&mut self, seconds: u64) {
        self.set_sweep(seconds);
        self.publish();
    }

    /// Makes the next snapshot that of another sweep.
    fn set_sweep(&mut self, seconds: u64) {
        let main = self.snapshot.clusters.get_mut("main").unwrap();
        let at = fixtures::at(Duration::from_secs(seconds));
        Arc::make_mut(main).sweep = Some(Sweep {
            started: at,
            finished: at,
        });
    }

    fn publish(&mut self) {
        self.publisher.publish(self.snapshot.clone());
        self.reconciler.observe();
    }

    fn queued(&self) -> Vec<(Urgency, &str)> {
        let queue = self.reconciler.queue.iter();
        queue.map(|(urgency, key)| (*urgency, &*key.name)).collect()
    }
}

const ANNOTATIONS: [&[(&str, &str)]; 6] = [
    &[("cap", "enforce")],
    &[("cap", "advise")],
    &[("paused", "true")],
    &[("scale-to-zero", "true")],
    &[ZEROED],
    &[("scale-to-zero", "true"), ZEROED],
];

const ZEROED: (&str, &str) = ("zeroed-since", "2024-05-06T07:08:09Z");

#[tokio::test]
async fn queue_after_any_series_of_changes_equals_that_of_a_new_reconciler() {
    // Pseudorandom numbers that are the same in every run.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    let names = ["a", "b", "c", "d", "e", "f"];
    let recorded = &names[..3];
    let (mut rig, mut hpas) = (Rig::with_records(recorded), HpaMap::default());
    let mut seen = BTreeSet::new();
    for step in 0..400 {
        for _ in 0..=random(2) {
            let name = names[random(names.len())];
            match ANNOTATIONS.get(random(ANNOTATIONS.len() + 1)) {
                Some(set) => hpas.insert(HpaKey::new("shop", name), hpa(name, set)),
                None => hpas.remove(&HpaKey::new("shop", name)),
            };
        }
        if random(3) == 0 {
            rig.set_sweep(step);
        }
        // An HPA may be seen before the targets that follow from it, and the other way around.
        let is_ahead = random(3) == 0;
        rig.snapshot.idle = Arc::new(
            hpas.keys()
                .map(|key| (key.clone(), fixtures::at(Duration::ZERO)))
                .collect(),
        );
        rig.observe(&hpas, !is_ahead);
        let mut fresh = Rig::with_records(recorded);
        fresh.snapshot = rig.snapshot.clone();
        fresh.observe(&hpas, false);
        assert_eq!(rig.queued(), fresh.queued(), "step {step}");
        let known = |rig: &Rig| Vec::from_iter(rig.reconciler.hpas.keys().cloned());
        assert_eq!(known(&rig), known(&fresh), "step {step}");
        seen.extend(
            rig.queued()
                .into_iter()
                .map(|(urgency, name)| (urgency, name.to_owned())),
        );
    }
    let count = |wanted| {
        seen.iter()
            .filter(|(urgency, _)| *urgency == wanted)
            .count()
    };
    assert_eq!(count(Urgency::Normal), names.len(), "{seen:?}");
    // Annotations without a record are nothing to wake for.
    assert_eq!(count(Urgency::Wake), recorded.len(), "{seen:?}");
}

#[tokio::test]
async fn annotations_without_a_record_are_findings_and_have_no_effect() {
    let mut rig = Rig::with_records(&["recorded"]);
    let plain = |name: &str, annotations: &[(&str, &str)]| {
        // Without a metric of lagwise.
        let metrics = Vec::new();
        let hpa = HpaFacts::clone(&hpa(name, annotations));
        Arc::new(HpaFacts { metrics, ..hpa })
    };
    let asks = ("scale-to-zero", "true");
    let mut hpas: HpaMap = [
        hpa("asks", &[asks, ZEROED]),
        hpa("paused", &[asks, ZEROED, ("paused", "true")]),
        hpa("recorded", &[asks, ZEROED]),
        hpa("unmarked", &[asks]),
        plain("foreign", &[ZEROED]),
        plain("other", &[]),
    ]
    .into_iter()
    .collect();
    let findings = |rig: &Rig| {
        let findings = rig.reconciler.ledger.findings();
        let shown = findings.iter().map(|f| (f.code.code(), f.subject.path()));
        Vec::from_iter(shown.map(|(code, path)| format!("{code} {path}")))
    };
    rig.observe(&hpas, true);
    assert_eq!(
        findings(&rig),
        ["LW048 hpa/shop/asks", "LW048 hpa/shop/foreign"]
    );
    let is_known = |rig: &Rig, name| rig.reconciler.hpas.contains_key(&HpaKey::new("shop", name));
    assert!(is_known(&rig, "asks") && is_known(&rig, "recorded"));
    assert!(!is_known(&rig, "foreign"));
    // They end with the annotation.
    hpas.insert(HpaKey::new("shop", "foreign"), plain("foreign", &[]));
    hpas.remove(&HpaKey::new("shop", "asks"));
    rig.observe(&hpas, true);
    assert_eq!(findings(&rig), [""; 0]);
    // Without a ledger there is no scale to zero, so every HPA with this setting has a finding.
    rig.reconciler.ledger.handle = None;
    rig.reconciler.start_over();
    rig.observe(&hpas, true);
    let expected = ["LW049 hpa/shop/recorded", "LW049 hpa/shop/unmarked"];
    assert_eq!(findings(&rig), expected);
    assert!(
        rig.queued()
            .iter()
            .all(|(urgency, _)| *urgency != Urgency::Wake)
    );
}

#[tokio::test]
async fn between_sweeps_only_changed_hpas_are_checked() {
    let mut rig = Rig::new();
    let mut hpas: HpaMap = (0..1000)
        .map(|n| hpa(&format!("h{n:03}"), &[("cap", "enforce")]))
        .collect();
    rig.observe(&hpas, true);
    assert_eq!(rig.queued().len(), 1000);
    let observed = |rig: &mut Rig| rig.reconciler.inputs.take().unwrap();
    let changed = |before: &ReconcilerInputs, after: &ReconcilerInputs| {
        let mut changed = BTreeSet::new();
        before.diff(after, |hpa| {
            changed.insert(hpa.name.to_string());
        });
        // No reading has changed, so after a sweep only the remembered HPAs are checked.
        let mut of_targets = BTreeSet::new();
        before.diff_targets(after, |hpa| {
            of_targets.insert(hpa.name.to_string());
        });
        assert_eq!(of_targets, changed);
        changed
    };
    let before = observed(&mut rig);
    rig.observe(&hpas, true);
    let same = observed(&mut rig);
    assert_eq!(changed(&before, &same), BTreeSet::new());
    let other = Arc::new(HpaFacts {
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse("cluster=main,group=partial,topic=refunds").unwrap(),
            target: None,
        }],
        ..HpaFacts::clone(&hpa("h500", &[("scale-to-zero", "true")]))
    });
    hpas.insert(other.key(), other);
    rig.observe(&hpas, false);
    let ahead = observed(&mut rig);
    assert_eq!(changed(&same, &ahead), ["h500".to_owned()].into());
    rig.observe(&hpas, true);
    let after = observed(&mut rig);
    // The other HPAs that sent the same query share its evaluation, which lists them.
    assert!(changed(&ahead, &after).contains("h500"));
}

#[tokio::test]
async fn hpa_is_checked_again_after_its_pass_and_with_every_sweep() {
    let mut rig = Rig::new();
    let hpas: HpaMap = [hpa("a", &[("cap", "enforce")])].into_iter().collect();
    rig.observe(&hpas, true);
    let key = rig.reconciler.queue.take_next().unwrap();
    let facts = Arc::clone(hpas.get(&key).unwrap());
    rig.reconciler.busy.insert(key);
    let report = |term_write| PassReport {
        hpa: Arc::clone(&facts),
        term: 7,
        term_write,
        cap: None,
        zero: None,
    };
    // Its pass is under way.
    rig.observe(&hpas, true);
    rig.sweep(1);
    assert_eq!(rig.queued(), []);
    rig.reconciler.finish_pass(&report(Err(ApiError::Changed)));
    assert_eq!(rig.queued(), []);
    rig.observe(&hpas, true);
    assert_eq!(rig.queued(), [(Urgency::Normal, "a")]);
    // Refused: not at once, but with one of the next snapshots, whatever they change.
    rig.reconciler.queue.clear();
    rig.reconciler
        .finish_pass(&report(Err(ApiError::Refused("no".into()))));
    rig.observe(&hpas, true);
    assert_eq!(rig.queued(), []);
    rig.reconciler
        .hpas
        .values_mut()
        .for_each(|state| state.term_retry.end_backoff());
    rig.observe(&hpas, true);
    assert_eq!(rig.queued(), [(Urgency::Normal, "a")]);
    // Done.
    rig.reconciler.queue.clear();
    rig.reconciler.finish_pass(&report(Ok(())));
    rig.observe(&hpas, true);
    rig.sweep(2);
    assert_eq!(rig.queued(), []);
    // In another term it has to be written again.
    rig.reconciler
        .hpas
        .values_mut()
        .for_each(|state| state.written_term = 6);
    rig.observe(&hpas, true);
    assert_eq!(rig.queued(), []);
    rig.sweep(3);
    assert_eq!(rig.queued(), [(Urgency::Normal, "a")]);
}

#[tokio::test]
async fn recorded_hpa_of_another_controller_has_the_pauses_of_other_hpas() {
    let mut rig = Rig::with_records(&["a"]);
    let mut facts = Arc::unwrap_or_clone(hpa("a", &[ZEROED]));
    facts.controller = Some("ScaledObject/orders".into());
    let facts = Arc::new(facts);
    let hpas: HpaMap = [Arc::clone(&facts)].into_iter().collect();
    rig.observe(&hpas, true);
    assert_eq!(rig.queued(), [(Urgency::Normal, "a")]);
    let finish = |rig: &mut Rig, error| {
        rig.reconciler.queue.clear();
        let state = rig.reconciler.hpas.get_mut(&facts.key()).unwrap();
        assert!(state.zero.input(&facts, Instant::now()).is_some());
        rig.reconciler.finish_pass(&PassReport {
            hpa: Arc::clone(&facts),
            term: 7,
            term_write: Ok(()),
            cap: None,
            zero: Some(ZeroReport {
                up_since: None,
                done: None,
                refusal: None,
                error,
            }),
        });
    };
    finish(&mut rig, Some(ApiError::Refused("no".into())));
    for second in 1..5 {
        rig.observe(&hpas, true);
        rig.sweep(second);
        assert_eq!(rig.queued(), []);
    }
    let state = rig.reconciler.hpas.get_mut(&facts.key()).unwrap();
    state.zero = ZeroState::default();
    rig.sweep(5);
    finish(&mut rig, None);
    for second in 6..10 {
        rig.observe(&hpas, true);
        rig.sweep(second);
        assert_eq!(rig.queued(), []);
    }
}
