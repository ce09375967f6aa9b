//! Networks between lagwise and the brokers: certificates for other names, idle connections that are closed, advertised
//! listeners that are unreachable or change, and throttling by quotas.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::fault::Fault;
use serde_json::json;

use crate::Test;
use crate::daemon::{Daemon, Options, cluster};
use crate::sources::{Sources, clients, plan, seen};
use crate::testbed::broker::{Listener, UNRESOLVED, UNRESOLVED_HOST};
use crate::testbed::kafka::{KafkaCluster, KafkaOptions};
use crate::testbed::pki::Authority;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::proxy::Proxy;
use crate::testbed::{Testbed, unique};

/// The cases of every run.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "network::certificates_are_verified_as_configured",
        certificates_are_verified_as_configured,
    ),
    (
        "network::connections_closed_for_their_age_and_listeners_that_move",
        connections_closed_for_their_age_and_listeners_that_move,
    ),
    ("network::a_quota_is_honoured", a_quota_is_honoured),
    (
        "network::unreachable_advertised_addresses_are_named",
        unreachable_advertised_addresses_are_named,
    ),
];

/// Timeout until everything is known, on two busy cores.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A lag that does not change.
struct Still {
    topic: String,
    group: String,
}

impl Still {
    fn set_up(kafka: &KafkaCluster) -> Result<Self> {
        let (topic, group) = (unique("topic"), unique("group"));
        kafka.create_topic(&topic, 2)?;
        kafka.produce_to(&topic, &[(0, 4), (1, 9)])?;
        kafka.commit(&group, &topic, &[(0, 1), (1, 2)])?;
        Ok(Self { topic, group })
    }

    fn plan(&self) -> lagwise::model::kafka::sweep_plan::SweepPlan {
        plan(&self.group, &[&self.topic])
    }

    fn truth(&self) -> String {
        let Self { topic, group } = self;
        format!("{group} {topic}: 1 2\n{topic}: 0..4 0..9")
    }
}

/// A broker whose certificate is for another host name than the one that clients use.
pub(crate) fn certificates_are_verified_as_configured(testbed: &Testbed) -> Result<()> {
    let folder = testbed.folder("elsewhere")?;
    let (own, strange) = (Authority::new("own")?, Authority::new("strange")?);
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let (own_ca, strange_ca) = (
        file("own.crt", &own.pem)?,
        file("strange.crt", &strange.pem)?,
    );
    let identity = own.server(&["elsewhere.example"])?;
    let identity = file("broker.pem", &(identity.key + &identity.certificate))?;
    let options = KafkaOptions {
        listeners: vec![Listener {
            name: "ELSEWHERE",
            protocol: "SSL",
            properties: vec![
                ("ssl.keystore.type", "PEM".to_owned()),
                ("ssl.keystore.location", identity),
            ],
            proxied: false,
        }],
        ..KafkaOptions::default()
    };
    let kafka = testbed.start_kafka(&unique("elsewhere"), &options)?;
    let still = Still::set_up(&kafka)?;
    let bootstrap = kafka.listener_bootstrap("ELSEWHERE");
    let no_name = ("ssl.endpoint.identification.algorithm", "none");
    let nothing = ("enable.ssl.certificate.verification", "false");
    let nameless: &[(&str, &str)] = &[no_name];
    for (authority, more, is_read) in [
        (&own_ca, &[][..], false),
        (&own_ca, nameless, true),
        (&strange_ca, nameless, false),
        (&strange_ca, &[nothing], true),
    ] {
        let base = [
            ("bootstrap.servers", bootstrap.as_str()),
            ("security.protocol", "SSL"),
            ("ssl.ca.location", authority.as_str()),
        ];
        let mut sources = Sources::connect(&[&base, more].concat())?;
        if is_read {
            sources
                .wait_for(TIMEOUT, "the lag", &still.plan(), &still.truth())
                .with_context(|| format!("{more:?}"))?;
            continue;
        }
        for (client, observation) in sources.sweep(&still.plan())? {
            let fault = observation
                .connection
                .as_ref()
                .with_context(|| format!("{client:?} {more:?}: {}", seen(&observation)))?;
            ensure!(
                fault.kind == Fault::Tls,
                "{client:?} {more:?}: {}",
                fault.reason
            );
            println!("{client:?} {more:?}: {}", fault.reason);
        }
    }
    Ok(())
}

/// Bootstrap servers respond, but advertise a closed port, or a host that does not resolve.
fn unreachable_advertised_addresses_are_named(testbed: &Testbed) -> Result<()> {
    let listener = |name| Listener {
        name,
        protocol: "PLAINTEXT",
        properties: Vec::new(),
        proxied: true,
    };
    let options = KafkaOptions {
        listeners: vec![listener("CLOSED"), listener(UNRESOLVED)],
        ..KafkaOptions::default()
    };
    let kafka = testbed.start_kafka(&unique("nowhere"), &options)?;
    let still = Still::set_up(&kafka)?;
    // Only the client knows this port: the broker itself advertises another one.
    let closed_proxy = Proxy::in_front_of(&kafka, 1, "CLOSED")?;
    let unresolved_proxy = Proxy::in_front_of(&kafka, 1, UNRESOLVED)?;
    let closed = kafka.listener_bootstrap("CLOSED");
    let clusters = [
        (
            "closed",
            closed_proxy.address(),
            closed.as_str(),
            "onnection refused",
        ),
        (
            "unresolved",
            unresolved_proxy.address(),
            UNRESOLVED_HOST,
            "ailed to resolve",
        ),
    ];
    for client in clients()? {
        let client = match client {
            ClientKind::Librdkafka => "librdkafka",
            _ => "wire",
        };
        let target = |name: &str| json!({"name": name, "cluster": name, "group": still.group, "topics": [still.topic]});
        let daemon = Daemon::alone(
            testbed,
            &Options {
                clusters: clusters
                    .iter()
                    .map(|(name, bootstrap, ..)| cluster(name, &[("bootstrap.servers", bootstrap)]))
                    .collect(),
                targets: clusters.iter().map(|(name, ..)| target(name)).collect(),
                client,
                ..Options::main("unused:1")
            },
        )?;
        for (name, _, address, reason) in &clusters {
            let selector = format!("cluster={name},group={},topic={}", still.group, still.topic);
            poll_until(TIMEOUT, &format!("the reason of {name}"), || {
                let message = daemon.refusal(&selector, 503)?;
                let is_named = message.contains(address) && message.contains(reason);
                ensure!(is_named, "{client}: {message}");
                if client == "librdkafka" {
                    // Once it knows the broker, it connects to no other address.
                    return Ok(());
                }
                let metrics = daemon.metrics()?;
                for sample in ["lagwise_cluster_up", "lagwise_brokers_unreachable"] {
                    let sample = format!("{sample}{{cluster=\"{name}\"}} 1");
                    ensure!(metrics.contains(&sample), "no {sample} in {metrics}");
                }
                Ok(())
            })?;
        }
        daemon.wait_for_sweeps(20)?;
        let log = daemon.process.log();
        for (name, _, address, _) in &clusters {
            let is_about = |line: &&str| line.contains(name) && line.contains(address);
            let logged = |problem: &str| {
                let lines = log.lines().filter(is_about);
                lines.filter(|line| line.contains(problem)).count()
            };
            // A cluster that answers before its broker is missed has both problems, one after the other; and again each
            // time that it answers for a moment.
            let (brokers, cluster) = (logged("cannot be reached"), logged("does not answer"));
            let of_cluster = log.lines().filter(|line| line.contains(name));
            let answered = of_cluster.filter(|line| line.contains("answers again"));
            let most = answered.count() + 1;
            let each_once = brokers <= most && cluster <= most && brokers + cluster >= 1;
            ensure!(each_once, "{client}: {name}: {log}");
        }
    }
    Ok(())
}

/// Brokers close idle connections; and one restarts with another advertised listener.
pub(crate) fn connections_closed_for_their_age_and_listeners_that_move(
    testbed: &Testbed,
) -> Result<()> {
    let listener = |name, proxied| Listener {
        name,
        protocol: "PLAINTEXT",
        properties: Vec::new(),
        proxied,
    };
    let options = KafkaOptions {
        listeners: vec![listener("AGING", true), listener("MOVING", false)],
        properties: vec![("connections.max.idle.ms".to_owned(), "3000".to_owned())],
        ..KafkaOptions::default()
    };
    let kafka = testbed.start_kafka(&unique("aging"), &options)?;
    let still = Still::set_up(&kafka)?;
    let proxy = Proxy::of_broker(&kafka, 1, "AGING")?;
    let bootstrap = kafka.listener_bootstrap("AGING");
    for client in clients()? {
        let mut sources = Sources::with(&[client], &[("bootstrap.servers", &bootstrap)])?;
        sources.wait_for(TIMEOUT, "the lag", &still.plan(), &still.truth())?;
        for round in 0..3 {
            if client == ClientKind::Wire {
                poll_until(TIMEOUT, "the broker to close what is unused", || {
                    ensure!(proxy.open() == 0, "{} are open", proxy.open());
                    Ok(())
                })?;
            } else {
                // It connects again by itself, so there is never none.
                let taken = proxy.accepted();
                poll_until(TIMEOUT, "the broker to close what is unused", || {
                    ensure!(proxy.accepted() > taken || proxy.open() == 0, "none is new");
                    Ok(())
                })?;
            }
            // The very next sweep, not one of the next.
            sources
                .expect(&still.plan(), &still.truth())
                .with_context(|| format!("round {round}"))?;
        }
    }
    moves(&kafka, &still)
}

/// Restarts the broker with another advertised port.
fn moves(kafka: &KafkaCluster, still: &Still) -> Result<()> {
    let before = kafka.listener_bootstrap("MOVING");
    let after = format!("127.0.0.1:{}", free_port()?);
    // New clients know both.
    let both = format!("{before},{after}");
    let mut sources = Sources::connect(&[("bootstrap.servers", &both)])?;
    sources.wait_for(TIMEOUT, "the lag", &still.plan(), &still.truth())?;
    let file = kafka.folder().join("broker-1.properties");
    let properties = std::fs::read_to_string(&file)?;
    let moved = properties.replace(&format!("MOVING://{before}"), &format!("MOVING://{after}"));
    ensure!(moved != properties, "no listener at {before}: {properties}");
    kafka.stop_broker(1)?;
    std::fs::write(&file, moved)?;
    kafka.start_broker(1)?;
    // No server listens any more.
    let _free = TcpListener::bind(&before).context("the old port is in use")?;
    sources.wait_for(
        TIMEOUT,
        "the listener to be found",
        &still.plan(),
        &still.truth(),
    )
}

/// A quota on the requests of one client: data that is not read in time is unknown, never wrong.
pub(crate) fn a_quota_is_honoured(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let still = Still::set_up(kafka)?;
    let name = unique("throttled");
    let bootstrap = kafka.bootstrap();
    let properties = [
        ("bootstrap.servers", bootstrap.as_str()),
        ("client.id", name.as_str()),
    ];
    let mut sources = Sources::with(&[ClientKind::Wire], &properties)?;
    sources.wait_for(TIMEOUT, "the lag", &still.plan(), &still.truth())?;
    let throttled = |sources: &Sources| {
        let traffic = sources.each[0]
            .known
            .traffic
            .context("no traffic is counted")?;
        Ok::<_, anyhow::Error>(traffic.throttled)
    };
    let before = throttled(&sources)?;
    kafka.quota(&name, &["--add-config", "request_percentage=0.01"])?;
    let mut sweeps = 0;
    poll_until(TIMEOUT * 2, "the brokers to throttle", || {
        for (client, observation) in sources.sweep(&still.plan())? {
            let seen = seen(&observation);
            for line in still.truth().lines() {
                let is_there = seen.lines().any(|seen| seen == line);
                ensure!(
                    is_there || seen.contains("no_answer"),
                    "{client:?} sees\n{seen}"
                );
            }
        }
        sweeps += 1;
        ensure!(sweeps >= 4 && throttled(&sources)? > before, "not yet");
        Ok(())
    })?;
    println!("{sweeps} sweeps, throttled for {:?}", throttled(&sources)?);
    kafka.quota(&name, &["--delete-config", "request_percentage"])?;
    sources.wait_for(TIMEOUT, "all of it again", &still.plan(), &still.truth())
}
