//! The pods of the chart (of the daemon, of the Job after the uninstallation, and of `helm test`), and what values add to
//! other objects.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::chart;
use super::rendering::{documents, object, render};
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

/// A sidecar that is injected into a pod that ends would keep it, and Helm with it.
pub(super) fn pods_have_the_labels_and_the_names_of_the_values(testbed: &Testbed) -> Result<()> {
    const ISTIO: &str = "sidecar.istio.io/inject";
    const LINKERD: &str = "linkerd.io/inject";
    for (more, of_daemon, of_hooks) in [
        (
            &[][..],
            [Value::Null, Value::Null],
            [json!("false"), json!("disabled")],
        ),
        // The daemon in a mesh.
        (
            &[
                "--set-string",
                r"podLabels.sidecar\.istio\.io/inject=true,podAnnotations.linkerd\.io/inject=enabled",
            ],
            [json!("true"), json!("enabled")],
            [json!("false"), json!("disabled")],
        ),
        // A mesh whose sidecars end with the pod.
        (
            &[
                "--set",
                r"hookPods.labels.sidecar\.istio\.io/inject=null,hookPods.annotations=null",
            ],
            [Value::Null, Value::Null],
            [Value::Null, Value::Null],
        ),
    ] {
        for pod in pods(testbed, "replicaCount=2", more)? {
            let expected = match pod.kind.as_str() {
                "Deployment" => &of_daemon,
                _ => &of_hooks,
            };
            let metadata = &pod.metadata;
            let found = [
                &metadata["labels"][ISTIO],
                &metadata["annotations"][LINKERD],
            ];
            ensure!(
                found == [&expected[0], &expected[1]],
                "{more:?}: {}: {metadata}",
                pod.kind
            );
        }
    }
    let set = "podLabels.team=shop,podAnnotations.owner=pay,hookPods.labels.hook=a,\
               hookPods.annotations.hook=b,priorityClassName=high,podIdentity.azureClientId=id,\
               dnsPolicy=None,dnsConfig.nameservers={10.0.0.10},hostAliases[0].ip=10.0.0.7,\
               hostAliases[0].hostnames={kafka-1}";
    for pod in pods(testbed, set, &["--set-string", "podLabels.number=1"])? {
        let Pod {
            kind,
            metadata,
            spec,
        } = pod;
        let (labels, annotations) = (&metadata["labels"], &metadata["annotations"]);
        ensure!(
            labels["team"] == "shop" && labels["number"] == "1" && annotations["owner"] == "pay",
            "{kind}: {metadata}"
        );
        let is_hook = kind != "Deployment";
        ensure!(
            (labels["hook"] == "a") == is_hook && (annotations["hook"] == "b") == is_hook,
            "{kind}: {metadata}"
        );
        ensure!(spec["priorityClassName"] == "high", "{kind}: {spec}");
        // The Job connects to the API server only, and has no identity.
        let connects = kind != "Job";
        let identity = &labels["azure.workload.identity/use"];
        ensure!((*identity == "true") == connects, "{kind}: {metadata}");
        for (key, value) in [
            ("dnsPolicy", json!("None")),
            ("dnsConfig", json!({"nameservers": ["10.0.0.10"]})),
            (
                "hostAliases",
                json!([{"ip": "10.0.0.7", "hostnames": ["kafka-1"]}]),
            ),
        ] {
            ensure!((spec[key] == value) == connects, "{kind}: {key} of {spec}");
        }
    }
    for (set, expected) in [
        ("hostNetwork=true", json!("ClusterFirstWithHostNet")),
        ("hostNetwork=true,dnsPolicy=Default", json!("Default")),
        ("hostNetwork=false", Value::Null),
    ] {
        for pod in pods(testbed, set, &[])? {
            let found = &pod.spec["dnsPolicy"];
            let expected = if pod.kind == "Job" {
                &Value::Null
            } else {
                &expected
            };
            ensure!(found == expected, "{set}: {}: {found}", pod.kind);
        }
    }
    Ok(())
}

pub(super) fn monitors_alerts_and_the_service_have_what_the_values_add(
    testbed: &Testbed,
) -> Result<()> {
    let rules = |of: &str| json!([{"sourceLabels": [of], "targetLabel": "node"}]);
    for (kind, value, endpoints) in [
        ("ServiceMonitor", "serviceMonitor", "endpoints"),
        ("PodMonitor", "podMonitor", "podMetricsEndpoints"),
    ] {
        let (targets, metrics) = (rules("__meta_kubernetes_pod_node_name"), rules("instance"));
        let set = format!("{value}.enabled=true");
        let of_targets = format!("{value}.relabelings={targets}");
        let of_metrics = format!("{value}.metricRelabelings={metrics}");
        let more = ["--set-json", &*of_targets, "--set-json", &*of_metrics];
        for (more, targets, metrics) in [
            (&more[..], targets, metrics),
            (&[], Value::Null, Value::Null),
        ] {
            let monitor = object(&render(testbed, &set, more)?, kind)?;
            let endpoint = &monitor["spec"][endpoints][0];
            ensure!(
                endpoint["relabelings"] == targets && endpoint["metricRelabelings"] == metrics,
                "{more:?}: {endpoint}"
            );
        }
    }
    let set = "prometheusRule.enabled=true,prometheusRule.kminionNames=true,\
               prometheusRule.alertLabels.team=shop,prometheusRule.alertLabels.severity=page,\
               service.annotations.owner=pay";
    let rendered = render(testbed, set, &[])?;
    let rule = object(&rendered, "PrometheusRule")?;
    let groups = rule["spec"]["groups"].as_array().context("no groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    let (alerts, records): (Vec<&Value>, Vec<&Value>) =
        rules.flatten().partition(|rule| rule["alert"].is_string());
    ensure!(alerts.len() > 10 && records.len() > 3, "{rule}");
    for alert in alerts {
        let labels = json!({"team": "shop", "severity": "page"});
        ensure!(alert["labels"] == labels, "{alert}");
    }
    for record in records {
        ensure!(record["labels"]["team"].is_null(), "{record}");
    }
    let service = object(&rendered, "Service")?;
    let annotations = &service["metadata"]["annotations"];
    ensure!(*annotations == json!({"owner": "pay"}), "{service}");
    Ok(())
}

/// Names of releases have up to 53 characters, and some names of objects up to 63.
pub(super) fn long_names_are_valid_and_unique(testbed: &Testbed) -> Result<()> {
    let chart = chart();
    let (folder, values) = (
        chart.to_string_lossy(),
        chart.join("ci/everything-values.yaml"),
    );
    let values = values.to_string_lossy();
    let long = format!("nameOverride={}", "n".repeat(63));
    for more in [
        &["--set", "replicaCount=3"][..],
        &["--set", &*long],
        &["--set", "upstream.serviceAccount=true"],
    ] {
        let mut of_releases = Vec::new();
        for last in ["a", "b"] {
            let release = format!("{}{last}", "r".repeat(52));
            let args = [&[&*folder, "--values", &*values], more].concat();
            let rendered = testbed.helm_template(&release, &args)?;
            let mut names = BTreeSet::new();
            for document in documents(&rendered) {
                let object: Value = serde_saphyr::from_str(document)?;
                let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
                let kind = object["kind"].as_str().context("no kind")?;
                let limit = match kind {
                    "Service" | "Job" | "Pod" | "Deployment" => 63,
                    _ => 253,
                };
                let (name, namespace) = (text("name"), text("namespace"));
                ensure!(name.len() <= limit, "{kind} {name}");
                check_labels(&object).with_context(|| format!("{kind} {name}"))?;
                let key = format!("{kind} {namespace}/{name}");
                ensure!(names.insert(key.clone()), "two objects are {key}");
            }
            of_releases.push(names);
        }
        let both: Vec<&String> = of_releases[0].intersection(&of_releases[1]).collect();
        let expected = ["APIService /v1beta1.external.metrics.k8s.io"];
        ensure!(both == expected, "{more:?}: {both:?}");
        ensure!(of_releases[0].len() > 20, "{of_releases:?}");
    }
    // What is short enough stays as it is.
    let rendered = render(testbed, "enforce.enabled=true", &[])?;
    for (kind, name) in [("Job", "lw-lagwise-release"), ("Pod", "lw-lagwise-check")] {
        let metadata = &object(&rendered, kind)?["metadata"];
        ensure!(metadata["name"] == name, "{kind} {metadata}");
        // Helm deletes the Job, and its log with it.
        let printed = &metadata["annotations"]["helm.sh/hook-output-log-policy"];
        ensure!(printed == "hook-failed", "{kind} {metadata}");
    }
    Ok(())
}

/// Checks that no label in an object is longer than Kubernetes allows.
fn check_labels(value: &Value) -> Result<()> {
    for (key, inner) in value.as_object().into_iter().flatten() {
        if ["labels", "matchLabels"].contains(&key.as_str()) {
            for label in inner.as_object().into_iter().flatten() {
                let text = label.1.as_str().unwrap_or_default();
                ensure!(text.len() <= 63, "label {}: {text}", label.0);
            }
        }
        check_labels(inner)?;
    }
    for inner in value.as_array().into_iter().flatten() {
        check_labels(inner)?;
    }
    Ok(())
}
