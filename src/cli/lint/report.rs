//! Prints findings and the table of their codes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use crate::cli::Output;
use crate::cli::text_table::{TableColumn, TextTable};
use crate::model::findings::{Finding, FindingCode, Severity};

/// One finding, as printed.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct FindingReport {
    code: &'static str,
    kind: &'static str,
    severity: Severity,
    object: String,
    message: String,
    why: &'static str,
    fix: &'static str,
}

impl FindingReport {
    /// Reports of all findings, sorted by severity, then by object.
    pub(in crate::cli) fn sorted(findings: &BTreeSet<Finding>) -> Vec<Self> {
        let mut sorted: Vec<_> = findings.iter().collect();
        sorted.sort_by_cached_key(|finding| {
            let Finding { code, subject, .. } = finding;
            (Reverse(code.severity()), subject.path(), *code)
        });
        sorted.into_iter().map(Self::new).collect()
    }

    fn new(finding: &Finding) -> Self {
        let code = finding.code;
        Self {
            code: code.code(),
            kind: code.label(),
            severity: code.severity(),
            object: finding.subject.path(),
            message: finding.to_string(),
            why: code.why(),
            fix: code.fix(),
        }
    }
}

/// Renders findings as text.
pub(super) fn render_findings(findings: &[FindingReport]) -> String {
    let mut text = String::new();
    for one in findings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", one.severity, one.code, one.object);
        let _ = writeln!(text, "  {}", one.message);
        let _ = writeln!(text, "  why: {}", one.why);
        let _ = writeln!(text, "  fix: {}\n", one.fix);
    }
    let counts = Severity::ALL.iter().filter_map(|severity| {
        let count = findings.iter().filter(|f| f.severity == *severity).count();
        (count > 0).then(|| format!("{count} {severity}"))
    });
    let counts: Vec<_> = counts.collect();
    let _ = match findings.len() {
        0 => writeln!(text, "nothing found"),
        1 => writeln!(text, "1 finding: {}", counts.join(", ")),
        n => writeln!(text, "{n} findings: {}", counts.join(", ")),
    };
    text
}

/// A row of the table of codes.
#[derive(Debug, Serialize)]
struct CodeRow {
    code: &'static str,
    kind: &'static str,
    severity: Severity,
    why: &'static str,
    fix: &'static str,
}

/// Renders the table of codes.
pub(super) fn render_codes(output: Output) -> anyhow::Result<String> {
    let row = |code: &FindingCode| CodeRow {
        code: code.code(),
        kind: code.label(),
        severity: code.severity(),
        why: code.why(),
        fix: code.fix(),
    };
    let all: Vec<_> = FindingCode::ALL.iter().map(row).collect();
    if let Some(text) = output.serialize(&all)? {
        return Ok(text);
    }
    let columns = ["CODE", "SEVERITY", "KIND", "WHY"];
    let mut table = TextTable::new(columns.map(TableColumn::text));
    for one in &all {
        let cells = [one.code, one.severity.name(), one.kind, one.why];
        table.add_row(cells.map(str::to_owned));
    }
    Ok(table.render())
}
