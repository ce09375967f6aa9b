//! Scale to zero on the real HPA controller with real consumers: by lagwise where the HPA cannot, by the HPA
//! where it can, and never against a person or what is unknown.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "zero::sleeps_without_work_and_wakes_with_it",
        sleeps_without_work_and_wakes_with_it,
    ),
    (
        "zero::a_workload_switched_off_by_hand_stays_off",
        a_workload_switched_off_by_hand_stays_off,
    ),
    (
        "zero::nothing_sleeps_while_kafka_is_unknown",
        nothing_sleeps_while_kafka_is_unknown,
    ),
    (
        "zero::an_hpa_that_goes_to_zero_itself_waits_for_the_cooldown",
        an_hpa_that_goes_to_zero_itself_waits_for_the_cooldown,
    ),
];

const PARTITIONS: i32 = 4;
const COOLDOWN: Duration = Duration::from_secs(6);
const WITHIN: Duration = Duration::from_secs(120);
const MARK: &str = "lagwise.dev/zeroed-since";

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
        let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
        let namespace = plane.namespace(name)?;
        let (topic, group) = (unique("orders"), unique("billing"));
        kafka.create_topic(&topic, PARTITIONS)?;
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

    /// The workload, asleep after so long without work; with what else is set on the HPA.
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
                    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["patch"]},
                    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "patch"]},
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

    fn get(&self, what: &str) -> Result<Value> {
        let text =
            self.plane
                .kubectl(&["get", what, "billing", "-n", &self.namespace, "-o", "json"])?;
        serde_json::from_str(&text).context("kubectl's JSON")
    }

    /// What the Deployment is to have.
    fn wanted(&self) -> Result<i64> {
        self.get("deployment")?["spec"]["replicas"]
            .as_i64()
            .context("no replicas")
    }

    fn is_marked(&self) -> Result<bool> {
        Ok(self.get("hpa")?["metadata"]["annotations"][MARK].is_string())
    }

    fn until_wanted(&self, replicas: i64, marked: bool) -> Result<()> {
        let shown = format!("{replicas} replicas wanted, marked: {marked}");
        poll_until(WITHIN, &shown, || {
            let now = (self.wanted()?, self.is_marked()?);
            ensure!(now == (replicas, marked), "{now:?}");
            Ok(())
        })
    }
}

/// Whole sweeps of the daemon so far.
fn sweeps(daemon: &Daemon) -> Result<u64> {
    let metrics = daemon.metrics()?;
    let polls = metrics
        .lines()
        .filter(|line| line.starts_with("lagwise_polls_total{"));
    let counts = polls.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// Waits for so many more sweeps: time in which whatever the daemon would do is done.
fn let_it_look(daemon: &Daemon, looks: u64) -> Result<()> {
    let until = sweeps(daemon)? + looks;
    poll_until(WITHIN, "more sweeps", || {
        let now = sweeps(daemon)?;
        ensure!(now >= until, "{now} of {until}");
        Ok(())
    })
}

/// Whether it has set anything to zero or woken it; what it may not look at is of other tests.
fn has_scaled(metrics: &str) -> bool {
    let outcome = |outcome| {
        metrics.contains(&format!(
            "lagwise_zero_scales_total{{outcome=\"{outcome}\"}}"
        ))
    };
    outcome("zeroed") || outcome("woken")
}

fn sleeps_without_work_and_wakes_with_it(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "zero")?;
    let options = Options::main(&scene.kafka.bootstrap());
    let (_daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.apply(1, COOLDOWN)?;
    let series = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    let mut fleet = ConsumerFleet::new(
        &testbed.folder("consumers")?,
        ConsumerOptions {
            bootstrap: scene.kafka.bootstrap(),
            group: scene.group.clone(),
            topic: scene.topic.clone(),
            per_second: 100,
            properties: Vec::new(),
        },
    );
    let follow =
        |fleet: &mut ConsumerFleet| fleet.scale_to(usize::try_from(series.now()).unwrap_or(0));
    fleet.scale_to(1)?;
    for round in 0..2 {
        poll_until(WITHIN, "the workload to fall asleep", || {
            follow(&mut fleet)?;
            ensure!(series.now() == 0, "{:?}", series.timed());
            Ok(())
        })?;
        scene.until_wanted(0, true)?;
        follow(&mut fleet)?;
        let slept = series.values().len();
        scene
            .kafka
            .produce_to(&scene.topic, &[(0, 90), (1, 90), (2, 70)])?;
        poll_until(WITHIN, "the workload to wake", || {
            ensure!(series.now() > 0, "{:?}", series.timed());
            Ok(())
        })?;
        // 250 messages at 100 per replica.
        ensure!(
            series.values()[slept] == 3,
            "round {round}: {:?}",
            series.timed()
        );
        poll_until(WITHIN, "the mark to be gone", || {
            follow(&mut fleet)?;
            ensure!(!scene.is_marked()?, "still marked");
            Ok(())
        })?;
    }
    poll_until(WITHIN, "the workload to fall asleep", || {
        follow(&mut fleet)?;
        ensure!(series.now() == 0, "{:?}", series.timed());
        Ok(())
    })?;
    scene.until_wanted(0, true)?;
    // Who no longer wants it gets the replicas back.
    let annotation = "lagwise.dev/scale-to-zero-";
    scene.plane.kubectl(&[
        "annotate",
        "hpa",
        "billing",
        annotation,
        "-n",
        &scene.namespace,
    ])?;
    scene.until_wanted(1, false)?;
    println!("status.replicas: {:?}", series.timed());
    Ok(())
}

fn a_workload_switched_off_by_hand_stays_off(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "off")?;
    let options = Options::main(&scene.kafka.bootstrap());
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.kafka.produce(&scene.topic, 0, 50)?;
    scene.apply(1, COOLDOWN)?;
    let scale = |to: &str| {
        let replicas = format!("--replicas={to}");
        scene.plane.kubectl(&[
            "scale",
            "deployment",
            "billing",
            &replicas,
            "-n",
            &scene.namespace,
        ])
    };
    scale("0")?;
    // With work, and without for longer than the cooldown.
    let_it_look(&daemon, 8)?;
    scene.until_wanted(0, false)?;
    let ends = scene.kafka.end_offsets(&scene.topic)?;
    scene
        .kafka
        .commit(&scene.group, &scene.topic, &[(0, ends[0])])?;
    let_it_look(&daemon, 2 * COOLDOWN.as_secs() * 2)?;
    scene.until_wanted(0, false)?;
    scene.kafka.produce(&scene.topic, 0, 50)?;
    let_it_look(&daemon, 8)?;
    scene.until_wanted(0, false)?;
    let metrics = daemon.metrics()?;
    ensure!(!has_scaled(&metrics), "{metrics}");
    // Switched on again it is as any other: it works, and sleeps when there is nothing left.
    scale("1")?;
    let ends = scene.kafka.end_offsets(&scene.topic)?;
    scene
        .kafka
        .commit(&scene.group, &scene.topic, &[(0, ends[0])])?;
    scene.until_wanted(0, true)
}

fn nothing_sleeps_while_kafka_is_unknown(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "unknown")?;
    let options = Options::main(&scene.kafka.bootstrap());
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    scene.kafka.stop_all()?;
    let gone = || -> Result<()> {
        scene.apply(1, COOLDOWN)?;
        let_it_look(&daemon, 3 * COOLDOWN.as_secs() * 2)?;
        let wanted = scene.wanted()?;
        ensure!(wanted == 1, "{wanted} replicas although nothing is known");
        Ok(())
    };
    let held = gone();
    scene.kafka.start_all()?;
    held?;
    scene.until_wanted(0, true)
}

fn an_hpa_that_goes_to_zero_itself_waits_for_the_cooldown(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "native")?;
    let options = Options::main(&scene.kafka.bootstrap());
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    // Without any right to write: there is nothing to be written.
    scene.apply(0, 4 * COOLDOWN)?;
    let selector = format!("group={},topic={}", scene.group, scene.topic);
    let path = crate::daemon::metric_path(&scene.namespace, &selector);
    let value = || crate::daemon::value_of(&scene.plane.get_raw(&path)?);
    poll_until(WITHIN, "one replica's worth, in the cooldown", || {
        let now = value()?;
        ensure!(now == 100, "{now}");
        Ok(())
    })?;
    let replicas = scene.wanted()?;
    ensure!(replicas == 1, "{replicas} replicas in the cooldown");
    scene.until_wanted(0, false)?;
    ensure!(value()? == 0, "asleep, and still something is served");
    scene.kafka.produce_to(&scene.topic, &[(0, 90), (1, 90)])?;
    scene.until_wanted(2, false)?;
    let metrics = daemon.metrics()?;
    ensure!(!has_scaled(&metrics), "{metrics}");
    Ok(())
}
