//! Reports about an HPA on the real API server: events, `lagwise lint` and `lagwise status`.

mod turns;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options, cluster};
use crate::scale::workload;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "events::a_finding_is_one_event_however_long_it_lasts",
        a_finding_is_one_event_however_long_it_lasts,
    ),
    (
        "events::unrecognized_hpas_have_findings_and_events",
        unrecognized_hpas_have_findings_and_events,
    ),
    (
        "events::turns_are_left_to_others",
        turns::are_left_to_others,
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 6;

/// An HPA with a metric of another server, up to 20 replicas, and with an unknown annotation.
fn manifest(group: &str, topic: &str) -> Result<Value> {
    let labels = [("group", group), ("topic", topic)];
    let mut list: Value = serde_json::from_str(&workload("billing", &labels))?;
    let hpa = &mut list["items"][1];
    hpa["metadata"]["annotations"] = json!({"lagwise.dev/evn": "true"});
    let metrics = hpa["spec"]["metrics"].as_array_mut().context("metrics")?;
    metrics.push(json!({
        "type": "External",
        "external": {
            "metric": {"name": "queue_length"},
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    }));
    Ok(list)
}

/// lagwise's events in a namespace.
fn own_events(plane: &ControlPlane, namespace: &str) -> Result<Vec<Value>> {
    let mut events = plane.events(namespace)?;
    events.retain(|event| event["reportingController"] == "lagwise.dev/lagwise");
    Ok(events)
}

/// lagwise's events on the HPA: reason, and how often it was counted up.
fn events(plane: &ControlPlane, namespace: &str) -> Result<BTreeMap<String, i64>> {
    let mut found = BTreeMap::new();
    for event in &own_events(plane, namespace)? {
        let regarding = &event["regarding"];
        ensure!(
            regarding["kind"] == "HorizontalPodAutoscaler" && regarding["name"] == "billing",
            "{event}"
        );
        let reason = event["reason"].as_str().context("no reason")?.to_owned();
        let count = event["series"]["count"].as_i64().unwrap_or(1);
        ensure!(found.insert(reason, count).is_none(), "twice: {event}");
    }
    Ok(found)
}

fn counter(daemon: &Daemon, series: &str) -> Result<u64> {
    let metrics = daemon.metrics()?;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series));
    value.map_or(Ok(0), |value| Ok(value.trim().parse()?))
}

/// Sweeps so far, complete or not: HPAs of other tests may use deleted groups.
fn sweeps(daemon: &Daemon) -> Result<u64> {
    let of = |outcome: &str| {
        let series = format!("lagwise_polls_total{{cluster=\"main\",outcome=\"{outcome}\"}}");
        counter(daemon, &series)
    };
    Ok(of("complete")? + of("incomplete")?)
}

fn written(daemon: &Daemon, outcome: &str) -> Result<u64> {
    let series = format!("lagwise_kubernetes_events_total{{outcome=\"{outcome}\"}}");
    counter(daemon, &series)
}

fn a_finding_is_one_event_however_long_it_lasts(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("events")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, PARTITIONS)?;
    let commits: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &commits)?;
    kafka.produce_to(&topic, &[(0, 50)])?;
    plane.apply(&namespace, &manifest(&group, &topic)?.to_string())?;

    let options = Options {
        // Its reports are counted.
        namespaces: vec![namespace.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let expected = |count: i64| -> BTreeMap<String, i64> {
        ["OthersAbove", "UnknownAnnotation"]
            .map(|reason| (reason.to_owned(), count))
            .into()
    };
    poll_until(WAIT_TIMEOUT, "the events", || {
        let events = events(plane, &namespace)?;
        ensure!(events == expected(1), "{events:?}");
        Ok(())
    })?;
    let before = sweeps(&daemon)?;
    poll_until(WAIT_TIMEOUT, "many sweeps", || {
        let swept = sweeps(&daemon)?;
        ensure!(swept >= before + 20, "{swept} after {before}");
        Ok(())
    })?;
    let lasting = events(plane, &namespace)?;
    ensure!(lasting == expected(1), "{lasting:?}");
    for (outcome, count) in [("written", 2), ("repeated", 0), ("failed", 0)] {
        let is = written(&daemon, outcome)?;
        ensure!(is == count, "{outcome} {is} times, not {count}");
    }
    commands_report_the_same(testbed, plane, &namespace, &kafka.bootstrap(), &daemon)?;

    // The next daemon finds them.
    drop((daemon, api));
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    poll_until(WAIT_TIMEOUT, "the events to be counted up", || {
        let again = written(&daemon, "repeated")?;
        ensure!(again == 2, "{again}");
        Ok(())
    })?;
    let again = events(plane, &namespace)?;
    ensure!(again == expected(2), "{again:?}");
    ensure!(written(&daemon, "written")? == 0, "another event");

    // A problem that ends and begins again within the hour is the same event.
    let patch = |max: u32| {
        let patch = json!({"spec": {"maxReplicas": max}}).to_string();
        plane.kubectl(&["patch", "hpa", "billing", "-n", &namespace, "-p", &patch])
    };
    patch(6)?;
    let before = sweeps(&daemon)?;
    poll_until(WAIT_TIMEOUT, "a sweep that finds nothing", || {
        let swept = sweeps(&daemon)?;
        ensure!(swept >= before + 4, "{swept} after {before}");
        Ok(())
    })?;
    patch(20)?;
    poll_until(WAIT_TIMEOUT, "it to be counted up", || {
        let again = written(&daemon, "repeated")?;
        ensure!(again == 3, "{again}");
        Ok(())
    })?;
    let last = events(plane, &namespace)?;
    ensure!(last == expected(2), "{last:?}");
    lag_above_the_ceiling_is_one_event(plane, kafka, &namespace, &daemon, (&group, &topic))
}

/// Lag that is worth more replicas than the ceiling is an event when it begins, and no further event if the lag goes
/// and comes.
fn lag_above_the_ceiling_is_one_event(
    plane: &ControlPlane,
    kafka: &KafkaCluster,
    namespace: &str,
    daemon: &Daemon,
    (group, topic): (&str, &str),
) -> Result<()> {
    // At once: a sweep must not see a part of them.
    kafka.produce_batch(topic, 0, 2000)?;
    // The test itself commits in place of members.
    let limit = "the partitions with a commit, since the group never had a member";
    let expected = format!(
        "lag 2050 is worth 21 replicas, capped at {PARTITIONS} (useful parallelism {PARTITIONS}: {limit})"
    );
    let at_ceiling = || -> Result<Vec<Value>> {
        let mut events = plane.events(namespace)?;
        events.retain(|event| event["reason"] == "AtCeiling");
        Ok(events)
    };
    let is_one_event = || {
        let events = at_ceiling()?;
        let [event] = events.as_slice() else {
            anyhow::bail!("{events:?}");
        };
        let note = event["note"].as_str().unwrap_or_default();
        ensure!(note.contains(&expected), "{note}");
        ensure!(
            event["type"] == "Normal" && event["series"].is_null(),
            "{event}"
        );
        Ok(())
    };
    poll_until(WAIT_TIMEOUT, "the event AtCeiling", is_one_event)?;
    let status = daemon.status_of(namespace, "billing")?;
    ensure!(
        status["desired"] == PARTITIONS && status["uncapped"] == 21,
        "{status}"
    );
    let metrics = daemon.metrics()?;
    let mut lines = metrics.lines();
    let series = format!("lagwise_target_uncapped_replicas{{namespace=\"{namespace}\"");
    let uncapped = lines.find(|line| line.starts_with(&series));
    ensure!(
        uncapped.is_some_and(|line| line.ends_with(" 21")),
        "{uncapped:?}"
    );
    let ends: Vec<_> = (0..).zip(kafka.end_offsets(topic)?).collect();
    kafka.commit(group, topic, &ends)?;
    daemon.wait_for_sweeps(4)?;
    kafka.produce_batch(topic, 1, 3000)?;
    daemon.wait_for_sweeps(8)?;
    let status = daemon.status_of(namespace, "billing")?;
    ensure!(status["uncapped"] == 30, "{status}");
    is_one_event()
}

/// The commands, with a configuration file and as kubectl reads the cluster.
struct Commands<'a> {
    testbed: &'a Testbed,
    file: String,
    kubeconfig: String,
}

impl<'a> Commands<'a> {
    fn new(testbed: &'a Testbed, plane: &ControlPlane, bootstrap: &str) -> Result<Self> {
        let file = testbed.folder("commands")?.join("lagwise.yaml");
        let config = json!({"clusters": [cluster("main", &[("bootstrap.servers", bootstrap)])]});
        std::fs::write(&file, config.to_string())?;
        Ok(Self {
            testbed,
            file: file.to_string_lossy().into_owned(),
            kubeconfig: plane.kubeconfig().to_string_lossy().into_owned(),
        })
    }

    /// Output of a command, which must have this exit code and report no error.
    fn run(&self, args: &[&str], exit: i32) -> Result<Value> {
        let all = [args, &["-o", "json", "--kubeconfig", &self.kubeconfig]].concat();
        let done = self.testbed.lagwise(&all).output()?;
        let errors = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.code() == Some(exit),
            "{args:?}: {:?}: {errors}",
            done.status
        );
        ensure!(errors.is_empty(), "{args:?}: {errors}");
        Ok(serde_json::from_slice(&done.stdout)?)
    }
}

/// An HPA that lagwise does not recognize, and how.
struct Unrecognized {
    name: &'static str,
    metric: &'static str,
    group: String,
    /// The reason of the event.
    reason: &'static str,
    /// Text of the event.
    words: &'static str,
}

/// HPAs that are meant for lagwise but not recognized are findings in events, `lint` and `explain`. So are missing
/// members, for an HPA whose group another HPA scales to zero.
fn unrecognized_hpas_have_findings_and_events(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("silent")?;
    let (topic, group) = (unique("orders"), unique("team/orders"));
    kafka.create_topic(&topic, PARTITIONS)?;
    left_by_its_members(testbed, kafka, &group, &topic)?;
    let one = |name, metric, group: &str, reason, words| Unrecognized {
        name,
        metric,
        group: group.to_owned(),
        reason,
        words,
    };
    let (invalid, label) = ("InvalidSelector", "lagwise.dev/consumer-group");
    let unrecognized = [
        one("slash", "kafka_lag", &group, invalid, label),
        one("long", "kafka_lag", &"g".repeat(70), invalid, label),
        one("underscore", "kafka_lag", "_x", invalid, label),
        one(
            "dash",
            "kafka-lag",
            "orders",
            "MetricNotServed",
            "kafka_lag",
        ),
        one(
            "exporter",
            "kafka_consumergroup_lag",
            "orders",
            "MetricNotServed",
            "kafka_lag",
        ),
    ];
    for hpa in &unrecognized {
        let mut list: Value = serde_json::from_str(&workload(hpa.name, &[("group", &hpa.group)]))?;
        list["items"][1]["spec"]["metrics"][0]["external"]["metric"]["name"] = json!(hpa.metric);
        plane.apply(&namespace, &list.to_string())?;
    }
    // Of the same group: one that may be at zero, and two that may not.
    for (name, labels, zero) in [
        ("asleep", &[("group", "orders")][..], Some("true")),
        (
            "up",
            &[("group", "orders"), ("topic", &topic)],
            Some("false"),
        ),
        ("unset", &[("group", "orders"), ("cluster", "main")], None),
    ] {
        let mut list: Value = serde_json::from_str(&workload(name, labels))?;
        let annotations = &mut list["items"][1]["metadata"]["annotations"];
        *annotations = json!({"lagwise.dev/consumer-group": group});
        if let Some(zero) = zero {
            annotations["lagwise.dev/scale-to-zero"] = json!(zero);
        }
        plane.apply(&namespace, &list.to_string())?;
    }
    // One that has nothing to do with lagwise.
    let mut plain: Value = serde_json::from_str(&workload("plain", &[("queue", "orders")]))?;
    plain["items"][1]["spec"]["metrics"][0]["external"]["metric"]["name"] = json!("queue_length");
    plane.apply(&namespace, &plain.to_string())?;

    let options = Options {
        namespaces: vec![namespace.clone()],
        read_only: true,
        ..Options::main(&kafka.bootstrap())
    };
    let (_daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    poll_until(WAIT_TIMEOUT, "an event on each", || {
        let events = plane.events(&namespace)?;
        for hpa in &unrecognized {
            let mut of_hpa = events.iter().filter(|e| e["regarding"]["name"] == hpa.name);
            let found = of_hpa.find(|event| event["reason"] == hpa.reason);
            let found = found.with_context(|| format!("none on {}: {events:?}", hpa.name))?;
            let note = found["note"].as_str().unwrap_or_default();
            ensure!(note.contains(hpa.words), "{note}");
        }
        Ok(())
    })?;
    let commands = Commands::new(testbed, plane, &kafka.bootstrap())?;
    let found = commands.run(&["lint", "--config", &commands.file, "-n", &namespace], 1)?;
    let of_kind = |kind: &str| -> Vec<String> {
        let all = found.as_array().into_iter().flatten();
        let all = all.filter(|finding| finding["kind"] == kind);
        let objects = all.filter_map(|finding| finding["object"].as_str());
        let names = objects.filter_map(|object| object.rsplit('/').next());
        names.map(str::to_owned).collect()
    };
    for (kind, names) in [
        ("invalid_selector", &["long", "slash", "underscore"][..]),
        ("metric_not_served", &["dash", "exporter"]),
        ("no_members", &["unset", "up"]),
    ] {
        ensure!(of_kind(kind) == names, "{kind}: {found}");
    }
    let explained = commands.run(
        &[
            "explain",
            &format!("{namespace}/dash"),
            "--config",
            &commands.file,
        ],
        1,
    )?;
    let said = explained["findings"].to_string();
    ensure!(said.contains("kafka-lag"), "{explained}");
    Ok(())
}

/// Lets a member commit in the group and leave it, and adds lag.
fn left_by_its_members(
    testbed: &Testbed,
    kafka: &KafkaCluster,
    group: &str,
    topic: &str,
) -> Result<()> {
    kafka.produce_batch(topic, 0, 5)?;
    let mut fleet = ConsumerFleet::new(
        &testbed.folder("consumers")?,
        ConsumerOptions {
            bootstrap: kafka.bootstrap(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            per_second: 400,
            properties: Vec::new(),
        },
    );
    fleet.scale_to(1)?;
    poll_until(WAIT_TIMEOUT, "a commit of the member", || {
        let committed = kafka.committed(group, topic)?;
        ensure!(committed.first() == Some(&Some(5)), "{committed:?}");
        Ok(())
    })?;
    fleet.scale_to(0)?;
    kafka.produce_batch(topic, 0, 50)
}

/// `lagwise lint` and `lagwise status` report the same about an HPA as its events.
fn commands_report_the_same(
    testbed: &Testbed,
    plane: &ControlPlane,
    namespace: &str,
    bootstrap: &str,
    daemon: &Daemon,
) -> Result<()> {
    let commands = Commands::new(testbed, plane, bootstrap)?;
    let file = &*commands.file;
    let run = |args: &[&str], exit: i32| commands.run(&[args, &["-n", namespace]].concat(), exit);
    let codes = |findings: &Value| -> Vec<String> {
        let findings = findings.as_array().into_iter().flatten();
        findings
            .filter_map(|f| Some(f["code"].as_str()?.to_owned()))
            .collect()
    };
    let lint = ["lint", "--config", file];
    // The Deployment was applied with its replicas, and surges by default.
    let expected = ["LW009", "LW024", "LW034", "LW036"];
    let found = run(&lint, 0)?;
    ensure!(codes(&found) == expected, "{found}");
    ensure!(
        found[0]["object"] == format!("hpa/{namespace}/billing"),
        "{found}"
    );
    run(&[&lint[..], &["--fail-on", "warning"]].concat(), 1)?;

    let single = run(&["status", "--config", file], 0)?;
    let url = format!("http://127.0.0.1:{}", daemon.admin_port);
    let daemon_output = run(&["status", "--daemon", &url], 0)?;
    for (who, all) in [("a single reading", single), ("the daemon", daemon_output)] {
        let [hpa] = all.as_array().context("no list")?.as_slice() else {
            anyhow::bail!("{who}: {all}");
        };
        ensure!(
            hpa["lag"] == 50 && hpa["desired"] == 1 && hpa["uncapped"] == 1,
            "{who}: {hpa}"
        );
        ensure!(
            hpa["ceiling"]["bounded"] == 6 && hpa["partitions"] == 6,
            "{who}: {hpa}"
        );
        ensure!(
            hpa["cap"] == "advise" && hpa["cap_observed"] == false,
            "{who}: {hpa}"
        );
        ensure!(hpa["reason"] == "as_measured", "{who}: {hpa}");
        ensure!(hpa["findings"] == json!(["LW009", "LW024"]), "{who}: {hpa}");
        ensure!(
            hpa["replicas"].is_u64() && hpa["age_millis"].is_u64(),
            "{who}: {hpa}"
        );
    }
    Ok(())
}
