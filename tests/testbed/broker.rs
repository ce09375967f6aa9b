//! The properties of one broker of a test cluster.

use std::path::Path;

use anyhow::Result;

use super::ports::free_port;

/// The user that the SASL listeners know (mechanism PLAIN).
pub(crate) const SASL_USER: &str = "lagwise";
/// That user's password.
pub(crate) const SASL_PASSWORD: &str = "lagwise-secret";

/// The ports of one broker, the same over all its restarts.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) plaintext: u16,
    pub(super) sasl: u16,
    pub(super) ssl: u16,
    controller: u16,
}

impl Ports {
    pub(super) fn free() -> Result<Self> {
        Ok(Self {
            plaintext: free_port()?,
            sasl: free_port()?,
            ssl: free_port()?,
            controller: free_port()?,
        })
    }

    fn client_listeners(self) -> String {
        let Self {
            plaintext,
            sasl,
            ssl,
            ..
        } = self;
        format!("PLAINTEXT://127.0.0.1:{plaintext},SASL://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl}")
    }
}

/// What broker `id` (from 1) of the cluster with these ports is started with. Its certificate and key are expected
/// in `<folder>/broker-<id>.pem`; its data go to `<folder>/data-<id>`.
pub(super) fn broker_properties(
    id: usize,
    cluster: &[Ports],
    folder: &Path,
    extra: &[(String, String)],
) -> String {
    let ports = cluster[id - 1];
    let voters = (1..)
        .zip(cluster)
        .map(|(voter, ports): (usize, _)| format!("{voter}@127.0.0.1:{}", ports.controller));
    let voters = voters.collect::<Vec<_>>().join(",");
    let folder = folder.display();
    let copies = cluster.len().to_string();
    // With three copies one broker may go and writing goes on.
    let in_sync = cluster.len().min(2).to_string();

    let mut lines = format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         listeners={},CONTROLLER://127.0.0.1:{}\n\
         advertised.listeners={}\n\
         log.dirs={folder}/data-{id}\n\
         sasl.enabled.mechanisms=PLAIN\n\
         listener.name.ssl.ssl.keystore.type=PEM\n\
         listener.name.ssl.ssl.keystore.location={folder}/broker-{id}.pem\n",
        ports.client_listeners(),
        ports.controller,
        ports.client_listeners(),
    );
    lines += "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT\n";
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
    // Topics appear when somebody asks for them by name, on purpose: so a test can see that lagwise never does.
    // A killed broker may register again only after its session has ended, hence the short session.
    lines += "auto.create.topics.enable=true\n\
              num.partitions=1\n\
              group.initial.rebalance.delay.ms=0\n\
              group.min.session.timeout.ms=1000\n\
              broker.session.timeout.ms=6000\n\
              broker.heartbeat.interval.ms=1000\n\
              num.network.threads=2\n\
              num.io.threads=4\n\
              log.cleaner.dedupe.buffer.size=4194304\n\
              log.index.size.max.bytes=1048576\n";
    for (key, value) in extra {
        lines += &format!("{key}={value}\n");
    }
    lines
}
