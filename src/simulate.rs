//! Simulation of a consumer group, its workload and its HPA under a scaling policy.
//!
//! Deterministic: a run depends on the scenario and the seed only, never on the wall clock. The rate policy is that of
//! the model ([`crate::model::policy`]), which the daemon serves as well. The HPA is the controller's arithmetic
//! that the end-to-end tests compare with the real controller ([`crate::model::hpa::controller`]).
//!
//! Time passes in steps of a second. Messages arrive by a Poisson process and are processed in order, partition by
//! partition ([`engine`]).

pub mod acceptance;
pub mod arrivals;
pub mod benchmark;
pub mod builtin;
pub mod clairvoyant;
pub mod competitors;
pub mod engine;
pub mod flink;
pub mod generated;
pub mod group;
pub mod lag_policies;
mod numbers;
pub mod optimum;
pub mod outcome;
pub mod partitions;
pub mod pods;
pub mod records;
pub mod replay;
pub mod scaler;
pub mod scenario;
pub mod score;
pub mod trace;

#[cfg(test)]
mod tests;
