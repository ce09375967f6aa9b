//! The cap, enforced on the real HPA controller: by the admission policy that the chart installs, and without it.

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
        "cap::holds_against_another_metric_and_follows_new_partitions",
        holds_against_another_metric_and_follows_new_partitions,
    ),
    ("cap::advise_writes_nothing", advise_writes_nothing),
    (
        "cap::the_ceiling_is_reached_with_the_default_tolerance",
        the_ceiling_is_reached_with_the_default_tolerance,
    ),
    (
        "cap::the_ceiling_is_reached_by_the_replicas_wanted",
        the_ceiling_is_reached_by_the_replicas_wanted,
    ),
    (
        "cap::the_users_number_is_never_lost",
        the_users_number_is_never_lost,
    ),
    (
        "cap::without_the_policy_a_patch_holds_it",
        without_the_policy_a_patch_holds_it,
    ),
];

const WITHIN: Duration = Duration::from_secs(120);
const POLICY: &str = include_str!("../../charts/lagwise/files/cap-policy.yaml");
const PARTITIONS: i32 = 6;

/// A Deployment `billing` with its HPA, the topic and the group that it reads.
struct Scene<'a> {
    plane: &'a ControlPlane,
    kafka: &'a KafkaCluster,
    namespace: String,
    topic: String,
    group: String,
}

impl<'a> Scene<'a> {
    fn set(testbed: &'a Testbed, name: &str, partitions: i32) -> Result<Self> {
        let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
        let namespace = plane.namespace(name)?;
        let (topic, group) = (unique("orders"), unique("billing"));
        kafka.create_topic(&topic, partitions)?;
        let commits: Vec<_> = (0..partitions).map(|partition| (partition, 0)).collect();
        kafka.commit(&group, &topic, &commits)?;
        let scene = Self {
            plane,
            kafka,
            namespace,
            topic,
            group,
        };
        scene.allow()?;
        Ok(scene)
    }

    /// The daemon, started once its account has its rights.
    fn daemon(
        &self,
        testbed: &Testbed,
    ) -> Result<(Daemon, crate::testbed::kubernetes::RegisteredApi<'a>)> {
        let options = Options::main(&self.kafka.bootstrap());
        Daemon::registered(testbed, self.plane, &self.namespace, &options)
    }

    /// The HPA and its Deployment, changed as wanted.
    fn manifest(&self, change: impl Fn(&mut Value)) -> Result<String> {
        let labels = [("group", &*self.group), ("topic", &*self.topic)];
        let mut list: Value = serde_json::from_str(&workload("billing", &labels))?;
        change(&mut list["items"][1]);
        Ok(list.to_string())
    }

    /// The rights that the chart gives for enforcement, here in this namespace only; but for the look at the policy.
    fn allow(&self) -> Result<()> {
        let account =
            json!([{"kind": "ServiceAccount", "name": "lagwise", "namespace": self.namespace}]);
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        let name = format!("cap-{}", self.namespace);
        let role = |kind: &str, name: &str, rules: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "rules": rules});
        let binding = |kind: &str, name: &str, role: &str| {
            let role = json!({"apiGroup": group, "kind": role, "name": name});
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "roleRef": role, "subjects": account})
        };
        let patch = json!([{"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["patch"]}]);
        let look = json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
            "resourceNames": ["lagwise-cap"],
            "verbs": ["get"],
        }]);
        let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
            role("Role", "cap", patch),
            binding("RoleBinding", "cap", "Role"),
            role("ClusterRole", &name, look),
            binding("ClusterRoleBinding", &name, "ClusterRole"),
        ]});
        self.plane.apply(&self.namespace, &rights.to_string())
    }

    fn hpa(&self) -> Result<Value> {
        let text =
            self.plane
                .kubectl(&["get", "hpa", "billing", "-n", &self.namespace, "-o", "json"])?;
        serde_json::from_str(&text).context("kubectl's JSON")
    }

    fn max(&self) -> Result<i64> {
        self.hpa()?["spec"]["maxReplicas"]
            .as_i64()
            .context("no maxReplicas")
    }

    fn user_max(&self) -> Result<Value> {
        Ok(self.hpa()?["metadata"]["annotations"]["lagwise.dev/user-max-replicas"].clone())
    }

    fn until_max(&self, expected: i64) -> Result<()> {
        poll_until(WITHIN, &format!("maxReplicas {expected}"), || {
            let max = self.max()?;
            ensure!(
                max == expected,
                "{max}: {}",
                self.hpa()?["metadata"]["annotations"]
            );
            Ok(())
        })
    }

    fn annotate(&self, annotation: &str) -> Result<()> {
        let annotation = format!("lagwise.dev/{annotation}");
        let args = [
            "annotate",
            "hpa",
            "billing",
            "--overwrite",
            &annotation,
            "-n",
            &self.namespace,
        ];
        self.plane.kubectl(&args).map(drop)
    }
}

/// The admission policy, as long as this lives.
struct Policy<'a>(&'a ControlPlane);

impl<'a> Policy<'a> {
    /// Installs it and waits until it acts, which takes the API server a moment.
    fn install(scene: &Scene<'a>) -> Result<Self> {
        let policy = Self(scene.plane);
        scene
            .plane
            .kubectl_with_input(&["apply", "-f", "-"], POLICY)?;
        let probe = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "probe", "annotations": {"lagwise.dev/ceiling": "2"}},
            "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}},
        });
        poll_until(WITHIN, "the admission policy to act", || {
            let args = [
                "create",
                "--dry-run=server",
                "-n",
                &scene.namespace,
                "-o",
                "jsonpath={.spec.maxReplicas}",
                "-f",
                "-",
            ];
            let max = scene.plane.kubectl_with_input(&args, &probe.to_string())?;
            ensure!(max.trim() == "2", "maxReplicas {max}");
            Ok(())
        })?;
        Ok(policy)
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        let _ = self
            .0
            .kubectl_with_input(&["delete", "--ignore-not-found", "-f", "-"], POLICY);
    }
}

fn enforced(hpa: &mut Value) {
    hpa["metadata"]["annotations"] = json!({"lagwise.dev/cap": "enforce"});
}

/// A second metric of lagwise's own that wants 50, of a group whose ceiling is no bound.
fn with_a_greedy_metric(hpa: &mut Value, group: &str, topic: &str) {
    let metrics = hpa["spec"]["metrics"].as_array_mut().expect("metrics");
    metrics.push(json!({
        "type": "External",
        "external": {
            "metric": {"name": "kafka_lag", "selector": {"matchLabels": {"group": group, "topic": topic}}},
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    }));
}

fn holds_against_another_metric_and_follows_new_partitions(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "enforce", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (_daemon, _api) = scene.daemon(testbed)?;
    // Within its tolerance of a half the HPA keeps whatever a hand has scaled to: the same as another metric would.
    let loose = |hpa: &mut Value| {
        enforced(hpa);
        for direction in ["scaleUp", "scaleDown"] {
            hpa["spec"]["behavior"][direction]["tolerance"] = json!("0.5");
        }
    };
    scene.kafka.produce_to(&scene.topic, &[(0, 900)])?;
    scene
        .plane
        .apply(&scene.namespace, &scene.manifest(loose)?)?;
    scene.until_max(6)?;
    // A real member: a group without one never has work on partitions that it has not committed on.
    let mut fleet = ConsumerFleet::new(
        &testbed.folder("consumers")?,
        ConsumerOptions {
            bootstrap: scene.kafka.bootstrap(),
            group: scene.group.clone(),
            topic: scene.topic.clone(),
            per_second: 1,
            properties: vec![("topic.metadata.refresh.interval.ms".into(), "1000".into())],
        },
    );
    fleet.scale_to(1)?;
    let series = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    poll_until(WITHIN, "the ceiling to be reached", || {
        ensure!(series.now() == PARTITIONS, "{:?}", series.timed());
        Ok(())
    })?;
    // Somebody scales by hand past it: back at the next sync, whatever the metrics say.
    scene.plane.kubectl(&[
        "scale",
        "deployment",
        "billing",
        "--replicas=9",
        "-n",
        &scene.namespace,
    ])?;
    poll_until(WITHIN, "the HPA to cut it", || {
        ensure!(
            series.max() == 9 && series.now() == PARTITIONS,
            "{:?}",
            series.timed()
        );
        Ok(())
    })?;
    // New partitions raise it.
    scene
        .kafka
        .topics_tool(&["--alter", "--topic", &scene.topic, "--partitions", "12"])?;
    scene.until_max(12)?;
    scene.kafka.produce_to(&scene.topic, &[(7, 900)])?;
    poll_until(WITHIN, "the new ceiling to be reached", || {
        ensure!(series.now() == 12, "{:?}", series.timed());
        Ok(())
    })?;
    let user = scene.user_max()?;
    ensure!(user == "20", "the user's number is {user}");
    println!("status.replicas under enforce: {:?}", series.timed());
    Ok(())
}

fn advise_writes_nothing(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "advise", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (daemon, _api) = scene.daemon(testbed)?;
    // A group of one partition more than this one allows.
    let (topic, group) = (unique("orders"), unique("greedy"));
    scene.kafka.create_topic(&topic, 9)?;
    let commits: Vec<_> = (0..9).map(|partition| (partition, 0)).collect();
    scene.kafka.commit(&group, &topic, &commits)?;
    scene.kafka.produce_to(&topic, &[(0, 50)])?;
    let greedy = |hpa: &mut Value| {
        with_a_greedy_metric(hpa, &group, &topic);
        hpa["spec"]["behavior"]["scaleUp"]["tolerance"] = json!("0.1");
    };
    scene
        .plane
        .apply(&scene.namespace, &scene.manifest(greedy)?)?;
    let series = ReplicaSeries::record(scene.plane, &scene.namespace, "billing")?;
    poll_until(WITHIN, "the larger ceiling to be reached", || {
        ensure!(series.now() >= 8, "{:?}", series.timed());
        Ok(())
    })?;
    let finding = "lagwise_findings_total{kind=\"tolerance_above\"}";
    poll_until(WITHIN, "the finding", || {
        ensure!(daemon.metrics()?.contains(finding), "no {finding}");
        Ok(())
    })?;
    ensure!(
        scene.max()? == 20 && scene.user_max()?.is_null(),
        "something was written"
    );
    ensure!(
        !daemon
            .metrics()?
            .contains("lagwise_cap_writes_total{outcome=\"written\"}"),
        "a write"
    );
    Ok(())
}

fn the_ceiling_is_reached_with_the_default_tolerance(testbed: &Testbed) -> Result<()> {
    // 55,200 at 1,000 per replica is the case at which a clamp sticks; here a tenth of it.
    let as_lag = |_: &mut Value| {};
    reach_the_ceiling(testbed, "tolerance", (22, 24), as_lag)
}

fn the_ceiling_is_reached_by_the_replicas_wanted(testbed: &Testbed) -> Result<()> {
    let as_replicas = |hpa: &mut Value| {
        hpa["metadata"]["annotations"]["lagwise.dev/lag-per-replica"] = json!("100");
        let external = &mut hpa["spec"]["metrics"][0]["external"];
        external["metric"]["name"] = json!("kafka_desired_replicas");
        external["target"]["averageValue"] = json!("1");
    };
    reach_the_ceiling(testbed, "desired", (91, 100), as_replicas)
}

/// From so many replicas to the ceiling, under the default tolerance, which a clamp alone cannot pass.
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
    poll_until(WITHIN, &format!("{from} replicas"), || {
        ensure!(series.now() == from, "{:?}", series.timed());
        Ok(())
    })?;
    scene.until_max(ceiling.into())?;
    scene
        .kafka
        .produce_to(&scene.topic, &[(0, 2 * lag(ceiling - from)?)])?;
    poll_until(WITHIN, &format!("{ceiling} replicas from {from}"), || {
        ensure!(series.now() == ceiling, "{:?}", series.timed());
        Ok(())
    })?;
    ensure!(series.max() == ceiling, "{:?}", series.timed());
    println!("status.replicas with tolerance 0.1: {:?}", series.timed());
    Ok(())
}

fn the_users_number_is_never_lost(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "user", PARTITIONS)?;
    let _policy = Policy::install(&scene)?;
    let (_daemon, _api) = scene.daemon(testbed)?;
    let manifest = |max: u32| {
        scene.manifest(|hpa| {
            enforced(hpa);
            hpa["spec"]["maxReplicas"] = json!(max);
        })
    };
    let server_side = |max: u32, what: &str| -> Result<String> {
        let args = [what, "--server-side", "-n", &scene.namespace, "-f", "-"];
        scene.plane.kubectl_with_input(&args, &manifest(max)?)
    };
    server_side(20, "apply")?;
    scene.until_max(6)?;
    for (max, live) in [(4, 4), (30, 6), (20, 6)] {
        // Unforced: whoever owned the field by then would make this fail.
        server_side(max, "apply")?;
        scene.until_max(live)?;
        let user = scene.user_max()?;
        ensure!(
            user.as_str() == Some(&*max.to_string()),
            "the user's number is {user} after {max}"
        );
        // Empty, or kubectl's exit code is 1 and this an error.
        let drift = server_side(max, "diff").with_context(|| format!("drift after {max}"))?;
        ensure!(drift.trim().is_empty(), "{drift}");
    }
    // Client-side, and by an editor, which sends what it was shown.
    scene.plane.kubectl(&[
        "patch",
        "hpa",
        "billing",
        "-n",
        &scene.namespace,
        "-p",
        r#"{"spec":{"maxReplicas":5}}"#,
    ])?;
    scene.until_max(5)?;
    scene.plane.kubectl(&[
        "patch",
        "hpa",
        "billing",
        "-n",
        &scene.namespace,
        "-p",
        r#"{"spec":{"maxReplicas":15}}"#,
    ])?;
    scene.until_max(6)?;
    scene.annotate("note-")?;
    scene.plane.kubectl(&[
        "label",
        "hpa",
        "billing",
        "-n",
        &scene.namespace,
        "edited=yes",
    ])?;
    let user = scene.user_max()?;
    ensure!(user == "15" && scene.max()? == 6, "{user}");
    // Exactly the capped value, said outright.
    scene.annotate("max-replicas=6")?;
    scene
        .kafka
        .topics_tool(&["--alter", "--topic", &scene.topic, "--partitions", "12"])?;
    let more: Vec<_> = (PARTITIONS..12).map(|partition| (partition, 0)).collect();
    scene.kafka.commit(&scene.group, &scene.topic, &more)?;
    poll_until(WITHIN, "the ceiling of twelve", || {
        let ceiling = scene.hpa()?["metadata"]["annotations"]["lagwise.dev/ceiling"].clone();
        ensure!(ceiling == "12" && scene.max()? == 6, "{ceiling}");
        Ok(())
    })?;
    // Who no longer wants it gets theirs back, and no mark is left.
    scene.annotate("max-replicas=18")?;
    scene.until_max(12)?;
    scene.annotate("max-replicas-")?;
    scene.annotate("cap-")?;
    scene.until_max(18)?;
    poll_until(WITHIN, "the marks to be gone", || {
        let annotations = scene.hpa()?["metadata"]["annotations"].clone();
        ensure!(
            annotations["lagwise.dev/ceiling"].is_null(),
            "{annotations}"
        );
        ensure!(
            annotations["lagwise.dev/user-max-replicas"].is_null(),
            "{annotations}"
        );
        Ok(())
    })
}

fn without_the_policy_a_patch_holds_it(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "patch", PARTITIONS)?;
    let (mut daemon, _api) = scene.daemon(testbed)?;
    scene
        .plane
        .apply(&scene.namespace, &scene.manifest(enforced)?)?;
    scene.until_max(6)?;
    ensure!(scene.user_max()? == "20", "the user's number is lost");
    // Nothing moves while nothing is known, nor without the daemon.
    scene.kafka.stop_all()?;
    let held = poll_until(WITHIN, "the outage to be seen", || {
        ensure!(
            daemon
                .metrics()?
                .contains("lagwise_cluster_up{cluster=\"main\"} 0"),
            "still up"
        );
        Ok(())
    });
    let max = scene.max();
    scene.kafka.start_all()?;
    held?;
    ensure!(max? == 6, "it moved in an outage");
    scene.plane.kubectl(&[
        "patch",
        "hpa",
        "billing",
        "-n",
        &scene.namespace,
        "-p",
        r#"{"spec":{"maxReplicas":30}}"#,
    ])?;
    scene.until_max(6)?;
    ensure!(scene.user_max()? == "30", "the user's new number is lost");
    daemon.process.stop(Duration::from_secs(10))?;
    ensure!(scene.max()? == 6, "it moved with the daemon's end");
    // Without the daemon, by the command.
    let release = |args: &[&str]| -> Result<Value> {
        let kubeconfig = scene.plane.kubeconfig().to_string_lossy();
        let mut all = vec!["release", "-o", "json", "--kubeconfig", &*kubeconfig];
        all.extend(args);
        let done = testbed.lagwise(&all).output()?;
        ensure!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(serde_json::from_slice(&done.stdout)?)
    };
    let this = format!("{}/billing", scene.namespace);
    let dry = release(&[&this, "--dry-run"])?;
    ensure!(
        dry[0]["user_max_replicas"] == 30 && dry[0]["asks_again"] == true,
        "{dry}"
    );
    ensure!(scene.max()? == 6, "a dry run has written");
    release(&[&this])?;
    let hpa = scene.hpa()?;
    let annotations = &hpa["metadata"]["annotations"];
    ensure!(hpa["spec"]["maxReplicas"] == 30, "{hpa}");
    ensure!(
        annotations["lagwise.dev/ceiling"].is_null(),
        "{annotations}"
    );
    ensure!(
        annotations["lagwise.dev/user-max-replicas"].is_null(),
        "{annotations}"
    );
    let again = release(&[&this])?;
    ensure!(again == json!([]), "{again}");
    Ok(())
}
