//! Topics that appear while the workload that would read them is at zero replicas.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{COOLDOWN, Scene, WAIT_TIMEOUT};
use crate::daemon::{Daemon, metric_path};
use crate::scale::workload;
use crate::testbed::Testbed;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;

/// Waits until `explain` says this about the topics that match the topic regex.
fn wait_until_explained(scene: &Scene<'_>, daemon: &Daemon, expected: &str) -> Result<()> {
    let path = format!("/explain?namespace={}&hpa=billing", scene.namespace);
    poll_until(WAIT_TIMEOUT, expected, || {
        let (code, body) = http_get(daemon.admin_port, &path)?;
        ensure!(code == 200, "{code}: {body}");
        let explained: Value = serde_json::from_str(&body)?;
        let listing = explained["metrics"][0]["groups"][0]["listing"].as_str();
        ensure!(
            listing.is_some_and(|listing| listing.contains(expected)),
            "{listing:?}"
        );
        Ok(())
    })
}

/// A workload on the topics that match `regex`, whose consumers subscribe to `subscribed`, begins asleep. Then a topic
/// of that name appears, with 150 messages. Returns the replicas wanted since then, once it sleeps again, this number
/// of sweeps has passed, and `explain` says that the new topic does not count, if it `is_ignored`.
fn wake_by_a_new_topic(
    testbed: &Testbed,
    regex: impl Fn(&str) -> String,
    subscribed: impl Fn(&str) -> String,
    sweeps: u64,
    is_ignored: bool,
) -> Result<Vec<i32>> {
    let scene = Scene::set(testbed, "pattern")?;
    let options = scene.options();
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    let mut list: Value = serde_json::from_str(&workload("billing", &[("group", &scene.group)]))?;
    let cooldown = humantime::format_duration(COOLDOWN).to_string();
    list["items"][1]["metadata"]["annotations"] = json!({
        "lagwise.dev/topic-regex": regex(&scene.topic),
        "lagwise.dev/offset-reset": "earliest",
        "lagwise.dev/scale-to-zero": "true",
        "lagwise.dev/cooldown": cooldown,
    });
    scene.plane.apply(&scene.namespace, &list.to_string())?;
    let series = ReplicaSeries::wanted(scene.plane, &scene.namespace, "billing")?;
    let mut fleet = scene.fleet(testbed, &subscribed(&scene.topic), &[])?;
    let mut wait_until = |what: &str, is: &dyn Fn(i32) -> bool| {
        poll_until(WAIT_TIMEOUT, what, || {
            fleet.scale_to(usize::try_from(series.now()).unwrap_or(0))?;
            ensure!(is(series.now()), "{:?}", series.timed());
            Ok(())
        })
    };
    wait_until("the workload to fall asleep", &|now| now == 0)?;
    scene.wait_until_wanted(0, true)?;
    let no_members = format!(
        "kafka_consumergroup_members{{cluster=\"main\",consumergroup=\"{}\"}} 0\n",
        scene.group
    );
    poll_until(WAIT_TIMEOUT, "the consumers to be gone", || {
        ensure!(daemon.metrics()?.contains(&no_members), "not yet");
        Ok(())
    })?;
    // The topics are listed now, and again after half a minute: not while some of the messages are missing.
    daemon.wait_for_sweeps(4)?;
    let none = "no topic without a commit matches the topic regex";
    wait_until_explained(&scene, &daemon, none)?;
    let slept = series.values().len();
    let new = format!("{}-new", scene.topic);
    scene.kafka.create_topic(&new, 2)?;
    scene.kafka.produce_to(&new, &[(0, 100), (1, 50)])?;
    // A request that names the topic must not hide it from the topic regex.
    let selector = format!("group={},topic={new}", scene.group);
    let requested = metric_path(&scene.namespace, &selector);
    poll_until(WAIT_TIMEOUT, "the lag of the new topic", || {
        scene.plane.kubectl(&["get", "--raw", &requested])
    })?;
    wait_until("the workload to wake", &|now| now > 0)?;
    wait_until("the workload to fall asleep again", &|now| now == 0)?;
    scene.wait_until_wanted(0, true)?;
    daemon.wait_for_sweeps(sweeps)?;
    if is_ignored {
        let ignored = format!("do not count, since earlier members did not read them: {new}");
        wait_until_explained(&scene, &daemon, &ignored)?;
    }
    println!("spec.replicas: {:?}", series.timed());
    Ok(series.values().split_off(slept))
}

/// Consumers that subscribe by the same pattern read the new topic.
pub(crate) fn a_new_topic_wakes_a_pattern_subscriber(testbed: &Testbed) -> Result<()> {
    let replicas = wake_by_a_new_topic(
        testbed,
        |topic| format!("{topic}.*"),
        |topic| format!("^{topic}.*"),
        0,
        false,
    )?;
    ensure!(replicas.first() == Some(&2), "{replicas:?}");
    ensure!(replicas.last() == Some(&0), "{replicas:?}");
    Ok(())
}

/// Consumers that do not read the new topic are woken by it once, and not forever.
pub(crate) fn a_new_topic_without_a_reader_wakes_the_workload_once(
    testbed: &Testbed,
) -> Result<()> {
    // Longer than until the topics are listed again, which is when it could wake once more.
    let sweeps = 70;
    let regex = |topic: &str| format!("{topic}.*");
    let replicas = wake_by_a_new_topic(testbed, regex, str::to_owned, sweeps, true)?;
    let wakes = replicas.split(|replicas| *replicas == 0);
    let wakes = wakes.filter(|woken| !woken.is_empty()).count();
    ensure!(wakes == 1, "{replicas:?}");
    Ok(())
}
