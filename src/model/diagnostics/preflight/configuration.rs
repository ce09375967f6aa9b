//! Checks of the configuration: insecure settings, and what `lagwise lint` finds.

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckLine, PreflightProblem, some_of};
use crate::model::findings::{Finding, FindingSubject, Severity};
use crate::model::units::counted::counted;

/// Heading of the lines.
pub const SECTION: &str = "Configuration";

/// Facts about a valid configuration.
#[derive(Debug, Default)]
pub struct ConfigurationFacts {
    /// Kafka clusters, and targets.
    pub clusters: usize,
    pub targets: usize,
    /// Findings about insecure settings.
    pub insecure: BTreeSet<Finding>,
    /// Findings of `lagwise lint`; `None` if it could not run.
    pub findings: Option<BTreeSet<Finding>>,
}

/// The lines about a valid configuration.
#[must_use]
pub fn check_configuration(facts: &ConfigurationFacts) -> Vec<CheckLine> {
    let valid = format!(
        "valid: {}, {}",
        counted(facts.clusters, "cluster"),
        counted(facts.targets, "target")
    );
    let mut lines = vec![CheckLine::passed(SECTION, "file", valid)];
    let is_setting = |finding: &&Finding| matches!(finding.subject, FindingSubject::Setting(_));
    let found = facts.findings.iter().flatten().filter(is_setting);
    let settings: BTreeSet<&Finding> = facts.insecure.iter().chain(found).collect();
    for finding in &settings {
        let line = CheckLine::problem(
            SECTION,
            "security",
            PreflightProblem::ConfigInsecure,
            finding.to_string(),
        );
        lines.push(line.with_remedy(finding.code.fix().into()));
    }
    if settings.is_empty() {
        let secure = "no setting gives secrets away";
        lines.push(CheckLine::passed(SECTION, "security", secure));
    }
    if let Some(findings) = &facts.findings {
        lines.push(lint(findings.iter().filter(|f| !is_setting(f))));
    }
    lines
}

/// A summary: a tenant's mistake in an HPA must not make the check of the operator fail, so it is a warning.
fn lint<'a>(findings: impl Iterator<Item = &'a Finding>) -> CheckLine {
    let mut by_severity: BTreeMap<Severity, usize> = BTreeMap::new();
    let mut codes = BTreeSet::new();
    for finding in findings {
        let severity = finding.code.severity();
        let count = by_severity.entry(severity).or_default();
        *count = count.saturating_add(1);
        if severity > Severity::Info {
            codes.insert(finding.code.code());
        }
    }
    let counts = by_severity.iter().rev();
    let counts = counts.map(|(severity, count)| format!("{count} {severity}"));
    let counts: Vec<_> = counts.collect();
    match (counts.is_empty(), codes.is_empty()) {
        (true, _) => CheckLine::passed(SECTION, "lint", "no findings"),
        (false, true) => {
            let message = format!("findings: {}", counts.join(", "));
            CheckLine::passed(SECTION, "lint", message)
        }
        (false, false) => {
            let message = format!("findings: {} ({})", counts.join(", "), some_of(codes));
            CheckLine::problem(SECTION, "lint", PreflightProblem::LintFindings, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::findings::FindingCode;

    /// Codes of findings about settings.
    const OF_SETTINGS: [FindingCode; 9] = [
        FindingCode::LoginUnencrypted,
        FindingCode::BrokersUnverified,
        FindingCode::TokenUrlUnencrypted,
        FindingCode::SecretFileOpen,
        FindingCode::LoginToAnyHost,
        FindingCode::ScalerOpen,
        FindingCode::UpstreamUnverified,
        FindingCode::UpstreamFileUnusable,
        FindingCode::SlotLost,
    ];

    fn finding(code: FindingCode, subject: &str) -> Finding {
        let subject = match code {
            code if OF_SETTINGS.contains(&code) => FindingSubject::Setting(subject.to_owned()),
            _ => FindingSubject::Hpa(crate::model::units::hpa_key::HpaKey::new("shop", subject)),
        };
        Finding::new(code, subject, "something is wrong")
    }

    fn lines(findings: &[Finding]) -> Vec<CheckLine> {
        check_configuration(&ConfigurationFacts {
            clusters: 2,
            targets: 1,
            insecure: BTreeSet::new(),
            findings: Some(findings.iter().cloned().collect()),
        })
    }

    #[test]
    fn a_configuration_without_findings_passes() {
        let messages: Vec<_> = lines(&[]).into_iter().map(|line| line.message).collect();
        let expected = [
            "valid: 2 clusters, 1 target",
            "no setting gives secrets away",
            "no findings",
        ];
        assert_eq!(messages, expected);
        let unread = check_configuration(&ConfigurationFacts::default());
        let checks: Vec<_> = unread.iter().map(|line| line.check).collect();
        assert_eq!(checks, ["file", "security"]);
    }

    #[test]
    fn an_insecure_setting_has_the_remedy_of_its_finding() {
        for code in OF_SETTINGS {
            let lines = lines(&[finding(code, "clusters[0]")]);
            let line = &lines[1];
            assert_eq!(line.code, Some("config_insecure"));
            assert_eq!(line.remedy.as_deref(), Some(code.fix()), "{code:?}");
            assert_eq!(line.message, "clusters[0]: something is wrong");
        }
    }

    #[test]
    fn findings_of_lint_are_counted_and_no_failure() {
        let found = [
            finding(FindingCode::NoGroup, "a"),
            finding(FindingCode::NoGroup, "b"),
            finding(FindingCode::AmbiguousCluster, "a"),
        ];
        let lines = lines(&found);
        let line = lines.last().unwrap();
        assert_eq!(line.code, Some("lint_findings"));
        assert_eq!(line.message, "findings: 3 error (LW001, LW003)");
        assert_eq!(
            line.status,
            crate::model::diagnostics::preflight::CheckStatus::Warning
        );
    }
}
