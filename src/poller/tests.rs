//! What the poller reads, when, and what it publishes.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::*;
use crate::model::hpa::facts::ExternalMetric;
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::observation::{GroupObservation, TopicOffsets};
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::metric::{LAG_METRIC, Metric};
use crate::model::units::newtypes::{GroupId, Offset, TopicName};
use crate::snapshot_channel::{self, SnapshotReader};

/// Answers every plan at once with a lag of 7 per group, and records the plans.
#[derive(Debug)]
struct Fake {
    name: ClusterName,
    plans: Arc<Mutex<Vec<SweepPlan>>>,
    /// Where given, whole sweeps wait for it.
    held: Option<watch::Receiver<bool>>,
}

impl OffsetSource for Fake {
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
                    plan,
                })
                .collect(),
            connection: None,
            traffic: None,
        }
    }
}

/// The members of the group `reads` read a topic that nobody has named.
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
        return Err(Fault::Untold);
    }
    Ok(Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state: GroupState::Stable,
        assignor: Some("range".into()),
        members: vec![member],
        subtopologies: Vec::new(),
    }))
}

struct Running {
    reader: SnapshotReader,
    hpas: watch::Sender<Option<Vec<Arc<HpaFacts>>>>,
    interests: mpsc::Sender<WatchKey>,
    queries: mpsc::Sender<AdHocQuery>,
    plans: Arc<Mutex<Vec<SweepPlan>>>,
}

fn fake(held: Option<watch::Receiver<bool>>) -> (Poller<Fake>, SnapshotReader) {
    let (publisher, reader) = snapshot_channel::channel(LagSnapshot::default());
    let source = Fake {
        name: "main".into(),
        plans: Arc::default(),
        held,
    };
    // Long enough that only what is wanted anew is read after the first tick.
    let cadence = Cadence {
        interval: Duration::from_secs(3600),
        deadline: Duration::from_secs(1),
    };
    let sources = vec![("main".into(), source)];
    let poller = Poller::new(sources, Vec::new(), cadence, publisher);
    (poller, reader)
}

fn inputs(
    hpas: watch::Receiver<Option<Vec<Arc<HpaFacts>>>>,
    interests: mpsc::Receiver<WatchKey>,
) -> Inputs {
    Inputs {
        hpas,
        interests,
        queries: mpsc::channel(1).1,
    }
}

fn start(held: Option<watch::Receiver<bool>>) -> Running {
    let (hpas, hpas_in) = watch::channel(None);
    let (interests, interests_in) = mpsc::channel(8);
    let (poller, reader) = fake(held);
    let plans = Arc::clone(&poller.clusters["main"].source.plans);
    let (queries, queries_in) = mpsc::channel(8);
    tokio::spawn(poller.run(Inputs {
        hpas: hpas_in,
        interests: interests_in,
        queries: queries_in,
    }));
    Running {
        reader,
        hpas,
        interests,
        queries,
        plans,
    }
}

fn hpa() -> HpaFacts {
    HpaFacts {
        namespace: "n".into(),
        name: "h".into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse("group=g,topic=t").unwrap(),
            target: None,
        }],
        ..HpaFacts::default()
    }
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

fn interest(group: &str) -> WatchKey {
    WatchKey {
        cluster: "main".into(),
        group: group.into(),
        topics: ["t".into()].into(),
    }
}

fn knows(group: &'static str) -> impl Fn(&LagSnapshot) -> bool {
    move |snapshot| {
        snapshot
            .clusters
            .get("main")
            .is_some_and(|c| c.groups.contains_key(&GroupId::from(group)))
    }
}

#[tokio::test]
async fn what_was_remembered_is_recalled_first_and_said_again_at_the_end() {
    let (poller, reader) = fake(None);
    let (recall, recalled) = tokio::sync::oneshot::channel();
    let (keep, mut kept) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);
    let poller = poller.with_memory(HistoryStore {
        recalled,
        keep,
        stop: stopping,
    });
    let (_hpas, hpas) = watch::channel(Some(vec![hpa().into()]));
    let (_interests, interests) = mpsc::channel(1);
    let running = tokio::spawn(poller.run(inputs(hpas, interests)));
    let known = r#"{"version":1,"saved":1000,"clusters":{"main":{"topics":{},"groups":
        {"g":{"assignor":"sticky","topics":{"t":{"offsets":[0],"since":[500]}}}}}}}"#;
    let known: SavedHistory = serde_json::from_str(known).unwrap();
    assert!(recall.send(known).is_ok());
    let snapshot = until(&reader, knows("g")).await;
    let assignor = snapshot.clusters["main"].groups["g"]
        .remembered
        .assignor
        .as_deref();
    assert_eq!(assignor, Some("sticky"));
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    let said = kept.borrow_and_update().clone().unwrap();
    let said = serde_json::to_value(&said.clusters["main"].groups["g"]).unwrap();
    assert_eq!(said["topics"]["t"]["offsets"], serde_json::json!([0]));
    // It stands still since long before this process: 500 seconds before 1000.
    assert!(said["topics"]["t"]["since"][0].as_u64().unwrap() > 1_000_000);
}

#[tokio::test]
async fn nothing_is_said_before_what_was_remembered_is_known() {
    let (poller, _reader) = fake(None);
    let (_recall, recalled) = tokio::sync::oneshot::channel();
    let (keep, kept) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);
    let poller = poller.with_memory(HistoryStore {
        recalled,
        keep,
        stop: stopping,
    });
    let (_hpas, hpas) = watch::channel(None);
    let (_interests, interests) = mpsc::channel(1);
    let running = tokio::spawn(poller.run(inputs(hpas, interests)));
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    assert!(kept.borrow().is_none());
}

#[tokio::test]
async fn it_sweeps_even_when_nothing_is_wanted() {
    let running = start(None);
    until(&running.reader, LagSnapshot::is_swept).await;
}

#[tokio::test]
async fn a_new_hpa_is_read_at_once() {
    let running = start(None);
    until(&running.reader, |snapshot| snapshot.targets.hpas_unlisted).await;
    running.hpas.send_replace(Some(vec![hpa().into()]));
    let snapshot = until(&running.reader, knows("g")).await;
    assert_eq!(snapshot.targets.all.len(), 1);
    assert!(!snapshot.targets.hpas_unlisted);
}

#[tokio::test]
async fn a_topic_that_members_turn_out_to_read_is_read_at_once() {
    let running = start(None);
    let mut reads = hpa();
    reads.metrics[0].selector = Selector::parse("group=reads").unwrap();
    running.hpas.send_replace(Some(vec![reads.into()]));
    until(&running.reader, |snapshot| {
        let cluster = snapshot.clusters.get("main");
        let group = cluster.and_then(|cluster| cluster.groups.get("reads"));
        group.is_some_and(|group| group.topics.contains_key("unnamed"))
    })
    .await;
    // And once is enough: only what was not in the plan before is read out of turn.
    let plans = running.plans.lock().unwrap();
    let of_group = plans.iter().filter(|plan| !plan.groups.is_empty());
    assert!(of_group.count() <= 3, "{plans:?}");
}

#[tokio::test]
async fn an_hpa_that_a_tick_finds_while_a_sweep_is_under_way_is_read_at_once() {
    let (mut poller, _reader) = fake(None);
    let (_interests, interests) = mpsc::channel(1);
    let (hpas_in, hpas) = watch::channel(None);
    let (inputs, mut sweeps) = (inputs(hpas, interests), Sweeps::new());
    for (hpas, under_way) in [
        (vec![], 1),
        (vec![hpa().into()], 2),
        (vec![hpa().into()], 2),
    ] {
        hpas_in.send_replace(Some(hpas));
        poller.merge(&inputs);
        poller.sweep_all(&mut sweeps);
        assert_eq!(sweeps.len(), under_way);
    }
}

#[tokio::test]
async fn a_request_is_read_while_a_sweep_is_under_way() {
    let (open, held) = watch::channel(false);
    let running = start(Some(held));
    while running.plans.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    running.interests.send(interest("g")).await.unwrap();
    let snapshot = until(&running.reader, knows("g")).await;
    assert!(!snapshot.is_swept());
    open.send_replace(true);
    until(&running.reader, |snapshot| {
        snapshot.is_swept() && knows("g")(snapshot)
    })
    .await;
}

#[tokio::test]
async fn asking_again_reads_nothing_anew() {
    let running = start(None);
    // Its first sweep reads all that was asked for before it.
    until(&running.reader, LagSnapshot::is_swept).await;
    running.interests.send(interest("g")).await.unwrap();
    until(&running.reader, knows("g")).await;
    running.interests.send(interest("g")).await.unwrap();
    running.interests.send(interest("h")).await.unwrap();
    until(&running.reader, knows("h")).await;
    let plans = running.plans.lock().unwrap();
    let reads = plans
        .iter()
        .filter(|plan| plan.groups.iter().any(|g| g.group.as_str() == "g"))
        .count();
    assert_eq!(reads, 1);
}

#[tokio::test]
async fn interests_are_bounded_and_the_latest_stay() {
    let running = start(None);
    for i in 0..=MAX_AD_HOC {
        running
            .interests
            .send(interest(&format!("g{i:03}")))
            .await
            .unwrap();
    }
    let last = format!("g{MAX_AD_HOC:03}");
    let snapshot = until(&running.reader, |snapshot| {
        snapshot
            .targets
            .interests
            .iter()
            .any(|i| i.group.as_str() == last)
    })
    .await;
    assert_eq!(snapshot.targets.interests.len(), MAX_AD_HOC);
    assert!(!snapshot.targets.interests.contains(&interest("g000")));
}

/// An HPA of a name, for a group of the same name.
fn named(name: &str) -> Arc<HpaFacts> {
    let mut facts = hpa();
    facts.name = name.into();
    facts.metrics[0].selector = Selector::parse(&format!("group={name},topic=t")).unwrap();
    facts.into()
}

#[tokio::test]
async fn a_publication_evaluates_only_what_changed() {
    let running = start(None);
    until(&running.reader, LagSnapshot::is_swept).await;
    running
        .hpas
        .send_replace(Some(vec![named("a"), named("b")]));
    until(&running.reader, |snapshot| {
        knows("a")(snapshot) && knows("b")(snapshot)
    })
    .await;
    let before = running.reader.latest().evaluations.made();
    running
        .hpas
        .send_replace(Some(vec![named("a"), named("b"), named("c")]));
    let snapshot = until(&running.reader, knows("c")).await;
    // Once as wanted and not yet read, and once as read.
    assert_eq!(snapshot.evaluations.made() - before, 2);
}

#[tokio::test]
async fn what_was_asked_once_is_evaluated_with_every_snapshot() {
    let running = start(None);
    until(&running.reader, LagSnapshot::is_swept).await;
    running.interests.send(interest("g")).await.unwrap();
    until(&running.reader, knows("g")).await;
    let selector = Selector::parse("group=g,topic=t").unwrap();
    let query = MetricQuery {
        namespace: "n",
        metric: LAG_METRIC,
        selector: &selector,
    };
    let asked = query.to_ad_hoc(Metric::Lag);
    running.queries.send(asked).await.unwrap();
    while running.queries.capacity() < 8 {
        tokio::task::yield_now().await;
    }
    running.hpas.send_replace(Some(Vec::new()));
    let evaluated = |snapshot: &LagSnapshot| snapshot.evaluations.of_ad_hoc(&query).is_some();
    let snapshot = until(&running.reader, evaluated).await;
    let now = Moment::now();
    let value = snapshot.at(&now).answer(&query).unwrap();
    assert_eq!(value.lag.map(|lag| lag.0), Some(7));
}
