//! The pods of the chart: of the daemon, of the Job after the uninstallation, and of `helm test`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::chart;
use super::rendering::{documents, render};
use crate::testbed::Testbed;

/// A pod of the chart, or its template.
struct Pod {
    /// The kind of the object that makes it.
    kind: String,
    metadata: Value,
    spec: Value,
}

/// The pods of the chart with the default values and these. There are three: all values must write, for the Job to exist.
fn pods(testbed: &Testbed, set: &str, more: &[&str]) -> Result<Vec<Pod>> {
    let rendered = render(testbed, &format!("enforce.enabled=true,{set}"), more)?;
    let mut pods = Vec::new();
    for document in documents(&rendered) {
        let mut object: Value = serde_saphyr::from_str(document)?;
        let kind = object["kind"].as_str().context("no kind")?.to_owned();
        let mut pod = match kind.as_str() {
            "Pod" => object.take(),
            "Deployment" | "Job" => object["spec"]["template"].take(),
            _ => continue,
        };
        pods.push(Pod {
            kind,
            metadata: pod["metadata"].take(),
            spec: pod["spec"].take(),
        });
    }
    let mut kinds: Vec<&str> = pods.iter().map(|pod| pod.kind.as_str()).collect();
    kinds.sort_unstable();
    ensure!(kinds == ["Deployment", "Job", "Pod"], "{kinds:?}");
    Ok(pods)
}

/// OpenShift refuses pods that choose their user or group.
pub(super) fn every_pod_has_the_security_context_of_the_values(testbed: &Testbed) -> Result<()> {
    let openshift = chart().join("examples/openshift.yaml");
    let openshift = openshift.to_string_lossy();
    let seccomp = json!({"type": "RuntimeDefault"});
    let restricted = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    let user = json!({
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": seccomp,
    });
    let of_platform = json!({"runAsNonRoot": true, "seccompProfile": seccomp});
    let mut other = user.clone();
    other["fsGroup"] = json!(7);
    other["supplementalGroups"] = json!([8]);
    let mut writable = restricted.clone();
    writable["readOnlyRootFilesystem"] = json!(false);
    for (set, more, of_pod, of_container) in [
        ("replicaCount=2", &[][..], &user, &restricted),
        (
            "replicaCount=2",
            &["--values", &*openshift],
            &of_platform,
            &restricted,
        ),
        (
            "podSecurityContext.fsGroup=7,podSecurityContext.supplementalGroups={8},\
             securityContext.readOnlyRootFilesystem=false",
            &[],
            &other,
            &writable,
        ),
    ] {
        for pod in pods(testbed, set, more)? {
            let found = &pod.spec["securityContext"];
            ensure!(found == of_pod, "{set} {more:?}: {}: {found}", pod.kind);
            let found = &pod.spec["containers"][0]["securityContext"];
            ensure!(
                found == of_container,
                "{set} {more:?}: {}: {found}",
                pod.kind
            );
        }
    }
    Ok(())
}
