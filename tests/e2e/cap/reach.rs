//! The HPA reaches exactly the ceiling, with any tolerance and with several topics.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Policy, Scene, WAIT_TIMEOUT, enforced};
use crate::scale::workload;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

pub(crate) fn the_ceiling_is_reached_with_the_default_tolerance(testbed: &Testbed) -> Result<()> {
    // 55,200 at 1,000 per replica is the case at which a clamp sticks; here a tenth of it.
    let as_lag = |_: &mut Value| {};
    reach_the_ceiling(testbed, "tolerance", (22, 24), as_lag)
}

pub(crate) fn the_ceiling_is_reached_by_the_replicas_wanted(testbed: &Testbed) -> Result<()> {
    let as_replicas = |hpa: &mut Value| {
        hpa["metadata"]["annotations"]["lagwise.dev/lag-per-replica"] = json!("100");
        let external = &mut hpa["spec"]["metrics"][0]["external"];
        external["metric"]["name"] = json!("kafka_desired_replicas");
        external["target"]["averageValue"] = json!("1");
    };
    reach_the_ceiling(testbed, "desired", (22, 24), as_replicas)?;
    reach_the_ceiling(testbed, "desired", (91, 100), as_replicas)
}

/// Scales from `from` replicas to the ceiling with the default tolerance, where a clamped value alone would stop below
/// it.
fn reach_the_ceiling(
    testbed: &Testbed,
    name: &str,
    (from, ceiling): (i32, i32),
    change: impl Fn(&mut Value),
) -> Result<()> {
    let scene = Scene::set(testbed, name, ceiling)?;
    let _policy = Policy::install(&scene)?;
    let (_daemon, _api) = scene.daemon(testbed)?;
    let lag = |replicas: i32| usize::try_from(replicas * 100).context("a lag");
    scene.kafka.produce_to(&scene.topic, &[(0, lag(from)?)])?;
    let default = |hpa: &mut Value| {
        enforced(hpa);
        change(hpa);
        hpa["spec"]["maxReplicas"] = json!(2 * ceiling);
        for direction in ["scaleUp", "scaleDown"] {
            let rules = hpa["spec"]["behavior"][direction]
                .as_object_mut()
                .expect("rules");
            rules.remove("tolerance");
            rules["policies"] = json!([{"type": "Pods", "value": ceiling, "periodSeconds": 2}]);
        }
    };
    scene
        .plane
        .apply(&scene.namespace, &scene.manifest(default)?)?;
    let series = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    poll_until(WAIT_TIMEOUT, &format!("{from} replicas"), || {
        ensure!(series.now() == from, "{:?}", series.timed());
        Ok(())
    })?;
    scene.wait_until_max(ceiling.into())?;
    scene
        .kafka
        .produce_to(&scene.topic, &[(0, 2 * lag(ceiling - from)?)])?;
    poll_until(
        WAIT_TIMEOUT,
        &format!("{ceiling} replicas from {from}"),
        || {
            ensure!(series.now() == ceiling, "{:?}", series.timed());
            Ok(())
        },
    )?;
    ensure!(series.max() == ceiling, "{:?}", series.timed());
    println!("status.replicas with tolerance 0.1: {:?}", series.timed());
    Ok(())
}

/// Two topics of 12 and 4 partitions, read by two groups: one that assigns by range, one round robin.
pub(crate) fn several_topics_cap_as_they_are_assigned(testbed: &Testbed) -> Result<()> {
    let range = Scene::set(testbed, "topics", 12)?;
    let _policy = Policy::install(&range)?;
    let second = unique("returns");
    range.kafka.create_topic(&second, 4)?;
    let robin = Scene {
        plane: range.plane,
        kafka: range.kafka,
        namespace: range.namespace.clone(),
        topic: range.topic.clone(),
        group: unique("mail"),
    };
    let (_daemon, _api) = range.daemon(testbed)?;
    let topics = format!("{},{second}", range.topic);
    let strategy = "partition.assignment.strategy";
    let mut fleets = [
        range.fleet(testbed, &topics, (strategy, "range"))?,
        robin.fleet(testbed, &topics, (strategy, "roundrobin"))?,
    ];
    for fleet in &mut fleets {
        fleet.scale_to(1)?;
    }
    // Far more than either ceiling is worth, on one partition: a member takes one in a second.
    range.kafka.produce_to(&range.topic, &[(0, 2400)])?;
    let mut lists = Vec::new();
    for (name, scene) in [("billing", &range), ("mail", &robin)] {
        let mut list: Value = serde_json::from_str(&workload(name, &[("group", &scene.group)]))?;
        enforced(&mut list["items"][1]);
        list["items"][1]["spec"]["maxReplicas"] = json!(40);
        scene.plane.apply(&scene.namespace, &list.to_string())?;
        let series = ReplicaSeries::wanted(scene.plane, &scene.namespace, name)?;
        lists.push((name, series));
    }
    for ((name, series), ceiling) in lists.iter().zip([12, 16]) {
        poll_until(
            WAIT_TIMEOUT,
            &format!("{ceiling} replicas of {name}"),
            || {
                let hpa = range.plane.get("hpa", name, Some(&range.namespace))?;
                let max = hpa["spec"]["maxReplicas"].as_i64().context("no maximum")?;
                let now = (max, series.now());
                ensure!(now == (ceiling.into(), ceiling), "{now:?}");
                Ok(())
            },
        )?;
        ensure!(series.max() == ceiling, "{name}: {:?}", series.timed());
    }
    Ok(())
}
