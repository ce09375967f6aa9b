//! Bounds how many lines about writes to HPAs, and to what they scale, are logged.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::units::hpa_key::HpaKey;
use crate::model::units::token_bucket::{KeyedTokenBuckets, RateLimit};

/// Lines about one namespace. Whoever may write HPAs there can have lagwise write, or fail to, as often as they like.
const EACH: RateLimit = RateLimit {
    interval: Duration::from_secs(1),
    burst: 100,
};
/// Lines in all. A start with many HPAs makes most of them.
const ALL: RateLimit = RateLimit {
    interval: Duration::from_millis(50),
    burst: 2000,
};
/// Namespaces that are remembered.
const MAX_NAMESPACES: usize = 2000;

/// Whether a line about this HPA may be logged now. Metrics count what is not logged.
pub(super) fn may_log(hpa: &HpaKey) -> bool {
    static LINES: LazyLock<Mutex<KeyedTokenBuckets<String>>> =
        LazyLock::new(|| Mutex::new(KeyedTokenBuckets::full(EACH, ALL, MAX_NAMESPACES)));
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.take(&*hpa.namespace, 1, Instant::now()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_does_not_use_up_the_lines_of_others() {
        let (many, one) = (HpaKey::new("many", "h"), HpaKey::new("one", "h"));
        let logged = (0..5000).filter(|_| may_log(&many)).count();
        // Some seconds may pass on a busy machine.
        assert!((100..200).contains(&logged), "{logged}");
        assert!(may_log(&one));
    }
}
