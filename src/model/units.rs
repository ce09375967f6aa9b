//! Names, numbers and patterns that the rest of the model is written in.

pub mod glob;
pub mod metric;
pub mod names;
pub mod newtypes;
pub mod partition_filter;
pub mod quantity;
pub mod spelling;
pub mod topic_pattern;
