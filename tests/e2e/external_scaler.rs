//! The external scaler behind KEDA's metrics server and HPA, which the testbed plays.

mod calls;
mod leaders;
mod waiting;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::keda::{Keda, KedaKinds, ScalerAddress};
use crate::testbed::pki::Authority;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The tests of this file.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "external_scaler::the_hpa_of_keda_scales_to_the_partitions",
        the_hpa_of_keda_scales_to_the_partitions,
    ),
    (
        "external_scaler::grpcurl_finds_and_calls_everything",
        calls::grpcurl_finds_and_calls_everything,
    ),
    (
        "external_scaler::descriptors_are_those_of_the_proto_files",
        calls::descriptors_are_those_of_the_proto_files,
    ),
    (
        "external_scaler::streams_outlast_the_leader",
        leaders::streams_outlast_the_leader,
    ),
];

/// Long tests.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "external_scaler::requests_that_wait_keep_little",
    waiting::requests_that_wait_keep_little,
)];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

const GUIDE: &str = include_str!("../../docs/src/guides/coming-from-keda.md");

/// The ScaledObject of the guide.
fn scaled_object(namespace: &str, group: &str, topic: &str) -> Result<String> {
    let begin = "```yaml file=billing-external.yaml\n";
    let (_, rest) = GUIDE.split_once(begin).context("no ScaledObject")?;
    let (yaml, _) = rest.split_once("```").context("no end")?;
    let changed = yaml
        .replace("namespace: shop", &format!("namespace: {namespace}"))
        .replace("group: billing", &format!("group: {group}"))
        .replace("topic: orders", &format!("topic: {topic}"));
    Ok(changed)
}

/// With 5 partitions, a threshold of 5 and a lag of 28 KEDA's own trigger gives 6 replicas, since its HPA rounds up.
/// With lagwise as its scaler the same HPA goes to 5 and stays there, whatever the lag and `maxReplicaCount` are.
fn the_hpa_of_keda_scales_to_the_partitions(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("keda")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 5)?;
    let zeros: Vec<_> = (0..5).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &zeros)?;

    let callers = Authority::new("callers")?;
    let client = callers.client("keda", None)?;
    let authority_file = testbed.folder("keda")?.join("ca.crt");
    std::fs::write(&authority_file, &callers.pem)?;
    let certificate = plane.serving_certificate(&namespace, "lagwise")?;
    let port = free_port()?;
    let options = Options {
        scaler: json!({"listen": format!("127.0.0.1:{port}"), "client_ca_file": authority_file}),
        ..Options::main(&kafka.bootstrap())
    };
    let files = (&certificate.cert_file, &certificate.key_file);
    let external = json!({"tls": {"cert_file": files.0, "key_file": files.1}});
    let watched = json!({"namespaces": [namespace]});
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let daemon = Daemon::start(testbed, &options, external, watched, Some(&kubeconfig))?;

    let _defined = KedaKinds::define(plane)?;
    let yaml = scaled_object(&namespace, &group, &topic)?;
    poll_until(WAIT_TIMEOUT, "the API server to know ScaledObjects", || {
        plane.apply(&namespace, &yaml)
    })?;
    let object = plane.get("scaledobject", "billing", Some(&namespace))?;
    let address = ScalerAddress {
        port,
        ca_pem: certificate.ca_pem.clone(),
        client_pem: client.certificate,
        client_key_pem: client.key,
    };
    let keda = Keda::start(&certificate, address, &object)?;
    let api = plane.register_api(&namespace, "lagwise", keda.port, &certificate.ca_pem)?;
    api.wait_available(WAIT_TIMEOUT)?;

    let mut activity = keda.stream()?;
    ensure!(
        keda.next(&mut activity)? == Some(false),
        "active without lag"
    );
    kafka.produce_to(&topic, &[(0, 28)])?;
    ensure!(keda.next(&mut activity)? == Some(true), "not active");

    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: billing}\nspec:\n  replicas: 1\n  \
                      selector: {matchLabels: {app: billing}}\n  template:\n    metadata: {labels: {app: billing}}\n    \
                      spec: {containers: [{name: consumer, image: consumer}]}\n";
    plane.apply(&namespace, deployment)?;
    let hpa: Value = keda.hpa(&object)?;
    plane.apply(&namespace, &hpa.to_string())?;
    let series = ReplicaSeries::record(plane, &namespace, "billing")?;
    let wait_until_five = || {
        poll_until(WAIT_TIMEOUT, "5 replicas", || {
            let now = series.now();
            ensure!(now == 5, "{now}: {:?}", series.values());
            let hpa = plane.get("hpa", "keda-hpa-billing", Some(&namespace))?;
            let wanted = &hpa["status"]["desiredReplicas"];
            ensure!(*wanted == 5, "{hpa}");
            Ok(())
        })
    };
    wait_until_five()?;
    kafka.produce_to(&topic, &[(1, 1000), (2, 1000)])?;
    daemon.wait_for_sweeps(2)?;
    // lagwise sees the HPA of KEDA, and shows its metrics.
    poll_until(WAIT_TIMEOUT, "the status of KEDA's HPA", || {
        let status = daemon.status_of(&namespace, "keda-hpa-billing")?;
        ensure!(status["desired"] == 5, "{status}");
        Ok(())
    })?;
    // One more sync of the HPA controller with the larger lag, which its status shows.
    poll_until(WAIT_TIMEOUT, "the HPA to see the larger lag", || {
        let hpa = plane.get("hpa", "keda-hpa-billing", Some(&namespace))?;
        let average = &hpa["status"]["currentMetrics"][0]["external"]["current"]["averageValue"];
        ensure!(*average == "5", "{hpa}");
        Ok(())
    })?;
    wait_until_five()?;
    ensure!(series.max() == 5, "{:?}", series.values());
    Ok(())
}
