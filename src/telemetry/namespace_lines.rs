//! Bounds how many lines are logged about each namespace, and about all.

use std::time::Duration;

use crate::model::units::token_bucket::{KeyedTokenBuckets, RateLimit};

/// Lines about one namespace. Users who may write HPAs there can cause any number.
const EACH: RateLimit = RateLimit {
    interval: Duration::from_secs(1),
    burst: 100,
};
/// Lines in all. A start with many HPAs makes most of them.
const ALL: RateLimit = RateLimit {
    interval: Duration::from_millis(50),
    burst: 2000,
};
/// Maximum number of namespaces that are remembered.
const MAX_NAMESPACES: usize = 2000;

/// Full buckets of lines, by namespace.
pub(super) fn namespace_lines() -> KeyedTokenBuckets<String> {
    KeyedTokenBuckets::full(EACH, ALL, MAX_NAMESPACES)
}
