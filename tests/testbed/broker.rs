//! Properties of the brokers of a test cluster.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::kafka::{KafkaOptions, Version};
use super::ports::free_port;

/// The user that the SASL listeners know (mechanism PLAIN).
pub(crate) const SASL_USER: &str = "lagwise";
/// Password of [`SASL_USER`].
pub(crate) const SASL_PASSWORD: &str = "lagwise-secret";

/// A listener that brokers have besides `PLAINTEXT`, `SASL` (PLAIN) and `SSL`.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Its name, in capitals.
    pub(crate) name: &'static str,
    /// Its security protocol: `PLAINTEXT`, `SASL_SSL`, ...
    pub(crate) protocol: &'static str,
    /// Its own properties, without `listener.name.<name>.`; `{folder}` stands for the cluster's folder.
    pub(crate) properties: Vec<(&'static str, String)>,
    /// Whether brokers advertise another port than the one on which they listen, for a proxy in between.
    pub(crate) proxied: bool,
}

/// Name of a listener that advertises a host that does not resolve.
pub(crate) const UNRESOLVED: &str = "UNRESOLVED";
/// Host that the listener [`UNRESOLVED`] advertises.
pub(crate) const UNRESOLVED_HOST: &str = "no-such-broker.invalid";

/// Port on which a broker listens, and the one that it advertises.
#[derive(Clone, Copy)]
pub(super) struct Port {
    pub(super) listens: u16,
    pub(super) advertised: u16,
}

/// The ports of one broker. They stay the same when it restarts.
#[derive(Clone)]
pub(super) struct Ports {
    pub(super) by_listener: BTreeMap<&'static str, Port>,
    controller: u16,
}

impl Ports {
    pub(super) fn free(options: &KafkaOptions) -> Result<Self> {
        let mut builtin = vec![("PLAINTEXT", false), ("SASL", false)];
        // Kafka 2.8 does not support PEM keys without a password.
        if options.version != Version::V2_8 {
            builtin.push(("SSL", false));
        }
        let more = options
            .listeners
            .iter()
            .map(|more| (more.name, more.proxied));
        let mut by_listener = BTreeMap::new();
        for (name, proxied) in builtin.into_iter().chain(more) {
            let listens = free_port()?;
            let advertised = if proxied { free_port()? } else { listens };
            by_listener.insert(
                name,
                Port {
                    listens,
                    advertised,
                },
            );
        }
        Ok(Self {
            by_listener,
            controller: free_port()?,
        })
    }

    fn listeners(&self) -> String {
        self.addresses(|_, port| ("127.0.0.1", port.listens))
    }

    fn advertised_listeners(&self) -> String {
        self.addresses(|name, port| match name {
            UNRESOLVED => (UNRESOLVED_HOST, port.advertised),
            _ => ("127.0.0.1", port.advertised),
        })
    }

    fn addresses(&self, address: impl Fn(&str, &Port) -> (&'static str, u16)) -> String {
        let each = self.by_listener.iter().map(|(name, port)| {
            let (host, port) = address(name, port);
            format!("{name}://{host}:{port}")
        });
        each.collect::<Vec<_>>().join(",")
    }
}

/// Properties of broker `id` (from 1) of the cluster with these ports. Its certificate and key are expected
/// in `<folder>/broker-<id>.pem`; its data go to `<folder>/data-<id>`.
pub(super) fn broker_properties(
    id: usize,
    cluster: &[Ports],
    folder: &Path,
    options: &KafkaOptions,
) -> String {
    let ports = &cluster[id - 1];
    let copies = cluster.len().to_string();
    // With three replicas, writing continues without one broker.
    let in_sync = cluster.len().min(2).to_string();

    let mut lines = match options.version {
        Version::V2_8 => format!(
            "broker.id={id}\n\
             zookeeper.connect=127.0.0.1:{}\n\
             listeners={}\n",
            zookeeper_port(cluster),
            ports.listeners(),
        ),
        _ => kraft_properties(id, cluster),
    };
    let folder = folder.display();
    lines += &format!(
        "inter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners={}\n\
         log.dirs={folder}/data-{id}\n\
         sasl.enabled.mechanisms=PLAIN\n",
        ports.advertised_listeners(),
    );
    if ports.by_listener.contains_key("SSL") {
        lines += &format!(
            "listener.name.ssl.ssl.keystore.type=PEM\n\
             listener.name.ssl.ssl.keystore.location={folder}/broker-{id}.pem\n"
        );
    }
    lines += "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT";
    for listener in &options.listeners {
        lines += &format!(",{}:{}", listener.name, listener.protocol);
    }
    lines += "\n";
    for listener in &options.listeners {
        let name = listener.name.to_lowercase();
        for (key, value) in &listener.properties {
            let value = value.replace("{folder}", &folder.to_string());
            lines += &format!("listener.name.{name}.{key}={value}\n");
        }
    }
    lines += &format!(
        "listener.name.sasl.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required user_{SASL_USER}=\"{SASL_PASSWORD}\";\n"
    );
    let internal = [
        ("offsets.topic", "4"),
        ("transaction.state.log", "2"),
        ("share.coordinator.state.topic", "2"),
    ];
    for (topic, partitions) in internal {
        lines +=
            &format!("{topic}.replication.factor={copies}\n{topic}.num.partitions={partitions}\n");
    }
    lines += &format!(
        "default.replication.factor={copies}\n\
         min.insync.replicas={in_sync}\n\
         transaction.state.log.min.isr={in_sync}\n\
         share.coordinator.state.topic.min.isr={in_sync}\n"
    );
    // Automatic topic creation is on, so that tests can check that lagwise never creates a topic.
    // A killed broker may register again only after its session has ended, hence the short session. The controllers'
    // quorum has longer deadlines than Kafka's own 1 and 2 s, which brokers miss on a busy machine.
    lines += "auto.create.topics.enable=true\n\
              num.partitions=1\n\
              group.initial.rebalance.delay.ms=0\n\
              group.min.session.timeout.ms=1000\n\
              broker.session.timeout.ms=8000\n\
              broker.heartbeat.interval.ms=1000\n\
              controller.quorum.fetch.timeout.ms=6000\n\
              controller.quorum.election.timeout.ms=3000\n\
              controller.quorum.request.timeout.ms=5000\n\
              num.network.threads=2\n\
              num.io.threads=4\n\
              log.cleaner.dedupe.buffer.size=4194304\n\
              log.index.size.max.bytes=1048576\n";
    for (key, value) in &options.properties {
        lines += &format!("{key}={value}\n");
    }
    lines
}

/// Properties of a broker that is also a controller of the KRaft quorum.
fn kraft_properties(id: usize, cluster: &[Ports]) -> String {
    let ports = &cluster[id - 1];
    let voters = (1..)
        .zip(cluster)
        .map(|(voter, ports): (usize, _)| format!("{voter}@127.0.0.1:{}", ports.controller));
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={}\n\
         controller.listener.names=CONTROLLER\n\
         listeners={},CONTROLLER://127.0.0.1:{}\n",
        voters.collect::<Vec<_>>().join(","),
        ports.listeners(),
        ports.controller,
    )
}

/// The port of the cluster's ZooKeeper. Brokers with ZooKeeper have no controller listener, so its port is free.
fn zookeeper_port(cluster: &[Ports]) -> u16 {
    cluster[0].controller
}

/// Properties of the ZooKeeper of the cluster with these ports; its data is in `<folder>/zookeeper`.
pub(super) fn zookeeper_properties(cluster: &[Ports], folder: &Path) -> String {
    format!(
        "clientPortAddress=127.0.0.1\n\
         clientPort={}\n\
         dataDir={}/zookeeper\n\
         admin.enableServer=false\n",
        zookeeper_port(cluster),
        folder.display(),
    )
}
