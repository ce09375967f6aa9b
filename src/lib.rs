//! lagwise serves the consumer lag of Kafka groups as an external metric for the Kubernetes HPA,
//! and keeps the HPA from scaling beyond the useful parallelism of the consumer group.
//!
//! Data flows one way. A client in [`kafka`] answers a sweep plan with an observation (what the
//! brokers said). The [`poller`] turns observations into snapshots by the pure rules of [`model`]
//! and publishes them through [`snapshot_channel`]. [`serve`] answers requests from the latest
//! snapshot; [`k8s`] watches HPAs for the poller and writes decisions back. [`persistence`] stores
//! what must survive a restart, [`leader_election`] decides which replica polls and writes,
//! [`certificates`] maintains the replicas' shared certificates, and [`authentication`] is the
//! interface for access reviews. [`config`] is the validated configuration, [`telemetry`] logs and
//! counts, [`daemon`] wires everything, and [`cli`] has the commands. [`simulate`] runs scaling policies
//! on simulated consumer groups.
//!
//! Invariants:
//! - Unknown is never a number: every reading is a `Result`. A group with an unknown partition
//!   serves its last complete reading until that is stale, then an error.
//! - Committed offsets are read before log-end offsets, so that a live consumer has no negative
//!   lag.
//! - The poller's state is never shared: it publishes immutable snapshots to readers, and sends the state to persist to
//!   `persistence`. Components share no locks.
//! - `kafka`, `k8s` and `serve` do not depend on one another (checked by `tests/layering`).

pub mod authentication;
mod blocking_work;
pub mod certificates;
pub mod cli;
pub mod config;
mod crypto;
pub mod daemon;
pub mod k8s;
pub mod kafka;
pub mod leader_election;
pub mod model;
pub mod persistence;
pub mod poller;
pub mod serve;
pub mod simulate;
pub mod snapshot_channel;
pub mod telemetry;
mod worker_threads;
