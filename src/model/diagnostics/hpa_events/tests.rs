//! What is told, how often, and of whom.

use super::*;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts};
use crate::model::hpa::key::HpaKey;
use crate::model::hpa::selector::Selector;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::Lag;

fn hpa(name: &str) -> HpaKey {
    ("shop".into(), name.into())
}

fn finding(name: &str) -> Notice {
    Notice {
        hpa: hpa(name),
        cause: Cause::Finding(Finding::ValueTarget {
            hpa: format!("shop/{name}"),
        }),
    }
}

fn woken(name: &str, replicas: u32) -> Notice {
    Notice {
        hpa: hpa(name),
        cause: Cause::Woken(replicas),
    }
}

fn drained(ledger: &mut Ledger, now: Instant) -> Vec<Notice> {
    std::iter::from_fn(|| ledger.next(now)).collect()
}

#[test]
fn what_lasts_is_told_once_and_again_when_it_begins_again() {
    let began = Instant::now();
    let mut ledger = Ledger::default();
    let both = || BTreeSet::from([finding("a"), finding("b")]);
    for sweep in 0..1000 {
        ledger.observe(both());
        let now = began + Duration::from_secs(5 * sweep);
        let told = drained(&mut ledger, now);
        assert_eq!(told.len(), if sweep == 0 { 2 } else { 0 }, "{sweep}");
    }
    let now = began + Duration::from_secs(5000);
    ledger.observe([finding("b")].into());
    assert_eq!(drained(&mut ledger, now), []);
    ledger.observe(both());
    assert_eq!(drained(&mut ledger, now), [finding("a")]);
    // What could not be told is told later, while it lasts.
    ledger.untold(&finding("a"));
    assert_eq!(drained(&mut ledger, now), [finding("a")]);
    ledger.untold(&finding("a"));
    ledger.observe(BTreeSet::new());
    assert_eq!(drained(&mut ledger, now), []);
}

#[test]
fn one_that_flaps_uses_up_its_own_rate_and_nobody_elses() {
    let began = Instant::now();
    let mut ledger = Ledger::default();
    let mut told = 0;
    for second in 0..600 {
        let now = began + Duration::from_secs(second);
        ledger.observe(BTreeSet::new());
        told += drained(&mut ledger, now).len();
        ledger.observe([finding("a")].into());
        told += drained(&mut ledger, now).len();
    }
    // A burst of ten, and one a minute.
    assert!((18..=20).contains(&told), "{told}");
    // One of its own would fit again a second later.
    let now = began + Duration::from_secs(599);
    assert!(ledger.happened(woken("b", 2)));
    assert_eq!(drained(&mut ledger, now), [woken("b", 2)]);
}

#[test]
fn of_thousands_some_are_told_at_once_and_all_in_time() {
    let began = Instant::now();
    let mut ledger = Ledger::default();
    let all: BTreeSet<_> = (0..200).map(|n| finding(&format!("h{n}"))).collect();
    ledger.observe(all.clone());
    let mut told = drained(&mut ledger, began);
    assert_eq!(told.len(), 50);
    for second in 1..=150 {
        let more = drained(&mut ledger, began + Duration::from_secs(second));
        assert_eq!(more.len(), 1, "{second}");
        told.extend(more);
    }
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn what_happens_waits_its_turn_and_not_without_bound() {
    let began = Instant::now();
    let mut ledger = Ledger::default();
    let fits = (0..600).filter(|n| ledger.happened(woken("a", *n))).count();
    assert_eq!(fits, WAITING_MAX);
    // Those of another do not wait behind them.
    let told = drained(&mut ledger, began);
    assert_eq!(told, (0..10).map(|n| woken("a", n)).collect::<Vec<_>>());
    assert!(ledger.happened(woken("b", 1)));
    assert_eq!(drained(&mut ledger, began), [woken("b", 1)]);
    let later = began + Duration::from_secs(60);
    assert_eq!(drained(&mut ledger, later), [woken("a", 10)]);
}

fn targets() -> Targets {
    let facts = |name: &str, group: &str| HpaFacts {
        namespace: "shop".into(),
        name: name.into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(&format!("group={group},topic=t")).unwrap(),
            target: None,
        }],
        ..HpaFacts::default()
    };
    let hpas = [facts("a", "g"), facts("b", "g"), facts("c", "other")];
    Targets::merge(&["main".into()], &[], &hpas, BTreeSet::new())
}

#[test]
fn findings_are_told_of_every_hpa_that_they_are_about() {
    let mixed = Finding::MixedSubscriptions {
        cluster: "main".into(),
        group: "g".into(),
    };
    let own = Finding::TopicsTwice {
        hpa: "shop/c".into(),
    };
    let info = Finding::ToleranceLeft {
        hpa: "shop/c".into(),
    };
    let snapshot = LagSnapshot {
        targets: Arc::new(targets()),
        findings: Arc::new([mixed.clone(), own.clone(), info].into()),
        ..LagSnapshot::default()
    };
    let notice = |name: &str, finding: &Finding| Notice {
        hpa: hpa(name),
        cause: Cause::Finding(finding.clone()),
    };
    let expected = [notice("a", &mixed), notice("b", &mixed), notice("c", &own)];
    assert_eq!(lasting(&snapshot), expected.into());
    assert_eq!(lasting(&LagSnapshot::default()), BTreeSet::new());
}

#[test]
fn what_befalls_a_group_is_told_of_those_who_scale_by_it() {
    let event = |group: &str, kind| LagEvent {
        group: group.into(),
        topic: Some("t".into()),
        kind,
        first: 0,
        partitions: 1,
    };
    let events = [
        event("g", LagEventKind::Lost(Lag(7))),
        event("other", LagEventKind::Stuck),
        event("nobody", LagEventKind::GroupStuck),
    ];
    let told = befallen(&"main".into(), &events, &targets());
    let shown: Vec<_> = told.iter().map(|n| (&*n.hpa.1, n.cause.reason())).collect();
    assert_eq!(shown, [("a", "OffsetsLost"), ("b", "OffsetsLost")]);
    assert!(befallen(&"elsewhere".into(), &events, &targets()).is_empty());
    // However many messages are gone, the text is the same.
    let more = befallen(
        &"main".into(),
        &[event("g", LagEventKind::Lost(Lag(8)))],
        &targets(),
    );
    assert_eq!(told[0].cause.to_string(), more[0].cause.to_string());
}

#[test]
fn texts_are_what_events_may_have() {
    let lag = |what| Cause::Lag {
        cluster: "main".into(),
        group: "g".into(),
        topic: Some("t".into()),
        what,
    };
    let causes = [
        finding("a").cause,
        lag(Befallen::OffsetsLost),
        lag(Befallen::TopicRecreated),
        lag(Befallen::CommitsVanished),
        lag(Befallen::GroupStuck),
        Cause::CapRaised(6),
        Cause::CapLowered(5),
        Cause::CapReleased,
        Cause::CapFought,
        Cause::ScaledToZero,
        Cause::Woken(3),
    ];
    let text: Vec<_> = causes
        .iter()
        .map(|cause| {
            let weight = if cause.is_warning() {
                "Warning"
            } else {
                "Normal"
            };
            format!("{weight} {}: {cause}", cause.reason())
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}
