//! Installation beside another owner of the external metrics API, beside another release, with rights in one namespace,
//! and in a cluster without nodes.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{chart, may};
use crate::testbed::Testbed;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kubernetes::{EXTERNAL_METRICS_API, external_metrics_api};

/// Installs a release in a namespace, with the default values and those in `set`.
fn install(plane: &ControlPlane, release: &str, namespace: &str, set: &str) -> Result<String> {
    install_with(plane, release, namespace, set, &[])
}

fn install_with(
    plane: &ControlPlane,
    release: &str,
    namespace: &str,
    set: &str,
    more: &[&str],
) -> Result<String> {
    let chart = chart();
    let (folder, values) = (
        chart.to_string_lossy(),
        chart.join("ci/default-values.yaml"),
    );
    let values = values.to_string_lossy();
    let command = [
        "install",
        release,
        &*folder,
        "--values",
        &*values,
        "--set",
        set,
        "--namespace",
        namespace,
    ];
    plane.helm(&[&command[..], more].concat())
}

/// A release that is uninstalled when dropped.
struct UninstallOnDrop<'a> {
    plane: &'a ControlPlane,
    release: &'a str,
    namespace: &'a str,
}

impl Drop for UninstallOnDrop<'_> {
    fn drop(&mut self) {
        let _ = self.plane.helm(&[
            "uninstall",
            self.release,
            "--no-hooks",
            "--ignore-not-found",
            "--namespace",
            self.namespace,
        ]);
    }
}

/// Deletes the APIService when dropped.
struct DeleteApiServiceOnDrop<'a>(&'a ControlPlane);

impl Drop for DeleteApiServiceOnDrop<'_> {
    fn drop(&mut self) {
        let args = [
            "delete",
            "apiservice",
            EXTERNAL_METRICS_API,
            "--ignore-not-found",
        ];
        let _ = self.0.kubectl(&args);
    }
}

/// Checks that Helm refused the installation, with an error that names all of these.
fn expect_refusal(outcome: Result<String>, named: &[&str]) -> Result<()> {
    let error = outcome.err().context("it was installed")?.to_string();
    for name in named {
        ensure!(error.contains(name), "no {name} in {error}");
    }
    Ok(())
}

pub(super) fn objects_of_others_are_refused_with_a_reason(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let (first, second) = (plane.namespace("first")?, plane.namespace("second")?);
    let registration = external_metrics_api("keda", "keda-operator-metrics-apiserver", 443);
    let _deleted = DeleteApiServiceOnDrop(plane);
    plane.kubectl_with_input(&["apply", "-f", "-"], &registration.to_string())?;
    expect_refusal(
        install(plane, "lagwise", &first, "replicaCount=1"),
        &[
            "belongs to KEDA",
            "keda/keda-operator-metrics-apiserver",
            "mode=observe",
            "apiService.create=false",
            "external scaler",
            "apiService.takeOver=true",
            "config.server.external_metrics.upstream",
        ],
    )?;
    let _uninstalled = UninstallOnDrop {
        plane,
        release: "lagwise",
        namespace: &first,
    };
    // Two of the ways out that the error names: without the API, and taking it over.
    install(plane, "lagwise", &first, "apiService.create=false")?;
    plane.helm(&["uninstall", "lagwise", "--namespace", &first])?;
    install_with(
        plane,
        "lagwise",
        &first,
        "apiService.takeOver=true,enforce.enabled=true",
        &["--take-ownership", "--force-conflicts"],
    )?;
    let service = plane.get("apiservice", EXTERNAL_METRICS_API, None)?;
    ensure!(
        service["spec"]["service"]["namespace"] == *first,
        "{service}"
    );

    // A second release.
    let owner = format!("release lagwise in namespace {first}");
    expect_refusal(
        install(plane, "other", &second, "replicaCount=1"),
        &[&owner, "config.clusters"],
    )?;
    expect_refusal(
        install(plane, "lagwise", &second, "apiService.create=false"),
        &[&owner, "fullnameOverride"],
    )?;
    expect_refusal(
        install(
            plane,
            "other",
            &second,
            "apiService.create=false,enforce.enabled=true",
        ),
        &[&owner, "lagwise-cap"],
    )?;
    let _uninstalled = UninstallOnDrop {
        plane,
        release: "other",
        namespace: &second,
    };
    install(plane, "other", &second, "apiService.create=false")?;
    plane.helm(&["uninstall", "other", "--namespace", &second])?;
    Ok(())
}

/// The chart grants rights to HPAs in the watched namespace only, and `lagwise release` needs no others.
pub(super) fn rights_in_one_namespace_suffice(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("team")?;
    let _uninstalled = UninstallOnDrop {
        plane,
        release: "lagwise",
        namespace: &namespace,
    };
    let set = format!(
        "config.kubernetes.namespaces={{{namespace}}},enforce.enabled=true,scaleToZero.enabled=true"
    );
    let notes = install(plane, "lagwise", &namespace, &set)?;
    let kubeconfig = plane.account_kubeconfig(&namespace, "lagwise")?;
    let own = format!("--namespace {namespace}");
    for right in [
        "watch hpa",
        "patch hpa",
        "patch deployments --subresource=scale",
        "create events.events.k8s.io",
    ] {
        ensure!(
            may(plane, &kubeconfig, &format!("{right} {own}")),
            "it may not {right}"
        );
        for place in ["--namespace default", "--all-namespaces"] {
            let right = format!("{right} {place}");
            ensure!(!may(plane, &kubeconfig, &right), "it may {right}");
        }
    }
    // The command that the chart's notes print.
    let command = printed_command(&notes)?;
    ensure!(command.contains(&namespace.as_str()), "{command:?}");
    let kubeconfig = kubeconfig.to_string_lossy();
    let release = |arguments: &[&str]| {
        let all = [arguments, &["--dry-run", "--kubeconfig", &*kubeconfig]].concat();
        testbed.lagwise(&all).output()
    };
    let done = release(&command)?;
    let stderr = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{stderr}");
    let without = release(&["release", "--all"])?;
    let stderr = String::from_utf8_lossy(&without.stderr);
    ensure!(
        !without.status.success() && stderr.contains("list"),
        "{stderr}"
    );
    Ok(())
}

/// Arguments of the `lagwise release` command in the chart's notes.
pub(super) fn printed_command(notes: &str) -> Result<Vec<&str>> {
    let mut lines = notes.lines().map(str::trim);
    let line = lines.find_map(|line| line.strip_prefix("lagwise release"));
    let line = line.with_context(|| format!("no command in {notes}"))?;
    Ok(std::iter::once("release")
        .chain(line.split_whitespace())
        .collect())
}

/// Without nodes, the job of the uninstall hook fails at its deadline. Helm still deletes everything of the release,
/// and the printed command restores the HPA.
pub(super) fn uninstallation_ends_where_no_pod_can_run(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("pods")?;
    let _uninstalled = UninstallOnDrop {
        plane,
        release: "lagwise",
        namespace: &namespace,
    };
    let set = "enforce.enabled=true,releaseJob.timeoutSeconds=2";
    let notes = install(plane, "lagwise", &namespace, set)?;
    let hpa = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": "billing",
            "annotations": {"lagwise.dev/ceiling": "6", "lagwise.dev/user-max-replicas": "20"},
        },
        "spec": {
            "maxReplicas": 6,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "billing"},
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80},
            }}],
        },
    });
    let file = testbed.folder("pods")?.join("hpa.json");
    fs::write(&file, hpa.to_string())?;
    plane.kubectl(&["apply", "-n", &namespace, "-f", &file.to_string_lossy()])?;
    let uninstall = ["uninstall", "lagwise", "--namespace", &namespace];
    let error = plane.helm(&uninstall).err().context("a pod has run")?;
    ensure!(error.to_string().contains("lagwise-release"), "{error}");
    ensure!(
        plane
            .helm(&["status", "lagwise", "--namespace", &namespace])
            .is_err()
    );
    let label = "app.kubernetes.io/instance=lagwise";
    for scope in [&["--namespace", &*namespace][..], &[]] {
        let kinds = match scope.is_empty() {
            true => "clusterroles,clusterrolebindings,apiservices,mutatingadmissionpolicies",
            false => "jobs,serviceaccounts,roles,rolebindings,deployments,services,configmaps",
        };
        let args = ["get", kinds, "--selector", label, "--output", "name"];
        let left = plane.kubectl(&[&args[..], scope].concat())?;
        ensure!(left.is_empty(), "left: {left}");
    }
    let mut command = printed_command(&notes)?;
    let kubeconfig = plane.kubeconfig().to_string_lossy();
    command.extend(["--kubeconfig", &*kubeconfig]);
    let released = testbed.lagwise(&command).output()?;
    let stderr = String::from_utf8_lossy(&released.stderr);
    ensure!(released.status.success(), "{stderr}");
    let hpa = plane.get("hpa", "billing", Some(&namespace))?;
    ensure!(hpa["spec"]["maxReplicas"] == 20, "{hpa}");
    plane.kubectl(&["delete", "namespace", &namespace, "--timeout=60s"])?;
    Ok(())
}
