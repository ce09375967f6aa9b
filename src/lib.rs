//! lagwise: consumer lag of Kafka groups as an external metric for the Kubernetes HPA, never more
//! than their partitions can use.
//!
//! Data flows one way. A source in [`kafka`] answers a plan with an observation (what the brokers
//! said); the [`poller`] turns observations into snapshots by the pure rules of [`model`] and
//! [`snapshot_channel`]es them; [`serve`] answers from the latest one, and [`k8s`] tells the poller which
//! HPAs ask for what; [`persistence`] keeps what has to survive a restart, [`leader_election`] says which of
//! several daemons decides, and [`certificates`] are what they all serve with. [`daemon`] wires them,
//! [`cli`] prints.
//!
//! Invariants:
//! - An unknown is never a number: every reading is a `Result`, and a group with an unknown
//!   partition serves its last complete reading until that is too old, then an error.
//! - Committed offsets are read before log ends, so that a live consumer has no negative lag.
//! - Only snapshots leave the poller's task; components share no lock.
//! - `kafka`, `k8s` and `serve` do not know one another (`tests/layering` checks it).

pub mod authentication;
pub mod certificates;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod k8s;
pub mod kafka;
pub mod leader_election;
pub mod model;
pub mod persistence;
pub mod poller;
pub mod serve;
pub mod snapshot_channel;
pub mod telemetry;
