//! Problems of a configuration, collected until everything has been read.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

use super::key_places::KeyPlaces;

pub(super) use crate::model::units::spelling::did_you_mean;

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, from 1; `None` for a problem of the whole file.
    pub line: Option<u64>,
    /// Column of the key, from 1; that of the first unexpected character if the YAML is invalid.
    pub column: Option<u64>,
    /// Path of the key from the root, such as `clusters[1].properties.bootstrap.servers`; empty for a problem
    /// of the whole file.
    pub key: String,
    /// The value as written; `None` if there is none, or if it may contain a secret.
    pub value: Option<String>,
    /// The problem.
    pub problem: String,
    /// The allowed values.
    pub allowed: Option<String>,
}

impl Problem {
    /// A problem of the whole file.
    #[must_use]
    pub fn of_file(problem: impl Into<String>) -> Self {
        Self {
            line: None,
            column: None,
            key: String::new(),
            value: None,
            problem: problem.into(),
            allowed: None,
        }
    }

    fn place(&self) -> (Option<u64>, Option<u64>) {
        (self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.problem)?;
        match &self.allowed {
            Some(allowed) => write!(f, "; allowed: {allowed}"),
            None => Ok(()),
        }
    }
}

/// All problems of a configuration. `Display` has one line for each, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<String>,
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The error for these problems; `None` if there are none.
    #[must_use]
    pub fn from_problems(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self {
            file: None,
            problems,
        })
    }

    /// The same problems, shown as those of `file`.
    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Self {
            file: Some(file.into()),
            ..self
        }
    }

    /// The error for problems that were found after the file had been read, in the order of the file; `None` if there
    /// are none.
    #[must_use]
    pub fn after_reading(mut problems: Vec<Problem>, places: &KeyPlaces) -> Option<Self> {
        for problem in &mut problems {
            let place = places.nearest(&problem.key);
            problem.line = place.map(|place| place.line);
            problem.column = place.map(|place| place.column);
        }
        problems.sort_by_key(Problem::place);
        Self::from_problems(problems)
    }

    /// The problems, in the order of the file; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self {
            file: None,
            problems: vec![problem],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("config");
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            // Editors and CI annotations turn `file:line:` into a link.
            f.write_str(file)?;
            for number in [problem.line, problem.column].into_iter().flatten() {
                write!(f, ":{number}")?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects the problems that the readers of all sections find.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn add(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// All problems, in the order of the file; `None` if there are none.
    pub(super) fn into_error(self) -> Option<ConfigError> {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(Problem::place);
        ConfigError::from_problems(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_problems_by_place() {
        let problems = Problems::default();
        for (line, column) in [
            (Some(9), Some(1)),
            (None, None),
            (Some(2), Some(7)),
            (Some(2), Some(3)),
        ] {
            problems.add(Problem {
                line,
                column,
                key: "k".into(),
                ..Problem::of_file("is wrong")
            });
        }
        let error = problems
            .into_error()
            .map(|error| error.in_file("f.yaml").to_string());
        assert_eq!(
            error.as_deref(),
            Some(
                "f.yaml: k: is wrong\nf.yaml:2:3: k: is wrong\nf.yaml:2:7: k: is wrong\nf.yaml:9:1: k: is wrong"
            )
        );
    }
}
