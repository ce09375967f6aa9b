//! Two daemons on one cluster: one leads and writes, and the other takes over.

mod answers;
mod history;
mod odd_leases;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "leader::one_writes_and_another_takes_over",
        one_writes_and_another_takes_over,
    ),
    ("leader::one_answers_for_all", answers::one_answers_for_all),
    (
        "leader::the_next_leader_loads_the_saved_history",
        the_next_leader_loads_the_saved_history,
    ),
    (
        "leader::the_history_is_handed_over",
        history::is_handed_over,
    ),
];

/// The time that a Lease is respected takes five minutes.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "leader::leases_of_decades_are_taken_over",
    odd_leases::are_taken_over,
)];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(90);

/// The rights that the chart gives, here in this namespace only.
pub(crate) fn allow(plane: &ControlPlane, namespace: &str) -> Result<()> {
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "leads"},
            "rules": [
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch", "create", "update"]},
                {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "patch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "leads"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leads"},
            "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": namespace}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": format!("leads-{namespace}")},
            "rules": [{
                "apiGroups": ["admissionregistration.k8s.io"],
                "resources": ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
                "resourceNames": ["lagwise-cap"],
                "verbs": ["get"],
            }],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": format!("leads-{namespace}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("leads-{namespace}")},
            "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": namespace}],
        },
    ]});
    plane.apply(namespace, &rights.to_string())
}

/// The rights to keep the state in a ConfigMap.
pub(crate) fn allow_state(plane: &ControlPlane, namespace: &str) -> Result<()> {
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "keeps"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "keeps"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keeps"},
            "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": namespace}],
        },
    ]});
    plane.apply(namespace, &rights.to_string())
}

fn leads(daemon: &Daemon) -> Result<bool> {
    let metrics = daemon.metrics()?;
    let has_lag = metrics.contains("kafka_consumergroup_lag_sum{");
    // The whole line, because the help of the metric begins in the same way.
    let leads = metrics.lines().any(|line| line == "lagwise_leader 1");
    ensure!(leads || !has_lag, "a follower exports lag");
    Ok(leads)
}

fn writes(daemon: &Daemon) -> Result<bool> {
    let written = "lagwise_cap_writes_total{outcome=\"written\"}";
    Ok(daemon.metrics()?.contains(written))
}

fn one_writes_and_another_takes_over(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("leader")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 6)?;
    kafka.commit(&group, &topic, &(0..6).map(|p| (p, 0)).collect::<Vec<_>>())?;
    allow(plane, &namespace)?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let options = Options {
        leader: json!({"lease": "lagwise", "duration": "6s"}),
        ..Options::main(&kafka.bootstrap())
    };
    let start = || {
        let watched = json!({"namespaces": [namespace]});
        Daemon::start(testbed, &options, json!({}), watched, Some(&kubeconfig))
    };
    let first = start()?;
    poll_until(WAIT_TIMEOUT, "the first to lead", || {
        ensure!(leads(&first)?, "it does not");
        Ok(())
    })?;
    let mut second = start()?;
    poll_until(
        WAIT_TIMEOUT,
        "the second to say that it does not lead",
        || {
            let metrics = second.metrics()?;
            let follows = metrics.lines().any(|line| line == "lagwise_leader 0");
            ensure!(follows, "it does not say so");
            Ok(())
        },
    )?;
    let mut list: Value = serde_json::from_str(&workload(
        "billing",
        &[("group", &group), ("topic", &topic)],
    ))?;
    list["items"][1]["metadata"]["annotations"] = json!({"lagwise.dev/cap": "enforce"});
    plane.apply(&namespace, &list.to_string())?;
    let max = || -> Result<i64> {
        plane.get("hpa", "billing", Some(&namespace))?["spec"]["maxReplicas"]
            .as_i64()
            .context("no maxReplicas")
    };
    let wait_until_max = |expected: i64| {
        poll_until(WAIT_TIMEOUT, &format!("maxReplicas {expected}"), || {
            let max = max()?;
            ensure!(max == expected, "{max}");
            Ok(())
        })
    };
    wait_until_max(6)?;
    ensure!(!leads(&second)? && !writes(&second)?, "both lead");
    let wait_until_epoch = || {
        poll_until(WAIT_TIMEOUT, "the HPA to carry the leader's term", || {
            let hpa = plane.get("hpa", "billing", Some(&namespace))?;
            let lease = plane.get("lease", "lagwise", Some(&namespace))?;
            let epoch = &hpa["metadata"]["annotations"]["lagwise.dev/epoch"];
            let term = lease["spec"]["leaseTransitions"].to_string();
            ensure!(epoch.as_str() == Some(&term), "{epoch} in term {term}");
            Ok(term)
        })
    };
    let first_term = wait_until_epoch()?;

    // Suspended for longer than its Lease: the other leads, and the first stops leading as soon as it resumes.
    first.process.signal("STOP")?;
    poll_until(WAIT_TIMEOUT, "the second to lead", || {
        ensure!(leads(&second)?, "it does not");
        Ok(())
    })?;
    // A late write of the first leader meets a newer version, although nothing else has changed.
    ensure!(wait_until_epoch()? != first_term, "the term is the same");
    let change = r#"{"spec":{"maxReplicas":30}}"#;
    plane.kubectl(&["patch", "hpa", "billing", "-n", &namespace, "-p", change])?;
    wait_until_max(6)?;
    // It counts a write when it has the answer, which may be later than the write is seen.
    poll_until(WAIT_TIMEOUT, "the second to have written", || {
        ensure!(writes(&second)?, "it has not");
        Ok(())
    })?;
    let written = |daemon: &Daemon| -> Result<Option<String>> {
        let metrics = daemon.metrics()?;
        let mut lines = metrics.lines();
        Ok(lines
            .find(|line| line.starts_with("lagwise_cap_writes_total{outcome=\"written\""))
            .map(str::to_owned))
    };
    first.process.signal("CONT")?;
    let before = written(&first)?;
    poll_until(WAIT_TIMEOUT, "the first to have noticed", || {
        ensure!(!leads(&first)?, "it still leads");
        Ok(())
    })?;
    plane.kubectl(&[
        "patch",
        "hpa",
        "billing",
        "-n",
        &namespace,
        "-p",
        r#"{"spec":{"maxReplicas":25}}"#,
    ])?;
    wait_until_max(6)?;
    ensure!(
        written(&first)? == before,
        "the first has written without leading"
    );

    // In order: handed over at once, long before the Lease would have ended.
    second.process.stop(Duration::from_secs(10))?;
    let lease = plane.kubectl(&[
        "get",
        "lease",
        "lagwise",
        "-n",
        &namespace,
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ])?;
    println!("holder after SIGTERM: {lease:?}");
    poll_until(WAIT_TIMEOUT, "the first to lead again", || {
        ensure!(leads(&first)?, "it does not");
        Ok(())
    })?;
    // Killed: another leads once the Lease has ended.
    let third = start()?;
    first.process.signal("KILL")?;
    poll_until(WAIT_TIMEOUT, "the third to lead", || {
        ensure!(leads(&third)?, "it does not");
        Ok(())
    })?;
    plane.kubectl(&["patch", "hpa", "billing", "-n", &namespace, "-p", change])?;
    wait_until_max(6)?;
    wait_until_epoch()?;

    // Given back, nothing of any leader is left on it.
    drop(third);
    let released = testbed
        .lagwise(&["release", "--kubeconfig"])
        .arg(plane.kubeconfig())
        .arg(format!("{namespace}/billing"))
        .output()?;
    ensure!(released.status.success(), "{released:?}");
    let hpa = plane.get("hpa", "billing", Some(&namespace))?;
    let annotations = hpa["metadata"]["annotations"].as_object();
    let left: Vec<_> = annotations
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .filter(|key| key.starts_with("lagwise.dev/") && *key != "lagwise.dev/cap")
        .collect();
    ensure!(left.is_empty(), "{left:?} are left");
    ensure!(max()? == 30, "the user's number is {}", max()?);
    Ok(())
}

/// A new leader loads the saved state when its term begins, not when the process started.
fn the_next_leader_loads_the_saved_history(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("remembered")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 9)?;
    kafka.commit(&group, &topic, &[(0, 2)])?;
    allow(plane, &namespace)?;
    allow_state(plane, &namespace)?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let options = Options {
        leader: json!({"lease": "lagwise", "duration": "6s"}),
        state: json!({"config_map": "state"}),
        targets: vec![json!({"name": "kept", "group": group, "topics": [topic]})],
        ..Options::main(&kafka.bootstrap())
    };
    let start = || {
        let watched = json!({"namespaces": [namespace]});
        Daemon::start(testbed, &options, json!({}), watched, Some(&kubeconfig))
    };
    let shows = |daemon: &Daemon, rule: &str| {
        poll_until(WAIT_TIMEOUT, &format!("a lag that is {rule}"), || {
            let metrics = daemon.metrics()?;
            let line = format!(
                "lagwise_consumergroup_partitions{{cluster=\"main\",consumergroup=\"{group}\",topic=\"{topic}\",rule=\"{rule}\"}} 1"
            );
            ensure!(metrics.contains(&line), "no {line}");
            Ok(())
        })
    };
    let mut first = start()?;
    shows(&first, "measured")?;
    // It starts when nothing is kept yet.
    let second = start()?;
    kafka.consumer_groups_tool(&["--delete-offsets", "--group", &group, "--topic", &topic])?;
    shows(&first, "forgotten")?;
    first.process.stop(Duration::from_secs(10))?;
    shows(&second, "forgotten")
}
