//! Streams while the leader is killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::WAIT_TIMEOUT;
use crate::daemon::{Daemon, Options};
use crate::leader::allow;
use crate::testbed::keda::{ScalerAddress, ScalerConnection};
use crate::testbed::pki::Authority;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::{Testbed, unique};

/// Streams of each of two connections.
const STREAMS: usize = 100;

/// Time in which a stream has to send what it knows: longer than a Lease, on a busy machine.
const NEXT_MESSAGE_TIMEOUT: Duration = Duration::from_secs(90);

fn is_leader(daemon: &Daemon) -> Result<bool> {
    let metrics = daemon.metrics()?;
    Ok(metrics.lines().any(|line| line == "lagwise_leader 1"))
}

/// 200 streams, half of them of a follower. The leader is killed: its streams break, those of the follower stay open,
/// and all of them send the activation that comes afterwards.
pub(super) fn streams_outlast_the_leader(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("streams")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 5)?;
    let zeros: Vec<_> = (0..5).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &zeros)?;
    allow(plane, &namespace)?;
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let certificate = plane.serving_certificate(&namespace, "lagwise")?;
    let callers = Authority::new("callers")?;
    let client_ca_file = testbed.folder("streams")?.join("ca.crt");
    std::fs::write(&client_ca_file, &callers.pem)?;
    let client = callers.client("keda", None)?;

    let start = || {
        let port = free_port()?;
        let options = Options {
            leader: json!({"lease": "lagwise", "duration": "6s"}),
            scaler: json!({"listen": format!("127.0.0.1:{port}"), "client_ca_file": client_ca_file}),
            ..Options::main(&kafka.bootstrap())
        };
        let files = (&certificate.cert_file, &certificate.key_file);
        let external = json!({"tls": {"cert_file": files.0, "key_file": files.1}});
        let watched = json!({"namespaces": [namespace]});
        let daemon = Daemon::start(testbed, &options, external, watched, Some(&kubeconfig))?;
        let address = ScalerAddress {
            port,
            ca_pem: certificate.ca_pem.clone(),
            client_pem: client.certificate.clone(),
            client_key_pem: client.key.clone(),
        };
        anyhow::Ok((daemon, address))
    };
    let (mut first, of_first) = start()?;
    poll_until(WAIT_TIMEOUT, "the first to lead", || {
        ensure!(is_leader(&first)?, "it does not");
        Ok(())
    })?;
    let (second, of_second) = start()?;

    let object = json!({
        "metadata": {"name": "billing", "namespace": namespace},
        "spec": {"triggers": [{"metadata": {"group": group, "topic": topic, "lagThreshold": "5"}}]},
    });
    let open = |connection: &ScalerConnection, prefix: &str| {
        let named = (0..STREAMS).map(|number| format!("{prefix}-{number}"));
        let opened = named.map(|name| connection.stream(name));
        opened.collect::<Result<Vec<_>>>()
    };
    // Each just before its streams, since a connection without a request is closed after ten seconds.
    let leader = ScalerConnection::open(of_first, &object)?;
    let mut broken = open(&leader, "a")?;
    let follower = ScalerConnection::open(of_second.clone(), &object)?;
    let mut kept = open(&follower, "b")?;
    for (connection, streams) in [(&leader, &mut broken), (&follower, &mut kept)] {
        for stream in streams {
            let sent = connection.next(stream, NEXT_MESSAGE_TIMEOUT)?;
            ensure!(sent == Some(false), "{sent:?}");
        }
    }
    ensure!(!is_leader(&second)?, "both lead");

    let killed = Instant::now();
    first.process.kill();
    for stream in &mut broken {
        let sent = leader.next(stream, NEXT_MESSAGE_TIMEOUT);
        ensure!(sent.is_err(), "a stream of a killed daemon sent {sent:?}");
    }
    // As KEDA does, which reaches another replica by the Service.
    let again = ScalerConnection::open(of_second, &object)?;
    let mut reopened = open(&again, "a")?;
    for stream in &mut reopened {
        let sent = again.next(stream, NEXT_MESSAGE_TIMEOUT)?;
        ensure!(sent == Some(false), "{sent:?}");
    }
    println!("answered {:?} after the kill", killed.elapsed());
    ensure!(is_leader(&second)?, "answered without a leader");
    kafka.produce_to(&topic, &[(0, 28)])?;
    let produced = Instant::now();
    for (connection, streams) in [(&again, &mut reopened), (&follower, &mut kept)] {
        for stream in streams {
            let sent = connection.next(stream, NEXT_MESSAGE_TIMEOUT)?;
            ensure!(sent == Some(true), "{sent:?}");
        }
    }
    println!(
        "200 streams sent the activation within {:?}",
        produced.elapsed()
    );
    Ok(())
}
