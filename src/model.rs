//! The pure core: rules of lag, targets, useful parallelism, and decisions.
//!
//! Nothing here is asynchronous, reads a clock, does IO or logs: time is an argument, and every
//! rule can be tested as a function. The edges (`kafka`, `k8s`, `serve`) translate to and from
//! these types and decide nothing.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod decisions;
pub mod diagnostics;
pub mod evaluation;
pub mod findings;
pub mod hpa;
pub mod kafka;
pub mod keda;
pub mod lag;
pub mod policy;
pub mod settings;
pub mod snapshot;
pub mod targets;
pub mod units;

#[cfg(test)]
pub(crate) mod fixtures;
