//! Results of `lagwise check`: whether Kafka, Kubernetes and the configuration are as lagwise needs them.
//!
//! Edges collect facts, such as [`KafkaFacts`](kafka::KafkaFacts). Pure functions turn them into a list of
//! [`CheckLine`]. Whatever is not as it should be is a [`PreflightProblem`] with a remedy, a row of the table in
//! `table.rs`. For a missing right in Kafka the remedy is that of its service.

pub mod configuration;
pub mod kafka;
pub mod kubernetes;
pub mod registration;
pub mod rights;
mod table;

use std::borrow::Cow;

use serde::Serialize;

use crate::model::units::untrusted_text::cut_message;

pub use self::table::PreflightProblem;

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    Passed,
    /// lagwise works, but something should be changed, or could not be checked.
    Warning,
    /// lagwise does not work, or not for everything.
    Failed,
}

impl CheckStatus {
    /// The sign in front of a line.
    #[must_use]
    pub fn sign(self) -> char {
        match self {
            CheckStatus::Passed => '√',
            CheckStatus::Warning => '!',
            CheckStatus::Failed => '×',
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// The subject, such as `Kafka cluster main`.
    pub section: String,
    /// Name of the check, the same whatever its result is.
    pub check: &'static str,
    pub status: CheckStatus,
    /// Code of the problem; `None` if the check passed.
    pub code: Option<&'static str>,
    /// Result of the check.
    pub message: String,
    /// What to do; `None` if the check passed.
    pub remedy: Option<Cow<'static, str>>,
    /// The page of the documentation, relative to its start.
    pub docs: Option<&'static str>,
    /// The individual checks, for machines.
    pub details: Vec<String>,
}

impl CheckLine {
    /// A check that passed.
    pub(super) fn passed(section: &str, check: &'static str, message: impl Into<String>) -> Self {
        Self {
            section: section.to_owned(),
            check,
            status: CheckStatus::Passed,
            code: None,
            message: cut_message(message.into()),
            remedy: None,
            docs: None,
            details: Vec::new(),
        }
    }

    /// A check that did not pass, for this reason.
    #[must_use]
    pub fn problem(
        section: &str,
        check: &'static str,
        problem: PreflightProblem,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status: problem.status(),
            code: Some(problem.code()),
            remedy: Some(problem.remedy().into()),
            docs: Some(problem.page()),
            ..Self::passed(section, check, message)
        }
    }

    /// With a remedy for what is known here, instead of the one in the table.
    pub(super) fn with_remedy(self, remedy: Cow<'static, str>) -> Self {
        Self {
            remedy: Some(remedy),
            ..self
        }
    }

    pub(super) fn with_details(self, details: Vec<String>) -> Self {
        Self { details, ..self }
    }
}

/// The worst status of these lines; passed without any.
#[must_use]
pub fn worst(lines: &[CheckLine]) -> CheckStatus {
    let all = lines.iter().map(|line| line.status);
    all.max().unwrap_or(CheckStatus::Passed)
}

/// Maximum number of names in a message; `-o json` lists all.
pub(super) const MAX_SHOWN_NAMES: usize = 4;

/// Names in a message: the first few, and how many there are besides.
pub(super) fn some_of<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let mut names = names.into_iter();
    let mut shown: Vec<_> = names
        .by_ref()
        .take(MAX_SHOWN_NAMES)
        .map(|n| n.to_string())
        .collect();
    match names.count() {
        0 => {}
        more => shown.push(format!("and {more} more")),
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The tests of everything that makes lines.
    const TESTS: [&str; 5] = [
        include_str!("preflight/kafka/tests.rs"),
        include_str!("preflight/kubernetes.rs"),
        include_str!("preflight/registration.rs"),
        include_str!("preflight/configuration.rs"),
        include_str!("../../cli/check/tests.rs"),
    ];

    #[test]
    fn every_problem_has_a_test() {
        let untested = PreflightProblem::ALL.iter().map(|problem| problem.code());
        let untested = untested.filter(|code| {
            let quoted = format!("\"{code}\"");
            TESTS.iter().all(|text| !text.contains(&quoted))
        });
        assert_eq!(untested.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn codes_differ_and_remedies_are_sentences() {
        let codes: BTreeSet<_> = PreflightProblem::ALL.iter().map(|p| p.code()).collect();
        assert_eq!(codes.len(), PreflightProblem::ALL.len());
        for problem in PreflightProblem::ALL {
            let (remedy, page) = (problem.remedy(), problem.page());
            assert!(remedy.len() > 20 && page.contains(".html"), "{problem:?}");
            assert_ne!(problem.status(), CheckStatus::Passed, "{problem:?}");
        }
    }

    #[test]
    fn the_worst_line_counts() {
        let line = |problem| CheckLine::problem("s", "c", problem, "m");
        let warning = line(PreflightProblem::NoHpas);
        let failure = line(PreflightProblem::SlotTaken);
        assert_eq!(worst(&[]), CheckStatus::Passed);
        assert_eq!(worst(std::slice::from_ref(&warning)), CheckStatus::Warning);
        assert_eq!(worst(&[failure, warning]), CheckStatus::Failed);
    }
}
