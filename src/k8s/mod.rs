//! The only place that knows the Kubernetes API: what HPAs ask for ([`hpa`]), whom the cluster's
//! front proxy vouches for ([`trust`]), what lagwise keeps there ([`state`]), and how to reach it
//! ([`client`]).
//!
//! Both watches keep what they know through an outage of the API server: old facts serve metrics
//! better than none.

pub mod client;
pub mod hpa;
pub mod state;
pub mod trust;
mod watching;
