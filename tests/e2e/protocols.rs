//! Every security.protocol on every kind of listener of a real broker. If the two do not match, the wire client says
//! which property to set. librdkafka does so for the mismatches that it recognizes, and reports a failure for the
//! others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::fault::Fault;

use crate::Test;
use crate::sources::{Sources, clients, plan};
use crate::testbed::Testbed;
use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::{at_once, poll_until};

/// The cases.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "protocols::error_of_a_wrong_protocol_has_the_remedy",
    error_of_a_wrong_protocol_has_the_remedy,
)];

/// Listeners, with the security.protocol that matches each.
const LISTENERS: [(&str, &str); 4] = [
    ("PLAINTEXT", "PLAINTEXT"),
    ("SASL", "SASL_PLAINTEXT"),
    ("SSL", "SSL"),
    ("SASLSSL", "SASL_SSL"),
];

/// librdkafka's error of a login on a listener without logins.
const NO_LOGIN: (Fault, &str) = (
    Fault::Login,
    "takes no SASL login; set security.protocol: PLAINTEXT or SSL, ",
);
/// librdkafka's error of a TLS handshake on a listener without TLS.
const NO_TLS: (Fault, &str) = (
    Fault::Unreachable,
    "set security.protocol: PLAINTEXT or SASL_PLAINTEXT, ",
);

/// Mismatches of security.protocol and listener that librdkafka recognizes, and its errors. Otherwise it only notices
/// that the connection ends: after its first request, or after a TLS alert, which is shorter than the header of a
/// response.
const BY_LIBRDKAFKA: [(&str, &str, (Fault, &str)); 6] = [
    ("SASL_PLAINTEXT", "PLAINTEXT", NO_LOGIN),
    ("SSL", "PLAINTEXT", NO_TLS),
    ("SASL_SSL", "PLAINTEXT", NO_TLS),
    ("SSL", "SASL", NO_TLS),
    ("SASL_SSL", "SASL", NO_TLS),
    ("SASL_SSL", "SSL", NO_LOGIN),
];

/// How long librdkafka may take to report a connection that fails.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(45);

fn error_of_a_wrong_protocol_has_the_remedy(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let pairs = LISTENERS.iter().flat_map(|(listener, own)| {
        let set = LISTENERS.map(|(_, protocol)| protocol);
        let others = set.into_iter().filter(move |protocol| protocol != own);
        others.map(move |protocol| (protocol, *listener, *own))
    });
    at_once(pairs, |(protocol, listener, own)| {
        pair(kafka, protocol, listener, own).with_context(|| format!("{protocol} to {listener}"))
    })
}

fn pair(kafka: &KafkaCluster, protocol: &str, listener: &str, own: &str) -> Result<()> {
    let (bootstrap, ca) = (kafka.listener_bootstrap(listener), kafka.ca_file());
    let mut properties = vec![
        ("bootstrap.servers", bootstrap.as_str()),
        ("security.protocol", protocol),
    ];
    if protocol.ends_with("SSL") {
        properties.push(("ssl.ca.location", ca.to_str().context("a path")?));
    }
    if protocol.starts_with("SASL") {
        properties.extend([
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", SASL_USER),
            ("sasl.password", SASL_PASSWORD),
        ]);
    }
    let is_tls = |protocol: &str| protocol.ends_with("SSL");
    // The TLS handshake comes before the login.
    let (kind, advice) = match (is_tls(protocol), is_tls(own)) {
        (false, true) => (
            Fault::Tls,
            "set security.protocol: SSL or SASL_SSL".to_owned(),
        ),
        (true, false) => {
            let plain = if protocol.starts_with("SASL") {
                "SASL_PLAINTEXT"
            } else {
                "PLAINTEXT"
            };
            (Fault::Tls, format!("set security.protocol: {plain}, "))
        }
        _ => (Fault::Login, format!("set security.protocol: {own}, ")),
    };
    let mut errors = BY_LIBRDKAFKA.iter();
    let by_librdkafka = errors.find(|(of, on, _)| (*of, *on) == (protocol, listener));
    let plan = plan("nobody", &["nothing"]);
    let mut sources = Sources::with(&clients()?, &properties)?;
    poll_until(FAILURE_TIMEOUT, "the reason", || {
        for (client, observation) in sources.sweep(&plan)? {
            let fault = observation.connection.context("no connection fault")?;
            let expected = match client {
                ClientKind::Wire => Some((kind, advice.as_str())),
                _ => by_librdkafka.map(|(.., error)| *error),
            };
            if let Some((kind, advice)) = expected {
                ensure!(
                    fault.kind == kind && fault.reason.contains(advice),
                    "{client:?}: {fault:?} instead of {kind:?}: {advice}"
                );
            }
        }
        Ok(())
    })
}
