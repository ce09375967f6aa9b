//! The table of kinds.

use std::collections::BTreeSet;

use super::*;

#[test]
fn codes_labels_and_reasons_are_unique_and_in_order() {
    let kinds = FindingKind::ALL;
    for (name, of) in [
        ("code", FindingKind::code as fn(FindingKind) -> &'static str),
        ("label", FindingKind::label),
        ("reason", FindingKind::reason),
    ] {
        let all: BTreeSet<_> = kinds.iter().map(|kind| of(*kind)).collect();
        assert_eq!(all.len(), kinds.len(), "{name}");
    }
    for (i, kind) in kinds.iter().enumerate() {
        assert_eq!(kind.code(), format!("LW{:03}", i + 1), "{kind:?}");
        for text in [kind.what(), kind.why(), kind.fix()] {
            assert!(text.ends_with('.') && text.len() > 20, "{kind:?}: {text}");
        }
        // Prometheus labels and events' reasons have their own ways of writing.
        let snake = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(snake(kind.label()), "{kind:?}");
        assert_eq!(kind.reason().to_lowercase(), kind.label().replace('_', ""));
    }
}
