//! The value that is served for readings and settings of HPAs, and the replicas that the HPA then proposes.

mod desired;
mod fallback;
mod refusals;
mod reuse;
mod settings;
mod topics;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::model::diagnostics::current_findings::{
    FindingOptions, find_tolerance_against_ceiling, findings,
};
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{HpaFacts, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::{ConnectionFault, Fault};
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member, Subtopology};
use crate::model::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, TopicOffsets,
};
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{ConfiguredTarget, TargetOptions, Targets, WatchKey};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::{Offset, Partition, Replicas};
use crate::model::units::parallelism_rule::ParallelismRule;

pub(super) use crate::model::fixtures::hpa;

pub(super) const POLICY: ServingPolicy = ServingPolicy {
    clamp: true,
    cap: crate::model::settings::cap_mode::CapMode::Advise,
    scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
    max_staleness: Duration::from_secs(30),
    namespaces: Vec::new(),
    writes: crate::model::hpa::write_scopes::WriteScopes::ALL,
};

pub(super) fn at(seconds: u64) -> Moment {
    let passed = Duration::from_secs(seconds);
    Moment {
        // Of the fixtures' clock, since tests use both.
        monotonic: crate::model::fixtures::at(passed).monotonic,
        wall: SystemTime::UNIX_EPOCH + passed,
    }
}

/// The committed offset and the end of each partition of a topic.
pub(super) type Read<'a> = (&'a str, &'a [(Option<i64>, i64)]);

/// A group `g` on cluster `main`.
pub(super) fn observation(seconds: u64, topics: &[Read<'_>]) -> Observation {
    let offset = |o: i64| Ok(Offset(o));
    Observation {
        cluster: "main".into(),
        started: at(seconds),
        finished: at(seconds),
        topics: topics
            .iter()
            .map(|(name, partitions)| {
                let starts = partitions.iter().map(|_| offset(0)).collect();
                let ends = partitions.iter().map(|(_, end)| offset(*end)).collect();
                (
                    TopicName::from(*name),
                    Ok(Arc::new(TopicOffsets {
                        starts,
                        ends,
                        ..TopicOffsets::default()
                    })),
                )
            })
            .collect(),
        groups: vec![GroupObservation {
            plan: GroupPlan {
                discover: true,
                ..GroupPlan::new(
                    "g",
                    topics
                        .iter()
                        .map(|(name, _)| TopicName::from(*name))
                        .collect(),
                )
            },
            description: Err(Fault::Unsupported),
            reported_lags: None,
            refused_partitions: None,
            committed: Ok(topics
                .iter()
                .map(|(name, partitions)| {
                    let column = partitions.iter().map(|(c, _)| Ok(c.map(Offset)));
                    (TopicName::from(*name), column.collect())
                })
                .collect()),
        }],
        connection: None,
        unreachable_brokers: Vec::new(),
        traffic: None,
        listings: BTreeMap::new(),
        group_names: None,
        certificates: CertificateExpiry::default(),
    }
}

fn average(units: u64) -> MetricTarget {
    MetricTarget::AverageValue(Milli::from_units(units))
}

pub(super) fn snapshot(observations: Vec<Observation>, hpas: &[HpaFacts]) -> LagSnapshot {
    let mut history = ClusterHistory::default();
    let mut latest = Arc::default();
    for observation in observations {
        latest = history.apply(observation, Scope::Whole);
    }
    LagSnapshot {
        sequence: 1,
        term: 0,
        targets: Arc::new(Targets::merge(&["main".into()], &[], hpas, BTreeSet::new())),
        clusters: [("main".into(), latest)].into(),
        ..LagSnapshot::default()
    }
}

fn ask_at(
    seconds: u64,
    snapshot: &LagSnapshot,
    selector: &str,
    policy: &ServingPolicy,
) -> Result<MetricValue, NoValueReason> {
    let selector = Selector::parse(selector).unwrap();
    let question = MetricQuery {
        namespace: "shop",
        metric: LAG_METRIC,
        selector: &selector,
    };
    let snapshot = snapshot.clone().evaluated(policy);
    snapshot.at(&at(seconds)).answer(&question)
}

fn ask(snapshot: &LagSnapshot, selector: &str) -> Result<MetricValue, NoValueReason> {
    ask_at(0, snapshot, selector, &POLICY)
}

/// `partitions` partitions with `lag` messages behind in all.
pub(super) fn behind(partitions: usize, lag: i64) -> Vec<(Option<i64>, i64)> {
    let mut column = vec![(Some(0), 0); partitions];
    column[0].1 = lag;
    column
}

/// The replicas that the HPA proposes for an AverageValue target: within the tolerance `status.replicas`, otherwise the
/// sum divided and rounded up (`pkg/controller/podautoscaler/replica_calculator.go`,
/// `GetExternalPerPodMetricReplicas`).
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the HPA computes so"
)]
pub(super) fn hpa_proposes(value: Milli, target: Milli, replicas: u64, tolerance: f64) -> u64 {
    let (sum, per) = (value.thousandths() as f64, target.thousandths() as f64);
    let ratio = sum / (per * replicas as f64);
    if replicas > 0 && (1.0 - ratio).abs() <= tolerance {
        replicas
    } else {
        (sum / per).ceil() as u64
    }
}

pub(super) fn annotated(mut hpa: HpaFacts, annotations: &[(&str, &str)]) -> HpaFacts {
    let ours = |(key, value): &(&str, &str)| (format!("{PREFIX}{key}"), (*value).to_owned());
    hpa.annotations = annotations.iter().map(ours).collect();
    hpa
}

fn member(subscribed: &[&str]) -> Member {
    let assigned = |topic: &&str| (TopicName::from(*topic), Vec::<Partition>::from([0]));
    Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/10.0.0.1".into(),
        subscribed: Some(subscribed.iter().map(|t| TopicName::from(*t)).collect()),
        assigned: subscribed.iter().map(assigned).collect(),
    }
}

fn described(assignor: Option<&str>, members: &[&[&str]]) -> Arc<GroupDescription> {
    Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state: if members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        },
        assignor: assignor.map(Arc::from),
        members: members.iter().map(|topics| member(topics)).collect(),
        omitted_members: 0,
        subtopologies: Vec::new(),
    })
}

/// A sweep in which the group was described so.
fn sweep_of(description: Arc<GroupDescription>, topics: &[Read<'_>]) -> Observation {
    let mut read = observation(0, topics);
    read.groups[0].description = Ok(description);
    read
}

/// A row of the table of lag and replicas, with both tolerances 0.
struct Row<'a> {
    topics: Vec<Vec<(Option<i64>, i64)>>,
    annotations: &'a [(&'a str, &'a str)],
    per: u64,
    now: u64,
}

impl Row<'_> {
    fn snapshot(&self) -> LagSnapshot {
        let names = ["t0", "t1", "t2"];
        let topics: Vec<_> = names
            .iter()
            .zip(&self.topics)
            .map(|(name, column)| (*name, column.as_slice()))
            .collect();
        let hpa = annotated(
            hpa("h", "group=g,topic in (t0,t1,t2)", average(self.per)),
            self.annotations,
        );
        let mut hpas = [hpa];
        let picked: Vec<_> = names[..self.topics.len()].to_vec();
        hpas[0].metrics[0].selector =
            Selector::parse(&format!("group=g,topic in ({})", picked.join(","))).unwrap();
        snapshot(vec![observation(0, &topics)], &hpas)
    }

    fn answer(&self) -> MetricValue {
        let snapshot = self.snapshot();
        let selector = snapshot
            .targets
            .of_hpas()
            .next()
            .unwrap()
            .selector
            .clone()
            .unwrap();
        ask(&snapshot, &selector.to_string()).unwrap()
    }

    fn proposed(&self, tolerance: f64) -> u64 {
        let per = Milli::from_units(self.per);
        hpa_proposes(self.answer().value, per, self.now, tolerance)
    }
}
