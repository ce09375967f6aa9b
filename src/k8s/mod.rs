//! The only place that knows the Kubernetes API: what HPAs ask for ([`hpa`]), whom the cluster's
//! front proxy vouches for ([`trust`]), and how to reach it ([`client`]).
//!
//! Both watches keep what they know through an outage of the API server: old facts serve metrics
//! better than none.

pub mod client;
pub mod hpa;
pub mod trust;
mod watching;
