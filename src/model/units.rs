//! Names, numbers and patterns that the rest of the model is written in.

pub mod counted;
pub mod file_path;
pub mod glob;
pub mod host_pattern;
pub mod hpa_key;
pub mod kubernetes_version;
pub mod lag_thresholds;
pub mod lease;
pub mod metric;
pub mod names;
pub mod newtypes;
pub mod parallelism_rule;
pub mod partition_filter;
pub mod persistent_map;
pub mod quantity;
pub mod short_duration;
pub mod short_list;
pub mod single_precision;
pub mod spelling;
pub mod token_bucket;
pub mod topic_pattern;
pub mod untrusted_text;
