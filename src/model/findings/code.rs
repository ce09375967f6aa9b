//! Properties of finding codes, from their rows in the table.

use super::severity::Severity;
use super::table::FindingCode;

impl FindingCode {
    /// Finds a code by its number or its label: `LW004`, `lw4`, `value_target`.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase().replace('-', "_");
        let digits = text.strip_prefix("lw").unwrap_or(&text);
        let number: Option<usize> = digits.parse().ok();
        let matches = |code: &Self| {
            let own = code.code().get(2..).and_then(|digits| digits.parse().ok());
            code.label() == text || (number.is_some() && number == own)
        };
        Self::ALL.iter().copied().find(matches)
    }

    /// The stable code, such as `LW004`. A code is never reused, even when its finding is removed.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.properties().code
    }

    /// The name in metric labels, log fields and the output of `lagwise lint`.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.properties().label
    }

    /// Reason of the Kubernetes event.
    #[must_use]
    pub fn event_reason(self) -> &'static str {
        self.properties().event_reason
    }

    #[must_use]
    pub fn severity(self) -> Severity {
        self.properties().severity
    }

    /// Whether findings with this code are also published as events on their HPAs. These are warnings and errors, and
    /// of the informational ones those that begin and end by themselves.
    #[must_use]
    pub fn is_event(self) -> bool {
        let is_temporary = matches!(self, FindingCode::AtCeiling | FindingCode::ReplicasHeld);
        self.severity() > Severity::Info || is_temporary
    }

    /// What is wrong, without the details of one finding.
    #[must_use]
    pub fn what(self) -> &'static str {
        self.properties().what
    }

    /// Why it matters.
    #[must_use]
    pub fn why(self) -> &'static str {
        self.properties().why
    }

    /// What to do, on a cluster of any version. See also [`advice`](Self::advice).
    #[must_use]
    pub fn fix(self) -> &'static str {
        self.properties().fix
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_found_by_number_and_label() {
        for text in ["LW018", "lw18", "18", "tolerance_above", "Tolerance-Above"] {
            assert_eq!(
                FindingCode::find(text),
                Some(FindingCode::ToleranceAbove),
                "{text}"
            );
        }
        for text in ["", "LW", "LW000", "LW9999", "tolerance"] {
            assert_eq!(FindingCode::find(text), None, "{text}");
        }
    }

    #[test]
    fn codes_labels_and_reasons_are_unique_and_sorted() {
        let codes = FindingCode::ALL;
        for (name, read) in [
            ("code", FindingCode::code as fn(FindingCode) -> &'static str),
            ("label", FindingCode::label),
            ("reason", FindingCode::event_reason),
        ] {
            let all: BTreeSet<_> = codes.iter().map(|code| read(*code)).collect();
            assert_eq!(all.len(), codes.len(), "{name}");
        }
        for (i, code) in codes.iter().enumerate() {
            assert_eq!(code.code(), format!("LW{:03}", i + 1), "{code:?}");
            for text in [code.what(), code.why(), code.fix()] {
                assert!(text.ends_with('.') && text.len() > 20, "{code:?}: {text}");
            }
            // Metric labels are snake case, reasons of events are camel case.
            let is_snake = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(is_snake(code.label()), "{code:?}");
            let reason = code.event_reason().to_lowercase();
            assert_eq!(reason, code.label().replace('_', ""));
        }
    }
}
