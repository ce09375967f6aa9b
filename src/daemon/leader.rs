//! Sets up leader election by a Lease, if one is configured or the process runs in a pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::{LEASE, Tasks, in_pod, kubernetes};
use crate::authentication::Credential;
use crate::config::{AuthMode, Config};
use crate::k8s;
use crate::k8s::lease_store::KubernetesLease;
use crate::leader_election::lease_loop::LeaseLoop;
use crate::leader_election::rules::LeaseRules;
use crate::leader_election::{Leadership, Leading, identity};
use crate::serve::forward::Forwarder;
use crate::serve::tls::ServerTls;

/// Default name of the Lease.
pub(super) const LEASE_NAME: &str = "lagwise";

/// Starts leader election, if there is a Lease. `listens` is the address of the external metrics
/// API; a daemon without it only observes, and has no Lease.
pub(super) fn elect(
    config: &Config,
    client: Option<&k8s::client::Client>,
    listens: Option<SocketAddr>,
    step_down: watch::Receiver<bool>,
    tasks: &mut Tasks,
) -> Option<Leading> {
    let listens = listens?;
    let named = config.leader.lease.clone();
    let name = named.or_else(|| in_pod().then(|| LEASE_NAME.to_owned()))?;
    let client = client?.clone();
    let identity = own_identity();
    let (terms, own) = watch::channel(None);
    let (leaders, others) = watch::channel(None);
    let (watched_in, watched) = watch::channel(None);
    let watch = k8s::lease_store::watch_lease(
        client.clone(),
        name.clone(),
        identity.clone(),
        leaders.clone(),
        watched_in,
    );
    tasks.spawn(async move {
        watch.await;
        ("Lease watch", Ok(()))
    });
    let lease_loop = LeaseLoop {
        store: KubernetesLease::new(client, name.clone()),
        name,
        identity,
        address: address(config, listens),
        rules: LeaseRules {
            duration: config.leader.duration,
        },
        terms,
        leaders,
        watched,
        stop: step_down,
    };
    tasks.spawn(async move {
        lease_loop.run().await;
        (LEASE, Ok(()))
    });
    Some(Leading {
        own: Leadership::new(own),
        others,
    })
}

/// Creates the forwarder to the leader.
///
/// # Errors
/// An unusable credential or certificate.
pub(super) async fn forwarder(config: &Config, tls: &ServerTls) -> anyhow::Result<Forwarder> {
    let credential = match config.server.external_metrics.auth {
        AuthMode::Kubernetes => k8s::client::credential(&kubernetes::options(config)).await?,
        // Without authentication no credential is needed.
        AuthMode::None => Credential::None,
    };
    Ok(Forwarder::new(tls, credential)?)
}

/// Address at which other replicas reach this one's API.
fn address(config: &Config, listens: SocketAddr) -> String {
    let pod = std::env::var("POD_IP").ok();
    let pod = pod.and_then(|ip| ip.trim().parse().ok());
    let configured = config.leader.address.clone();
    configured.unwrap_or_else(|| advertised_address(listens, pod).to_string())
}

/// The address of the listener for other replicas. Outside of a pod, a listener on all addresses is
/// assumed to be reached from this machine only.
fn advertised_address(listens: SocketAddr, pod: Option<IpAddr>) -> SocketAddr {
    let own = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(pod.unwrap_or(own), listens.port())
}

/// The name of this pod, or of this machine.
pub(super) fn pod_name() -> String {
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    pod.unwrap_or_else(|_| "lagwise".to_owned())
}

/// The identity of this process.
fn own_identity() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    identity::compose(
        &pod_name(),
        std::process::id(),
        since.map_or(0, |since| since.as_nanos()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertises_the_pod_address_or_the_listener() {
        for (listens, pod, expected) in [
            ("0.0.0.0:6443", Some("10.1.2.3"), "10.1.2.3:6443"),
            ("[::]:6443", Some("fd00::7"), "[fd00::7]:6443"),
            ("10.0.0.9:6443", None, "10.0.0.9:6443"),
            ("0.0.0.0:6443", None, "127.0.0.1:6443"),
            ("[::]:6443", None, "[::1]:6443"),
        ] {
            let pod = pod.map(|ip| ip.parse().unwrap());
            let reached = advertised_address(listens.parse().unwrap(), pod);
            assert_eq!(reached.to_string(), expected);
        }
    }
}
