//! Every kind of login on a real broker: with the right credentials it reads a lag, with wrong ones it says why, in
//! time and without hammering the broker.
//!
//! The tokens here are librdkafka's own, unsigned ones; `renewal` has those of an issuer, for both clients. Kerberos
//! has its own file, because librdkafka takes its configuration from the environment of the process.

mod managed;
pub(crate) mod recipes;
mod token_endpoint;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::sweep_plan::SweepPlan;

use crate::Test;
use crate::sources::{Sources, clients, plan, seen};
use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::pki::Authority;
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::proxy::Proxy;
use crate::testbed::secured::{CERTIFIED, SCOPE};
use crate::testbed::{Testbed, unique};

/// The cases of every run.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "logins::each_login_with_correct_and_wrong_credentials",
        each_login_with_correct_and_wrong_credentials,
    ),
    ("logins::each_recipe_logs_in", recipes::each_recipe_logs_in),
    (
        "logins::each_recipe_with_tokens_logs_in",
        recipes::each_recipe_with_tokens_logs_in,
    ),
    (
        "logins::each_recipe_of_a_managed_service_logs_in",
        managed::each_recipe_logs_in,
    ),
];

/// How long wrong credentials are tried.
const TRYING: Duration = Duration::from_secs(5);

/// Time for the right credentials to work.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that one client may try in that time.
const TRIES: usize = 12;
/// A password that no user has.
const WRONG: &str = "not-the-password";

/// Parts of the reasons about certificates, in the words of several TLS libraries.
const CERTIFICATE: &str = "ertificate";

/// Properties without `bootstrap.servers`.
type Properties = Vec<(&'static str, String)>;

/// A valid login, and an invalid one.
struct Login {
    name: String,
    listener: &'static str,
    right: Properties,
    wrong: Properties,
    /// The fault of the refusal, and a part of its reason.
    refused: (Fault, &'static str),
}

/// Credentials for the logins.
struct Files {
    ca: String,
    other_ca: String,
    certificate: (String, String),
    strange_certificate: (String, String),
}

/// Runs all logins at once, each with its own source for each client.
pub(crate) fn each_login_with_correct_and_wrong_credentials(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce_to(&topic, &[(0, 4), (1, 9)])?;
    kafka.commit(&group, &topic, &[(0, 1), (1, 2)])?;
    let logins = logins(&files(kafka, &testbed.folder("logins")?)?);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let tries: Vec<_> = logins
            .iter()
            .map(|login| {
                let (topic, group) = (&topic, &group);
                scope.spawn(move || {
                    right(kafka, login, topic, group)
                        .context("with the right credentials")
                        .and_then(|()| {
                            wrong(kafka, login, topic, group).context("with wrong credentials")
                        })
                        .with_context(|| login.name.clone())
                })
            })
            .collect();
        let failed = tries.into_iter().filter_map(|tried| match tried.join() {
            Ok(outcome) => outcome.err().map(|error| format!("{error:#}")),
            Err(_) => Some("a login panicked".to_owned()),
        });
        failed.collect()
    });
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn right(kafka: &KafkaCluster, login: &Login, topic: &str, group: &str) -> Result<()> {
    let bootstrap = kafka.listener_bootstrap(login.listener);
    let expected = format!("{group} {topic}: 1 2\n{topic}: 0..4 0..9");
    match connect(&login.right, &bootstrap)? {
        // All logins begin at once, and the broker shares its cores with other scenarios.
        Some(mut sources) => {
            sources.wait_for(LOGIN_TIMEOUT, "the lag", &plan(group, &[topic]), &expected)
        }
        None => Ok(()),
    }
}

fn wrong(kafka: &KafkaCluster, login: &Login, topic: &str, group: &str) -> Result<()> {
    // No client gets past the login, so none learns another address than the proxy's.
    let proxy = Proxy::in_front_of(kafka, 1, login.listener)?;
    let Some(mut sources) = connect(&login.wrong, &proxy.address())? else {
        return Ok(());
    };
    let plan = plan(group, &[topic]);
    let started = Instant::now();
    // A busy broker may not answer the first sweep in time.
    let mut reasons = Vec::new();
    poll_until(LOGIN_TIMEOUT, "the refusal", || {
        reasons = refusal(login, &mut sources, &plan)?;
        Ok(())
    })?;
    for (client, reason) in reasons {
        println!("{}: {client:?}: {reason}", login.name);
    }
    poll_until(TRYING * 2, "the time of trying to pass", || {
        refusal(login, &mut sources, &plan).map_err(|error| Hopeless(format!("{error:#}")))?;
        ensure!(started.elapsed() >= TRYING, "not yet");
        Ok(())
    })?;
    // One for each client, and librdkafka has another for each group.
    let times = started
        .elapsed()
        .as_millis()
        .div_ceil((TRYING * 2).as_millis());
    let times = usize::try_from(times)?;
    let (tries, most) = (proxy.accepted(), times * TRIES * (sources.each.len() + 1));
    ensure!(
        (1..=most).contains(&tries),
        "{tries} tries in {:?}, more than {most}",
        started.elapsed()
    );
    Ok(())
}

/// Sweeps once. Every client has to be refused; returns the reasons.
fn refusal(
    login: &Login,
    sources: &mut Sources,
    plan: &SweepPlan,
) -> Result<Vec<(ClientKind, Arc<str>)>> {
    let (kind, reason) = login.refused;
    let mut reasons = Vec::new();
    for (client, observation) in sources.sweep(plan)? {
        let all = seen(&observation);
        let fault = observation
            .connection
            .with_context(|| format!("{client:?}: no connection fault: {all}"))?;
        ensure!(
            fault.kind == kind && fault.reason.contains(reason),
            "{client:?}: {:?} instead of {kind:?}: {}",
            fault.kind,
            fault.reason
        );
        ensure!(
            !fault.reason.contains(SASL_PASSWORD) && !fault.reason.contains(WRONG),
            "{client:?} shows the password: {}",
            fault.reason
        );
        ensure!(
            observation
                .groups
                .iter()
                .all(|group| group.committed.is_err()),
            "{client:?}: something was read: {all}"
        );
        reasons.push((client, fault.reason));
    }
    Ok(reasons)
}

/// The clients that support a login; `None` if no client of this run does.
fn connect(properties: &Properties, bootstrap: &str) -> Result<Option<Sources>> {
    let mut all: Vec<(&str, &str)> = vec![("bootstrap.servers", bootstrap)];
    all.extend(properties.iter().map(|(key, value)| (*key, value.as_str())));
    let is_token = properties.contains(&("sasl.mechanism", "OAUTHBEARER".to_owned()));
    let mut clients = clients()?;
    clients.retain(|client| !is_token || *client == ClientKind::Librdkafka);
    if clients.is_empty() {
        return Ok(None);
    }
    Sources::with(&clients, &all).map(Some)
}

fn files(kafka: &KafkaCluster, folder: &Path) -> Result<Files> {
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let other = Authority::new("somebody else's CA")?;
    let other_ca = folder.join("other-ca.crt");
    std::fs::write(&other_ca, &other.pem)?;
    let write = |authority: &Authority, name: &str| -> Result<(String, String)> {
        let (certificate, key) = authority.client(CERTIFIED, None)?.write(folder, name)?;
        Ok((text(certificate), text(key)))
    };
    Ok(Files {
        ca: text(kafka.ca_file()),
        other_ca: text(other_ca),
        certificate: write(kafka.authority(), "client")?,
        strange_certificate: write(&other, "strange")?,
    })
}

fn logins(files: &Files) -> Vec<Login> {
    let of = |key: &'static str, value: &str| (key, value.to_owned());
    let tls = |ca: &str| vec![of("security.protocol", "SSL"), of("ssl.ca.location", ca)];
    let certified = |(certificate, key): &(String, String)| {
        let mut all = tls(&files.ca);
        all.push(of("ssl.certificate.location", certificate));
        all.push(of("ssl.key.location", key));
        all
    };
    let login = |name: &str, listener, right, wrong, refused| Login {
        name: name.to_owned(),
        listener,
        right,
        wrong,
        refused,
    };
    let mut all = vec![
        login(
            "TLS, an unknown authority",
            "SSL",
            tls(&files.ca),
            tls(&files.other_ca),
            (Fault::Tls, CERTIFICATE),
        ),
        login(
            "mTLS, no certificate",
            "MTLS",
            certified(&files.certificate),
            tls(&files.ca),
            (Fault::Tls, CERTIFICATE),
        ),
        login(
            "mTLS, a stranger's certificate",
            "MTLS",
            certified(&files.certificate),
            certified(&files.strange_certificate),
            (Fault::Tls, CERTIFICATE),
        ),
    ];
    for (listener, protocol) in [("SASL", "SASL_PLAINTEXT"), ("SASLSSL", "SASL_SSL")] {
        let base = |mechanism: &str| {
            let mut all = vec![
                of("security.protocol", protocol),
                of("sasl.mechanism", mechanism),
            ];
            if protocol == "SASL_SSL" {
                all.push(of("ssl.ca.location", &files.ca));
            }
            all
        };
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let password = |password: &str| {
                let mut all = base(mechanism);
                all.push(of("sasl.username", SASL_USER));
                all.push(of("sasl.password", password));
                all
            };
            all.push(login(
                &format!("{protocol} {mechanism}"),
                listener,
                password(SASL_PASSWORD),
                password(WRONG),
                (Fault::Login, "Authentication failed"),
            ));
        }
        let token = |scope: &str| {
            let mut all = base("OAUTHBEARER");
            all.push(of("enable.sasl.oauthbearer.unsecure.jwt", "true"));
            let config = format!("principal={SASL_USER} scope={scope}");
            all.push(("sasl.oauthbearer.config", config));
            all
        };
        all.push(login(
            &format!("{protocol} OAUTHBEARER"),
            listener,
            token(SCOPE),
            token("another"),
            (Fault::Login, "insufficient_scope"),
        ));
    }
    all
}
