//! What brokers report, and the plan of what to read.

pub mod error_names;
pub mod fault;
pub mod group;
pub mod observation;
pub mod offset_column;
pub mod sweep_plan;
pub mod topic_listing;
pub mod topic_map;
