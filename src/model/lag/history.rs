//! What outlives one sweep of a Kafka cluster: of each topic's log, of each group on it, and in a form
//! that outlives the process.
//!
//! Invariants: one owner, the poller's task; times are on one [`Timeline`](clock::Timeline), which
//! never runs backwards while the process lives; what a group stands on belongs to one
//! [`epoch`](log::LogHistory) of a log, so that a commit of a topic that is gone is never subtracted
//! from the end of one made anew.

pub(super) mod clock;
pub(super) mod group;
pub(super) mod log;
pub mod memory;
pub(super) mod partition;
