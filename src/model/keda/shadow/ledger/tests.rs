//! Recorded series of lags, and the sums of both sides.

use super::*;
use crate::model::fixtures::{self, at, evaluated, read};
use crate::model::hpa::controller::{Behavior, HpaSpec, MetricSource, ScalingRules};
use crate::model::hpa::facts::{HpaFacts, HpaMap, MetricTarget};
use crate::model::kafka::group::{GroupState, Member};
use crate::model::keda::authentications::ObservedLogin;
use crate::model::keda::convert::observed::{ObservedConversion, ObservedTrigger};
use crate::model::keda::jobs::{JobRules, ScalingStrategy};
use crate::model::keda::scaled_object::ScaledObject;
use crate::model::keda::shadow::ShadowMerge;
use crate::model::keda::trigger::{KafkaTrigger, TriggerKind};
use crate::model::keda::version::KedaVersion;
use crate::model::lag::assembly::Scope;

const STEP: Duration = Duration::from_secs(15);
const THRESHOLD: u64 = 5;

/// KEDA's HPA without behavior, and lagwise's with tolerance zero.
fn specs() -> (HpaSpec, HpaSpec) {
    let target = MetricTarget::AverageValue(Milli::from_units(THRESHOLD));
    let keda = HpaSpec {
        min: 1,
        max: 50,
        metrics: vec![MetricSource::External(target), MetricSource::Pods],
        behavior: None,
    };
    let exact = |rules: ScalingRules| ScalingRules {
        tolerance: Some(Milli::default()),
        ..rules
    };
    let lagwise = HpaSpec {
        behavior: Some(Behavior {
            up: exact(ScalingRules::up()),
            down: exact(ScalingRules::down()),
        }),
        ..keda.clone()
    };
    (keda, lagwise)
}

fn object(spec: &str, annotations: &[(&str, &str)]) -> ShadowObject {
    let text =
        format!(r#"{{"metadata": {{"namespace": "shop", "name": "billing"}}, "spec": {spec}}}"#);
    let scaled: ScaledObject = serde_json::from_str(&text).unwrap();
    let metadata = [
        ("topic", "t"),
        ("consumerGroup", "g"),
        ("lagThreshold", "5"),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let metadata = metadata.into_iter().collect();
    let parsed = KafkaTrigger::parse(TriggerKind::Kafka, &metadata, KedaVersion::NEWEST);
    let observed = ObservedConversion {
        lagwise_hpa: serde_json::Value::Null,
        keda_hpa: serde_json::Value::Null,
        triggers: vec![ObservedTrigger {
            trigger: parsed.unwrap(),
            cluster: "main".into(),
            login: ObservedLogin::default(),
        }],
        remarks: Vec::new(),
    };
    let target = MetricTarget::AverageValue(Milli::from_units(THRESHOLD));
    let text = |(key, value): &(&str, &str)| (format!("lagwise.dev/{key}"), (*value).to_owned());
    let facts = HpaFacts {
        annotations: annotations.iter().map(text).collect(),
        max_replicas: 50,
        ..fixtures::hpa("", "group=g,topic=t", target)
    };
    let (keda, lagwise) = specs();
    let converted = Ok((observed, facts, lagwise, keda));
    match scaled.spec.unknown.get("jobs") {
        None => ShadowObject::scaled_object(&scaled, converted),
        Some(strategy) => {
            let strategy: ScalingStrategy = serde_json::from_value(strategy.clone()).unwrap();
            let (min, max) = (scaled.spec.min_replica_count, scaled.spec.max_replica_count);
            ShadowObject::scaled_job(&scaled, converted, JobRules::new(min, max, &strategy))
        }
    }
}

/// One sample: seconds after the first, replicas that run, and the lag of each partition; `None` if Kafka did not
/// answer.
type Sample<'a> = (u64, u32, Option<&'a [i64]>);

/// The report after these samples.
fn report(object: &ShadowObject, samples: &[Sample<'_>]) -> ShadowReport {
    report_with_members(object, samples, |_| None)
}

/// The same, with the description of the group at these seconds.
fn report_with_members(
    object: &ShadowObject,
    samples: &[Sample<'_>],
    described: impl Fn(u64) -> Option<GroupDescription>,
) -> ShadowReport {
    let mut set = ObservedSet::default();
    set.insert(object.clone());
    let mut merge = ShadowMerge::default();
    let mut ledger = ShadowLedger::new(STEP);
    let mut report = ShadowReport::default();
    for (seconds, replicas, lags) in samples {
        let found = HpaFacts {
            namespace: "shop".into(),
            name: "keda-hpa-billing".into(),
            controller: Some("ScaledObject/billing".into()),
            replicas: Some(*replicas),
            ..HpaFacts::default()
        };
        let hpas = merge.add_to(&set, &HpaMap::from_iter([Arc::new(found)]));
        let facts: Vec<_> = hpas.values().map(|facts| HpaFacts::clone(facts)).collect();
        let after = Duration::from_secs(*seconds);
        let reading = lags.map(|lags| {
            let rows: Vec<_> = lags.iter().map(|lag| (0, Ok(Some(0)), Ok(*lag))).collect();
            let mut reading = read(after, "g", "t", &rows);
            if let Some(description) = described(*seconds) {
                reading.groups[0].description = Ok(Arc::new(description));
            }
            reading
        });
        let snapshot = evaluated(&facts, reading, Scope::Whole);
        let now = at(after);
        report = ledger.record(&set, snapshot.at(&now), Vec::new());
    }
    report
}

/// The sums in replica-seconds: running, KEDA, lagwise, KEDA more, lagwise more; and the changes of the three.
fn sums(report: &ShadowReport) -> ([u64; 5], [u64; 3]) {
    let totals = &report.totals;
    let seconds = [
        totals.running.replica_millis,
        totals.keda.replica_millis,
        totals.lagwise.replica_millis,
        totals.keda_more_replica_millis,
        totals.lagwise_more_replica_millis,
    ];
    let sides = [&totals.running, &totals.keda, &totals.lagwise];
    (
        seconds.map(|millis| millis / 1000),
        sides.map(|side| side.scale_changes),
    )
}

const PLAIN: &str = r#"{"minReplicaCount": 1, "maxReplicaCount": 50}"#;

#[test]
fn adds_up_the_replica_beyond_the_partitions() {
    let lags: &[i64] = &[28, 0, 0, 0, 0];
    let running = [1, 4, 6, 6, 6, 6, 6, 6];
    let samples = (0u64..)
        .zip(running)
        .map(|(sample, running)| (sample * 15, running, Some(lags)));
    let report = report(&object(PLAIN, &[]), &Vec::from_iter(samples));
    let row = &report.objects[0];
    assert_eq!(
        (row.running, row.keda, row.lagwise),
        (Some(6), Some(6), Some(5))
    );
    assert_eq!(row.reasons, ["one_beyond_partitions"]);
    assert_eq!(report.totals.observed_millis, 105_000);
    // An HPA without behavior goes to 4 at first, then KEDA's to 6 for 90 s; lagwise's goes to 5 at once.
    let expected = [15 + 60 + 75 * 6, 60 + 90 * 6, 105 * 5, 90, 15];
    assert_eq!(sums(&report), (expected, [2, 2, 1]));
    assert_eq!(
        report.totals.reason_millis["one_beyond_partitions"],
        105_000
    );
    assert_eq!(report.since.as_deref(), Some("2024-05-06T07:08:09Z"));
    assert_eq!(report.at.as_deref(), Some("2024-05-06T07:09:54Z"));
}

#[test]
fn sums_the_replicas_that_the_tolerance_of_keda_withholds() {
    let mut lags = [0; 24];
    lags[0] = 120;
    let samples = [0, 15, 30, 45].map(|seconds| (seconds, 22, Some(&lags[..])));
    let report = report(&object(PLAIN, &[]), &samples);
    let row = &report.objects[0];
    assert_eq!((row.keda, row.lagwise), (Some(22), Some(24)));
    assert_eq!(row.reasons, ["within_tolerance"]);
    assert_eq!(
        sums(&report),
        ([22 * 45, 22 * 45, 24 * 45, 0, 2 * 45], [0, 0, 1])
    );
}

#[test]
fn sums_the_replicas_that_threads_save() {
    let lags: &[i64] = &[5, 5, 5, 5];
    let samples = [0, 15, 30].map(|seconds| (seconds, 4, Some(lags)));
    let report = report(&object(PLAIN, &[("threads-per-replica", "2")]), &samples);
    let row = &report.objects[0];
    assert_eq!((row.keda, row.lagwise), (Some(4), Some(2)));
    assert_eq!(row.reasons, ["threads"]);
    // Downwards, the window of both HPAs keeps the replicas for five minutes.
    assert_eq!(sums(&report), ([120, 120, 120, 0, 0], [0, 0, 0]));
}

#[test]
fn a_pause_and_an_unknown_lag_are_not_counted() {
    let lags: &[i64] = &[5, 5];
    let samples = [
        (0, 2, Some(lags)),
        (15, 2, Some(lags)),
        (315, 2, Some(lags)),
        (330, 2, None),
        (345, 2, Some(lags)),
    ];
    let report = report(&object(PLAIN, &[]), &samples);
    assert_eq!(report.totals.observed_millis, 15_000);
    let unknown = super::tests::report(&object(PLAIN, &[]), &samples[3..4]);
    let row = &unknown.objects[0];
    assert_eq!((row.keda, row.lagwise, row.running), (None, None, Some(2)));
    assert!(row.why[0].starts_with("lagwise: "), "{:?}", row.why);
    assert_eq!(unknown.totals, ShadowTotals::default());
}

#[test]
fn without_work_both_scale_to_zero_after_the_cooldown() {
    let spec = r#"{"minReplicaCount": 0, "maxReplicaCount": 50, "cooldownPeriod": 30}"#;
    let (busy, quiet): (&[i64], &[i64]) = (&[5, 0], &[0, 0]);
    let samples = [
        (0, 1, Some(busy)),
        (15, 1, Some(quiet)),
        (30, 1, Some(quiet)),
        (45, 1, Some(quiet)),
        (60, 0, Some(quiet)),
    ];
    let report = report(&object(spec, &[]), &samples);
    let row = &report.objects[0];
    assert_eq!((row.keda, row.lagwise), (Some(0), Some(0)));
    assert_eq!(sums(&report), ([60, 45, 45, 0, 0], [1, 1, 1]));
}

#[test]
fn an_object_that_is_not_compared_has_a_reason_and_no_sums() {
    let mut other = object(PLAIN, &[]);
    other.compared = Err("it is paused".to_owned());
    let report = report(&other, &[(0, 1, Some(&[5])), (15, 1, Some(&[5]))]);
    assert_eq!(
        report.objects[0].not_compared.as_deref(),
        Some("it is paused")
    );
    assert_eq!(report.totals, ShadowTotals::default());
}

#[test]
fn rebalances_are_added_up() {
    let lags: &[i64] = &[28, 0, 0, 0, 0];
    let samples = [0, 15, 30, 45, 60, 75].map(|seconds| (seconds, 2, Some(lags)));
    let described = |seconds: u64| {
        let mut group = fixtures::member_of("t");
        match seconds {
            0 | 15 => {}
            30 => group.state = GroupState::Rebalancing,
            45 | 60 => group.members.push(Member {
                id: "another".into(),
                ..group.members[0].clone()
            }),
            // It left between two samples.
            _ => {}
        }
        Some(group)
    };
    let report = report_with_members(&object(PLAIN, &[]), &samples, described);
    assert_eq!(report.totals.rebalances, 2);
    assert_eq!(report.objects[0].totals.rebalances, 2);
    let unseen = super::tests::report(&object(PLAIN, &[]), &samples);
    assert_eq!(unseen.totals.rebalances, 0);
}

#[test]
fn an_edit_of_the_object_lowers_no_sum() {
    let compared = |spec: &str| object(spec, &[]).compared.unwrap();
    for (keda, lagwise) in [(3, 1), (0, 2)] {
        let mut ledger = ObjectLedger::new(&compared("{}"));
        ledger.totals.keda.scale_changes = keda;
        ledger.totals.lagwise.scale_changes = lagwise;
        ledger.update_object(&compared(r#"{"maxReplicaCount": 7}"#));
        assert_eq!(
            (ledger.keda.changes, ledger.lagwise.changes),
            (keda, lagwise)
        );
    }
}

#[test]
fn shows_the_jobs_of_a_scaled_job_without_a_sum() {
    let lags: &[i64] = &[28, 0, 0, 0, 0];
    let many: &[i64] = &[900; 5];
    let none: &[i64] = &[0; 5];
    let job = |more: &str| object(&format!(r#"{{"jobs": {{}}{more}}}"#), &[]);
    for (more, lags, keda, lagwise) in [
        ("", Some(lags), Some(6), Some(5)),
        (r#", "maxReplicaCount": 4"#, Some(lags), Some(4), Some(4)),
        ("", Some(many), Some(5), Some(5)),
        (r#", "minReplicaCount": 2"#, Some(none), Some(2), Some(2)),
        ("", Some(none), Some(0), Some(0)),
        ("", None, None, None),
    ] {
        let samples = [(0, 0, lags), (15, 0, lags)];
        let report = report(&job(more), &samples);
        let row = &report.objects[0];
        assert_eq!(row.hpa, "ScaledJob/billing");
        assert_eq!(
            (row.running, row.keda, row.lagwise),
            (None, keda, lagwise),
            "{more}"
        );
        assert_eq!(row.not_compared, None);
        let remark = row.remarks.last().unwrap();
        assert!(
            remark.contains("less the Jobs that are not finished"),
            "{remark}"
        );
        assert_eq!(report.totals.observed_millis, 0);
    }
    let samples = [(0, 0, Some(lags))];
    let report = report(&job(""), &samples);
    assert_eq!(report.objects[0].reasons, ["one_beyond_partitions"]);
    assert!(report.of_hpa("shop", "ScaledJob/billing").is_some());
}
