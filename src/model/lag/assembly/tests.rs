//! Snapshots that result from series of sweeps.

mod incomplete_readings;
mod lag_age;
mod lag_rules;
mod rates;
mod saved_history;

use std::time::{Instant, SystemTime};

use super::*;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::observation::{CertificateExpiry, GroupObservation, PastEnds, PastRecord};
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupTopic};
use crate::model::lag::lag_age::LagAge;
use crate::model::units::newtypes::{Isolation, Lag, Offset, OffsetReset, TopicId};

fn at(seconds: u64) -> Moment {
    static ZERO: std::sync::LazyLock<Moment> = std::sync::LazyLock::new(|| Moment {
        monotonic: Instant::now(),
        wall: SystemTime::UNIX_EPOCH,
    });
    Moment {
        monotonic: ZERO.monotonic + Duration::from_secs(seconds),
        wall: ZERO.wall + Duration::from_secs(seconds),
    }
}

fn plan(group: &str) -> GroupPlan {
    GroupPlan::new(group, ["t".into()].into())
}

type Committed = Result<Option<i64>, Fault>;

fn observe(seconds: u64, group: &str, committed: &[Committed], ends: &[i64]) -> Observation {
    let committed = committed.iter().map(|c| c.map(|c| c.map(Offset))).collect();
    Observation {
        cluster: "c".into(),
        started: at(seconds),
        finished: at(seconds),
        topics: [(
            "t".into(),
            Ok(Arc::new(TopicOffsets {
                starts: ends.iter().map(|_| Ok(Offset(0))).collect(),
                ends: ends.iter().map(|e| Ok(Offset(*e))).collect(),
                ..TopicOffsets::default()
            })),
        )]
        .into(),
        groups: vec![GroupObservation {
            plan: plan(group),
            committed: Ok([("t".into(), committed)].into()),
            description: Err(Fault::Unsupported),
            reported_lags: None,
            refused_partitions: None,
        }],
        connection: None,
        unreachable_brokers: Vec::new(),
        traffic: None,
        listings: BTreeMap::new(),
        group_names: None,
        certificates: CertificateExpiry::default(),
    }
}

fn topic(snapshot: &ClusterSnapshot) -> &GroupTopic {
    &snapshot.groups["g"].topics["t"]
}

fn description(state: GroupState, assigned: &[i32]) -> Arc<GroupDescription> {
    let member = Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/h".into(),
        subscribed: None,
        assigned: vec![("t".into(), assigned.to_vec())],
    };
    Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state,
        assignor: Some("sticky".into()),
        members: if assigned.is_empty() {
            Vec::new()
        } else {
            vec![member]
        },
        omitted_members: 0,
        subtopologies: Vec::new(),
    })
}

/// A sweep of a stable group whose one member has every partition.
fn live(seconds: u64, committed: &[Committed], ends: &[i64]) -> Observation {
    let mut read = observe(seconds, "g", committed, ends);
    let all: Vec<i32> = (0..).take(ends.len()).collect();
    read.groups[0].description = Ok(description(GroupState::Stable, &all));
    read
}

/// The rules of the latest reading, and its lag for scaling.
fn rules(snapshot: &ClusterSnapshot) -> (Vec<&'static str>, Result<Lag, Fault>) {
    let latest = topic(snapshot).latest.as_ref().unwrap();
    let rule =
        |lag: &Result<PartitionLag, Fault>| lag.map_or_else(Fault::label, PartitionLag::label);
    (latest.lags.iter().map(rule).collect(), latest.total())
}

/// Sweeps every five seconds and returns the last snapshot.
fn sweeps(
    history: &mut ClusterHistory,
    seconds: std::ops::RangeInclusive<u64>,
    read: impl Fn(u64) -> Observation,
) -> Arc<ClusterSnapshot> {
    let mut last = Arc::default();
    for second in seconds.step_by(5) {
        last = history.apply(read(second), Scope::Whole);
    }
    last
}
