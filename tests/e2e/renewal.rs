//! Logins that end and credentials that change while lagwise runs: tokens on a real broker, sessions
//! that are renewed on the connection they have, passwords and certificates replaced in their files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::config::{ClusterConfig, Properties, SystemEnvironment};
use lagwise::kafka::login::{TokenSettings, TokenSource};
use lagwise::kafka::{ClientKind, ClientSettings};
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::sweep_plan::SweepPlan;

use crate::Test;
use crate::sources::{Sources, clients, plan, seen};
use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::pki::Authority;
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::proxy::Proxy;
use crate::testbed::secured::{CERTIFIED, ROTATING};
use crate::testbed::tokens::{Issuer, SESSION};
use crate::testbed::{Testbed, unique};

/// The cases of every run.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "renewal::a_token_is_accepted_or_rejected",
        a_token_is_accepted_or_rejected,
    ),
    (
        "renewal::logins_are_renewed_in_place",
        logins_are_renewed_in_place,
    ),
    (
        "renewal::a_changed_password_is_used",
        a_changed_password_is_used,
    ),
    (
        "renewal::a_replaced_certificate_is_used",
        a_replaced_certificate_is_used,
    ),
];

/// How long a change may take to be used.
const USED: Duration = Duration::from_secs(60);
/// How long wrong tokens are tried.
const TRYING: Duration = Duration::from_secs(5);
/// Connections that one client may try in that time.
const TRIES: usize = 12;

/// A topic and a group to read on the cluster.
struct Work {
    plan: SweepPlan,
    expected: String,
}

fn work(kafka: &KafkaCluster) -> Result<Work> {
    let (topic, group) = (unique("topic"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce_to(&topic, &[(0, 4)])?;
    kafka.commit(&group, &topic, &[(0, 1)])?;
    Ok(Work {
        plan: plan(&group, &[&topic]),
        expected: format!("{group} {topic}: 1\n{topic}: 0..4"),
    })
}

/// The settings of a cluster whose properties are as in a configuration file, references and all.
fn settings(bootstrap: &str, properties: &[(&str, &str)]) -> Result<ClientSettings> {
    let mut all = Properties::default();
    all.insert("bootstrap.servers", bootstrap);
    for (name, text) in properties {
        let set = all.set(name, text, &SystemEnvironment);
        set.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    }
    Ok(ClientSettings::from(&ClusterConfig::new(
        "main".into(),
        all,
    )))
}

fn by_token(bootstrap: &str, file: &Path) -> Result<ClientSettings> {
    Ok(ClientSettings {
        token: Some(TokenSettings::new(TokenSource::File(file.to_owned()))),
        ..settings(bootstrap, &[("security.protocol", "SASL_PLAINTEXT")])?
    })
}

fn text(path: PathBuf) -> Result<String> {
    path.into_os_string()
        .into_string()
        .ok()
        .context("a path that is no text")
}

/// Sweeps once. Every client has to be refused; returns the reason, which must be the same for all.
fn refusal(sources: &mut Sources, work: &Work, kind: Fault) -> Result<String> {
    let mut last = String::new();
    for (client, observation) in sources.sweep(&work.plan)? {
        let seen = seen(&observation);
        let fault = observation
            .connection
            .with_context(|| format!("{client:?}: no connection fault: {seen}"))?;
        ensure!(
            fault.kind == kind,
            "{client:?}: {:?}: {}",
            fault.kind,
            fault.reason
        );
        println!("{client:?}: {}", fault.reason);
        last = fault.reason.to_string();
    }
    Ok(last)
}

/// A token that the broker checks by its issuer's keys: right, of another issuer, expired; then put
/// right in its file.
pub(crate) fn a_token_is_accepted_or_rejected(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let work = work(kafka)?;
    let file = testbed.folder("tokens")?.join("token");
    let right = kafka.issuer().token(SASL_USER, 600)?;
    let wrong = Issuer::new()?.token(SASL_USER, 600)?;
    // The proxy whose address the broker advertises.
    let proxy = Proxy::of_broker(kafka, 1, "TOKEN")?;
    for client in clients()? {
        let before = proxy.accepted();
        std::fs::write(&file, &wrong)?;
        let mut sources = Sources::with_settings(&[client], &by_token(&proxy.address(), &file)?)?;
        let started = Instant::now();
        poll_until(TRYING * 4, "the time of trying to pass", || {
            let error = refusal(&mut sources, &work, Fault::Login)
                .map_err(|error| Hopeless(format!("{error:#}")))?;
            ensure!(error.contains("invalid_token"), "{error}");
            if error.contains(&wrong) {
                return Err(Hopeless("the error contains the token".into()).into());
            }
            ensure!(started.elapsed() >= TRYING, "not yet");
            Ok(())
        })?;
        let (tries, most) = (proxy.accepted() - before, TRIES * 2);
        ensure!((1..=most).contains(&tries), "{client:?}: {tries} tries");
        std::fs::write(&file, &right)?;
        sources.wait_for(
            USED,
            "the right token to be used",
            &work.plan,
            &work.expected,
        )?;

        std::fs::write(&file, kafka.issuer().token(SASL_USER, -5)?)?;
        let mut sources = Sources::with_settings(&[client], &by_token(&proxy.address(), &file)?)?;
        poll_until(USED, "the expired token to be reported", || {
            let error = refusal(&mut sources, &work, Fault::Login)?;
            ensure!(error.contains("has expired"), "{error}");
            Ok(())
        })?;
    }
    Ok(())
}

/// A broker that ends sessions: the wire client logs in again on the one connection that it has, by
/// token and by password.
pub(crate) fn logins_are_renewed_in_place(testbed: &Testbed) -> Result<()> {
    if !clients()?.contains(&ClientKind::Wire) {
        return Ok(());
    }
    let kafka = testbed.secured_kafka()?;
    let work = work(kafka)?;
    let file = testbed.folder("tokens")?.join("token");
    std::fs::write(&file, kafka.issuer().token(SASL_USER, 600)?)?;
    let proxy = Proxy::of_broker(kafka, 1, "TOKEN")?;
    let scram = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", SASL_USER),
        ("sasl.password", SASL_PASSWORD),
    ];
    for settings in [
        by_token(&proxy.address(), &file)?,
        settings(&proxy.address(), &scram)?,
    ] {
        let before = proxy.accepted();
        let mut sources = Sources::with_settings(&[ClientKind::Wire], &settings)?;
        sources.wait_for(USED, "the first login", &work.plan, &work.expected)?;
        let started = Instant::now();
        poll_until(SESSION * 20, "four sessions to pass", || {
            sources
                .expect(&work.plan, &work.expected)
                .map_err(|error| Hopeless(format!("{error:#}")))?;
            ensure!(started.elapsed() >= SESSION * 4, "not yet");
            Ok(())
        })?;
        let made = proxy.accepted() - before;
        ensure!(made == 1, "{made} connections for one broker");
    }
    Ok(())
}

/// A password that changes on the broker and in its file.
pub(crate) fn a_changed_password_is_used(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let work = work(kafka)?;
    let file = testbed.folder("password")?.join("password");
    let reference = format!("${{file:{}}}", text(file.clone())?);
    let properties = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", ROTATING),
        ("sasl.password", &reference),
    ];
    kafka.set_password("first-secret")?;
    std::fs::write(&file, "first-secret\n")?;
    let proxy = Proxy::of_broker(kafka, 1, "TOKEN")?;
    let settings = settings(&proxy.address(), &properties)?;
    let mut sources = Sources::with_settings(&clients()?, &settings)?;
    sources.wait_for(
        USED,
        "the first password to work",
        &work.plan,
        &work.expected,
    )?;

    kafka.set_password("second-secret")?;
    // The old password is rejected once the sessions that it began have ended.
    poll_until(USED, "the old password to be refused", || {
        let error = refusal(&mut sources, &work, Fault::Login)?;
        ensure!(!error.contains("secret"), "{error}");
        Ok(())
    })?;
    // An incomplete file changes nothing and is not an error.
    std::fs::write(&file, "")?;
    std::fs::write(&file, "second-secret\n")?;
    sources.wait_for(
        USED,
        "the second password to be used",
        &work.plan,
        &work.expected,
    )
}

/// A certificate that is replaced by one that the broker trusts, key first.
pub(crate) fn a_replaced_certificate_is_used(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let work = work(kafka)?;
    let folder = testbed.folder("certificate")?;
    let stranger = Authority::new("somebody else's CA")?.client(CERTIFIED, None)?;
    let (certificate, key) = stranger.write(&folder, "client")?;
    let (certificate, key) = (text(certificate)?, text(key)?);
    let ca = text(kafka.ca_file())?;
    let properties = [
        ("security.protocol", "SSL"),
        ("ssl.ca.location", ca.as_str()),
        ("ssl.certificate.location", &certificate),
        ("ssl.key.location", &key),
    ];
    let settings = settings(&kafka.listener_bootstrap("MTLS"), &properties)?;
    let mut sources = Sources::with_settings(&clients()?, &settings)?;
    poll_until(USED, "the stranger to be refused", || {
        refusal(&mut sources, &work, Fault::Tls).map(drop)
    })?;
    let known = kafka.authority().client(CERTIFIED, None)?;
    std::fs::write(&key, &known.key)?;
    // In between, key and certificate do not fit each other: the old ones stay.
    for _ in 0..3 {
        refusal(&mut sources, &work, Fault::Tls)?;
    }
    std::fs::write(&certificate, &known.certificate)?;
    sources.wait_for(
        USED,
        "the new certificate to be used",
        &work.plan,
        &work.expected,
    )?;
    // The expiry of both sides is known, that of brokers by lagwise's own client only.
    for (client, observation) in sources.sweep(&work.plan)? {
        let certificates = observation.certificates;
        ensure!(
            certificates.client.is_some()
                && certificates.broker.is_some() == (client == ClientKind::Wire),
            "{client:?}: {certificates:?}"
        );
    }
    Ok(())
}
