//! Snapshots for tests of what reads them.

#![allow(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use super::evaluation::ServingPolicy;
use super::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use super::hpa::selector::Selector;
use super::kafka::fault::{ConnectionFault, Fault};
use super::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use super::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, TopicOffsets, Traffic,
};
use super::kafka::sweep_plan::GroupPlan;
use super::kafka::topic_map::TopicMap;
use super::lag::assembly::{ClusterHistory, Scope};
use super::snapshot::LagSnapshot;
use super::targets::{TargetOptions, Targets};
use super::units::metric::LAG_METRIC;
use super::units::newtypes::{Moment, Offset};

/// A moment after a fixed one of this run; on the wall clock, after 2024-05-06 07:08:09 UTC.
pub(crate) fn at(after: Duration) -> Moment {
    static ZERO: LazyLock<Moment> = LazyLock::new(|| Moment {
        monotonic: Instant::now(),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289),
    });
    Moment {
        monotonic: ZERO.monotonic + after,
        wall: ZERO.wall + after,
    }
}

/// An HPA of namespace `shop` with the metric `kafka_lag` and this selector.
pub(crate) fn hpa(name: &str, selector: &str, target: MetricTarget) -> HpaFacts {
    HpaFacts {
        namespace: "shop".into(),
        name: name.into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(selector).unwrap(),
            target: Some(target),
        }],
        ..HpaFacts::default()
    }
}

/// The snapshot after these observations of cluster `main`, each of this scope, with these HPAs.
pub(crate) fn evaluated(
    hpas: &[HpaFacts],
    observations: impl IntoIterator<Item = Observation>,
    scope: Scope,
) -> LagSnapshot {
    let mut history = ClusterHistory::default();
    let mut latest = Arc::default();
    for observation in observations {
        latest = history.apply(observation, scope);
    }
    let targets = Targets::merge(&["main".into()], &[], hpas, BTreeSet::new());
    LagSnapshot {
        targets: Arc::new(targets),
        clusters: [("main".into(), latest)].into(),
        ..LagSnapshot::default()
    }
    .evaluated(&ServingPolicy::default())
}

/// A stable group with one member, which subscribes to a topic.
pub(crate) fn member_of(topic: &str) -> GroupDescription {
    GroupDescription {
        kind: GroupKind::Classic,
        state: GroupState::Stable,
        assignor: Some("range".into()),
        members: vec![Member {
            id: "m".into(),
            instance: None,
            client: "c".into(),
            host: "/10.0.0.1".into(),
            subscribed: Some([topic.into()].into()),
            assigned: Vec::new(),
        }],
        omitted_members: 0,
        subtopologies: Vec::new(),
    }
}

/// A partition: log start, committed offset, log end.
pub(crate) type PartitionReading = (i64, Result<Option<i64>, Fault>, Result<i64, Fault>);

/// The observation of a sweep at `after`, of one group on one topic.
pub(crate) fn read(
    after: Duration,
    group: &str,
    topic: &str,
    rows: &[PartitionReading],
) -> Observation {
    let committed = rows.iter().map(|r| r.1.map(|c| c.map(Offset))).collect();
    let offsets = TopicOffsets {
        starts: rows.iter().map(|r| Ok(Offset(r.0))).collect(),
        ends: rows.iter().map(|r| r.2.map(Offset)).collect(),
        ..TopicOffsets::default()
    };
    let mut observation = nothing(after, group);
    observation.topics = [(topic.into(), Ok(Arc::new(offsets)))].into();
    observation.groups[0].plan.topics = Arc::new([topic.into()].into());
    observation.groups[0].committed = Ok([(topic.into(), committed)].into());
    observation
}

/// A sweep that discovered the topics of a group without any commit.
pub(crate) fn nothing(after: Duration, group: &str) -> Observation {
    Observation {
        cluster: "main".into(),
        started: at(after),
        finished: at(after),
        topics: BTreeMap::new(),
        groups: vec![GroupObservation {
            plan: GroupPlan::new(group, BTreeSet::new()),
            committed: Ok(TopicMap::default()),
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

/// A sweep whose questions about a group all failed.
pub(crate) fn failed(after: Duration, group: &str, topic: &str, fault: Fault) -> Observation {
    let mut observation = nothing(after, group);
    observation.groups[0].plan.topics = Arc::new([topic.into()].into());
    observation.groups[0].committed = Err(fault);
    observation
}

/// Two clusters, swept at zero. `main` has the groups
/// - `orders` on `payments` of two partitions: lag 100;
/// - `idle` on `payments`: never ran;
/// - `partial` on `refunds`: one partition unknown, 5 behind on the other;
/// - `mute` on `refunds`: never answered;
/// - `we"ird\group` on `payments`: lag 0, and retention overtook it on one partition;
///
/// and `down` does not answer.
pub(crate) fn snapshot() -> LagSnapshot {
    let zero = Duration::ZERO;
    let mut main = ClusterHistory::default();
    let ok = |start, committed, end| (start, Ok(committed), Ok(end));
    for observation in [
        read(
            zero,
            "orders",
            "payments",
            &[ok(0, Some(40), 100), ok(10, Some(60), 100)],
        ),
        read(
            zero,
            "idle",
            "payments",
            &[ok(0, None, 100), ok(10, None, 100)],
        ),
        read(
            zero,
            "we\"ird\\group",
            "payments",
            &[ok(0, Some(100), 100), ok(10, Some(3), 100)],
        ),
        read(
            zero,
            "partial",
            "refunds",
            &[ok(0, Some(7), 7), ok(0, Some(7), 7)],
        ),
        read(
            Duration::from_secs(5),
            "partial",
            "refunds",
            &[
                ok(0, Some(7), 12),
                (0, Ok(Some(7)), Err(Fault::LeaderUnknown)),
            ],
        ),
        failed(zero, "mute", "refunds", Fault::NoAnswer),
    ] {
        main.apply(observation, Scope::Partial);
    }
    let mut sweep = nothing(zero, "");
    sweep.groups.clear();
    sweep.traffic = Some(Traffic {
        requests: 12,
        received_bytes: 3456,
        connections: 3,
        throttled: Duration::from_millis(1500),
    });
    let expires = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
    sweep.certificates = CertificateExpiry {
        client: Some(expires(21_000)),
        broker: Some(expires(22_000)),
    };
    // After a whole sweep without them, no target needs these groups any more, unless one was added since.
    let mut main = (*main.apply(sweep, Scope::Partial)).clone();
    main.sweep = Some(super::lag::cluster_snapshot::Sweep {
        started: at(zero),
        finished: at(zero),
    });
    let mut lost = nothing(zero, "");
    lost.groups.clear();
    lost.connection = Some(ConnectionFault {
        kind: Fault::Login,
        reason: "broker said \"no\":\nSASL authentication failed".into(),
        since: at(zero),
    });
    let down = ClusterHistory::default().apply(lost, Scope::Whole);
    LagSnapshot {
        sequence: 0,
        term: 0,
        targets: Arc::new(Targets::new(
            &["main".into(), "down".into()],
            TargetOptions::default(),
            None,
        )),
        clusters: [("main".into(), Arc::new(main)), ("down".into(), down)].into(),
        ..LagSnapshot::default()
    }
}
