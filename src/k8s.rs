//! The only place that knows the Kubernetes API: what HPAs ask for ([`hpa`]) and come to ([`live_hpa`]), whose
//! certificates the cluster vouches for ([`cluster_trust`]), who may do what ([`reviews`]), what lagwise
//! keeps there ([`state_config_map`], [`certificates`]), which of several daemons leads ([`lease`], and [`epoch`]
//! marks what it manages), what bounds HPAs ([`cap`], and what gives them back, [`release`]), what sleeps
//! and wakes ([`scale_to_zero`], [`scale`]), and how to reach it ([`client`]).
//!
//! Both watches keep what they know through an outage of the API server: old facts serve metrics
//! better than none.

pub mod cap;
pub mod certificates;
pub mod client;
pub mod cluster_trust;
pub mod epoch;
pub mod events;
pub mod hpa;
pub mod lease;
pub mod live_hpa;
pub mod manifests;
pub mod release;
mod resilient_watch;
pub mod reviews;
pub mod scale;
pub mod scale_to_zero;
pub mod state_config_map;
pub mod workload;
pub mod write_guard;
