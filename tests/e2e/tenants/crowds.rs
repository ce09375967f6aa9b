//! A user who may write HPAs in one namespace writes many, huge ones, and ones that need many topics. The metrics of
//! other namespaces must stay correct and fresh, also after a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::floods::{AttackScene, names};
use crate::scale::workload;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::topics::blocking;
use crate::testbed::{Testbed, unique};

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Total length of the group names of a huge HPA: about as large as the API server lets an HPA be.
const HUGE_BYTES: usize = 1_400_000;
/// Number of huge HPAs. A hundred would take too much memory of the API server on the test machine.
const HUGE: usize = 40;

/// Topics of the group with many topics. More are too much for the brokers of the tests, which have little memory.
const TOPICS: usize = 1000;
/// Metrics that select all topics of that group: number for each HPA, and number of HPAs.
const METRICS: usize = 64;
const HPAS_OF_TOPICS: usize = 4;

/// HPAs with one selector, half of which conflict with the other half.
const OF_ONE_SELECTOR: usize = 2000;
/// HPAs as large as the daemon keeps them; together they exceed the budget of a namespace.
const LARGE: usize = 300;
/// HPAs to be capped. Four thousand would take the API server of the tests minutes.
const ENFORCED: usize = 1000;
/// HPAs that the owner creates after those of bob.
const LATE: usize = 3;

/// Huge HPAs are written, and the daemon is restarted.
pub(super) fn a_restart_beside_huge_hpas_disturbs_nobody(testbed: &Testbed) -> Result<()> {
    let mut attack = AttackScene::new(testbed)?;
    let groups = |i: usize| -> Vec<String> {
        let values = (0..).map(|n| format!("g{i}-{n:0>55}"));
        let mut bytes = 0;
        values
            .take_while(|value| {
                bytes += value.len();
                bytes < HUGE_BYTES
            })
            .collect()
    };
    let huge: Vec<_> = (0..HUGE)
        .map(|i| attack.hpa(&format!("huge{i}"), json!({}), &[groups(i)]))
        .collect();
    let what = format!("{HUGE} HPAs of {HUGE_BYTES} bytes");
    attack.scene.check_during(&what, 3 * HUGE, || {
        for some in huge.chunks(5) {
            attack.write("create", some)?;
        }
        wait_until_over_budget(&attack, HUGE as u64)
    })?;
    let begun = Instant::now();
    attack.restart(testbed)?;
    println!(
        "started again beside {what}: the owner is served after {:.1?}, memory at most {} kB",
        begun.elapsed(),
        attack.scene.daemon.process.memory("VmHWM")?
    );
    attack
        .scene
        .check_during("after the restart", 3 * HUGE, || {
            wait_until_over_budget(&attack, HUGE as u64)?;
            attack.scene.daemon.wait_for_sweeps(3)
        })
}

/// Thousands of HPAs with one selector, large HPAs, a group name that is long, and a group with many topics.
pub(super) fn many_hpas_of_every_kind_disturb_nobody(testbed: &Testbed) -> Result<()> {
    let attack = AttackScene::new(testbed)?;
    let group = names("g", 1);
    let hpa = |i: usize| {
        // Half of them with another lag per replica, so that all conflict.
        let mut hpa = attack.hpa(&format!("same{i}"), json!({}), std::slice::from_ref(&group));
        let lag = if i.is_multiple_of(2) { "10" } else { "20" };
        hpa["spec"]["metrics"][0]["external"]["target"]["averageValue"] = json!(lag);
        hpa
    };
    let same: Vec<_> = (0..OF_ONE_SELECTOR).map(hpa).collect();
    let what = format!("{OF_ONE_SELECTOR} HPAs with one selector");
    attack.scene.check_during(&what, 2 * OF_ONE_SELECTOR, || {
        for some in same.chunks(250) {
            attack.write("create", some)?;
            attack.scene.owner_is_served()?;
        }
        attack.scene.daemon.wait_for_sweeps(2)
    })?;
    attack.delete_all()?;

    let large = |i: usize| {
        let mut hpa = attack.hpa(
            &format!("large{i}"),
            json!({}),
            std::slice::from_ref(&group),
        );
        let values: Vec<_> = (0..4000).map(|n| format!("{n:x}")).collect();
        let expressions =
            &mut hpa["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchExpressions"];
        let excluded = json!({"key": "topic", "operator": "NotIn", "values": values});
        expressions
            .as_array_mut()
            .expect("expressions")
            .push(excluded);
        hpa
    };
    let large: Vec<_> = (0..LARGE).map(large).collect();
    let what = format!("{LARGE} HPAs with 4000 short texts each");
    attack.scene.check_during(&what, 2 * LARGE, || {
        for some in large.chunks(50) {
            attack.write("create", some)?;
        }
        // Some of them are kept.
        wait_until_over_budget(&attack, LARGE as u64 / 2)?;
        attack.scene.daemon.wait_for_sweeps(2)
    })?;
    attack.delete_all()?;

    let name = json!({"lagwise.dev/consumer-group": "n".repeat(15 * 1024)});
    let long = attack.hpa("long", name, std::slice::from_ref(&group));
    attack
        .scene
        .check_during("a group name of 15 KiB", 40, || {
            attack.write("create", &[long])?;
            attack.scene.daemon.wait_for_sweeps(4)?;
            let metrics = attack.scene.daemon.metrics()?;
            let longest = metrics.lines().map(str::len).max().unwrap_or_default();
            println!("the longest line of /metrics has {longest} bytes (limit 4000)");
            ensure!(longest < 4000, "a line of {longest} bytes");
            Ok(())
        })?;
    attack.delete_all()?;
    a_group_of_many_topics(&attack, testbed.kafka()?)
}

/// A group of many topics, first in one metric that selects all of them, then in many such metrics.
fn a_group_of_many_topics(attack: &AttackScene<'_>, kafka: &KafkaCluster) -> Result<()> {
    let group = unique("everything");
    let topics = names(&unique("many-"), TOPICS);
    create_and_commit(kafka, &group, &topics)?;
    let hpa = |name: &str, metrics: usize| {
        let mut hpa = attack.hpa(name, json!({}), &vec![vec![group.clone()]; metrics]);
        let metrics = hpa["spec"]["metrics"].as_array_mut().expect("metrics");
        for (i, metric) in metrics.iter_mut().enumerate() {
            // Different selectors, so that no two metrics share an evaluation.
            let expressions = json!([
                {"key": "group", "operator": "In", "values": [group]},
                {"key": "hpa", "operator": "In", "values": [name]},
                {"key": "topic", "operator": "NotIn", "values": [format!("none-{i}")]},
            ]);
            metric["external"]["metric"]["selector"]["matchExpressions"] = expressions;
        }
        hpa
    };
    let what = format!("a group of {TOPICS} topics in one metric");
    let one = [hpa("one", 1)];
    let label = format!("consumergroup=\"{group}\"");
    attack.scene.check_during(&what, 40, || {
        attack.write("create", &one)?;
        poll_until(WAIT_TIMEOUT, "the group to be read", || {
            let metrics = attack.scene.daemon.metrics()?;
            let mut ages = metrics
                .lines()
                .filter(|line| line.starts_with("lagwise_data_age_seconds{"));
            ages.find(|line| line.contains(&label))
                .context("it is not")?;
            Ok(())
        })
    })?;
    let all = METRICS * HPAS_OF_TOPICS;
    let what = format!("the same in {all} metrics");
    let many: Vec<_> = (0..HPAS_OF_TOPICS)
        .map(|i| hpa(&format!("all{i}"), METRICS))
        .collect();
    attack.scene.check_during(&what, 100, || {
        attack.write("create", &many)?;
        attack.scene.daemon.wait_for_sweeps(4)?;
        attack.scene.owner_is_served()
    })?;
    attack.delete_all()?;
    let admin: AdminClient<DefaultClientContext> = kafka.client_config().create()?;
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    blocking(admin.delete_topics(&topics, &AdminOptions::new()))??;
    Ok(())
}

fn create_and_commit(kafka: &KafkaCluster, group: &str, topics: &[String]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka.client_config().create()?;
    let options = AdminOptions::new().operation_timeout(Some(WAIT_TIMEOUT));
    for some in topics.chunks(100) {
        let new: Vec<_> = some
            .iter()
            .map(|topic| {
                let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
                new.set("min.insync.replicas", "1")
            })
            .collect();
        for created in blocking(admin.create_topics(&new, &options))?? {
            created.map_err(|(topic, error)| anyhow!("creating topic {topic}: {error}"))?;
        }
    }
    let mut config = kafka.client_config();
    let consumer: BaseConsumer = config.set("group.id", group).create()?;
    let mut offsets = TopicPartitionList::new();
    for topic in topics {
        offsets.add_partition_offset(topic, 0, Offset::Offset(0))?;
    }
    poll_until(WAIT_TIMEOUT, "the commits", || {
        Ok(consumer.commit(&offsets, CommitMode::Sync)?)
    })
}

fn wait_until_over_budget(attack: &AttackScene<'_>, hpas: u64) -> Result<()> {
    poll_until(WAIT_TIMEOUT, "the findings", || {
        let found = attack.scene.findings("over_budget")?;
        ensure!(found >= hpas, "{found} of {hpas}");
        attack.scene.owner_is_served()
    })
}

/// Bob has a thousand HPAs capped. The HPAs of the owner, whose namespace comes later in the order of names, get their
/// turn meanwhile.
pub(super) fn a_thousand_hpas_leave_passes_to_others(testbed: &Testbed) -> Result<()> {
    let attack = AttackScene::new(testbed)?;
    attack.let_the_daemon_write()?;
    let enforce = json!({"lagwise.dev/cap": "enforce"});
    let hpa = |i: usize| {
        let group = names(&format!("cap{i}-"), 1);
        let mut hpa = attack.hpa(&format!("cap{i}"), enforce.clone(), &[group]);
        hpa["spec"]["maxReplicas"] = json!(1000);
        let expressions =
            &mut hpa["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchExpressions"];
        expressions[1]["values"] = json!([attack.scene.owner.topic]);
        hpa
    };
    let hpas: Vec<_> = (0..ENFORCED).map(hpa).collect();
    let what = format!("{ENFORCED} HPAs to be capped");
    attack.scene.check_during(&what, 3 * ENFORCED, || {
        for some in hpas.chunks(250) {
            attack.write("create", some)?;
        }
        let owner = &attack.scene.owner;
        for i in 0..LATE {
            let name = format!("late{i}");
            let selector = [
                ("group", &*owner.group),
                ("topic", &*owner.topic),
                ("hpa", &*name),
            ];
            let mut list: Value = serde_json::from_str(&workload(&name, &selector))?;
            let items = list["items"].as_array_mut().context("no items")?;
            for item in items.iter_mut().filter(|item| item["kind"] == "HorizontalPodAutoscaler") {
                item["metadata"]["annotations"]["lagwise.dev/cap"] = json!("enforce");
            }
            let (plane, begun) = (attack.scene.plane, Instant::now());
            let before = attack.written()?;
            plane.apply(&owner.namespace, &list.to_string())?;
            poll_until(WAIT_TIMEOUT, "the owner's HPA to be capped", || {
                let hpa: Value = plane.get("hpa", &name, Some(&owner.namespace))?;
                ensure!(hpa["spec"]["maxReplicas"] == 6, "{}", hpa["spec"]);
                Ok(())
            })?;
            println!(
                "the owner's HPA was capped after {:.1?} (limit {WAIT_TIMEOUT:?}); meanwhile {} ceilings were written",
                begun.elapsed(),
                attack.written()? - before
            );
        }
        Ok(())
    })
}
