//! Scale to zero on the real HPA controller with real consumers: by lagwise on older versions of Kubernetes, by the HPA
//! on newer ones, and never against a user's decision or with unknown lag.

mod ledger;
mod pattern;
mod residue;
mod rights;
mod targets;
mod unknown;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::control_plane::{ControlPlane, NativeZero};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::kubernetes::RegisteredApi;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "zero::scales_to_zero_without_work_and_wakes_with_it",
        scales_to_zero_without_work_and_wakes_with_it,
    ),
    (
        "zero::a_workload_switched_off_by_hand_stays_off",
        a_workload_switched_off_by_hand_stays_off,
    ),
    (
        "zero::the_feature_gate_makes_no_difference",
        the_feature_gate_makes_no_difference,
    ),
    (
        "zero::an_hpa_that_goes_to_zero_itself_waits_for_the_cooldown",
        an_hpa_that_goes_to_zero_itself_waits_for_the_cooldown,
    ),
];

/// Scenarios of unusual workloads and rights.
pub(crate) const UNUSUAL: &[(&str, Test)] = &[
    (
        "zero::any_scale_subresource_is_capped_and_scaled_to_zero",
        targets::any_scale_subresource_is_capped_and_scaled_to_zero,
    ),
    (
        "zero::names_that_would_change_a_url_are_refused",
        targets::names_that_would_change_a_url_are_refused,
    ),
    (
        "zero::a_missing_right_is_reported_and_a_pause_holds_no_replicas",
        rights::a_missing_right_is_reported_and_a_pause_holds_no_replicas,
    ),
];

/// Scenarios of unusual groups.
pub(crate) const UNUSUAL_GROUPS: &[(&str, Test)] = &[
    (
        "zero::a_new_topic_wakes_a_pattern_subscriber",
        pattern::a_new_topic_wakes_a_pattern_subscriber,
    ),
    (
        "zero::offsets_that_kafka_deleted_do_not_wake_the_workload",
        residue::offsets_that_kafka_deleted_do_not_wake_the_workload,
    ),
];

/// Scenarios that need several brokers.
pub(crate) const BROKERS: &[(&str, Test)] = &[(
    "zero::nothing_scales_to_zero_while_kafka_is_unknown",
    unknown::nothing_scales_to_zero_while_kafka_is_unknown,
)];

/// Scenarios that wait for minutes. Unit tests cover which HPA and workload a record is for, and [`RECORDS`] has the
/// other scenarios of records.
pub(crate) const LONG: &[(&str, Test)] = &[
    (
        "zero::a_record_is_for_one_hpa_and_one_workload",
        ledger::a_record_is_for_one_hpa_and_one_workload,
    ),
    (
        "zero::a_new_topic_without_a_reader_wakes_the_workload_once",
        pattern::a_new_topic_without_a_reader_wakes_the_workload_once,
    ),
    (
        "zero::transaction_markers_do_not_wake_the_workload",
        residue::transaction_markers_do_not_wake_the_workload,
    ),
];

/// Scenarios of records in the ledger.
pub(crate) const RECORDS: &[(&str, Test)] = &[
    (
        "zero::a_forged_annotation_wakes_no_workload",
        ledger::a_forged_annotation_wakes_no_workload,
    ),
    (
        "zero::the_next_leader_wakes_workloads_at_zero",
        ledger::the_next_leader_wakes_workloads_at_zero,
    ),
    (
        "zero::only_listed_namespaces_are_written_to",
        ledger::only_listed_namespaces_are_written_to,
    ),
];

const PARTITIONS: i32 = 4;
const COOLDOWN: Duration = Duration::from_secs(4);
/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
const ZEROED_SINCE: &str = "lagwise.dev/zeroed-since";
/// The ConfigMap of the ledger.
const LEDGER: &str = "lagwise-zero";

/// A Deployment `billing` with its HPA, whose group has committed everything of its topic, and the daemon.
struct Scene<'a> {
    plane: &'a ControlPlane,
    kafka: &'a KafkaCluster,
    namespace: String,
    topic: String,
    group: String,
}

impl<'a> Scene<'a> {
    fn set(testbed: &'a Testbed, name: &str) -> Result<Self> {
        Self::on(testbed.kafka()?, testbed.control_plane()?, name)
    }

    fn on(kafka: &'a KafkaCluster, plane: &'a ControlPlane, name: &str) -> Result<Self> {
        let namespace = plane.namespace(name)?;
        let (topic, group) = (unique("orders"), unique("billing"));
        // One copy of each partition: with its broker down it is unknown.
        let brokers = (1..=kafka.brokers()).cycle().take(PARTITIONS as usize);
        kafka.create_topic_on(
            &topic,
            &brokers.map(i32::try_from).collect::<Result<Vec<_>, _>>()?,
        )?;
        let commits: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
        kafka.commit(&group, &topic, &commits)?;
        Ok(Self {
            plane,
            kafka,
            namespace,
            topic,
            group,
        })
    }

    /// The workload, with scale to zero after this cooldown, and with further annotations on the HPA.
    fn apply(&self, min_replicas: u32, cooldown: Duration) -> Result<()> {
        let labels = [("group", &*self.group), ("topic", &*self.topic)];
        let mut list: Value = serde_json::from_str(&workload("billing", &labels))?;
        let hpa = &mut list["items"][1];
        hpa["spec"]["minReplicas"] = json!(min_replicas);
        let cooldown = humantime::format_duration(cooldown).to_string();
        hpa["metadata"]["annotations"] =
            json!({"lagwise.dev/scale-to-zero": "true", "lagwise.dev/cooldown": cooldown});
        self.plane.apply(&self.namespace, &list.to_string())
    }

    /// The rights that the chart gives for scale to zero, here in this namespace only.
    fn allow(&self) -> Result<()> {
        let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "zero"},
                "rules": [
                    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "patch"]},
                    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "patch"]},
                    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
                    {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [LEDGER], "verbs": ["get", "patch"]},
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "zero"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "zero"},
                "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": self.namespace}],
            },
        ]});
        self.plane.apply(&self.namespace, &rights.to_string())
    }

    /// The daemon's options, with a ledger.
    fn options(&self) -> Options {
        Options {
            scale_to_zero: json!({"config_map": LEDGER}),
            ..Options::main(&self.kafka.bootstrap())
        }
    }

    /// An empty fleet of consumers of the workload's group.
    fn fleet(
        &self,
        testbed: &Testbed,
        topic: &str,
        properties: &[(&str, &str)],
    ) -> Result<ConsumerFleet> {
        let options = ConsumerOptions {
            bootstrap: self.kafka.bootstrap(),
            group: self.group.clone(),
            topic: topic.to_owned(),
            per_second: 400,
            properties: Vec::from_iter(
                properties
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
            ),
        };
        Ok(ConsumerFleet::new(&testbed.folder("consumers")?, options))
    }

    fn get(&self, what: &str) -> Result<Value> {
        self.plane.get(what, "billing", Some(&self.namespace))
    }

    fn scale(&self, replicas: u32) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        let args = [
            "scale",
            "deployment",
            "billing",
            &replicas,
            "-n",
            &self.namespace,
        ];
        self.plane.kubectl(&args).map(drop)
    }

    /// Scales a Deployment to zero as a user does. The HPA controller may still write a number that it computed before,
    /// so this waits until the controller reports that scaling is disabled.
    fn switch_off(&self, deployment: &str) -> Result<()> {
        poll_until(WAIT_TIMEOUT, "the HPA controller to see the zero", || {
            let found = self
                .plane
                .get("deployment", deployment, Some(&self.namespace))?;
            if found["spec"]["replicas"] != 0 {
                let args = ["scale", "deployment", deployment, "--replicas=0", "-n"];
                self.plane
                    .kubectl(&[&args[..], &[&self.namespace]].concat())?;
            }
            let hpa = self.plane.get("hpa", deployment, Some(&self.namespace))?;
            let conditions = &hpa["status"]["conditions"];
            let mut all = conditions.as_array().into_iter().flatten();
            let is_seen = all.any(|condition| condition["reason"] == "ScalingDisabled");
            ensure!(is_seen && found["spec"]["replicas"] == 0, "{conditions}");
            Ok(())
        })
    }

    /// Commits everything of the topic.
    fn catch_up(&self) -> Result<()> {
        let ends = (0..).zip(self.kafka.end_offsets(&self.topic)?);
        let ends: Vec<_> = ends.collect();
        self.kafka.commit(&self.group, &self.topic, &ends)
    }

    /// `spec.replicas` of the Deployment.
    fn wanted(&self) -> Result<i64> {
        self.get("deployment")?["spec"]["replicas"]
            .as_i64()
            .context("no replicas")
    }

    fn is_annotated(&self) -> Result<bool> {
        Ok(self.get("hpa")?["metadata"]["annotations"][ZEROED_SINCE].is_string())
    }

    fn wait_until_wanted(&self, replicas: i64, annotated: bool) -> Result<()> {
        let shown = format!("{replicas} replicas wanted, annotated: {annotated}");
        poll_until(WAIT_TIMEOUT, &shown, || {
            let now = (self.wanted()?, self.is_annotated()?);
            ensure!(now == (replicas, annotated), "{now:?}");
            Ok(())
        })
    }
}

/// Whether the daemon has scaled a workload to zero or woken one. Failures do not count: they are about other tests'
/// HPAs.
fn has_scaled(metrics: &str) -> bool {
    let outcome = |outcome| {
        metrics.contains(&format!(
            "lagwise_zero_scales_total{{outcome=\"{outcome}\"}}"
        ))
    };
    outcome("zeroed") || outcome("woken")
}

/// The replicas that a backlog is worth at 100 messages each, from `minReplicas` (2) to the ceiling.
const ROUNDS: [(usize, i32); 3] = [(250, 3), (1000, PARTITIONS), (8, 2)];

fn scales_to_zero_without_work_and_wakes_with_it(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "zero")?;
    let _daemon = sleeps_and_wakes(testbed, &scene, &ROUNDS)?;
    // Replicas that appear right after come from the HPA controller, which had read the earlier number. They are
    // removed again.
    scene.scale(2)?;
    scene.wait_until_wanted(0, true)?;
    // Who no longer wants it gets the replicas back.
    let args = ["annotate", "hpa", "billing", "lagwise.dev/scale-to-zero-"];
    scene
        .plane
        .kubectl(&[&args[..], &["-n", &scene.namespace]].concat())?;
    scene.wait_until_wanted(2, false)
}

/// On a control plane whose HPAs cannot go to zero: there the API server refuses `minReplicas: 0`.
fn the_feature_gate_makes_no_difference(testbed: &Testbed) -> Result<()> {
    let plane = testbed.start_control_plane(NativeZero::Off)?;
    {
        let scene = Scene::on(testbed.kafka()?, &plane, "gate")?;
        let refused = scene
            .apply(0, COOLDOWN)
            .err()
            .map(|error| error.to_string());
        let refused = refused.is_some_and(|text| text.contains("minReplicas"));
        ensure!(refused, "minReplicas 0 was taken");
        sleeps_and_wakes(testbed, &scene, &ROUNDS[..1])?;
    }
    plane.stop()
}

/// With consumers that follow the replicas, as pods do. At the end the workload is at zero replicas.
fn sleeps_and_wakes<'a>(
    testbed: &Testbed,
    scene: &Scene<'a>,
    rounds: &[(usize, i32)],
) -> Result<(Daemon, RegisteredApi<'a>)> {
    let options = scene.options();
    let daemon = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.apply(2, COOLDOWN)?;
    let series = ReplicaSeries::wanted(scene.plane, &scene.namespace, "billing")?;
    let mut fleet = scene.fleet(testbed, &scene.topic, &[])?;
    let mut wait_until = |what: &str, is: &dyn Fn() -> Result<()>| {
        poll_until(WAIT_TIMEOUT, what, || {
            fleet.scale_to(usize::try_from(series.now()).unwrap_or(0))?;
            is()
        })
    };
    let asleep = || {
        ensure!(series.now() == 0, "{:?}", series.timed());
        Ok(())
    };
    wait_until("the workload to fall asleep", &asleep)?;
    for (round, (messages, replicas)) in rounds.iter().enumerate() {
        scene.wait_until_wanted(0, true)?;
        wait_until("the consumers to be gone", &asleep)?;
        let slept = series.values().len();
        let produced = Instant::now();
        // At once: a sweep that saw a part of them would wake it with fewer replicas.
        scene.kafka.produce_batch(&scene.topic, 0, *messages)?;
        wait_until("the workload to wake", &|| {
            ensure!(series.now() > 0, "{:?}", series.timed());
            Ok(())
        })?;
        println!("{messages} messages woke it after {:?}", produced.elapsed());
        let woken = series.values()[slept];
        ensure!(woken == *replicas, "round {round}: {:?}", series.timed());
        wait_until("the annotation to be gone", &|| {
            ensure!(!scene.is_annotated()?, "still annotated");
            Ok(())
        })?;
        wait_until("the workload to fall asleep", &asleep)?;
    }
    scene.wait_until_wanted(0, true)?;
    println!("spec.replicas: {:?}", series.timed());
    Ok(daemon)
}

fn a_workload_switched_off_by_hand_stays_off(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "off")?;
    let options = scene.options();
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.kafka.produce(&scene.topic, 0, 50)?;
    scene.apply(1, COOLDOWN)?;
    scene.switch_off("billing")?;
    // The finding says that the workload is off, and why lagwise does not start it.
    let is_reported = |expected: bool| {
        poll_until(
            WAIT_TIMEOUT,
            "what is said of a workload that is off",
            || {
                let status = daemon.status_of(&scene.namespace, "billing")?;
                let findings = status["findings"].as_array().context("no findings")?;
                ensure!(findings.contains(&json!("LW054")) == expected, "{status}");
                Ok(())
            },
        )
    };
    is_reported(true)?;
    wait_for_zero_in_status(testbed, &scene, &daemon, false)?;
    // With work, and without for longer than the cooldown.
    daemon.wait_for_sweeps(8)?;
    scene.wait_until_wanted(0, false)?;
    scene.catch_up()?;
    daemon.wait_for_sweeps(2 * COOLDOWN.as_secs() * 2)?;
    scene.wait_until_wanted(0, false)?;
    scene.kafka.produce(&scene.topic, 0, 50)?;
    daemon.wait_for_sweeps(8)?;
    scene.wait_until_wanted(0, false)?;
    let metrics = daemon.metrics()?;
    ensure!(!has_scaled(&metrics), "{metrics}");
    // Switched on again it is as any other: it works, and sleeps when there is nothing left.
    scene.scale(1)?;
    scene.catch_up()?;
    scene.wait_until_wanted(0, true)?;
    // A zero of lagwise is another matter.
    is_reported(false)?;
    wait_for_zero_in_status(testbed, &scene, &daemon, true)
}

/// Waits until `lagwise status` shows that the workload has 0 replicas, and whether it is asleep.
fn wait_for_zero_in_status(
    testbed: &Testbed,
    scene: &Scene<'_>,
    daemon: &Daemon,
    is_asleep: bool,
) -> Result<()> {
    let url = format!("http://127.0.0.1:{}", daemon.admin_port);
    let kubeconfig = scene.plane.kubeconfig().to_string_lossy();
    let namespace = ["-n", &scene.namespace, "-o"];
    let from = ["--daemon", &url, "--kubeconfig", &*kubeconfig];
    let run = |output: &str| -> Result<String> {
        let args = [&["status"][..], &namespace, &[output], &from].concat();
        let done = testbed.lagwise(&args).output()?;
        ensure!(done.status.success(), "{done:?}");
        Ok(String::from_utf8(done.stdout)?)
    };
    poll_until(WAIT_TIMEOUT, "the status of a workload at zero", || {
        let status: Value = serde_json::from_str(&run("json")?)?;
        let hpa = &status[0];
        ensure!(
            hpa["replicas"] == 0 && hpa["asleep_since"].is_string() == is_asleep,
            "{status}"
        );
        let words = match is_asleep {
            true => "asleep since",
            false => "switched off, not by lagwise",
        };
        let table = run("table")?;
        ensure!(table.contains(words), "{table}");
        Ok(())
    })
}

fn an_hpa_that_goes_to_zero_itself_waits_for_the_cooldown(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "native")?;
    let options = scene.options();
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    // Without any right to write: there is nothing to be written.
    scene.apply(0, 4 * COOLDOWN)?;
    let selector = format!("group={},topic={}", scene.group, scene.topic);
    let path = crate::daemon::metric_path(&scene.namespace, &selector);
    let value = || crate::daemon::value_of(&scene.plane.get_raw(&path)?);
    poll_until(WAIT_TIMEOUT, "one replica's worth, in the cooldown", || {
        let now = value()?;
        ensure!(now == 100, "{now}");
        Ok(())
    })?;
    let replicas = scene.wanted()?;
    ensure!(replicas == 1, "{replicas} replicas in the cooldown");
    scene.wait_until_wanted(0, false)?;
    ensure!(value()? == 0, "asleep, and still something is served");
    scene.kafka.produce_to(&scene.topic, &[(0, 90), (1, 90)])?;
    scene.wait_until_wanted(2, false)?;
    let metrics = daemon.metrics()?;
    ensure!(!has_scaled(&metrics), "{metrics}");
    Ok(())
}
