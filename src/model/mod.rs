//! The pure core: what lag is, who asks for it, how many replicas can be useful.
//!
//! Nothing here is asynchronous, reads a clock, does IO or logs: time is an argument, and every
//! rule can be tested as a function. The edges (`kafka`, `k8s`, `serve`) translate to and from
//! these types and decide nothing.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod access;
pub mod age;
pub mod annotations;
pub mod assembly;
pub mod by_topic;
pub mod cap;
pub mod ceiling;
pub mod commits;
pub mod event;
pub mod explain;
mod fallback;
pub mod fault;
pub mod fencing;
pub mod finding;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod group;
pub mod history;
pub mod hpa;
pub mod lag;
pub mod lease;
pub mod merge;
pub mod names;
pub mod notice;
pub mod observation;
pub mod parallelism;
pub mod partitions;
pub mod pattern;
pub mod quantity;
pub mod query;
pub mod reading;
pub mod refusal;
pub mod resolve;
pub mod rotation;
pub mod selector;
mod series;
pub mod settings;
pub mod sizing;
pub mod snapshot;
pub mod spelling;
pub mod standing;
pub mod status;
pub mod target;
pub mod tenancy;
pub mod types;
pub mod workload;
pub mod zero;
