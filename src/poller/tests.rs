//! The sweeps of the poller, and the snapshots that it publishes.

mod evaluating;
mod findings;
mod history;
mod hpas;
mod requests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::*;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::observation::{CertificateExpiry, GroupObservation, TopicOffsets};
use crate::model::snapshot::LagSnapshot;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::{GroupId, Moment, Offset, TopicName};
use crate::snapshot_channel::{self, SnapshotReader};

type Plans = Arc<Mutex<Vec<SweepPlan>>>;

/// Answers every plan at once with a lag of 7 per group, and records the plans.
#[derive(Debug)]
struct FakeKafka {
    name: ClusterName,
    plans: Plans,
    /// Where given, sweeps of other than one group wait for it.
    held: Option<watch::Receiver<bool>>,
}

impl OffsetSource for FakeKafka {
    async fn observe(&self, plan: SweepPlan, _deadline: Instant) -> Observation {
        self.plans.lock().unwrap().push(plan.clone());
        if let Some(mut held) = self.held.clone()
            && plan.groups.len() != 1
        {
            held.wait_for(|open| *open).await.unwrap();
        }
        // A sweep that was held up on its way to its thread begins this late.
        let started = Moment::now();
        let topics: BTreeSet<TopicName> = plan
            .groups
            .iter()
            .flat_map(|g| (*g.topics).clone())
            .collect();
        let offsets = |end| TopicOffsets {
            starts: vec![Ok(Offset(0))],
            ends: vec![Ok(Offset(end))],
            ..TopicOffsets::default()
        };
        Observation {
            cluster: self.name.clone(),
            started,
            finished: Moment::now(),
            topics: topics
                .into_iter()
                .map(|topic| (topic, Ok(Arc::new(offsets(7)))))
                .collect(),
            groups: plan
                .groups
                .into_iter()
                .map(|plan| GroupObservation {
                    committed: Ok(plan
                        .topics
                        .iter()
                        .map(|t| (t.clone(), [Ok(Some(Offset(0)))].into_iter().collect()))
                        .collect()),
                    description: describe(&plan.group),
                    reported_lags: None,
                    refused_partitions: None,
                    plan,
                })
                .collect(),
            connection: None,
            unreachable_brokers: Vec::new(),
            traffic: None,
            listings: std::collections::BTreeMap::new(),
            group_names: None,
            certificates: CertificateExpiry::default(),
        }
    }
}

/// The members of the group `reads` read a topic that no target names.
fn describe(group: &GroupId) -> Result<Arc<GroupDescription>, Fault> {
    let member = Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/10.0.0.1".into(),
        subscribed: Some(["unnamed".into()].into()),
        assigned: Vec::new(),
    };
    if group.as_str() != "reads" {
        return Err(Fault::Unsupported);
    }
    Ok(Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state: GroupState::Stable,
        assignor: Some("range".into()),
        members: vec![member],
        omitted_members: 0,
        subtopologies: Vec::new(),
    }))
}

struct Running {
    reader: SnapshotReader,
    hpas: watch::Sender<Option<HpaMap>>,
    watch_keys: mpsc::Sender<WatchKey>,
    queries: mpsc::Sender<AdHocQuery>,
    plans: Plans,
}

fn poller(held: Option<watch::Receiver<bool>>) -> (Poller<FakeKafka>, SnapshotReader, Plans) {
    poller_of(TargetOptions::default(), held)
}

fn poller_of(
    targets: TargetOptions,
    held: Option<watch::Receiver<bool>>,
) -> (Poller<FakeKafka>, SnapshotReader, Plans) {
    let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
    let plans = Plans::default();
    let source = FakeKafka {
        name: "main".into(),
        plans: Arc::clone(&plans),
        held,
    };
    // So long that everything after the first tick is read by partial sweeps.
    let cadence = Cadence {
        interval: Duration::from_secs(3600),
        deadline: Duration::from_secs(1),
    };
    let sources = vec![("main".into(), source)];
    let options = PollerOptions {
        targets,
        policy: ServingPolicy {
            max_staleness: cadence.interval.saturating_mul(6),
            ..ServingPolicy::default()
        },
        cadence,
    };
    let poller = Poller::new(sources, options, publisher);
    (poller, reader, plans)
}

fn inputs(hpas: watch::Receiver<Option<HpaMap>>, watch_keys: mpsc::Receiver<WatchKey>) -> Inputs {
    Inputs {
        hpas,
        watch_keys,
        queries: mpsc::channel(1).1,
        reported_findings: watch::channel(Arc::default()).1,
    }
}

fn start(held: Option<watch::Receiver<bool>>) -> Running {
    let (hpas, hpas_in) = watch::channel(None);
    let (watch_keys, watch_keys_in) = mpsc::channel(8);
    let (poller, reader, plans) = poller(held);
    let (queries, queries_in) = mpsc::channel(8);
    tokio::spawn(poller.run(Inputs {
        hpas: hpas_in,
        watch_keys: watch_keys_in,
        queries: queries_in,
        reported_findings: watch::channel(Arc::default()).1,
    }));
    Running {
        reader,
        hpas,
        watch_keys,
        queries,
        plans,
    }
}

/// An HPA of this name with topic `t` of a group.
fn hpa(name: &str, group: &str) -> Arc<HpaFacts> {
    Arc::new(HpaFacts {
        namespace: "n".into(),
        name: name.into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(&format!("group={group},topic=t")).unwrap(),
            target: None,
        }],
        ..HpaFacts::default()
    })
}

fn listed(hpas: impl IntoIterator<Item = Arc<HpaFacts>>) -> Option<HpaMap> {
    Some(hpas.into_iter().collect())
}

async fn until(
    reader: &SnapshotReader,
    condition: impl Fn(&LagSnapshot) -> bool,
) -> Arc<LagSnapshot> {
    let mut reader = reader.clone();
    let found = async {
        loop {
            let latest = reader.latest();
            if condition(&latest) {
                return latest;
            }
            assert!(reader.changed().await, "the poller is gone");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .expect("the condition did not come true")
}

fn watch_key(group: &str) -> WatchKey {
    WatchKey {
        cluster: "main".into(),
        group: group.into(),
        topics: ["t".into()].into(),
    }
}

fn has_read(group: &'static str) -> impl Fn(&LagSnapshot) -> bool {
    move |snapshot| {
        snapshot
            .clusters
            .get("main")
            .is_some_and(|c| c.groups.contains_key(&GroupId::from(group)))
    }
}
