//! Ten thousand random requests on a healthy Kafka cluster: none gets a 5xx, and each gets the response that an
//! oracle predicts, where it predicts one.

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

/// The groups, each with its topic and the lags of its partitions.
const FACTS: [(&str, &str, &[i64]); 4] = [
    ("alpha", "invoices", &[10, 20, 30]),
    ("bravo", "invoices", &[0, 0, 5]),
    ("delta", "invoices", &[0, 0, 0]),
    ("gamma", "shipments", &[7]),
];

/// The target lag per replica of HPA `web` in namespace `shop`, for `alpha` on `invoices`.
const LAG_PER_REPLICA: i64 = 15;

/// A requirement of a selector on one key. The first text is the operator.
#[derive(Clone, Debug)]
enum RequirementText {
    None,
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Exists,
    DoesNotExist,
}

impl RequirementText {
    fn text(&self, key: &str) -> Option<String> {
        match self {
            RequirementText::None => None,
            RequirementText::In("in", values) => {
                Some(format!("{key} in ( {} )", values.join(" ,")))
            }
            RequirementText::NotIn("notin", values) => {
                Some(format!("{key} notin ({})", values.join(",")))
            }
            RequirementText::In(operator, values) | RequirementText::NotIn(operator, values) => {
                Some(format!("{key} {operator}{}", values[0]))
            }
            RequirementText::Exists => Some(key.to_owned()),
            RequirementText::DoesNotExist => Some(format!("! {key}")),
        }
    }

    /// Whether a series with this value of the key matches.
    fn fits(&self, value: Option<&str>) -> bool {
        match self {
            RequirementText::None => true,
            RequirementText::In(_, values) => value.is_some_and(|value| values.contains(&value)),
            RequirementText::NotIn(_, values) => value.is_none_or(|value| !values.contains(&value)),
            RequirementText::Exists => value.is_some(),
            RequirementText::DoesNotExist => value.is_none(),
        }
    }
}

#[derive(Clone, Debug)]
struct TestQuery {
    group: RequirementText,
    topic: RequirementText,
    cluster: RequirementText,
    hpa: bool,
    other: RequirementText,
    order: usize,
    namespace: &'static str,
}

impl TestQuery {
    fn selector(&self) -> String {
        let hpa = if self.hpa {
            RequirementText::In("=", vec!["web"])
        } else {
            RequirementText::None
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
            .filter_map(|(key, requirement)| requirement.text(key))
            .collect();
        let by = self.order % parts.len();
        parts.rotate_left(by);
        parts.join(", ")
    }

    /// The predicted status code, and the value if there is one.
    fn predict(&self) -> (u16, Option<String>) {
        let groups: BTreeSet<&str> = match &self.group {
            RequirementText::In("in", values) => values.iter().copied().collect(),
            RequirementText::In(_, values) => [values[0]].into(),
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
        // A list of one value is the same requirement.
        let is = |requirement: &RequirementText, value| matches!(requirement, RequirementText::In(_, v) if v.iter().all(|v| *v == value));
        let is_the_hpas = is(&self.group, "alpha")
            && is(&self.topic, "invoices")
            && self.hpa
            && matches!(
                (&self.cluster, &self.other),
                (RequirementText::None, RequirementText::None)
            )
            && self.namespace == "shop";
        // Three partitions, so at most three replicas are useful.
        let value = if is_the_hpas {
            sum.min(3 * LAG_PER_REPLICA)
        } else {
            sum
        };
        (200, Some(value.to_string()))
    }
}

/// Queries that name only topics of their groups: others would need a first read.
fn any_query() -> impl Strategy<Value = TestQuery> {
    let equals = || prop_oneof![Just("="), Just("==")];
    let one =
        |values: &'static [&'static str]| proptest::sample::select(values).prop_map(|v| vec![v]);
    let some = |values: &'static [&'static str]| {
        proptest::collection::vec(proptest::sample::select(values), 1..4)
    };
    let of = move |groups: &'static [&'static str], topic: &'static [&'static str]| {
        let group = prop_oneof![
            8 => (equals(), one(groups)).prop_map(|(o, v)| RequirementText::In(o, v)),
            8 => some(groups).prop_map(|v| RequirementText::In("in", v)),
            1 => one(groups).prop_map(|v| RequirementText::NotIn("!=", v)),
            1 => some(groups).prop_map(|v| RequirementText::NotIn("notin", v)),
            1 => Just(RequirementText::Exists),
            1 => Just(RequirementText::DoesNotExist),
        ];
        let topic = prop_oneof![
            (equals(), one(topic)).prop_map(|(o, v)| RequirementText::In(o, v)),
            some(topic).prop_map(|v| RequirementText::In("in", v)),
        ];
        (group, topic)
    };
    let pair = prop_oneof![
        3 => of(&["alpha", "bravo", "delta"], &["invoices"]),
        1 => of(&["gamma"], &["shipments"]),
    ];
    let cluster = prop_oneof![
        4 => Just(RequirementText::None),
        1 => Just(RequirementText::In("=", vec!["main"])),
        1 => Just(RequirementText::In("in", vec!["main"])),
        1 => Just(RequirementText::NotIn("!=", vec!["other"])),
        1 => Just(RequirementText::Exists),
    ];
    let other = prop_oneof![
        8 => Just(RequirementText::None),
        1 => Just(RequirementText::In("=", vec!["red"])),
        1 => Just(RequirementText::NotIn("!=", vec!["red"])),
        1 => Just(RequirementText::Exists),
        1 => Just(RequirementText::DoesNotExist),
    ];
    let namespace = prop_oneof![Just("shop"), Just("hr")];
    (pair, cluster, any::<bool>(), other, 0..5_usize, namespace).prop_map(
        |((group, topic), cluster, hpa, other, order, namespace)| TestQuery {
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

/// A snapshot of the groups.
fn snapshot() -> LagSnapshot {
    let mut snapshot = fixtures::snapshot();
    let mut main = (*snapshot.clusters["main"]).clone();
    for (group, topic, lags) in FACTS {
        let rows: Vec<_> = lags
            .iter()
            .map(|lag| (0, Ok(Some(100 - lag)), Ok(100)))
            .collect();
        let read = fixtures::read(Duration::ZERO, group, topic, &rows);
        let read = ClusterHistory::default().apply(read, Scope::Partial);
        let read = read.groups.iter();
        main.groups
            .extend(read.map(|(id, group)| (id.clone(), Arc::clone(group))));
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
                u64::try_from(LAG_PER_REPLICA).unwrap(),
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
enum TestRequest {
    Query(TestQuery),
    /// Method and path.
    Random(String, String),
}

#[test]
fn random_requests_match_the_oracle_without_5xx() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let api = runtime.block_on(async { api(snapshot()) });
    let TestApi {
        router,
        publisher,
        watch_keys,
        queries: _queries,
        _drain,
    } = api;
    runtime.spawn(healthy(snapshot(), publisher, watch_keys));
    let sent = prop_oneof![
        any_query().prop_map(TestRequest::Query),
        request().prop_map(|(method, path)| TestRequest::Random(method, path)),
    ];
    let known = std::cell::Cell::new(0);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(REQUESTS)
    };
    let outcome = TestRunner::new(config).run(&sent, |sent| {
        let (method, path, expected) = match &sent {
            TestRequest::Query(query) => {
                let path = format!("{BASE}/namespaces/{}/kafka_lag", query.namespace);
                let path = with_selector(&path, &query.selector());
                ("GET".to_owned(), path, Some(query.predict()))
            }
            TestRequest::Random(method, path) => (method.clone(), path.clone(), None),
        };
        let request = Request::builder().method(&*method).uri(&path);
        // An invalid URI cannot be sent.
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
