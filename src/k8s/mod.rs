//! The only place that knows the Kubernetes API: what HPAs ask for ([`hpa`]) and come to ([`live`]), whose
//! certificates the cluster vouches for ([`trust`]), who may do what ([`reviews`]), what lagwise
//! keeps there ([`state`], [`certificates`]), which of several daemons leads ([`lease`], and [`epoch`]
//! marks what it manages), what bounds HPAs ([`cap`], and what gives them back, [`release`]), what sleeps
//! and wakes ([`zero`], [`scale`]), and how to reach it ([`client`]).
//!
//! Both watches keep what they know through an outage of the API server: old facts serve metrics
//! better than none.

pub mod cap;
pub mod certificates;
pub mod client;
pub mod epoch;
pub mod events;
pub mod hpa;
pub mod lease;
pub mod live;
pub mod manifests;
pub mod release;
pub mod reviews;
pub mod scale;
pub mod state;
pub mod trust;
mod watching;
pub mod workload;
pub mod writing;
pub mod zero;
