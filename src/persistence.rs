//! The state that survives a restart: what the poller knows of logs and groups that Kafka does not report again, and
//! what the rate policies have learned and the holds keep.
//!
//! - [`format`]: the text of a [`SavedHistory`](crate::model::lag::history::memory::SavedHistory);
//! - [`location`]: where the text is stored: a file, or a ConfigMap
//!   ([`StateConfigMap`](crate::k8s::state_config_map::StateConfigMap));
//! - [`store`]: loads it for the poller and saves the states that the poller sends.
//!
//! lagwise works without it. A state that cannot be read, used or written is logged once; the next save
//! tries again.

pub mod format;
pub mod location;
pub mod store;

#[cfg(test)]
mod tests;
