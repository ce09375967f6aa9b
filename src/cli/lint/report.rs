//! Findings and their table of codes, as they are printed.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::cli::Output;
use crate::model::findings::{Finding, FindingKind, Severity};

/// One finding.
#[derive(Debug, Serialize)]
pub(super) struct Reported {
    code: &'static str,
    kind: &'static str,
    severity: Severity,
    object: String,
    message: String,
    why: &'static str,
    fix: &'static str,
}

impl Reported {
    /// All of them, the worst first, then by what they are about.
    pub(super) fn all(findings: &BTreeSet<Finding>) -> Vec<Self> {
        let mut sorted: Vec<_> = findings.iter().collect();
        sorted.sort_by_cached_key(|finding| {
            let kind = finding.kind();
            (Reverse(kind.severity()), finding.about().to_string(), kind)
        });
        sorted.into_iter().map(Self::of).collect()
    }

    fn of(finding: &Finding) -> Self {
        let kind = finding.kind();
        Self {
            code: kind.code(),
            kind: kind.label(),
            severity: kind.severity(),
            object: finding.about().to_string(),
            message: finding.to_string(),
            why: kind.why(),
            fix: kind.fix(),
        }
    }
}

/// Findings for people.
pub(super) fn table(findings: &[Reported]) -> String {
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
struct Code {
    code: &'static str,
    kind: &'static str,
    severity: Severity,
    why: &'static str,
    fix: &'static str,
}

/// The table of codes.
pub(super) fn codes(output: Output) -> anyhow::Result<String> {
    let of = |kind: &FindingKind| Code {
        code: kind.code(),
        kind: kind.label(),
        severity: kind.severity(),
        why: kind.why(),
        fix: kind.fix(),
    };
    let all: Vec<_> = FindingKind::ALL.iter().map(of).collect();
    if let Some(text) = output.written(&all)? {
        return Ok(text);
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["CODE", "SEVERITY", "KIND", "WHY"]);
    for one in &all {
        table.add_row([one.code, one.severity.name(), one.kind, one.why]);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    Ok(lines.fold(String::new(), |text, line| text + &line + "\n"))
}
