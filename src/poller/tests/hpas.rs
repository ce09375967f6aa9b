//! Groups of HPAs.

use super::*;
use crate::model::findings::{Finding, FindingCode};
use crate::model::targets::budgets::Budgets;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::hpa_key::HpaKey;
use crate::poller::sweeps::MAX_PARTIAL_SWEEPS;

#[tokio::test]
async fn a_cluster_without_any_group_is_swept_too() {
    let running = start(None);
    until(&running.reader, LagSnapshot::is_swept).await;
}

#[tokio::test]
async fn a_new_hpa_is_read_at_once() {
    let running = start(None);
    until(&running.reader, |snapshot| snapshot.targets.hpas_unlisted).await;
    running.hpas.send_replace(listed([hpa("h", "g")]));
    let snapshot = until(&running.reader, has_read("g")).await;
    assert_eq!(snapshot.targets.all().count(), 1);
    assert!(!snapshot.targets.hpas_unlisted);
}

/// While the only thread for blocking work is busy, no HPAs are taken in.
#[test]
fn hpas_are_taken_in_off_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(1)
        .build();
    runtime.unwrap().block_on(async {
        let running = start(None);
        running.hpas.send_replace(listed([]));
        until(&running.reader, |snapshot| {
            !snapshot.targets.hpas_unlisted && snapshot.is_swept()
        })
        .await;
        for count in 1..3 {
            let (free, freed) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || freed.recv());
            let hpas = (0..count).map(|number| hpa(&format!("h{number}"), "g"));
            running.hpas.send_replace(listed(hpas));
            let has_all = |snapshot: &LagSnapshot| snapshot.targets.all().count() == count;
            let taken_in = until(&running.reader, has_all);
            let early = tokio::time::timeout(3 * HPA_CHANGE_INTERVAL, taken_in);
            assert!(early.await.is_err(), "the runtime has taken them in");
            drop(free);
            assert!(busy.await.unwrap().is_err());
            until(&running.reader, has_all).await;
        }
    });
}

#[tokio::test]
async fn an_hpa_that_is_gone_is_no_longer_read() {
    let (mut poller, ..) = poller(None);
    for (hpas, read) in [
        (vec![hpa("a", "g"), hpa("b", "h")], vec!["g", "h"]),
        (vec![hpa("b", "h")], vec!["h"]),
        (vec![], vec![]),
    ] {
        poller.state.update_hpas(listed(hpas).as_ref());
        let planned = poller.state.plan_sweeps(&BTreeSet::new());
        let groups = planned.iter().flat_map(|sweep| &sweep.plan.groups);
        let groups: Vec<_> = groups.map(|group| group.group.as_str()).collect();
        assert_eq!(groups, read);
    }
}

#[tokio::test]
async fn a_topic_that_members_turn_out_to_read_is_read_at_once() {
    let running = start(None);
    let mut reads = HpaFacts::clone(&hpa("h", "reads"));
    reads.metrics[0].selector = Selector::parse("group=reads").unwrap();
    running.hpas.send_replace(listed([Arc::new(reads)]));
    until(&running.reader, |snapshot| {
        let cluster = snapshot.clusters.get("main");
        let group = cluster.and_then(|cluster| cluster.groups.get("reads"));
        group.is_some_and(|group| group.topics.contains_key("unnamed"))
    })
    .await;
    // Only groups that were not in the plan before are read outside the interval, and once.
    let plans = running.plans.lock().unwrap();
    let of_group = plans.iter().filter(|plan| !plan.groups.is_empty());
    assert!(of_group.count() <= 3, "{plans:?}");
}

#[tokio::test]
async fn an_hpa_that_a_tick_finds_during_a_sweep_is_read_at_once() {
    let (mut poller, ..) = poller(None);
    for (hpas, under_way) in [
        (vec![], 1),
        (vec![hpa("h", "g")], 2),
        (vec![hpa("h", "g")], 2),
    ] {
        poller.state.update_hpas(listed(hpas).as_ref());
        let planned = poller.state.plan_sweeps(&poller.sweeps.sweeping());
        poller.sweeps.start(planned, Instant::now());
        assert_eq!(poller.sweeps.len(), under_way);
    }
}

#[tokio::test]
async fn many_changes_start_few_sweeps_of_a_slow_cluster() {
    let (open, held) = watch::channel(false);
    let (mut poller, ..) = poller(Some(held));
    for round in 0..10 {
        let two = [("a", "g"), ("b", "h")];
        let two = two.map(|(name, group)| hpa(name, &format!("{group}{round}")));
        poller.state.update_hpas(listed(two).as_ref());
        poller.state.set_busy(poller.sweeps.busy());
        let planned = poller.state.replan();
        poller.sweeps.start(planned, Instant::now());
    }
    assert_eq!(poller.sweeps.len(), MAX_PARTIAL_SWEEPS);
    // Once one has ended, the groups that are still needed are read together.
    open.send_replace(true);
    poller.sweeps.next().await.unwrap().unwrap();
    poller.state.set_busy(poller.sweeps.busy());
    let planned = poller.state.replan();
    let groups = planned.iter().flat_map(|sweep| &sweep.plan.groups);
    let groups: Vec<_> = groups.map(|group| group.group.as_str()).collect();
    assert_eq!(groups, ["g9", "h9"]);
}

#[tokio::test]
async fn a_sweep_that_has_ended_is_not_under_way() {
    let (mut poller, ..) = poller(None);
    let planned = poller.state.plan_sweeps(&BTreeSet::new());
    poller.sweeps.start(planned, Instant::now());
    assert_eq!(poller.sweeps.sweeping().len(), 1);
    while poller.sweeps.take_finished().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(poller.sweeps.sweeping().is_empty());
}

#[tokio::test]
async fn a_group_that_is_left_out_of_the_plan_is_reported_as_over_budget() {
    let (mut poller, reader, _plans) = poller_of(one_partition_each(), None);
    let hpas_listed = listed([hpa("a", "a"), hpa("b", "b")]);
    poller.state.update_hpas(hpas_listed.as_ref());
    for groups_read in [2, 1, 1] {
        let planned = poller.state.plan_sweeps(&BTreeSet::new());
        poller.sweeps.start(planned, Instant::now());
        let (observation, scope) = poller.sweeps.next().await.unwrap().unwrap();
        assert_eq!(observation.groups.len(), groups_read);
        poller.state.apply(observation, scope);
        poller.state.publish();
        let snapshot = reader.latest();
        let groups = &snapshot.clusters["main"].groups;
        assert_eq!(groups.get("a").unwrap().fault, None);
        assert_eq!(groups.get("b").unwrap().fault, Some(Fault::OverBudget));
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_is_published_together_after_the_first() {
    let running = start(None);
    until(&running.reader, LagSnapshot::is_swept).await;
    let begun = tokio::time::Instant::now();
    let names: Vec<_> = (0..100).map(|i| format!("h{i}")).collect();
    let mut hpas = HpaMap::default();
    let mut seen = running.reader.from_now_on();
    let mut published_at = Vec::new();
    for name in &names {
        // All use one group, which is read after the first of them.
        hpas.extend([(hpa(name, "g").key(), hpa(name, "g"))]);
        running.hpas.send_replace(Some(hpas.clone()));
        tokio::task::yield_now().await;
    }
    while seen.latest().targets.all().count() < names.len() {
        assert!(seen.changed().await);
        published_at.push(begun.elapsed());
    }
    // The first change waits for nothing.
    assert_eq!(published_at[0], Duration::ZERO);
    let delayed: Vec<_> = published_at.iter().filter(|at| !at.is_zero()).collect();
    assert!(delayed.len() <= 1, "{published_at:?}");
    assert!(
        begun.elapsed() <= Duration::from_millis(60),
        "{published_at:?}"
    );
}

/// A budget of one partition for each namespace. Every group of the fake has one.
fn one_partition_each() -> TargetOptions {
    let mut budgets = Budgets::DEFAULT;
    budgets.namespace.partitions = 1;
    budgets.hpa.partitions = 1;
    TargetOptions {
        budgets,
        ..TargetOptions::default()
    }
}

#[tokio::test]
async fn a_group_over_budget_is_unknown_with_a_finding_and_the_others_are_read() {
    let hpas_listed = listed([hpa("a", "a"), hpa("b", "b")]);
    let (poller, reader, plans) = poller_of(one_partition_each(), None);
    let hpas = watch::channel(hpas_listed).1;
    tokio::spawn(poller.run(inputs(hpas, mpsc::channel(1).1)));
    let snapshot = until(&reader, LagSnapshot::is_swept).await;
    let over_budget = |finding: &&Finding| finding.code == FindingCode::OverBudget;
    let findings = Vec::from_iter(snapshot.all_findings().filter(over_budget));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].subject, HpaKey::new("n", "b").into());
    assert!(findings[0].message.starts_with("\"b\" is not read: "));
    assert_eq!(snapshot.unread_partitions.values().sum::<usize>(), 1);
    let answer = |group: &str| {
        let selector = Selector::parse(&format!("group={group},topic=t")).unwrap();
        let query = MetricQuery {
            namespace: "n",
            metric: LAG_METRIC,
            selector: &selector,
        };
        snapshot.at(&Moment::now()).answer(&query)
    };
    assert_eq!(answer("a").unwrap().lag.map(|lag| lag.0), Some(7));
    let refused = answer("b").unwrap_err().to_string();
    assert!(
        refused.contains("more partitions than the budgets"),
        "{refused}"
    );
    assert!(
        plans
            .lock()
            .unwrap()
            .iter()
            .all(|plan| plan.max_partitions.is_some())
    );
}
