//! Kerberos through librdkafka, with a real key distribution centre. The right keytab reads a lag. Errors are reported
//! with the message of the program that noticed them, in time, and with few connections.
//!
//! Only in a build with the feature `gssapi`, as `tests/run` makes it: `tests/run -- kerberos`. Each daemon is a
//! separate process, because tickets belong to a process.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Test;
use crate::daemon::{Daemon, Options, cluster};
use crate::logins::recipes::{WITH_KERBEROS, example};
use crate::testbed::broker::Listener;
use crate::testbed::kafka::{KafkaCluster, KafkaOptions};
use crate::testbed::kdc::{REALM, Realm};
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::proxy::Proxy;
use crate::testbed::{Testbed, unique};

/// The cases of every run.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "kerberos::correct_and_wrong_keytabs",
        correct_and_wrong_keytabs,
    ),
    (
        "kerberos::a_kdc_that_starts_late_is_found",
        a_kdc_that_starts_late_is_found,
    ),
];

/// The brokers' principal: clients make it up of the service's name and the broker's host.
const SERVICE: &str = "kafka/127.0.0.1";
const READER: &str = "reader";
/// A password that no user has.
const WRONG: &str = "not-the-password";

/// How long an answer may take, on two busy cores.
const ANSWER: Duration = Duration::from_secs(40);
/// How long wrong tickets are tried, and the connections that may be made in that time by a cluster's client and
/// that of its group.
const TRYING: Duration = Duration::from_secs(5);
const TRIES: usize = 24;

/// A broker that takes Kerberos on a listener, and a lag of 3 for one group.
struct Scene {
    kafka: KafkaCluster,
    realm: Realm,
    topic: String,
    group: String,
}

impl Scene {
    fn set_up(testbed: &Testbed) -> Result<Self> {
        let realm = Realm::new(&testbed.folder("realm")?, testbed.artifacts()?)?;
        realm.start()?;
        realm.add(SERVICE)?;
        realm.add(READER)?;
        let keys = realm.keytab(SERVICE, "broker")?;
        let login = format!(
            "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true \
             keyTab=\"{}\" principal=\"{SERVICE}@{REALM}\";",
            keys.display()
        );
        let name = unique("kerberos");
        let options = KafkaOptions {
            listeners: vec![Listener {
                name: "KERBEROS",
                protocol: "SASL_PLAINTEXT",
                properties: vec![
                    ("sasl.enabled.mechanisms", "GSSAPI".to_owned()),
                    ("sasl.kerberos.service.name", "kafka".to_owned()),
                    ("gssapi.sasl.jaas.config", login),
                ],
                proxied: false,
            }],
            java: vec![format!(
                "-Djava.security.krb5.conf={}",
                realm.config().display()
            )],
            ..KafkaOptions::default()
        };
        let kafka = testbed.start_kafka(&name, &options)?;
        let (topic, group) = (unique("topic"), unique("group"));
        kafka.create_topic(&topic, 1)?;
        kafka.produce(&topic, 0, 5)?;
        kafka.commit(&group, &topic, &[(0, 2)])?;
        Ok(Self {
            kafka,
            realm,
            topic,
            group,
        })
    }

    /// A daemon with these properties, besides those of a Kerberos login.
    fn daemon(
        &self,
        testbed: &Testbed,
        bootstrap: &str,
        properties: &[(&str, &str)],
    ) -> Result<Daemon> {
        let all = [
            &[
                ("bootstrap.servers", bootstrap),
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "GSSAPI"),
                ("sasl.kerberos.service.name", "kafka"),
            ],
            properties,
        ];
        let target =
            json!({"name": "only", "cluster": "main", "group": self.group, "topics": [self.topic]});
        Daemon::alone(
            testbed,
            &Options {
                clusters: vec![cluster("main", &all.concat())],
                targets: vec![target],
                environment: self.realm.client(&unique("tickets")),
                ..Options::main(bootstrap)
            },
        )
    }

    fn selector(&self) -> String {
        format!("group={},topic={}", self.group, self.topic)
    }

    fn reads(&self, daemon: &Daemon) -> Result<()> {
        poll_until(ANSWER, "the lag", || {
            let lag = daemon.lag(&self.selector())?;
            ensure!(lag == 3, "a lag of {lag}");
            Ok(())
        })
    }
}

/// A wrong login, and a part of its reason.
struct Wrong<'a> {
    name: &'static str,
    properties: Vec<(&'static str, &'a str)>,
    reason: &'static str,
}

/// One daemon for each.
pub(crate) fn correct_and_wrong_keytabs(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set_up(testbed)?;
    let realm = &scene.realm;
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let right = text(realm.keytab(READER, "reader")?);
    // Keys that were good once.
    realm.add("former")?;
    let former = text(realm.keytab("former", "former")?);
    realm.change_key("former")?;
    realm.add_with_password("typist", "the-password")?;
    let missing = text(scene.kafka.folder().join("no.keytab"));
    let typed = format!("echo {WRONG} | kinit typist");
    let keytab = |path, principal| {
        vec![
            ("sasl.kerberos.keytab", path),
            ("sasl.kerberos.principal", principal),
        ]
    };
    let mut stranger = keytab(right.as_str(), READER);
    stranger[1].1 = "stranger";
    let mut other = keytab(right.as_str(), READER);
    other.push(("sasl.kerberos.service.name", "other"));
    let wrong = [
        Wrong {
            name: "a keytab of another principal",
            properties: stranger,
            reason: "Keytab contains no suitable keys for stranger",
        },
        Wrong {
            name: "a keytab with old keys",
            properties: keytab(&former, "former"),
            reason: "kinit: P",
        },
        Wrong {
            name: "no keytab",
            properties: keytab(&missing, READER),
            reason: "no.keytab",
        },
        Wrong {
            name: "a wrong password",
            properties: vec![
                ("sasl.kerberos.keytab", "unused"),
                ("sasl.kerberos.kinit.cmd", &typed),
            ],
            reason: "kinit: P",
        },
        Wrong {
            name: "a service that is none",
            properties: other,
            reason: "other/127.0.0.1@LAGWISE.TEST not found in Kerberos database",
        },
    ];
    let bootstrap = scene.kafka.listener_bootstrap("KERBEROS");
    // As the chart's example for it has them.
    let recipe = example(WITH_KERBEROS)?;
    let recipe = recipe["config"]["clusters"][0]["properties"].as_object();
    let mut properties: BTreeMap<_, _> = recipe
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    let own = keytab(&right, READER).into_iter();
    for (key, value) in own.chain([("bootstrap.servers", bootstrap.as_str())]) {
        let former = properties.insert(key, value);
        ensure!(former.is_some(), "{WITH_KERBEROS} lacks {key}");
    }
    let daemon = scene.daemon(testbed, &bootstrap, &Vec::from_iter(properties))?;
    scene.reads(&daemon).context("with the right keytab")?;
    let log = daemon.process.log();
    ensure!(
        log.contains("using librdkafka"),
        "it does not say which client reads: {log}"
    );
    drop(daemon);
    for wrong in wrong {
        refused(testbed, &scene, &wrong).context(wrong.name)?;
    }
    Ok(())
}

fn refused(testbed: &Testbed, scene: &Scene, wrong: &Wrong<'_>) -> Result<()> {
    let proxy = Proxy::in_front_of(&scene.kafka, 1, "KERBEROS")?;
    let daemon = scene.daemon(testbed, &proxy.address(), &wrong.properties)?;
    let started = Instant::now();
    let message = poll_until(ANSWER, "the refusal", || {
        let message = daemon.refusal(&scene.selector(), 503)?;
        ensure!(message.contains(wrong.reason), "{message}");
        Ok(message)
    })?;
    println!(
        "{}: {message} (after {:.1?})",
        wrong.name,
        started.elapsed()
    );
    let metrics = daemon.metrics()?;
    ensure!(
        metrics.contains("lagwise_cluster_fault{cluster=\"main\",kind=\"login\""),
        "no fault of the login in {metrics}"
    );
    poll_until(TRYING * 2, "the time of trying to pass", || {
        let again = daemon.refusal(&scene.selector(), 503)?;
        if again != message {
            return Err(Hopeless(format!("other words: {again}")).into());
        }
        ensure!(started.elapsed() >= TRYING, "not yet");
        Ok(())
    })?;
    let rounds = 1 + started.elapsed().as_secs() / TRYING.as_secs();
    let (tries, most) = (proxy.accepted(), TRIES * usize::try_from(rounds)?);
    println!("{tries} tries in {:.1?}", started.elapsed());
    ensure!(
        tries <= most,
        "{tries} tries in {:?}, more than {most}",
        started.elapsed()
    );
    let log = daemon.process.log();
    ensure!(
        !log.contains(WRONG) && !message.contains(WRONG),
        "the log contains the password: {log}"
    );
    Ok(())
}

/// The key distribution centre is not running at first.
pub(crate) fn a_kdc_that_starts_late_is_found(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set_up(testbed)?;
    let keytab = scene.realm.keytab(READER, "reader")?;
    let keytab = keytab.to_str().context("a path that is no text")?;
    scene.realm.stop();
    let bootstrap = scene.kafka.listener_bootstrap("KERBEROS");
    let properties = [
        ("sasl.kerberos.keytab", keytab),
        ("sasl.kerberos.principal", READER),
        // A minute by itself.
        ("sasl.kerberos.min.time.before.relogin", "2000"),
    ];
    let daemon = scene.daemon(testbed, &bootstrap, &properties)?;
    poll_until(ANSWER, "the refusal", || {
        let message = daemon.refusal(&scene.selector(), 503)?;
        ensure!(message.contains("Cannot contact any KDC"), "{message}");
        Ok(())
    })?;
    scene.realm.start()?;
    scene.reads(&daemon)?;
    // An existing ticket stays valid.
    scene.realm.stop();
    scene.reads(&daemon)
}
