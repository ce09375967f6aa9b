//! Prints findings and the table of their codes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use serde::Serialize;

use crate::cli::Output;
use crate::cli::text_table::{TableColumn, TextTable};
use crate::model::findings::{Finding, FindingCode, Severity};
use crate::model::hpa::facts::{HpaFacts, has_lagwise_metric, has_rejected_lagwise_metric};
use crate::model::units::counted::counted;
use crate::model::units::kubernetes_version::KubernetesVersion;

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
    /// Reports of all findings, sorted by severity, then by object. The advice is for this version of Kubernetes.
    pub(in crate::cli) fn sorted(
        findings: &BTreeSet<Finding>,
        version: Option<KubernetesVersion>,
    ) -> Vec<Self> {
        let mut sorted: Vec<_> = findings.iter().collect();
        sorted.sort_by_cached_key(|finding| {
            let Finding { code, subject, .. } = finding;
            (Reverse(code.severity()), subject.path(), *code)
        });
        let report = |finding| Self::new(finding, version);
        sorted.into_iter().map(report).collect()
    }

    fn new(finding: &Finding, version: Option<KubernetesVersion>) -> Self {
        let code = finding.code;
        Self {
            code: code.code(),
            kind: code.label(),
            severity: code.severity(),
            object: finding.subject.path(),
            message: finding.to_string(),
            why: code.why(),
            fix: code.advice(version),
        }
    }
}

/// Counts of the objects that were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckedObjects {
    /// HPAs with a metric of lagwise, even if its selector is invalid, and HPAs that cannot be read.
    pub(super) hpas: usize,
    /// Those of `hpas` with a selector that the HPA controller rejects.
    pub(super) invalid_hpas: usize,
    /// HPAs without a metric of lagwise.
    pub(super) other_hpas: usize,
    pub(super) workloads: usize,
    /// `None` if Kafka was not read.
    pub(super) groups: Option<usize>,
}

impl CheckedObjects {
    /// Adds these HPAs to the counts.
    pub(super) fn with_hpas<'a>(self, hpas: impl Iterator<Item = &'a HpaFacts>) -> Self {
        hpas.fold(self, |mut checked, hpa| {
            let is_invalid = has_rejected_lagwise_metric(hpa);
            match is_invalid || has_lagwise_metric(hpa) {
                true => checked.hpas += 1,
                false => checked.other_hpas += 1,
            }
            checked.invalid_hpas += usize::from(is_invalid);
            checked
        })
    }
}

impl fmt::Display for CheckedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(self.hpas, "HPA"))?;
        let invalid = match self.invalid_hpas {
            0 => None,
            1 => Some("1 of them with an invalid selector".to_owned()),
            count => Some(format!("{count} of them with invalid selectors")),
        };
        let others = (self.other_hpas > 0)
            .then(|| format!("and {} without a metric of lagwise", self.other_hpas));
        let notes: Vec<_> = invalid.into_iter().chain(others).collect();
        if !notes.is_empty() {
            write!(f, " ({})", notes.join(", "))?;
        }
        if let Some(groups) = self.groups {
            write!(f, ", {}", counted(groups, "consumer group"))?;
        }
        write!(f, " and {}", counted(self.workloads, "workload"))
    }
}

/// Renders findings as text, grouped by code.
pub(super) fn render_findings(findings: &[FindingReport], checked: CheckedObjects) -> String {
    let mut by_code: BTreeMap<_, Vec<&FindingReport>> = BTreeMap::new();
    for one in findings {
        let key = (Reverse(one.severity), one.code);
        by_code.entry(key).or_default().push(one);
    }
    let mut text = String::new();
    for all in by_code.into_values() {
        let Some(first) = all.first() else {
            continue;
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", first.severity, first.code, first.kind);
        for one in &all {
            let _ = writeln!(text, "  {}", one.message);
        }
        let _ = writeln!(text, "  why: {}", first.why);
        let _ = writeln!(text, "  fix: {}\n", first.fix);
    }
    let counts = Severity::ALL.iter().filter_map(|severity| {
        let count = findings.iter().filter(|f| f.severity == *severity).count();
        (count > 0).then(|| match severity {
            Severity::Info => format!("{count} info"),
            _ => counted(count, &severity.to_string()),
        })
    });
    let counts: Vec<_> = counts.collect();
    let _ = match findings.len() {
        0 => writeln!(text, "nothing found in {checked}"),
        1 => writeln!(text, "1 finding in {checked}: {}", counts.join(", ")),
        n => writeln!(text, "{n} findings in {checked}: {}", counts.join(", ")),
    };
    text
}

/// A row of the table of codes.
#[derive(Debug, Serialize)]
struct CodeRow {
    code: &'static str,
    kind: &'static str,
    severity: Severity,
    what: &'static str,
    why: &'static str,
    fix: &'static str,
}

impl From<FindingCode> for CodeRow {
    fn from(code: FindingCode) -> Self {
        Self {
            code: code.code(),
            kind: code.label(),
            severity: code.severity(),
            what: code.what(),
            why: code.why(),
            fix: code.fix(),
        }
    }
}

/// Explains one code.
pub(super) fn render_code(code: FindingCode, output: Output) -> anyhow::Result<String> {
    let row = CodeRow::from(code);
    if let Some(text) = output.serialize(&row)? {
        return Ok(text);
    }
    Ok(format!(
        "{} {} {}\n  {}\n  why: {}\n  fix: {}\n",
        row.severity, row.code, row.kind, row.what, row.why, row.fix
    ))
}

/// Renders the table of codes.
pub(super) fn render_codes(output: Output) -> anyhow::Result<String> {
    let all: Vec<_> = FindingCode::ALL
        .iter()
        .copied()
        .map(CodeRow::from)
        .collect();
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
