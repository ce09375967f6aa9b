//! Every login by a password or a certificate, on a real broker: it reads; with the wrong secret it is refused in the
//! broker's words, in time, and tried again with restraint.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::kafka::{Client, Settings, Source};
use lagwise::model::fault::Fault;
use lagwise::model::observation::{GroupPlan, Observation, SweepPlan};
use lagwise::model::types::{Offset, OffsetReset};
use lagwise::poller::OffsetSource;

use crate::testbed::broker::{SASL_PASSWORD, SASL_USER};
use crate::testbed::kafka::KafkaOptions;
use crate::testbed::pki::Authority;
use crate::testbed::{Testbed, unique};

const SCRAM: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

/// How long one sweep may take.
const DEADLINE: Duration = Duration::from_secs(8);

type Properties = BTreeMap<String, String>;

fn properties(pairs: &[(&str, &str)]) -> Properties {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

/// A broker whose TLS listener wants a certificate and whose SASL listener knows PLAIN and SCRAM.
fn options(clients_ca: &str) -> KafkaOptions {
    let mut properties = vec![
        (
            "sasl.enabled.mechanisms".to_owned(),
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
        ),
        (
            "listener.name.ssl.ssl.client.auth".to_owned(),
            "required".to_owned(),
        ),
        (
            "listener.name.ssl.ssl.truststore.type".to_owned(),
            "PEM".to_owned(),
        ),
        (
            "listener.name.ssl.ssl.truststore.location".to_owned(),
            clients_ca.to_owned(),
        ),
    ];
    for mechanism in SCRAM {
        properties.push((
            format!(
                "listener.name.sasl.{}.sasl.jaas.config",
                mechanism.to_lowercase()
            ),
            "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned(),
        ));
    }
    KafkaOptions {
        brokers: 1,
        properties,
        ..KafkaOptions::default()
    }
}

pub(crate) fn each_reads_and_each_is_refused_with_the_wrong_secret(
    testbed: &Testbed,
) -> Result<()> {
    let folder = testbed.folder("logins")?;
    let authority = Authority::new("lagwise testbed clients")?;
    let clients_ca = folder.join("clients.crt");
    std::fs::write(&clients_ca, &authority.pem)?;
    let kafka = testbed.start_kafka("logins", &options(&clients_ca.to_string_lossy()))?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 3)?;
    kafka.commit(&group, &topic, &[(0, 1)])?;
    for mechanism in SCRAM {
        let user = format!("{mechanism}=[password={SASL_PASSWORD}]");
        let args = [
            "--alter",
            "--add-config",
            &user,
            "--entity-type",
            "users",
            "--entity-name",
            SASL_USER,
        ];
        kafka.tool("kafka.admin.ConfigCommand", &args)?;
    }

    let (sasl, ssl) = (kafka.sasl_bootstrap(), kafka.ssl_bootstrap());
    let by_password = |mechanism: &str, password: &str| {
        properties(&[
            ("bootstrap.servers", &sasl),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", SASL_USER),
            ("sasl.password", password),
        ])
    };
    let ca_file = kafka.ca_file().to_string_lossy().into_owned();
    let by_certificate = |signed_by: Option<&Authority>| -> Result<Properties> {
        let mut all = properties(&[
            ("bootstrap.servers", &ssl),
            ("security.protocol", "SSL"),
            ("ssl.ca.location", &ca_file),
        ]);
        if let Some(authority) = signed_by {
            let (certificate, key) = authority
                .client("lagwise", None)?
                .write(&folder, &unique("client"))?;
            all.insert(
                "ssl.certificate.location".into(),
                certificate.to_string_lossy().into(),
            );
            all.insert("ssl.key.location".into(), key.to_string_lossy().into());
        }
        Ok(all)
    };
    let stranger = Authority::new("a stranger")?;
    let mut good = vec![("mTLS", by_certificate(Some(&authority))?)];
    let mut bad = vec![
        (
            "a stranger's certificate",
            by_certificate(Some(&stranger))?,
            Fault::Tls,
            "",
        ),
        ("no certificate", by_certificate(None)?, Fault::Tls, ""),
    ];
    for mechanism in ["PLAIN", SCRAM[0], SCRAM[1]] {
        good.push((mechanism, by_password(mechanism, SASL_PASSWORD)));
        let wrong = by_password(mechanism, "not-the-password");
        bad.push((mechanism, wrong, Fault::Login, "Authentication failed"));
    }

    let runtime = tokio::runtime::Runtime::new()?;
    for client in [Client::Wire, Client::Librdkafka] {
        for (login, properties) in &good {
            let seen = runtime.block_on(once(client, properties, &group, &topic))?;
            let committed = seen.groups[0].committed.as_ref();
            let committed = committed
                .map_err(|fault| anyhow::anyhow!("{login}: {fault}: {:?}", seen.connection))?;
            assert_eq!(
                committed[topic.as_str()],
                [Ok(Some(Offset(1)))],
                "{client:?} {login}"
            );
        }
        for (login, properties, kind, reason) in &bad {
            let started = Instant::now();
            let seen = runtime.block_on(once(client, properties, &group, &topic))?;
            ensure!(
                started.elapsed() < DEADLINE + Duration::from_secs(2),
                "{client:?} {login}: late"
            );
            let told = seen
                .connection
                .with_context(|| format!("{client:?} {login}: nothing told"))?;
            println!("{client:?}, {login}: {:?}: {}", told.kind, told.reason);
            ensure!(
                seen.groups[0].committed.is_err(),
                "{client:?} {login}: it was let in"
            );
            // librdkafka takes a refusal after the handshake for a lost connection.
            ensure!(
                client == Client::Librdkafka || told.kind == *kind,
                "{client:?} {login}: {told:?}"
            );
            ensure!(told.reason.contains(reason), "{client:?} {login}: {told:?}");
            ensure!(
                !told.reason.contains("not-the-password"),
                "a secret was shown"
            );
        }
    }
    Ok(())
}

async fn once(
    client: Client,
    properties: &Properties,
    group: &str,
    topic: &str,
) -> Result<Observation> {
    let source = Source::connect(Settings {
        name: "main".into(),
        properties: properties.clone(),
        max_groups: 1,
        client,
    })?;
    let plan = SweepPlan {
        groups: vec![GroupPlan {
            group: group.into(),
            topics: [topic.into()].into(),
            discover: false,
            reset: OffsetReset::Latest,
        }],
    };
    Ok(source.observe(plan, Instant::now() + DEADLINE).await)
}
