//! Scale targets other than Deployments: every kind with a `/scale` subresource is capped, scaled to zero and woken.

use anyhow::{Result, ensure};
use kube::api::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::{COOLDOWN, PARTITIONS, Scene, WAIT_TIMEOUT, ZEROED_SINCE};
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::Testbed;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::replicas::ReplicaSeries;

const GROUP: &str = "rollouts.example.com";

/// A custom kind with `/scale`, like the workloads of progressive delivery. Deleted when dropped.
struct Rollouts<'a>(&'a ControlPlane);

impl<'a> Rollouts<'a> {
    fn install(plane: &'a ControlPlane) -> Result<Self> {
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema =
            json!({"type": "object", "properties": {"spec": anything, "status": anything}});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("rollouts.{GROUP}")},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {"kind": "Rollout", "plural": "rollouts", "singular": "rollout"},
                "versions": [{
                    "name": "v1alpha1",
                    "served": true,
                    "storage": true,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                }],
            },
        });
        let rollouts = Self(plane);
        plane.apply("default", &definition.to_string())?;
        plane.kubectl(&[
            "wait",
            "--for=condition=Established",
            &format!("crd/rollouts.{GROUP}"),
            "--timeout=60s",
        ])?;
        Ok(rollouts)
    }
}

impl Drop for Rollouts<'_> {
    fn drop(&mut self) {
        let name = format!("crd/rollouts.{GROUP}");
        let _ = self.0.kubectl(&["delete", &name, "--ignore-not-found"]);
    }
}

/// The rights that the chart gives for these kinds, here in this namespace only.
fn allow(scene: &Scene<'_>) -> Result<()> {
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "targets"},
            "rules": [
                {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "patch"]},
                {"apiGroups": ["apps"], "resources": ["statefulsets/scale"], "verbs": ["get", "patch"]},
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]},
                {"apiGroups": [GROUP], "resources": ["rollouts/scale"], "verbs": ["get", "patch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "targets"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "targets"},
            "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": scene.namespace}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": scene.namespace},
            "rules": [{
                "apiGroups": ["admissionregistration.k8s.io"],
                "resources": ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
                "resourceNames": ["lagwise-cap"],
                "verbs": ["get"],
            }],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": scene.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": scene.namespace},
            "subjects": [{"kind": "ServiceAccount", "name": "lagwise", "namespace": scene.namespace}],
        },
    ]});
    scene.plane.apply(&scene.namespace, &rights.to_string())
}

/// The workload of that kind, with its HPA.
fn manifest(
    scene: &Scene<'_>,
    name: &str,
    version: &str,
    kind: &str,
    more: &Value,
) -> Result<String> {
    let labels = [("group", &*scene.group), ("topic", &*scene.topic)];
    let mut list: Value = serde_json::from_str(&workload(name, &labels))?;
    let target = &mut list["items"][0];
    target["apiVersion"] = json!(version);
    target["kind"] = json!(kind);
    for (key, value) in more.as_object().into_iter().flatten() {
        target["spec"][key] = value.clone();
    }
    let hpa = &mut list["items"][1];
    hpa["spec"]["scaleTargetRef"] = json!({"apiVersion": version, "kind": kind, "name": name});
    hpa["metadata"]["annotations"] = json!({
        "lagwise.dev/cap": "enforce",
        "lagwise.dev/scale-to-zero": "true",
        "lagwise.dev/cooldown": humantime::format_duration(COOLDOWN).to_string(),
    });
    Ok(list.to_string())
}

/// Plays the controller of a `Rollout`: sets the status from the spec.
fn follow(scene: &Scene<'_>, wanted: i32) -> Result<()> {
    let status = json!({"status": {"replicas": wanted, "selector": "app=rollout"}});
    scene
        .plane
        .kubectl(&[
            "patch",
            "rollout",
            "rollout",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status.to_string(),
            "-n",
            &scene.namespace,
        ])
        .map(drop)
}

pub(crate) fn any_scale_subresource_is_capped_and_scaled_to_zero(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "targets")?;
    let _rollouts = Rollouts::install(scene.plane)?;
    allow(&scene)?;
    let options = scene.options();
    let (_daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.kafka.produce_to(&scene.topic, &[(0, 900)])?;
    let set = json!({"serviceName": "set", "podManagementPolicy": "Parallel"});
    let version = format!("{GROUP}/v1alpha1");
    let apply = |text: String| scene.plane.apply(&scene.namespace, &text);
    apply(manifest(&scene, "set", "apps/v1", "StatefulSet", &set)?)?;
    apply(manifest(
        &scene,
        "rollout",
        &version,
        "Rollout",
        &json!({}),
    )?)?;
    let series = |group: &str, version: &str, kind: &str, name: &str| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        ReplicaSeries::of(
            scene.plane,
            resource,
            &scene.namespace,
            name,
            "/spec/replicas",
        )
    };
    let all = [
        ("set", series("apps", "v1", "StatefulSet", "set")?),
        ("rollout", series(GROUP, "v1alpha1", "Rollout", "rollout")?),
    ];
    let wait_until = |what: &str, replicas: i32, annotated: bool| {
        poll_until(WAIT_TIMEOUT, what, || {
            follow(&scene, all[1].1.now())?;
            for (name, series) in &all {
                let hpa = scene.plane.get("hpa", name, Some(&scene.namespace))?;
                let is_annotated = hpa["metadata"]["annotations"][ZEROED_SINCE].is_string();
                let max = &hpa["spec"]["maxReplicas"];
                ensure!(
                    series.now() == replicas && is_annotated == annotated && *max == PARTITIONS,
                    "{name}: {:?} of {max}, {}",
                    series.timed(),
                    hpa["status"]["conditions"]
                );
            }
            Ok(())
        })
    };
    wait_until("both to reach the ceiling", PARTITIONS, false)?;
    scene.catch_up()?;
    wait_until("both to fall asleep", 0, true)?;
    scene.kafka.produce_to(&scene.topic, &[(1, 90), (2, 90)])?;
    wait_until("both to wake", 2, false)?;
    for (name, series) in &all {
        println!("{name}: {:?}", series.timed());
    }
    Ok(())
}

/// Names of scale targets that the API server accepts, and that would change the URL of a request. lagwise makes no
/// request for them, and says why.
pub(crate) fn names_that_would_change_a_url_are_refused(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, "urls")?;
    let options = Options {
        namespaces: vec![scene.namespace.clone()],
        ..scene.options()
    };
    let (daemon, _api) = Daemon::registered(testbed, scene.plane, &scene.namespace, &options)?;
    scene.allow()?;
    let names = [("query", "billing?dryRun=All&x="), ("fragment", "billing#")];
    for (hpa, target) in names {
        let labels = [("group", &*scene.group), ("topic", &*scene.topic)];
        let mut list: Value = serde_json::from_str(&workload(hpa, &labels))?;
        let hpa = &mut list["items"][1];
        hpa["spec"]["scaleTargetRef"]["name"] = json!(target);
        hpa["metadata"]["annotations"] = json!({
            "lagwise.dev/scale-to-zero": "true",
            "lagwise.dev/cooldown": humantime::format_duration(COOLDOWN).to_string(),
        });
        let create = ["create", "-n", &scene.namespace, "-f", "-"];
        scene.plane.kubectl_with_input(&create, &hpa.to_string())?;
    }
    poll_until(WAIT_TIMEOUT, "both to be refused", || {
        let requests = scene.plane.requests(&scene.namespace, "lagwise")?;
        let of_workloads = requests.iter().filter(|request| request.group == "apps");
        let of_workloads = Vec::from_iter(of_workloads);
        if !of_workloads.is_empty() {
            return Err(Hopeless(format!("{of_workloads:?}")).into());
        }
        let log = daemon.process.log();
        for (hpa, _) in names {
            let hpa = format!("{}/{hpa}", scene.namespace);
            let mut lines = log.lines().filter(|line| line.contains(&hpa));
            let is_refused = lines.any(|line| line.contains("scaleTargetRef.name"));
            ensure!(is_refused, "{hpa} is not");
        }
        Ok(())
    })
}
