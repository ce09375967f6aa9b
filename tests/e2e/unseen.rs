//! A misspelled group or topic never removes replicas, and is reported with the name that was probably meant.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kubernetes::condition;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "unseen::replicas_of_a_misspelled_group_are_kept",
    replicas_of_a_misspelled_group_are_kept,
)];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

fn replicas_of_a_misspelled_group_are_kept(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("unseen")?;
    let (topic, other, group) = (unique("orders"), unique("other"), unique("billing"));
    for topic in [&topic, &other] {
        kafka.create_topic(topic, 6)?;
    }
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let forbidden = format!("{group}x");
    kafka.commit(&forbidden, &topic, &[(0, 0)])?;
    let misspelled = format!("{group}xx");
    let alone = unique("alone");
    kafka.commit(&alone, &topic, &[(0, 0)])?;
    let options = Options {
        namespaces: vec![namespace.clone()],
        // The nearest name of all is another team's.
        tenancy: json!([{"namespaces": [namespace], "groups": [group, misspelled, alone]}]),
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let apply = |name: &str, group: &str, topic: &str, replicas: u32| {
        let labels = [("group", group), ("topic", topic)];
        let mut list: Value = serde_json::from_str(&workload(name, &labels))?;
        list["items"][0]["spec"]["replicas"] = json!(replicas);
        plane.apply(&namespace, &list.to_string())
    };
    // A misspelled group, an existing topic that the group does not read, and a group that is yet to run.
    apply("group", &misspelled, &topic, 5)?;
    apply("topic", &group, &other, 3)?;
    apply("new", &misspelled, &topic, 1)?;
    // No target names the topic that this one reads.
    apply("alone", &alone, &other, 3)?;
    apply("idle", &group, &topic, 5)?;
    let series = |name: &str| ReplicaSeries::wanted(plane, &namespace, name);
    let (by_group, by_topic, new, other_topic, idle) = (
        series("group")?,
        series("topic")?,
        series("new")?,
        series("alone")?,
        series("idle")?,
    );
    // A group that is known to have no lag scales down at once.
    poll_until(WAIT_TIMEOUT, "the idle workload to go down", || {
        ensure!(idle.now() == 1, "{:?}", idle.timed());
        Ok(())
    })?;
    for (name, meant) in [("group", true), ("topic", false), ("alone", false)] {
        poll_until(WAIT_TIMEOUT, &format!("the reason at {name}"), || {
            let hpa = plane.get("hpa", name, Some(&namespace))?;
            let active = condition(&hpa, "ScalingActive").context("no condition yet")?;
            let message = active["message"].as_str().unwrap_or_default();
            let suggestion = format!("did you mean group {group}?");
            ensure!(
                active["status"] == "False"
                    && message.contains("has no committed offset")
                    && message.contains(&suggestion) == meant
                    && !message.contains(&format!("{forbidden}?")),
                "{active}"
            );
            Ok(())
        })?;
    }
    let found = lint(testbed, plane, &options, &namespace)?;
    for (name, is_found) in [
        ("group", true),
        ("new", true),
        ("topic", false),
        ("idle", false),
    ] {
        let object = format!("hpa/{namespace}/{name}");
        let mut all = found.as_array().into_iter().flatten();
        let unseen = all.find(|f| f["code"] == "LW056" && f["object"] == *object);
        let meant = format!("did you mean group {group}?");
        let is_right = unseen.map(|f| f.to_string().contains(&meant));
        ensure!(is_right == is_found.then_some(true), "{object}: {found}");
    }
    daemon.wait_for_sweeps(40)?;
    // Two minutes after the start the findings are events, too.
    poll_until(WAIT_TIMEOUT * 2, "the events", || {
        let found = events(plane, &namespace)?;
        let meant = format!("did you mean group {group}?");
        for (name, words) in [
            ("group", &*meant),
            ("new", &*meant),
            (
                "alone",
                "exists, but has neither members nor committed offsets",
            ),
        ] {
            let own = found.iter().find(|(hpa, _)| hpa == name);
            let (_, note) = own.with_context(|| format!("none for {name}: {found:?}"))?;
            ensure!(note.contains(words), "{note}");
        }
        ensure!(found.len() == 3, "{found:?}");
        Ok(())
    })?;
    for name in ["group", "new", "alone"] {
        let status = daemon.status_of(&namespace, name)?;
        let findings = status["findings"].as_array().context("no findings")?;
        ensure!(findings.contains(&json!("LW056")), "{status}");
    }
    for (series, kept) in [(&by_group, 5), (&by_topic, 3), (&other_topic, 3), (&new, 1)] {
        ensure!(
            series.values().iter().all(|now| *now == kept),
            "{:?} instead of {kept}",
            series.timed()
        );
    }
    Ok(())
}

/// The HPAs of the namespace with an event about an unseen group, and its note.
fn events(plane: &ControlPlane, namespace: &str) -> Result<Vec<(String, String)>> {
    let all = plane.events(namespace)?;
    let ours = all.iter().filter(|e| e["reason"] == "UnseenGroup");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(ours
        .map(|event| (text(&event["regarding"]["name"]), text(&event["note"])))
        .collect())
}

/// What `lagwise lint` finds in the namespace.
fn lint(
    testbed: &Testbed,
    plane: &ControlPlane,
    options: &Options,
    namespace: &str,
) -> Result<Value> {
    let file = testbed.folder("commands")?.join("lagwise.yaml");
    let config = json!({"clusters": options.clusters, "tenancy": options.tenancy});
    std::fs::write(&file, config.to_string())?;
    let (file, kubeconfig) = (file.to_string_lossy(), plane.kubeconfig().to_string_lossy());
    let args = ["lint", "--config", &*file, "-o", "json", "-n", namespace];
    let done = testbed
        .lagwise(&[&args[..], &["--kubeconfig", &*kubeconfig]].concat())
        .output()?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(errors.is_empty(), "{:?}: {errors}", done.status);
    Ok(serde_json::from_slice(&done.stdout)?)
}
