//! The Lease of leader election as an object of the Kubernetes API.

use std::pin::pin;
use std::time::Duration;

use futures::stream::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;

use super::api_error::{ApiError, in_time};
use super::owner::owner_references;
use super::resilient_watch;
use crate::leader_election::Leader;
use crate::leader_election::lease_loop::{LeaseError, LeaseStore, StoredLease, publish_leader};
use crate::leader_election::rules::LeaseRecord;

/// The annotation of the Lease with the host and port of its holder's external metrics API.
const ADDRESS: &str = "lagwise.dev/address";

/// The Lease of this name in the client's own namespace.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct KubernetesLease {
    api: Api<Lease>,
    name: String,
}

impl KubernetesLease {
    /// The Lease need not exist.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self {
            api: Api::default_namespaced(client),
            name,
        }
    }

    async fn replace(
        &self,
        lease: &Lease,
        timeout: Duration,
    ) -> Result<StoredLease<Lease>, LeaseError> {
        let params = PostParams::default();
        // A Lease that was read names its version, so that the API server refuses to overwrite another.
        let written = match lease.metadata.resource_version {
            Some(_) => in_time(timeout, self.api.replace(&self.name, &params, lease)).await,
            None => in_time(timeout, self.api.create(&params, lease)).await,
        };
        written.map(stored).map_err(lease_error)
    }
}

impl LeaseStore for KubernetesLease {
    type Version = Lease;

    async fn read(&self, timeout: Duration) -> Result<Option<StoredLease<Lease>>, LeaseError> {
        let found = in_time(timeout, self.api.get_opt(&self.name)).await;
        found.map(|found| found.map(stored)).map_err(lease_error)
    }

    async fn write(
        &self,
        found: Option<&Lease>,
        wanted: &LeaseRecord,
        timeout: Duration,
    ) -> Result<StoredLease<Lease>, LeaseError> {
        let mut lease = claimed(&self.name, found, wanted, MicroTime(Timestamp::now()));
        if found.is_none() {
            let client = self.api.clone().into_client();
            lease.metadata.owner_references = owner_references(&client).await;
        }
        self.replace(&lease, timeout).await
    }

    async fn release(&self, held: &Lease, timeout: Duration) -> Result<(), LeaseError> {
        let mut lease = held.clone();
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        self.replace(&lease, timeout).await.map(drop)
    }
}

/// Watches the Lease forever: publishes which other daemon leads, and passes the Lease on to the loop.
///
/// Apart from the loop, since a daemon that has stepped down still needs to know who leads.
pub async fn watch_lease(
    client: Client,
    name: String,
    identity: String,
    leaders: watch::Sender<Option<Leader>>,
    watched: watch::Sender<Option<LeaseRecord>>,
) {
    // A right to one object by its name covers a watch whose field selector names it.
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let api: Api<Lease> = Api::default_namespaced(client);
    let mut events = pin!(resilient_watch::events(
        api,
        config,
        "the Lease that says who leads"
    ));
    while let Some(event) = events.next().await {
        let record = match event {
            Event::Init | Event::InitDone => continue,
            Event::InitApply(lease) | Event::Apply(lease) => Some(record_of(&lease)),
            Event::Delete(_) => None,
        };
        publish_leader(&leaders, record.as_ref(), &identity);
        watched.send_replace(record);
    }
}

/// The Lease with this holder, built on the version that was found.
fn claimed(name: &str, found: Option<&Lease>, wanted: &LeaseRecord, now: MicroTime) -> Lease {
    let before = found.and_then(|lease| lease.spec.clone());
    let before = before.unwrap_or_default();
    let is_renewal = before.holder_identity == wanted.holder;
    let metadata = found.map(|lease| lease.metadata.clone());
    let mut metadata = metadata.unwrap_or_default();
    if let Some(address) = &wanted.address {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(ADDRESS.to_owned(), address.clone());
    }
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..metadata
        },
        spec: Some(LeaseSpec {
            holder_identity: wanted.holder.clone(),
            lease_duration_seconds: i32::try_from(wanted.duration.as_secs()).ok(),
            lease_transitions: i32::try_from(wanted.transitions).ok(),
            acquire_time: match is_renewal {
                true => before.acquire_time.clone(),
                false => Some(now.clone()),
            },
            renew_time: Some(now),
            ..before
        }),
    }
}

fn stored(lease: Lease) -> StoredLease<Lease> {
    StoredLease {
        record: record_of(&lease),
        version: lease,
    }
}

fn record_of(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|n| u64::try_from(n).ok());
    let annotations = lease.metadata.annotations.as_ref();
    LeaseRecord {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        transitions: spec
            .lease_transitions
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        renewed: spec.renew_time.map(|time| time.0.to_string()),
        duration: Duration::from_secs(seconds.unwrap_or(0)),
        address: annotations.and_then(|all| all.get(ADDRESS)).cloned(),
    }
}

fn lease_error(error: ApiError) -> LeaseError {
    match error {
        ApiError::Changed => LeaseError::Conflict,
        other => LeaseError::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_keeps_the_acquire_time() {
        let wanted = |holder: &str, transitions| LeaseRecord {
            holder: Some(holder.to_owned()),
            transitions,
            renewed: None,
            duration: Duration::from_secs(15),
            address: Some(format!("{holder}:6443")),
        };
        let at = |second| MicroTime(Timestamp::from_second(second).unwrap());
        let first = claimed("lagwise", None, &wanted("a", 1), at(10));
        let read = record_of(&first);
        assert!(read.renewed.is_some());
        let expected = LeaseRecord {
            renewed: read.renewed.clone(),
            ..wanted("a", 1)
        };
        assert_eq!(read, expected);
        let acquired = |lease: &Lease| lease.spec.as_ref().unwrap().acquire_time.clone();
        let renewed = claimed("lagwise", Some(&first), &wanted("a", 1), at(20));
        assert_eq!(acquired(&renewed), Some(at(10)));
        assert_ne!(record_of(&renewed).renewed, read.renewed);
        let taken = claimed("lagwise", Some(&renewed), &wanted("b", 2), at(30));
        assert_eq!(acquired(&taken), Some(at(30)));
        assert_eq!(record_of(&taken).address.as_deref(), Some("b:6443"));
    }

    #[test]
    fn empty_holder_is_none() {
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            ..LeaseSpec::default()
        };
        let lease = Lease {
            spec: Some(spec),
            ..Lease::default()
        };
        assert_eq!(record_of(&lease), LeaseRecord::default());
    }
}
