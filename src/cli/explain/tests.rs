use std::sync::Arc;

use super::*;
use crate::model::diagnostics::current_findings::{FindingOptions, findings};
use crate::model::diagnostics::explain::live::{Condition, LiveHpa, LiveMetric};
use crate::model::findings::FindingCode;
use crate::model::hpa::controller::outlook::KnownHistory;
use crate::model::hpa::controller::{Behavior, HpaSpec, MetricSource, ScalingRules};
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget, ScaleTarget};
use crate::model::settings::annotation_keys::{CEILING, USER_MAX};
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::quantity::Milli;
use crate::model::{evaluation, fixtures};

const SECOND: Duration = Duration::from_secs(1);

/// An HPA from 1 to 20 on `kafka_lag` of the selector, ten messages a replica.
fn facts(selector: &str) -> HpaFacts {
    HpaFacts {
        namespace: "shop".into(),
        name: "billing".into(),
        max_replicas: 20,
        scale_target: ScaleTarget {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "billing".into(),
        },
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: crate::model::hpa::selector::Selector::parse(selector).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(10))),
        }],
        ..HpaFacts::default()
    }
}

/// The HPA in its cluster, with this number of replicas.
fn live(facts: HpaFacts, replicas: u32) -> LiveHpa {
    let external = facts.metrics[0].clone();
    LiveHpa {
        spec: HpaSpec {
            min: 1,
            max: facts.max_replicas,
            metrics: vec![MetricSource::External(external.target.unwrap())],
            behavior: None,
        },
        metrics: vec![LiveMetric {
            name: "External kafka_lag".into(),
            external: Some(external),
            current: None,
        }],
        past: KnownHistory::default(),
        conditions: Vec::new(),
        scale: Ok((replicas, replicas)),
        facts,
    }
}

fn condition(kind: &str, status: &str, reason: &str) -> Condition {
    Condition {
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: "as its controller says".into(),
    }
}

fn policy() -> evaluation::ServingPolicy {
    evaluation::ServingPolicy {
        clamp: true,
        cap: CapMode::Advise,
        scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
        max_staleness: SECOND * 60,
        namespaces: Vec::new(),
        writes: crate::model::hpa::write_scopes::WriteScopes::ALL,
    }
}

/// The derivation for it at this time after the fixture's sweep.
fn derived(facts: &HpaFacts, after: Duration) -> Explanation {
    let clusters = ["main".into(), "down".into()];
    let targets = Targets::merge(&clusters, &[], &[facts], BTreeSet::new());
    let mut snapshot = LagSnapshot {
        targets: Arc::new(targets),
        ..fixtures::snapshot()
    };
    let now = fixtures::at(after);
    snapshot = snapshot.evaluated(&policy());
    let metrics = snapshot.at(&now).hpa_metrics();
    let options = FindingOptions {
        cap: CapMode::Advise,
        min_age: Duration::ZERO,
    };
    let found = findings(&snapshot.evaluations, &metrics, &[facts], options);
    snapshot.findings = Arc::new(found);
    let subject = Subject::Hpa(HpaKey::new("shop", "billing"));
    derive(&subject, snapshot.at(&now), snapshot.all_findings()).unwrap()
}

fn render(explanation: &Explanation) -> String {
    text::render(explanation, ShownPartitions::Worst)
}

fn explained(hpa: &LiveHpa, after: Duration) -> Explanation {
    outcome(derived(&hpa.facts, after), hpa)
}

const ORDERS: &str = "cluster=main,group=orders,topic=payments";

#[test]
fn clamped_value_and_default_behavior() {
    let mut hpa = live(facts(ORDERS), 1);
    hpa.conditions = vec![
        condition("AbleToScale", "True", "SucceededRescale"),
        condition("ScalingLimited", "True", "ScaleUpLimit"),
    ];
    let explained = explained(&hpa, SECOND * 12);
    assert!(!explained.is_unknown());
    insta::assert_snapshot!(render(&explained));
    let json = Output::Json.serialize(&explained).unwrap().unwrap();
    insta::assert_snapshot!("clamped_value_json", json);
    insta::assert_snapshot!(
        "clamped_value_yaml",
        Output::Yaml.serialize(&explained).unwrap().unwrap()
    );
    // Parsing the JSON of a daemon gives the same value.
    assert_eq!(
        serde_json::from_str::<Explanation>(&json).unwrap(),
        explained
    );
}

#[test]
fn observed_cap_and_the_users_maximum() {
    let annotations = [
        ("lagwise.dev/cap", "enforce"),
        (CEILING, "2"),
        (USER_MAX, "20"),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let facts = HpaFacts {
        max_replicas: 2,
        annotations: annotations.into(),
        ..facts(ORDERS)
    };
    insta::assert_snapshot!(render(&explained(&live(facts, 1), SECOND * 12)));
}

#[test]
fn an_error_that_conditions_quote_is_printed_once() {
    for (selector, after) in [
        ("cluster=main,group=partial,topic=refunds", SECOND * 600),
        ("cluster=main,group=nowhere", SECOND * 12),
    ] {
        let mut hpa = live(facts(selector), 3);
        let refusal = explained(&hpa, after).metrics[0].refusal.clone().unwrap();
        let mut failed = condition("ScalingActive", "False", "FailedGetExternalMetric");
        failed.message = format!("unable to fetch metrics from external metrics API: {refusal}");
        hpa.conditions = vec![failed];
        let text = render(&explained(&hpa, after));
        assert_eq!(text.matches(&refusal).count(), 1, "{text}");
        assert!(
            text.contains("from external metrics API: the error above"),
            "{text}"
        );
    }
}

#[test]
fn pause_of_the_writes_does_not_hold_the_replicas() {
    let paused = |value: &str| {
        let pause = ("lagwise.dev/paused".to_owned(), value.to_owned());
        let facts = HpaFacts {
            annotations: [pause].into(),
            ..facts(ORDERS)
        };
        // With and without the HPA read again.
        let derived = derived(&facts, SECOND * 12);
        let explained = explained(&live(facts, 1), SECOND * 12);
        assert_eq!(
            derived.cap.unwrap().paused,
            explained.cap.as_ref().unwrap().paused
        );
        render(&explained)
    };
    let says =
        "paused: lagwise writes nothing to the HPA and its scale target; the HPA still scales";
    assert!(paused("true").contains(says));
    assert!(!paused("false").contains("paused:"));
}

#[test]
fn other_metrics_and_hidden_controller_state() {
    let mut hpa = live(facts(ORDERS), 12);
    hpa.spec.metrics.push(MetricSource::Pods);
    hpa.metrics.push(LiveMetric {
        name: "Resource cpu".into(),
        external: None,
        current: Some("43 %".into()),
    });
    hpa.spec.behavior = Some(Behavior {
        up: ScalingRules::up(),
        down: ScalingRules::down(),
    });
    hpa.past.since_scaled = Some(SECOND * 7);
    hpa.scale = Ok((12, 13));
    insta::assert_snapshot!(render(&explained(&hpa, SECOND * 12)));
}

#[test]
fn a_metric_that_raises_the_replicas_is_the_reason_beside_one_that_is_an_error() {
    let mut both = facts(ORDERS);
    both.metrics
        .extend(facts("cluster=main,group=nowhere").metrics);
    let failed = both.metrics[1].clone();
    let without_hpa = derived(&both, SECOND * 12).verdict;
    let says = "its replicas stay, unless another metric raises them, since its metric kafka_lag is an error";
    assert!(without_hpa.contains(says), "{without_hpa}");
    let mut hpa = live(both, 1);
    let source = MetricSource::External(failed.target.unwrap());
    hpa.spec.metrics.push(source);
    hpa.metrics.push(LiveMetric {
        name: "External kafka_lag".into(),
        external: Some(failed),
        current: None,
    });
    let verdict = explained(&hpa, SECOND * 12).verdict;
    let says = "at the next sync: lag 100";
    assert!(verdict.contains(says), "{verdict}");
    assert!(!verdict.contains("is an error"), "{verdict}");
}

#[test]
fn unknown_partition() {
    let selector = "cluster=main,group=partial,topic=refunds";
    // The last complete reading is served until it is stale.
    let served = explained(&live(facts(selector), 3), SECOND * 12);
    assert!(!served.is_unknown());
    insta::assert_snapshot!("unknown_and_still_served", render(&served));
    let refused = explained(&live(facts(selector), 3), SECOND * 600);
    assert!(refused.is_unknown());
    insta::assert_snapshot!("unknown_and_refused", render(&refused));
}

#[test]
fn group_that_never_ran_and_workload_switched_off() {
    let mut hpa = live(facts("cluster=main,group=idle,topic=payments"), 0);
    hpa.conditions = vec![condition("ScalingActive", "False", "ScalingDisabled")];
    hpa.facts.is_scaling_disabled = true;
    insta::assert_snapshot!(render(&explained(&hpa, SECOND * 12)));
    let annotation = ("lagwise.dev/zeroed-since", "2026-11-30T19:00:00Z");
    let annotation = (annotation.0.to_owned(), annotation.1.to_owned());
    hpa.facts.annotations = [annotation].into();
    let explained = explained(&hpa, SECOND * 12);
    let because = &explained.outcome.as_ref().unwrap().because;
    assert_eq!(
        because[1],
        "its annotation lagwise.dev/zeroed-since says that lagwise scaled the workload to zero at 2026-11-30T19:00:00Z; if the ledger of lagwise confirms that, lagwise starts the workload when there is lag; otherwise lagwise reports LW048"
    );
    let mut findings = explained.findings.iter();
    let code = FindingCode::SwitchedOff.code();
    assert!(!findings.any(|finding| finding.starts_with(code)));
}

#[test]
fn unreadable_scale_and_unread_group() {
    let mut hpa = live(facts("cluster=main,group=nowhere"), 1);
    hpa.scale = Err("deployments.apps \"billing\" not found".into());
    let explained = explained(&hpa, SECOND * 12);
    assert!(explained.is_unknown());
    insta::assert_snapshot!(render(&explained));
}

#[test]
fn group_without_an_hpa() {
    let subject = Subject::Group(WatchKey {
        cluster: "main".into(),
        group: "we\"ird\\group".into(),
        topics: BTreeSet::new(),
    });
    let snapshot = fixtures::snapshot().evaluated(&policy());
    let now = fixtures::at(SECOND * 12);
    let derived = |subject: &Subject| derive(subject, snapshot.at(&now), snapshot.all_findings());
    let explained = derived(&subject).unwrap();
    assert_eq!(explained.metrics[0].ceiling, Some(2));
    let explain_topic = |topic: &str| {
        let subject = Subject::Group(WatchKey {
            cluster: "main".into(),
            group: "orders".into(),
            topics: [TopicName::from(topic)].into(),
        });
        derived(&subject).unwrap()
    };
    insta::assert_snapshot!(render(&explain_topic("payments")));
    assert!(explain_topic("other").is_unknown());
    // An HPA without a metric of lagwise cannot be explained.
    let hpa = Subject::Hpa(HpaKey::new("shop", "other"));
    assert_eq!(derived(&hpa), None);
}

#[test]
fn hpa_that_is_not_recognized() {
    let mut facts = facts(ORDERS);
    facts.metrics[0].name = "kafka-lag".into();
    let explained = explained(&live(facts, 3), SECOND * 12);
    assert!(explained.is_unknown());
    insta::assert_snapshot!(render(&explained));
}

#[test]
fn keeps_partitions_with_the_most_lag() {
    let whole = derived(&facts(ORDERS), SECOND * 12);
    let topic = |explanation: &Explanation| explanation.metrics[0].groups[0].topics[0].clone();
    assert_eq!(topic(&whole.clone().bounded(2)), topic(&whole));
    let one = topic(&whole.clone().bounded(1));
    let kept: Vec<_> = one.partitions.iter().map(|p| p.partition).collect();
    assert_eq!((kept, one.partitions_left_out), (vec![0], 1));
    assert_eq!(one.lag, Some(100));
    assert_eq!(topic(&whole.bounded(0)).partitions_left_out, 2);
}

#[test]
fn the_namespace_is_before_the_slash_or_an_option() {
    use clap::FromArgMatches;
    let key = |args: &[&str]| {
        let all = ["explain", "--config", "c"].iter().chain(args);
        let command = ExplainArgs::augment_args(clap::Command::new("explain"));
        let args = ExplainArgs::from_arg_matches(&command.get_matches_from(all)).unwrap();
        args.hpa_key()
    };
    let billing = Ok(Some(HpaKey::new("shop", "billing")));
    assert_eq!(key(&["shop/billing"]), billing);
    assert_eq!(key(&["-n", "shop", "billing"]), billing);
    assert_eq!(key(&["-n", "shop", "shop/billing"]), billing);
    assert_eq!(key(&["--group", "orders"]), Ok(None));
    for (args, words) in [
        (&["billing"][..], "add -n NAMESPACE"),
        (&["-n", "other", "shop/billing"], "two namespaces"),
        (&["a/b/c"], "expected NAMESPACE/HPA"),
    ] {
        let problem = key(args).unwrap_err();
        assert!(problem.contains(words), "{args:?}: {problem}");
    }
}

#[test]
fn a_workload_at_zero_is_described() {
    let annotation = ("lagwise.dev/zeroed-since", "2024-05-06T01:02:03Z");
    let facts = HpaFacts {
        annotations: [(annotation.0.to_owned(), annotation.1.to_owned())].into(),
        ..facts("cluster=main,group=idle,topic=payments")
    };
    let asleep = explained(&live(facts.clone(), 0), SECOND * 12);
    let because = asleep.outcome.as_ref().unwrap().because.join("; ");
    assert!(because.contains("at 2024-05-06T01:02:03Z; if the ledger"));
    assert_eq!(
        asleep.verdict,
        format!("HPA shop/billing sleeps: {because}")
    );
    let mut natively = live(facts.clone(), 0);
    natively.spec.min = 0;
    natively.conditions = vec![condition("ScaledToZero", "True", "ScaledToZero")];
    let awake = explained(&live(facts, 1), SECOND * 12);
    for other in [awake, explained(&natively, SECOND * 12)] {
        assert!(!other.verdict.contains("sleeps"), "{}", other.verdict);
    }
}
