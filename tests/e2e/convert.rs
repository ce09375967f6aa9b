//! `lagwise convert` of KEDA's ScaledObjects, with the results applied to the real control plane.

mod corpus;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::keda::KedaKinds;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The tests of this file.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "convert::every_hpa_is_accepted_without_a_warning",
        every_hpa_is_accepted_without_a_warning,
    ),
    (
        "convert::a_converted_hpa_scales_to_the_partitions",
        a_converted_hpa_scales_to_the_partitions,
    ),
    (
        "convert::objects_of_the_cluster_are_converted_and_compared",
        objects_of_the_cluster_are_converted_and_compared,
    ),
];

/// Takes minutes.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "convert::every_hpa_scales_on_real_lag",
    corpus::every_hpa_scales_on_real_lag,
)];

/// What `lagwise convert` prints for this file, and its exit code.
fn convert(testbed: &Testbed, file: &Path) -> Result<(String, Option<i32>)> {
    let file = file.to_str().context("a path in Unicode")?;
    let done = testbed.lagwise(&["convert", "-f", file]).output()?;
    Ok((String::from_utf8(done.stdout)?, done.status.code()))
}

/// The API server accepts every HPA of the corpus, with strict validation and without warnings.
fn every_hpa_is_accepted_without_a_warning(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("convert")?;
    let folder = testbed.folder("convert")?;
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert");
    let mut accepted = 0;
    for entry in std::fs::read_dir(corpus)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let name = path.file_name().context("a name")?;
        let copy = folder.join(name);
        let text = std::fs::read_to_string(&path)?;
        let text = text.replace("namespace: shop", &format!("namespace: {namespace}"));
        std::fs::write(&copy, text)?;
        let (hpas, code) = convert(testbed, &copy)?;
        ensure!(
            matches!(code, Some(0 | 1)),
            "{}: exit code {code:?}",
            path.display()
        );
        let count = hpas.matches("kind: HorizontalPodAutoscaler").count();
        if count == 0 {
            continue;
        }
        let args = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "--warnings-as-errors",
            "--namespace",
            namespace.as_str(),
            "--filename",
            "-",
        ];
        let output = plane.kubectl_with_input(&args, &hpas);
        let output = output.with_context(|| path.display().to_string())?;
        ensure!(
            output.lines().count() == count,
            "{}: {output}",
            path.display()
        );
        accepted += count;
    }
    ensure!(accepted >= 30, "only {accepted} HPAs");
    println!("{accepted} converted HPAs were accepted");
    Ok(())
}

/// With 5 partitions, a threshold of 5 and a lag of 28 KEDA's HPA proposes 6 replicas. The converted one proposes 5.
fn a_converted_hpa_scales_to_the_partitions(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("convert")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 5)?;
    let zeros: Vec<_> = (0..5).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &zeros)?;
    kafka.produce_to(&topic, &[(0, 28)])?;
    let scaled_object = format!(
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: billing, namespace: {namespace}}}\nspec:\n  \
         scaleTargetRef: {{name: billing}}\n  minReplicaCount: 1\n  maxReplicaCount: 20\n  triggers:\n    - type: kafka\n      \
         metadata: {{bootstrapServers: \"{}\", consumerGroup: {group}, topic: {topic}, lagThreshold: \"5\"}}\n",
        kafka.bootstrap()
    );
    let folder = testbed.folder("convert")?;
    let file = folder.join("billing.yaml");
    std::fs::write(&file, scaled_object)?;
    let (hpa, code) = convert(testbed, &file)?;
    ensure!(code == Some(0), "exit code {code:?}: {hpa}");
    let (_daemon, _api) = Daemon::registered(
        testbed,
        plane,
        &namespace,
        &Options::main(&kafka.bootstrap()),
    )?;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: billing}\nspec:\n  replicas: 1\n  \
                      selector: {matchLabels: {app: billing}}\n  template:\n    metadata: {labels: {app: billing}}\n    \
                      spec: {containers: [{name: consumer, image: consumer}]}\n";
    plane.apply(&namespace, deployment)?;
    plane.apply(&namespace, &hpa)?;
    let series = ReplicaSeries::record(plane, &namespace, "billing")?;
    poll_until(Duration::from_secs(120), "5 replicas", || {
        let now = series.now();
        ensure!(now == 5, "{now}: {:?}", series.values());
        let hpa = plane.get("hpa", "billing", Some(&namespace))?;
        ensure!(hpa["status"]["desiredReplicas"] == 5, "{hpa}");
        Ok(())
    })?;
    ensure!(series.max() == 5, "{:?}", series.values());
    Ok(())
}

/// Without files the objects come from the cluster, with the same result; `--diff` says what would change.
fn objects_of_the_cluster_are_converted_and_compared(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("convert")?;
    let _kinds = KedaKinds::define(plane)?;
    let scaled_object = format!(
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: billing, namespace: {namespace}}}\nspec:\n  \
         scaleTargetRef: {{name: billing}}\n  minReplicaCount: 1\n  maxReplicaCount: 20\n  triggers:\n    - type: kafka\n      \
         metadata: {{bootstrapServers: \"kafka:9092\", consumerGroup: billing, topic: orders, lagThreshold: \"5\"}}\n",
    );
    poll_until(
        Duration::from_secs(60),
        "the API server to know ScaledObjects",
        || plane.apply(&namespace, &scaled_object),
    )?;
    let file = testbed.folder("convert")?.join("billing.yaml");
    std::fs::write(&file, scaled_object)?;
    let kubeconfig = plane.kubeconfig().to_string_lossy();
    let of_cluster = |more: &[&str]| {
        let args = ["convert", "-n", &namespace, "--kubeconfig", &kubeconfig];
        let done = testbed.lagwise(&[&args[..], more].concat()).output()?;
        let text = String::from_utf8(done.stdout)?;
        ensure!(
            done.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(text)
    };
    let without_source = |text: &str| text.split_once('\n').map(|(_, rest)| rest.to_owned());
    let (from_file, _) = convert(testbed, &file)?;
    let converted = of_cluster(&[])?;
    ensure!(
        without_source(&converted) == without_source(&from_file),
        "{converted}"
    );
    let title = format!("HorizontalPodAutoscaler {namespace}/billing");
    let differences = of_cluster(&["--diff"])?;
    ensure!(
        differences == format!("{title}: it does not exist in the cluster yet\n"),
        "{differences}"
    );
    plane.apply(&namespace, &converted)?;
    let differences = of_cluster(&["--diff"])?;
    ensure!(
        differences == format!("{title}: no difference\n"),
        "{differences}"
    );
    let patch = r#"{"spec":{"maxReplicas":7}}"#;
    plane.kubectl(&["patch", "hpa", "billing", "-n", &namespace, "-p", patch])?;
    let differences = of_cluster(&["--diff"])?;
    ensure!(
        differences.contains("  spec.maxReplicas: 7 -> 20\n"),
        "{differences}"
    );

    let external = of_cluster(&["--to", "external-scaler"])?;
    plane.apply(&namespace, &external)?;
    let applied = plane.get("scaledobject", "billing", Some(&namespace))?;
    let trigger = &applied["spec"]["triggers"][0];
    ensure!(trigger["type"] == "external-push", "{applied}");
    ensure!(trigger["metadata"]["group"] == "billing", "{applied}");
    Ok(())
}
