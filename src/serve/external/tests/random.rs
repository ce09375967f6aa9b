//! Ten thousand random requests to one API on a healthy Kafka: none is answered 5xx, and those of which an oracle
//! knows the answer get it.

use std::collections::BTreeSet;

use axum::body::Body;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::model::fixtures;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::targets::Targets;
use crate::model::units::quantity::Milli;

const REQUESTS: u32 = 10_000;

/// What is so: groups, each with its topic and the lags of its partitions.
const FACTS: [(&str, &str, &[i64]); 4] = [
    ("alpha", "invoices", &[10, 20, 30]),
    ("bravo", "invoices", &[0, 0, 5]),
    ("delta", "invoices", &[0, 0, 0]),
    ("gamma", "shipments", &[7]),
];

/// What the HPA `web` of `shop` wants per replica, of `alpha` on `invoices`.
const WANTED: i64 = 15;

/// A requirement on one key.
#[derive(Clone, Debug)]
enum Says {
    Nothing,
    Is(&'static str, Vec<&'static str>),
    IsNot(&'static str, Vec<&'static str>),
    Exists,
    Lacks,
}

impl Says {
    fn text(&self, key: &str) -> Option<String> {
        match self {
            Says::Nothing => None,
            Says::Is("in", values) => Some(format!("{key} in ( {} )", values.join(" ,"))),
            Says::IsNot("notin", values) => Some(format!("{key} notin ({})", values.join(","))),
            Says::Is(operator, values) | Says::IsNot(operator, values) => {
                Some(format!("{key} {operator}{}", values[0]))
            }
            Says::Exists => Some(key.to_owned()),
            Says::Lacks => Some(format!("! {key}")),
        }
    }

    /// Whether a thing with this value of the key is meant.
    fn fits(&self, value: Option<&str>) -> bool {
        match self {
            Says::Nothing => true,
            Says::Is(_, values) => value.is_some_and(|value| values.contains(&value)),
            Says::IsNot(_, values) => value.is_none_or(|value| !values.contains(&value)),
            Says::Exists => value.is_some(),
            Says::Lacks => value.is_none(),
        }
    }
}

#[derive(Clone, Debug)]
struct Wish {
    group: Says,
    topic: Says,
    cluster: Says,
    hpa: bool,
    other: Says,
    order: usize,
    namespace: &'static str,
}

impl Wish {
    fn selector(&self) -> String {
        let hpa = if self.hpa {
            Says::Is("=", vec!["web"])
        } else {
            Says::Nothing
        };
        let keys = [
            ("group", &self.group),
            ("topic", &self.topic),
            ("cluster", &self.cluster),
            ("hpa", &hpa),
            ("colour", &self.other),
        ];
        let mut parts: Vec<_> = keys
            .iter()
            .filter_map(|(key, says)| says.text(key))
            .collect();
        let by = self.order % parts.len();
        parts.rotate_left(by);
        parts.join(", ")
    }

    /// The code, and the value where there is one.
    fn answer(&self) -> (u16, Option<String>) {
        let groups: BTreeSet<&str> = match &self.group {
            Says::Is("in", values) => values.iter().copied().collect(),
            Says::Is(_, values) => [values[0]].into(),
            _ => return (400, None),
        };
        let mut sum = 0;
        for group in groups {
            let (_, topic, lags) = FACTS.iter().find(|(name, ..)| *name == group).unwrap();
            if !self.topic.fits(Some(topic)) || !self.other.fits(None) {
                return (404, None);
            }
            sum += lags.iter().sum::<i64>();
        }
        // A list of one is the same selector.
        let is =
            |says: &Says, value| matches!(says, Says::Is(_, v) if v.iter().all(|v| *v == value));
        let is_the_hpas = is(&self.group, "alpha")
            && is(&self.topic, "invoices")
            && self.hpa
            && matches!((&self.cluster, &self.other), (Says::Nothing, Says::Nothing))
            && self.namespace == "shop";
        // Three partitions, so that three replicas are the most that can be useful.
        let value = if is_the_hpas {
            sum.min(3 * WANTED)
        } else {
            sum
        };
        (200, Some(value.to_string()))
    }
}

/// Wishes whose topics, where they are named, are those of the groups: others would have to be read first.
fn wish() -> impl Strategy<Value = Wish> {
    let equals = || prop_oneof![Just("="), Just("==")];
    let one =
        |values: &'static [&'static str]| proptest::sample::select(values).prop_map(|v| vec![v]);
    let some = |values: &'static [&'static str]| {
        proptest::collection::vec(proptest::sample::select(values), 1..4)
    };
    let of = move |groups: &'static [&'static str], topic: &'static [&'static str]| {
        let group = prop_oneof![
            8 => (equals(), one(groups)).prop_map(|(o, v)| Says::Is(o, v)),
            8 => some(groups).prop_map(|v| Says::Is("in", v)),
            1 => one(groups).prop_map(|v| Says::IsNot("!=", v)),
            1 => some(groups).prop_map(|v| Says::IsNot("notin", v)),
            1 => Just(Says::Exists),
            1 => Just(Says::Lacks),
        ];
        let topic = prop_oneof![
            (equals(), one(topic)).prop_map(|(o, v)| Says::Is(o, v)),
            some(topic).prop_map(|v| Says::Is("in", v)),
        ];
        (group, topic)
    };
    let pair = prop_oneof![
        3 => of(&["alpha", "bravo", "delta"], &["invoices"]),
        1 => of(&["gamma"], &["shipments"]),
    ];
    let cluster = prop_oneof![
        4 => Just(Says::Nothing),
        1 => Just(Says::Is("=", vec!["main"])),
        1 => Just(Says::Is("in", vec!["main"])),
        1 => Just(Says::IsNot("!=", vec!["other"])),
        1 => Just(Says::Exists),
    ];
    let other = prop_oneof![
        8 => Just(Says::Nothing),
        1 => Just(Says::Is("=", vec!["red"])),
        1 => Just(Says::IsNot("!=", vec!["red"])),
        1 => Just(Says::Exists),
        1 => Just(Says::Lacks),
    ];
    let namespace = prop_oneof![Just("shop"), Just("hr")];
    (pair, cluster, any::<bool>(), other, 0..5_usize, namespace).prop_map(
        |((group, topic), cluster, hpa, other, order, namespace)| Wish {
            group,
            topic,
            cluster,
            hpa,
            other,
            order,
            namespace,
        },
    )
}

/// The facts, as read.
fn snapshot() -> LagSnapshot {
    let mut snapshot = fixtures::snapshot();
    let mut main = (*snapshot.clusters["main"]).clone();
    for (group, topic, lags) in FACTS {
        let rows: Vec<_> = lags
            .iter()
            .map(|lag| (0, Ok(Some(100 - lag)), Ok(100)))
            .collect();
        let read = fixtures::read(Duration::ZERO, group, topic, &rows);
        let read = ClusterHistory::default().apply(read, Scope::Some);
        main.groups.extend(read.groups.clone());
    }
    snapshot.clusters.insert("main".into(), Arc::new(main));
    snapshot.clusters.remove("down");
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "web".into(),
        metrics: vec![ExternalMetric {
            name: "kafka_lag".to_owned(),
            selector: Selector::parse("group=alpha,topic=invoices,hpa=web").unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(
                u64::try_from(WANTED).unwrap(),
            ))),
        }],
        max_replicas: u32::MAX,
        ..HpaFacts::default()
    };
    let targets = Targets::merge(&["main".into()], &[], &[hpa], BTreeSet::new());
    snapshot.targets = Arc::new(targets);
    snapshot
}

#[derive(Clone, Debug)]
enum Sent {
    Wish(Wish),
    Anything(String, String),
}

#[test]
fn ten_thousand_random_requests() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let rig = runtime.block_on(async { rig(snapshot()) });
    let Rig {
        router,
        publisher,
        interests,
        queries: _queries,
        _drain,
    } = rig;
    runtime.spawn(healthy(snapshot(), publisher, interests));
    let sent = prop_oneof![
        wish().prop_map(Sent::Wish),
        request().prop_map(|(method, path)| Sent::Anything(method, path)),
    ];
    let known = std::cell::Cell::new(0);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(REQUESTS)
    };
    let outcome = TestRunner::new(config).run(&sent, |sent| {
        let (method, path, expected) = match &sent {
            Sent::Wish(wish) => {
                let path = format!("{BASE}/namespaces/{}/kafka_lag", wish.namespace);
                let path = with_selector(&path, &wish.selector());
                ("GET".to_owned(), path, Some(wish.answer()))
            }
            Sent::Anything(method, path) => (method.clone(), path.clone(), None),
        };
        let request = Request::builder().method(&*method).uri(&path);
        // What is no URI does not get as far as this.
        let Ok(request) = request.body(Body::empty()) else {
            return Ok(());
        };
        let got = runtime.block_on(send(&router, request));
        prop_assert!(
            got.code < 500,
            "{} {}: {} {}",
            method,
            path,
            got.code,
            got.body
        );
        if got.code >= 400 {
            got.message();
        }
        if let Some((code, value)) = expected {
            prop_assert_eq!(got.code, code, "{}: {}", path, got.body);
            if let Some(value) = value {
                prop_assert_eq!(&got.json()["items"][0]["value"], &value, "{}", path);
                known.set(known.get() + 1);
            }
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(known.get() > REQUESTS / 4, "{} values", known.get());
}
