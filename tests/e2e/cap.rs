//! The cap, enforced on the real HPA controller: by the admission policy that the chart installs, and without it.

mod bind;
mod bound;
mod checked;
mod gitops;
mod many;
mod odd;
mod older;
mod patch;
mod reach;
mod users;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::adapter::Adapter;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::kubernetes::RegisteredApi;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "cap::holds_against_another_metric_and_follows_new_partitions",
        bound::holds_against_another_metric_and_follows_new_partitions,
    ),
    (
        "cap::a_forbidden_topic_changes_nothing",
        bound::a_forbidden_topic_changes_nothing,
    ),
    ("cap::advise_writes_nothing", bound::advise_writes_nothing),
    (
        "cap::the_ceiling_is_reached_with_the_default_tolerance",
        reach::the_ceiling_is_reached_with_the_default_tolerance,
    ),
    (
        "cap::the_ceiling_is_reached_by_the_replicas_wanted",
        reach::the_ceiling_is_reached_by_the_replicas_wanted,
    ),
    (
        "cap::several_topics_cap_as_they_are_assigned",
        reach::several_topics_cap_as_they_are_assigned,
    ),
    (
        "cap::the_users_maximum_is_never_lost",
        users::the_users_maximum_is_never_lost,
    ),
    (
        "cap::every_way_to_write_max_replicas_keeps_the_users_maximum",
        users::every_way_to_write_max_replicas_keeps_the_users_maximum,
    ),
    (
        "cap::unusual_hpas_are_capped_or_skipped",
        odd::unusual_hpas_are_capped_or_skipped,
    ),
    ("cap::users_can_be_bound", bind::users_can_be_bound),
    (
        "cap::without_the_policy_a_patch_applies_the_cap",
        patch::without_the_policy_a_patch_applies_the_cap,
    ),
];

/// Scenarios that need several brokers.
pub(crate) const BROKERS: &[(&str, Test)] = &[(
    "cap::nothing_changes_while_anything_is_unknown",
    bound::nothing_changes_while_anything_is_unknown,
)];

/// Long scenarios. The write conflict without the policy takes a minute and a half: unit tests cover its pauses between
/// writes, and `every_way_to_write_max_replicas_keeps_the_users_maximum` has a conflict in every run.
pub(crate) const LONG: &[(&str, Test)] = &[
    (
        "cap::many_hpas_cost_the_same_each",
        many::cost_the_same_each,
    ),
    (
        "cap::without_the_policy_conflicting_writes_are_bounded",
        patch::without_the_policy_conflicting_writes_are_bounded,
    ),
    (
        "cap::annotations_are_checked_when_written",
        checked::annotations_are_checked_when_written,
    ),
    (
        "cap::examples_of_gitops_agree_with_the_cap",
        gitops::examples_of_gitops_agree_with_the_cap,
    ),
    (
        "cap::an_older_cluster_gets_the_advice_that_it_can_follow",
        older::an_older_cluster_gets_the_advice_that_it_can_follow,
    ),
    (
        "cap::an_older_cluster_is_capped_by_patches",
        older::an_older_cluster_is_capped_by_patches,
    ),
    (
        "cap::users_of_an_older_cluster_can_be_bound",
        bind::users_of_an_older_cluster_can_be_bound,
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
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
        let scene = Self::on(testbed, testbed.kafka()?, name)?;
        scene.kafka.create_topic(&scene.topic, partitions)?;
        scene.commit_all(partitions)?;
        Ok(scene)
    }

    /// With no topic yet.
    fn on(testbed: &'a Testbed, kafka: &'a KafkaCluster, name: &str) -> Result<Self> {
        Self::in_cluster(testbed.control_plane()?, kafka, name)
    }

    /// In a cluster of Kubernetes 1.34, with the topic.
    fn in_older_cluster(testbed: &'a Testbed, name: &str, partitions: i32) -> Result<Self> {
        let scene = Self::in_cluster(testbed.old_control_plane()?, testbed.kafka()?, name)?;
        scene.kafka.create_topic(&scene.topic, partitions)?;
        scene.commit_all(partitions)?;
        Ok(scene)
    }

    fn in_cluster(plane: &'a ControlPlane, kafka: &'a KafkaCluster, name: &str) -> Result<Self> {
        let namespace = plane.namespace(name)?;
        let (topic, group) = (unique("orders"), unique("billing"));
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

    fn commit_all(&self, partitions: i32) -> Result<()> {
        let commits: Vec<_> = (0..partitions).map(|partition| (partition, 0)).collect();
        self.kafka.commit(&self.group, &self.topic, &commits)
    }

    /// Consumers of this topic (or these topics), each of which processes one record a second.
    fn fleet(
        &self,
        testbed: &Testbed,
        topics: &str,
        property: (&str, &str),
    ) -> Result<ConsumerFleet> {
        Ok(ConsumerFleet::new(
            &testbed.folder("consumers")?,
            ConsumerOptions {
                bootstrap: self.kafka.bootstrap(),
                group: self.group.clone(),
                topic: topics.to_owned(),
                per_second: 1,
                properties: vec![(property.0.into(), property.1.into())],
            },
        ))
    }

    /// The daemon, started once its account has its rights.
    fn daemon(&self, testbed: &Testbed) -> Result<(Daemon, RegisteredApi<'a>)> {
        let options = Options::main(&self.kafka.bootstrap());
        Daemon::registered(testbed, self.plane, &self.namespace, &options)
    }

    /// The daemon in front of another server of external metrics.
    fn daemon_before_adapter(
        &self,
        testbed: &Testbed,
        value: u64,
    ) -> Result<(Daemon, Adapter, RegisteredApi<'a>)> {
        let certificate = self.plane.serving_certificate(&self.namespace, "lagwise")?;
        let kubeconfig = self.plane.daemon_kubeconfig(&self.namespace)?;
        let files = (&certificate.cert_file, &certificate.key_file);
        let adapter = Adapter::start(&certificate, value)?;
        let upstream = adapter.upstream(&certificate, &testbed.folder("upstream")?)?;
        let tls = json!({"cert_file": files.0, "key_file": files.1});
        let external = json!({"tls": tls, "upstream": upstream});
        let options = Options::main(&self.kafka.bootstrap());
        let daemon = Daemon::start(testbed, &options, external, json!({}), Some(&kubeconfig))?;
        let ca = &certificate.ca_pem;
        let api = self
            .plane
            .register_api(&self.namespace, "lagwise", daemon.api_port, ca)?;
        api.wait_available(WAIT_TIMEOUT)?;
        Ok((daemon, adapter, api))
    }

    /// The HPA and its Deployment, changed as wanted.
    fn manifest(&self, change: impl Fn(&mut Value)) -> Result<String> {
        let labels = [("group", &*self.group), ("topic", &*self.topic)];
        let mut list: Value = serde_json::from_str(&workload("billing", &labels))?;
        change(&mut list["items"][1]);
        Ok(list.to_string())
    }

    /// The rights that the chart gives for enforcement, in this namespace only, without the right to read the policy.
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
        let patch = json!([{"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "patch"]}]);
        let read = json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
            "resourceNames": ["lagwise-cap"],
            "verbs": ["get"],
        }]);
        let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
            role("Role", "cap", patch),
            binding("RoleBinding", "cap", "Role"),
            role("ClusterRole", &name, read),
            binding("ClusterRoleBinding", &name, "ClusterRole"),
        ]});
        self.plane.apply(&self.namespace, &rights.to_string())
    }

    fn hpa(&self) -> Result<Value> {
        self.plane.get("hpa", "billing", Some(&self.namespace))
    }

    fn max(&self) -> Result<i64> {
        self.hpa()?["spec"]["maxReplicas"]
            .as_i64()
            .context("no maxReplicas")
    }

    fn user_max(&self) -> Result<Value> {
        Ok(self.hpa()?["metadata"]["annotations"]["lagwise.dev/user-max-replicas"].clone())
    }

    fn wait_until_max(&self, expected: i64) -> Result<()> {
        poll_until(WAIT_TIMEOUT, &format!("maxReplicas {expected}"), || {
            let max = self.max()?;
            ensure!(
                max == expected,
                "{max}: {}",
                self.hpa()?["metadata"]["annotations"]
            );
            Ok(())
        })
    }

    fn wait_until_user_max(&self, expected: &str) -> Result<()> {
        poll_until(
            WAIT_TIMEOUT,
            &format!("the user's {expected} to be kept"),
            || {
                let user = self.user_max()?;
                ensure!(user == expected, "{user}");
                Ok(())
            },
        )
    }

    /// Waits until the HPA has no annotation of lagwise.
    fn wait_until_unmarked(&self) -> Result<()> {
        poll_until(WAIT_TIMEOUT, "the annotations to be removed", || {
            let annotations = self.hpa()?["metadata"]["annotations"].clone();
            let keys = ["lagwise.dev/ceiling", "lagwise.dev/user-max-replicas"];
            let gone = keys.iter().all(|key| annotations[*key].is_null());
            ensure!(gone, "{annotations}");
            Ok(())
        })
    }

    /// kubectl about the HPA, in its namespace.
    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut all = args.to_vec();
        all.extend(["-n", &self.namespace]);
        self.plane.kubectl(&all)
    }

    fn patch(&self, patch: &str) -> Result<()> {
        self.kubectl(&["patch", "hpa", "billing", "--type=merge", "-p", patch])
            .map(drop)
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

/// The admission policy. Deleted when dropped.
struct Policy<'a>(&'a ControlPlane);

impl<'a> Policy<'a> {
    /// Installs it and waits until the API server applies it.
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
        poll_until(WAIT_TIMEOUT, "the admission policy to act", || {
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

/// `lagwise release -o json`, as an administrator.
fn release(testbed: &Testbed, plane: &ControlPlane, args: &[&str]) -> Result<Value> {
    let kubeconfig = plane.kubeconfig().to_string_lossy();
    let mut all = vec!["release", "-o", "json", "--kubeconfig", &*kubeconfig];
    all.extend(args);
    let done = testbed.lagwise(&all).output()?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{errors}");
    Ok(serde_json::from_slice(&done.stdout)?)
}
