//! The reason why a cluster does not respond is logged once, and is the same in all outputs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Test;
use crate::daemon::{Daemon, Options, cluster};
use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "login::a_rejected_login_is_reported_once_and_everywhere",
        a_rejected_login_is_reported_once_and_everywhere,
    ),
    (
        "login::librdkafka_reports_a_rejected_login_too",
        librdkafka_reports_a_rejected_login_too,
    ),
];

/// A wrong password, an unknown host and a refused TLS handshake, and two clusters that work.
fn a_rejected_login_is_reported_once_and_everywhere(testbed: &Testbed) -> Result<()> {
    run(
        testbed,
        "wire",
        "failed to resolve",
        "invalid peer certificate",
    )
}

/// The same with librdkafka, whose errors differ.
fn librdkafka_reports_a_rejected_login_too(testbed: &Testbed) -> Result<()> {
    run(
        testbed,
        "librdkafka",
        "Failed to resolve",
        "certificate verify failed",
    )
}

fn run(
    testbed: &Testbed,
    client: &'static str,
    unresolved: &'static str,
    untrusted: &'static str,
) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 3)?;
    kafka.commit(&group, &topic, &[(0, 1)])?;
    let (sasl, ssl) = (kafka.sasl_bootstrap(), kafka.ssl_bootstrap());
    // No server listens there.
    let endpoint = format!(
        "http://user:planted-secret@127.0.0.1:{}/token",
        free_port()?
    );
    let ca_file = kafka.ca_file();
    let ca_file = ca_file.to_str().context("a path that is no text")?;
    let login = |password: &'static str| {
        vec![
            ("bootstrap.servers", sasl.as_str()),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", SASL_USER),
            ("sasl.password", password),
        ]
    };
    let tls = [
        ("bootstrap.servers", ssl.as_str()),
        ("security.protocol", "SSL"),
    ];
    let trusted = [tls.as_slice(), &[("ssl.ca.location", ca_file)]].concat();
    let broken = [
        (
            "wrong-password",
            login("not-the-password"),
            "login",
            "Authentication failed",
        ),
        (
            "unknown-host",
            vec![("bootstrap.servers", "no-such-host.invalid:9092")],
            "name_resolution",
            unresolved,
        ),
        ("untrusted", tls.to_vec(), "tls", untrusted),
        (
            "no-token",
            vec![
                ("bootstrap.servers", sasl.as_str()),
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                ("sasl.oauthbearer.client.id", "lagwise"),
                ("sasl.oauthbearer.client.secret", "planted-secret"),
                ("sasl.oauthbearer.token.endpoint.url", endpoint.as_str()),
            ],
            "login",
            "token source oidc",
        ),
    ];
    let working = [
        ("right-password", login(SASL_PASSWORD)),
        ("trusted", trusted),
    ];

    let targets =
        |name: &str| json!({"name": name, "cluster": name, "group": group, "topics": [topic]});
    let all = broken
        .iter()
        .map(|(name, properties, ..)| (name, properties));
    let all: Vec<_> = all
        .chain(working.iter().map(|(name, properties)| (name, properties)))
        .collect();
    let daemon = Daemon::alone(
        testbed,
        &Options {
            clusters: all
                .iter()
                .map(|(name, properties)| cluster(name, properties))
                .collect(),
            targets: all.iter().map(|(name, _)| targets(name)).collect(),
            client,
            ..Options::main("unused:1")
        },
    )?;
    let selector = |name: &str| format!("cluster={name},group={group},topic={topic}");
    for (name, _) in &working {
        poll_until(
            Duration::from_secs(30),
            &format!("the lag on {name}"),
            || {
                assert_eq!(daemon.lag(&selector(name))?, 2);
                Ok(())
            },
        )?;
    }
    for (name, _, kind, reason) in &broken {
        let message = poll_until(
            Duration::from_secs(30),
            &format!("the refusal of {name}"),
            || {
                let message = daemon.refusal(&selector(name), 503)?;
                ensure!(message.contains(reason), "{message}");
                Ok(message)
            },
        )?;
        let (_, cause) = message
            .split_once("is unknown: ")
            .context("no cause in the message")?;
        // The same text on /metrics, escaped by its format.
        let escaped = cause.replace('\\', "\\\\").replace('"', "\\\"");
        let fault = format!(
            "lagwise_cluster_fault{{cluster=\"{name}\",kind=\"{kind}\",reason=\"{escaped}\"}} 1"
        );
        let metrics = daemon.metrics()?;
        ensure!(metrics.contains(&fault), "no {fault} in {metrics}");
    }

    // Many polls later there is still one line for each.
    let polls = |metrics: &str| -> u64 {
        let counted = |line: &str| {
            line.strip_prefix("lagwise_polls_total{cluster=\"wrong-password\"")?
                .rsplit(' ')
                .next()?
                .parse()
                .ok()
        };
        metrics.lines().find_map(counted).unwrap_or(0)
    };
    let before = polls(&daemon.metrics()?);
    poll_until(Duration::from_secs(60), "ten more polls", || {
        let now = polls(&daemon.metrics()?);
        ensure!(now >= before + 10, "{now} polls, {before} before");
        Ok(())
    })?;
    let log = daemon.process.log();
    for (name, _, _, reason) in &broken {
        let lines = log
            .lines()
            .filter(|line| line.contains(name) && line.contains(reason))
            .count();
        assert_eq!(lines, 1, "{name}: {log}");
    }
    for secret in [SASL_PASSWORD, "not-the-password", "planted-secret"] {
        ensure!(
            !log.contains(secret) && !daemon.metrics()?.contains(secret),
            "a secret was shown"
        );
    }
    Ok(())
}
