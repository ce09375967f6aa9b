//! The only place that knows the Kubernetes API.
//!
//! - Reads: the HPAs ([`hpa`]), one HPA with its status ([`live_hpa`]), workloads ([`workload`]), the CAs that
//!   the cluster trusts for the front proxy ([`cluster_trust`]), HPAs in manifests ([`manifests`]), and KEDA's objects
//!   ([`keda_objects`], and [`keda_manifests`] for a conversion).
//! - Writes: the [`reconciler`] caps HPAs, scales workloads to zero and publishes [`events`]; [`release`]
//!   undoes that without the daemon. A [`write_guard`] bounds every write by the leader's term.
//! - Stores: the Lease ([`lease_store`]), the saved state ([`state_config_map`]), the ledger of scale to zero
//!   ([`zero_ledger`]) and the serving certificate ([`certificates`]).
//! - Authentication and authorization of callers: [`reviews`].
//! - For commands: the leader's pod and its ports ([`leader_pod`]), and the checks of `lagwise check` ([`preflight`]).
//!
//! Watches keep the last known objects through an outage of the API server (`resilient_watch`): metrics
//! from old facts are better than none.

pub mod api_error;
pub mod certificates;
pub mod client;
pub mod cluster_trust;
pub mod events;
mod external_metric;
mod field_owner;
pub mod hpa;
mod hpa_patch;
pub mod keda_manifests;
pub mod keda_objects;
pub mod leader_pod;
pub mod lease_store;
pub mod live_hpa;
pub mod manifests;
mod owner;
pub mod preflight;
pub mod reconciler;
pub mod release;
mod resilient_watch;
pub mod reviews;
pub mod scale;
pub mod state_config_map;
pub mod watched_hpa;
pub mod workload;
pub mod write_guard;
pub mod zero_ledger;
