//! What is wrong with a configuration, collected until everything has been read.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

pub(super) use crate::model::units::spelling::did_you_mean;

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line of the file, from 1; none where a thing is missing from the whole file.
    pub line: Option<u64>,
    /// The column, from 1, where the YAML itself is broken.
    pub column: Option<u64>,
    /// The key's path from the root, such as `clusters[1].properties.bootstrap.servers`; empty where
    /// the file as a whole is meant.
    pub key: String,
    /// The value as written; none where there is none or where it may hold a secret.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub allowed: Option<String>,
}

impl Problem {
    /// A problem of the file as a whole.
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

/// Everything that is wrong with a configuration: one line for each problem, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<String>,
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The error for these problems; `None` where there are none.
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

    /// The problems in the file's order; never empty.
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
            // `file:line:` is what editors and CI annotations turn into a link.
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

/// Where the readers of all sections leave what they find.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn add(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// All problems in the file's order, or `None` where there are none.
    pub(super) fn into_error(self) -> Option<ConfigError> {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|problem| problem.line);
        ConfigError::from_problems(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let problems = Problems::default();
        for line in [Some(9), None, Some(2)] {
            problems.add(Problem {
                line,
                key: "k".into(),
                ..Problem::of_file("is wrong")
            });
        }
        let error = problems
            .into_error()
            .map(|error| error.in_file("f.yaml").to_string());
        assert_eq!(
            error.as_deref(),
            Some("f.yaml: k: is wrong\nf.yaml:2: k: is wrong\nf.yaml:9: k: is wrong")
        );
    }
}
