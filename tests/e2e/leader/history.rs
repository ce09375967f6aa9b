//! The history of HPAs across a change of leader.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{WAIT_TIMEOUT, allow, leads};
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::http::http_get;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The next leader has the history of the one before, and says since when it is known.
pub(super) fn is_handed_over(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("history")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce(&topic, 0, 9)?;
    kafka.commit(&group, &topic, &[(0, 2), (1, 0)])?;
    allow(plane, &namespace)?;
    let set = workload("billing", &[("group", &group), ("topic", &topic)]);
    plane.apply(&namespace, &set)?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let certificate = plane.serving_certificate(&namespace, "lagwise")?;
    let options = Options {
        leader: json!({"lease": "lagwise", "duration": "6s"}),
        ..Options::main(&kafka.bootstrap())
    };
    let start = || {
        let watched = json!({"namespaces": [namespace]});
        let tls =
            json!({"tls": {"cert_file": certificate.cert_file, "key_file": certificate.key_file}});
        Daemon::start(testbed, &options, tls, watched, Some(&kubeconfig))
    };
    let history = |daemon: &Daemon| -> Result<Value> {
        let (code, body) = http_get(daemon.admin_port, &format!("/api/hpas/{namespace}/billing"))?;
        ensure!(code == 200, "{code}: {body}");
        let view: Value = serde_json::from_str(&body)?;
        let history = view["history"].clone();
        let points = history["points"].as_array().context("no points")?;
        ensure!(points.iter().any(|point| point["lag"] == 7), "{history}");
        Ok(history)
    };
    let mut first = start()?;
    let before = poll_until(WAIT_TIMEOUT, "a point of the history", || history(&first))?;
    let second = start()?;
    poll_until(
        WAIT_TIMEOUT,
        "the other replica to ask for the history",
        || {
            let metrics = first.metrics()?;
            let is_requested = metrics.lines().any(|line| {
                line.starts_with("lagwise_api_requests_total{")
                    && line.contains("request=\"history\"")
                    && line.contains("code=\"200\"")
            });
            ensure!(is_requested, "not requested yet");
            Ok(())
        },
    )?;
    first.process.stop(Duration::from_secs(10))?;
    poll_until(WAIT_TIMEOUT, "the other replica to lead", || {
        ensure!(leads(&second)?, "it does not");
        Ok(())
    })?;
    let known = |history: &Value| history["known_since"].clone();
    let after = poll_until(WAIT_TIMEOUT, "the history of the next leader", || {
        let after = history(&second)?;
        ensure!(known(&after).is_string(), "{after}");
        Ok(after)
    })?;
    ensure!(known(&after) == known(&before), "{before}, then {after}");
    let first_point = |history: &Value| history["points"][0]["at"].clone();
    ensure!(
        first_point(&after) == first_point(&before),
        "{before}, then {after}"
    );
    Ok(())
}
