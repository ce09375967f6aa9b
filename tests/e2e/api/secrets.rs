//! Plants secrets in every place that may have one, uses every endpoint and command, and searches all output for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::callers::client;
use super::{BASE, Scene};
use crate::daemon::cluster;
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

const PASSWORD: &str = "planted-kafka-password";
const GARBAGE: &str = "planted-garbage-token";
const COOKIE: &str = "planted-cookie";

/// Credentials never appear in the output, even with the most verbose log level.
pub(super) fn none_is_written_anywhere(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |options| {
        options.log = json!({"filter": "trace", "format": "json", "access": "all"});
        // A login that is refused: this broker has none.
        let bootstrap = options.clusters[0]["properties"]["bootstrap.servers"].clone();
        options.clusters.push(cluster(
            "locked",
            &[
                ("bootstrap.servers", bootstrap.as_str().unwrap_or_default()),
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", "mary"),
                ("sasl.password", PASSWORD),
            ],
        ));
    })?;
    let (reader, stranger) = (scene.token("reader")?, scene.token("stranger")?);
    let plain = client(None)?;
    let metric = scene.metric(&scene.namespace);
    let mut written = String::new();
    for token in [&reader, &stranger, GARBAGE] {
        for path in [
            metric.clone(),
            metric.replace("cluster%3Dmain", "cluster%3Dlocked"),
            format!("{metric}&token={token}"),
            BASE.to_owned(),
            "/nothing".to_owned(),
            "/livez".to_owned(),
        ] {
            for through in [scene.daemon.url(&path), scene.through(&path)] {
                let request = plain
                    .get(through)
                    .bearer_auth(token)
                    .header("cookie", COOKIE);
                let answer = request.header("x-remote-extra-key", GARBAGE).send()?;
                written += &format!("{:?}", answer.headers());
                written += &answer.text()?;
            }
        }
    }
    poll_until(
        Duration::from_secs(60),
        "the rejected login to be logged",
        || {
            let log = scene.daemon.process.log();
            ensure!(log.contains("Kafka cluster does not answer"), "not yet");
            Ok(())
        },
    )?;
    let log = scene.daemon.process.log();
    ensure!(
        log.contains("\"DEBUG\"") && log.contains("lagwise::access"),
        "the log is not as fine as it should be"
    );
    written += &log;
    written += &scene.daemon.metrics()?;

    let own = std::fs::read_to_string(
        scene
            .plane
            .pki
            .folder
            .join(format!("lagwise-{}.kubeconfig", scene.namespace)),
    )?;
    let own = own
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "))
        .context("no token of its own")?;
    let mut secrets = vec![
        ("password", PASSWORD.to_owned()),
        ("garbage", GARBAGE.to_owned()),
        ("cookie", COOKIE.to_owned()),
    ];
    for (name, token) in [
        ("reader's token", &*reader),
        ("stranger's token", &*stranger),
        ("own token", own),
    ] {
        // The last part alone is secret as well, because the other parts can be guessed.
        secrets.push((
            name,
            token.rsplit('.').next().unwrap_or_default().to_owned(),
        ));
    }
    for key in ["PRIVATE KEY", "BEGIN EC"] {
        secrets.push(("a private key", key.to_owned()));
    }
    for (name, secret) in secrets {
        ensure!(secret.len() >= 8, "{name}: {secret:?} is no secret");
        if let Some(at) = written.find(&secret) {
            let around: String = written[..at]
                .chars()
                .rev()
                .take(300)
                .collect::<String>()
                .chars()
                .rev()
                .collect();
            anyhow::bail!("{name} is written: {around}***");
        }
    }
    println!(
        "{} bytes searched, {} of them log",
        written.len(),
        log.len()
    );
    Ok(())
}
