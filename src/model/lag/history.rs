//! State that the lag rules keep from sweep to sweep, per log and per group, and its saved form.
//!
//! Invariants:
//! - The poller's task is the only owner.
//! - All times are on one [`Timeline`](clock::Timeline), which never runs backwards.
//! - The state of a group on a partition belongs to one epoch of the log
//!   ([`LogPartition::epoch`](log::LogPartition::epoch)). A committed offset of a deleted topic is never
//!   subtracted from the log end of a new topic of the same name.

pub(in crate::model) mod clock;
pub(super) mod group;
pub(super) mod log;
pub mod memory;
pub(super) mod partition;
pub mod saved_policy;
