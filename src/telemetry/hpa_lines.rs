//! Bounds the number of log lines about writes to HPAs and their workloads.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use super::namespace_lines::namespace_lines;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::token_bucket::KeyedTokenBuckets;

/// Whether a line about this HPA may be logged now. Metrics count writes that are not logged.
pub(super) fn may_log(hpa: &HpaKey) -> bool {
    static LINES: LazyLock<Mutex<KeyedTokenBuckets<String>>> =
        LazyLock::new(|| Mutex::new(namespace_lines()));
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
