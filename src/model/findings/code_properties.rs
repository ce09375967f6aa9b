//! The columns of the table of findings.

use super::severity::Severity;

/// The properties of a code: one row of the table.
pub(super) struct CodeProperties {
    pub(super) code: &'static str,
    pub(super) label: &'static str,
    pub(super) event_reason: &'static str,
    pub(super) severity: Severity,
    pub(super) what: &'static str,
    pub(super) why: &'static str,
    pub(super) fix: &'static str,
}
