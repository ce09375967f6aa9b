//! Every finding with an example, on one page for reviewers. The test also shows that each can occur.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::at_ceiling::AtCeiling;
use super::current_findings::{FindingOptions, find_tolerance_against_ceiling, findings};
use super::hpa_findings::{
    find_against_ceiling, find_ended_holds, find_in_hpas, find_limited_scale_up, find_tolerance,
};
use super::policy_findings::find_in_policy;
use super::setting_findings::{
    LoginFacts, OpenSecretFile, SecurityFacts, find_in_settings, find_unusable_upstream_file,
};
use super::workload_findings::{Surge, WorkloadFacts, find_in_workload};
use crate::model::decisions::forbidden_write::ForbiddenWrite;
use crate::model::decisions::zero_ledger::ZeroRefusal;
use crate::model::diagnostics::preflight::registration::find_lost_slot;
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::policy_outcome::{
    HeldReplicas, PolicyOutcome, RateOutcome, RateUnavailable,
};
use crate::model::evaluation::{HpaMetric, MetricValue, ValueRule};
use crate::model::findings::{Finding, FindingCode};
use crate::model::fixtures;
use crate::model::hpa::facts::{
    ExternalMetric, HpaFacts, MetricTarget, RejectedMetric, RunningReplicas, ScaleTarget,
};
use crate::model::hpa::manifest::{find_in_manifest, find_reserved_annotations};
use crate::model::hpa::selector::RejectedSelector;
use crate::model::hpa::write_scopes::{WriteScope, WriteScopes};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::observation::Observation;
use crate::model::kafka::topic_listing::Unlisted;
use crate::model::kafka::topic_listing::testing::listing;
use crate::model::keda::convert::{ConvertOptions, convert};
use crate::model::keda::manifests::KedaManifests;
use crate::model::keda::shadow::find_unread_objects;
use crate::model::lag::assembly::Scope;
use crate::model::policy::decision::{RateDecision, RateRule, RateTerms};
use crate::model::policy::scaling_totals::ScalingTotals;
use crate::model::policy::static_comparison::StaticComparison;
use crate::model::settings::cap_mode::CapMode;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::tenancy::{Grant, Tenancy};
use crate::model::targets::{TargetOptions, Targets};
use crate::model::units::glob::Glob;
use crate::model::units::metric::DESIRED_METRIC;
use crate::model::units::newtypes::Replicas;
use crate::model::units::quantity::Milli;

const DAY: u64 = 24 * 3600;

fn hpa(name: &str, selector: &str, annotations: &[(&str, &str)]) -> HpaFacts {
    let target = MetricTarget::AverageValue(Milli::from_units(100));
    let pairs = annotations
        .iter()
        .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()));
    HpaFacts {
        max_replicas: 20,
        annotations: pairs.collect(),
        scale_target: ScaleTarget {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: name.into(),
        },
        ..fixtures::hpa(name, selector, target)
    }
}

fn with_metric(mut hpa: HpaFacts, name: &str) -> HpaFacts {
    let mut other = hpa.metrics[0].clone();
    other.name = name.into();
    hpa.metrics.push(other);
    hpa
}

/// Targets with every mistake in selectors and annotations, with two clusters configured.
fn targets() -> Targets {
    let many: Vec<_> = (0..40).map(|i| format!("g{i}")).collect();
    let mut value = hpa("value", "group=g,cluster=main", &[]);
    value.metrics[0].target = Some(MetricTarget::Value(Milli::from_units(100)));
    let mut desired = hpa("desired", "group=g,cluster=main", &[]);
    desired.metrics[0].name = DESIRED_METRIC.into();
    let zero = hpa("zero", "group=g,cluster=main", &[("scale-to-zero", "true")]);
    let hpas = [
        hpa("no-group", "topic=t,cluster=main", &[]),
        hpa("unknown-cluster", "group=g,cluster=mian", &[]),
        hpa("no-cluster", "group=g", &[]),
        hpa("label", "group=g,cluster=main,topics=t", &[]),
        hpa("target", "target=orders", &[]),
        hpa("unknown", "group=g,cluster=main", &[("evn", "true")]),
        hpa("bad", "group=g,cluster=main", &[("even", "yes")]),
        hpa("stray", "group=g,cluster=main", &[("even.other", "true")]),
        hpa("suffix", "group=g,cluster=main", &[("cap.g", "enforce")]),
        hpa("paused", "group=g,cluster=main", &[("paused", "yes")]),
        hpa(
            "topics",
            "group=g,cluster=main",
            &[("topics", "t"), ("topic-regex", "t.*")],
        ),
        hpa(
            "group",
            "group in (g,h),cluster=main",
            &[("consumer-group", "i")],
        ),
        hpa(
            "fallback",
            "group=g,cluster=main",
            &[("fallback-after", "5m")],
        ),
        hpa(
            "reset",
            "group=g,cluster=main",
            &[("offset-reset", "latest")],
        ),
        hpa(
            "set",
            "group=g,cluster=main",
            &[("offset-reset", "earliest")],
        ),
        with_metric(zero, "queue_length"),
        value,
        desired,
        hpa("denied", "group=secret,cluster=main", &[]),
        hpa("capped", "group=g,cluster=main", &[("cap", "enforce")]),
        HpaFacts {
            metrics: Vec::new(),
            rejected_metrics: vec![RejectedMetric::new(
                "kafka_lag",
                RejectedSelector::value("group", "team/orders"),
            )],
            ..hpa("rejected", "group=g", &[])
        },
        HpaFacts {
            metrics: vec![ExternalMetric {
                name: "kafka_consumergroup_lag".into(),
                ..hpa("x", "group=g", &[]).metrics[0].clone()
            }],
            ..hpa("exporter", "group=g", &[])
        },
        hpa(
            "many",
            &format!("group in ({}),cluster=main", many.join(",")),
            &[],
        ),
    ];
    let clusters = ["main".into(), "down".into()];
    let groups = ["g", "h", "i"].map(Glob::new).into();
    let tenancy = Tenancy(vec![Grant {
        groups,
        ..Grant::default()
    }]);
    let elsewhere = WriteScope {
        namespaces: vec!["elsewhere".into()],
        ..WriteScope::ALL
    };
    let options = TargetOptions {
        tenancy,
        writes: WriteScopes {
            cap: elsewhere,
            ..WriteScopes::ALL
        },
        ..TargetOptions::default()
    };
    Targets::new(&clusters, options, None)
        .with_hpas(&hpas.into_iter().map(Arc::new).collect(), None)
}

/// The findings about HPAs and groups after these observations of cluster `main`.
fn current(hpas: &[HpaFacts], observations: Vec<Observation>, now: Duration) -> BTreeSet<Finding> {
    let snapshot = fixtures::evaluated(hpas, observations, Scope::Whole);
    let options = FindingOptions {
        cap: CapMode::Advise,
        min_age: Duration::ZERO,
    };
    let now = fixtures::at(now);
    let metrics = snapshot.at(&now).hpa_metrics();
    findings::<HpaFacts>(&snapshot.evaluations, &metrics, &[], options)
}

fn member(topics: &[&str], partitions: &[i32]) -> Member {
    Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/10.0.0.1".into(),
        subscribed: Some(topics.iter().map(|topic| (*topic).into()).collect()),
        assigned: vec![("t".into(), partitions.to_vec())],
    }
}

fn described(state: GroupState, members: Vec<Member>) -> GroupDescription {
    GroupDescription {
        kind: GroupKind::Classic,
        state,
        assignor: Some("range".into()),
        members,
        omitted_members: 0,
        subtopologies: Vec::new(),
    }
}

/// A reading of group `g` on topic `t` of one partition with lag.
fn reading(seconds: u64, state: GroupState, members: Vec<Member>) -> Observation {
    let row = (0, Ok(Some(5)), Ok(9));
    let mut read = fixtures::read(Duration::from_secs(seconds), "g", "t", &[row]);
    read.groups[0].plan.discover = true;
    read.groups[0].description = Ok(Arc::new(described(state, members)));
    read
}

/// The finding about lag that is worth more than the ceiling allows.
fn at_ceiling() -> Option<Finding> {
    let billing = hpa("billing", "group=g,topic=orders", &[]);
    let rows: Vec<_> = (0..12).map(|_| (0, Ok(Some(0)), Ok(437))).collect();
    let read = fixtures::read(Duration::ZERO, "g", "orders", &rows);
    let snapshot = fixtures::evaluated(std::slice::from_ref(&billing), [read], Scope::Whole);
    let now = fixtures::at(Duration::ZERO);
    let metrics = snapshot.at(&now).hpa_metrics();
    let at_ceiling = AtCeiling::of_hpa(&metrics, billing.max_replicas);
    at_ceiling.map(|at_ceiling| at_ceiling.finding(billing.key()))
}

fn group_findings() -> Vec<Finding> {
    let two = |topics: &[&str]| vec![member(&["t"], &[0]), member(topics, &[])];
    let stable = |members| reading(0, GroupState::Stable, members);
    let empty = |seconds| reading(seconds, GroupState::Empty, Vec::new());
    let mut missing = fixtures::read(Duration::ZERO, "g", "gone", &[(0, Ok(None), Ok(9))]);
    missing.topics = [("gone".into(), Err(Fault::TopicMissing))].into();
    let mut unreachable = fixtures::nothing(Duration::from_secs(5), "g");
    unreachable.groups[0].plan.topics = Arc::new(["t".into()].into());
    unreachable.groups[0].committed = Err(Fault::Unreachable);
    let mut misspelled = fixtures::read(Duration::ZERO, "ordres", "t", &[(0, Ok(None), Ok(9))]);
    misspelled.group_names = Some(vec!["orders".into()]);
    misspelled.groups[0].description = Ok(Arc::new(described(GroupState::NotReady, Vec::new())));
    let ordres = HpaFacts {
        running: RunningReplicas::Several,
        ..hpa("billing", "group=ordres,topic=t", &[])
    };
    let mut asleep = empty(0);
    asleep.listings = [("g".into(), Arc::new(listing("t.*", Err(Unlisted::TooMany))))].into();
    let wide = hpa("billing", "group=g", &[("topic-regex", "t.*")]);
    let fallback = [("fallback-replicas", "3"), ("fallback-after", "2m")];
    let one = |selector: &str| [hpa("billing", selector, &[])];
    let mut other = hpa("other", "group=g,topic=t", &[]);
    other.metrics[0].target = Some(MetricTarget::AverageValue(Milli::from_units(200)));
    [
        current(&[], vec![stable(two(&["t"]))], Duration::ZERO),
        current(&[], vec![stable(two(&["t", "u"]))], Duration::ZERO),
        current(&[], vec![empty(0), empty(5 * DAY)], Duration::ZERO),
        current(&one("group=g,topic=gone"), vec![missing], Duration::ZERO),
        current(&[ordres], vec![misspelled], Duration::ZERO),
        current(&[wide], vec![asleep], Duration::ZERO),
        current(
            &one("group=g"),
            vec![fixtures::nothing(Duration::ZERO, "g")],
            Duration::ZERO,
        ),
        current(
            &[hpa("billing", "group=g,topic=t", &[]), other],
            vec![stable(vec![member(&["t"], &[0])])],
            Duration::ZERO,
        ),
        current(
            &[hpa("billing", "group=g,topic=t", &fallback)],
            vec![empty(0), unreachable],
            Duration::from_secs(200),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn hpa_findings() -> Vec<Finding> {
    let billing = hpa("billing", "group=g", &[]);
    let mut second = hpa("second", "group=g", &[]);
    second.scale_target = billing.scale_target.clone();
    let bounds = |min, max| HpaFacts {
        min_replicas: Some(min),
        max_replicas: max,
        ..billing.clone()
    };
    let windows = HpaFacts {
        window_up: Some(60),
        ..hpa("up", "group=g", &[])
    };
    let limited = HpaFacts {
        raise_limit: Some(4),
        ..with_metric(
            hpa("limited", "group=g", &[("policy", "rate")]),
            DESIRED_METRIC,
        )
    };
    let owned = HpaFacts {
        controller: Some("ScaledObject/owned".into()),
        ..hpa("owned", "group=g", &[("cap", "enforce")])
    };
    let mut odd = hpa("odd", "group=g", &[]);
    odd.scale_target.name = "billing?dryRun=All&x=".into();
    let off = HpaFacts {
        is_scaling_disabled: true,
        ..hpa("off", "group=g", &[])
    };
    let hpas = [windows, owned, odd, off, billing.clone(), second];
    let ceiling = Replicas(12);
    let against = |hpa: &HpaFacts| find_against_ceiling(hpa, ceiling, CapMode::Advise, false);
    let mut found: Vec<Finding> = find_in_hpas(&hpas).collect();
    let names = ["main".into()];
    let targets = Targets::merge(&names, &[], std::slice::from_ref(&limited), BTreeSet::new());
    let own = targets.of_hpa(&limited.key());
    found.extend(find_limited_scale_up(&limited, own, ScalingPolicy::Rate));
    found.extend(against(&bounds(13, 20)));
    found.extend(against(&bounds(1, 5)));
    found.extend(against(&with_metric(bounds(1, 20), "queue_length")));
    found.extend(find_tolerance_against_ceiling(&bounds(1, 20), ceiling));
    found.extend(find_tolerance(&billing, None));
    let refusals = [ZeroRefusal::NotRecorded, ZeroRefusal::LedgerFull];
    found.extend(refusals.iter().map(|refusal| refusal.finding(&billing)));
    let reason = "deployments.apps \"billing\" is forbidden: User \"system:serviceaccount:lagwise:lagwise\" cannot get resource \"deployments/scale\" in API group \"apps\" in the namespace \"shop\"";
    found.push(ForbiddenWrite::Zero.finding(&billing, reason));
    let workload = WorkloadFacts {
        namespace: "shop".into(),
        kind: "Deployment".into(),
        name: "billing".into(),
        ordered: true,
        surge: Surge::Percent(25),
        replicas_owner: Some("argocd".into()),
        pods: Some(["10.0.0.1".parse().unwrap()].into()),
    };
    let foreign = Member {
        host: "/10.0.0.9".into(),
        ..member(&["t"], &[1])
    };
    let group = described(GroupState::Stable, vec![member(&["t"], &[0]), foreign]);
    found.extend(find_in_workload(
        &billing,
        &workload,
        Some(Limit::Bounded(ceiling)),
        &[(&"g".into(), &group)],
    ));
    found
}

fn setting_findings() -> BTreeSet<Finding> {
    let login = |index: u32, is_encrypted| LoginFacts {
        key: format!("clusters[{index}]"),
        cluster: "main".into(),
        is_encrypted,
        mechanism: Some("PLAIN".into()),
        verifies_issuer: false,
        verifies_host: true,
        names_authority: false,
        limits_hosts: index == 1,
        token_url: Some(("token.oidc.token_url", "http://id.example.com/t".into())),
    };
    let open_file = OpenSecretFile {
        key: "clusters[0].properties.ssl.key.location".into(),
        path: "/etc/lagwise/tls.key".into(),
    };
    let mut found = find_in_settings(&SecurityFacts {
        logins: vec![login(0, false), login(1, true)],
        open_files: vec![open_file],
        open_scaler: Some(([0, 0, 0, 0], 9443).into()),
        unverified_upstream: Some("https://keda-operator-metrics-apiserver.keda.svc".into()),
    });
    let problem = "cannot use /etc/lagwise/upstream/token: it is empty";
    found.insert(find_unusable_upstream_file(Some("token_file"), problem));
    found
}

fn keda_findings() -> BTreeSet<Finding> {
    let job = serde_json::json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": {"name": "batch"},
    });
    let mut manifests = KedaManifests::default();
    manifests.add(&job, "batch.yaml", "shop").unwrap();
    let options = ConvertOptions {
        namespace: "shop".into(),
        kubernetes: None,
        form: Default::default(),
    };
    let right = "the right to list scaledobjects.keda.sh is missing".to_owned();
    let mut found = convert(&manifests, &options).findings();
    found.extend(find_unread_objects(&[right]));
    let holder = "keda/keda-operator-metrics-apiserver";
    found.insert(find_lost_slot(holder));
    found
}

fn policy_findings() -> Vec<Finding> {
    let unavailable = PolicyOutcome {
        policy: ScalingPolicy::Rate,
        rate: None,
        unavailable: Some(RateUnavailable::SeveralGroups),
        hold: None,
    };
    let decision = RateDecision {
        replicas: 6,
        before: 6,
        rule: RateRule::Keep,
        terms: Some(RateTerms {
            hot_partition: Some(3),
            ..RateTerms::default()
        }),
        up: None,
        down: None,
        hold: None,
        against_all: Some(StaticComparison {
            seconds: 7200.0,
            members: 24,
            policy: ScalingTotals::default(),
            all: ScalingTotals::default(),
            is_all_cheaper: true,
        }),
        drain: None,
    };
    let held = PolicyOutcome {
        policy: ScalingPolicy::Rate,
        rate: Some(RateOutcome {
            replicas: 6,
            decision: Arc::new(decision),
            threads: NonZeroU32::MIN,
            slo: Duration::from_secs(60),
            is_idle: false,
            totals: None,
        }),
        unavailable: None,
        hold: Some(HeldReplicas {
            hold: "up until 2026-12-02T10:00:00Z".parse().unwrap(),
            replicas: Some(4),
        }),
    };
    let billing = with_metric(hpa("billing", "group=g", &[]), DESIRED_METRIC);
    let snapshot = fixtures::evaluated(&[billing], [], Scope::Whole);
    let now = fixtures::at(Duration::ZERO);
    let metrics = snapshot.at(&now).hpa_metrics();
    let metric = metrics.last().unwrap();
    let value = MetricValue {
        metric: metric.metric,
        value: Milli::from_units(4),
        desired: Some(4),
        uncapped: Some(9),
        lag: None,
        ceiling: None,
        wanted: None,
        rule: ValueRule::Held,
        read: now,
    };
    [unavailable, held]
        .into_iter()
        .flat_map(|outcome| {
            let mut evaluation = metric.evaluation.clone();
            evaluation.policy = Some(Arc::new(outcome));
            find_in_policy(&HpaMetric {
                evaluation: &evaluation,
                outcome: Ok(value.clone()),
                ..metric.clone()
            })
        })
        .collect()
}

fn manifest_findings() -> Vec<Finding> {
    let document = serde_json::json!({
        "metadata": {"name": "billing", "annotations": {"lagwise.dev/ceiling": "5"}},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "billing"}, "maxReplica": 5},
    });
    let held = hpa(
        "billing",
        "group=g",
        &[("hold", "up until 2026-12-02T10:00:00Z")],
    );
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let problems = find_in_manifest(&document).into_iter();
    let problems = problems.chain(find_reserved_annotations(&document));
    problems
        .map(|problem| Finding::new(problem.code, held.key(), problem.message))
        .chain(find_ended_holds(&held, later))
        .collect()
}

#[test]
fn every_finding_with_an_example() {
    let mut examples: BTreeMap<FindingCode, Finding> = BTreeMap::new();
    let targets = targets();
    let of_targets = targets.findings().cloned();
    let found = of_targets.chain(group_findings()).chain(hpa_findings());
    let found = found.chain(setting_findings()).chain(at_ceiling());
    let found = found.chain(keda_findings()).chain(policy_findings());
    let found = found.chain(manifest_findings());
    for finding in found {
        examples.entry(finding.code).or_insert(finding);
    }
    let all = FindingCode::ALL.iter();
    let missing: Vec<_> = all.filter(|code| !examples.contains_key(code)).collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
    let mut page = String::new();
    for (code, example) in &examples {
        let (name, label, severity) = (code.code(), code.label(), code.severity());
        let (why, fix) = (code.why(), code.fix());
        writeln!(
            page,
            "{name} {label} ({severity})\n  {example}\n  why: {why}\n  fix: {fix}\n"
        )
        .unwrap();
    }
    insta::assert_snapshot!(page);
}
