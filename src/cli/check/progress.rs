//! The progress line of `lagwise check`.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// The parts that are still being checked, shown on standard error if that is a terminal.
pub(super) struct Progress {
    left: Mutex<Vec<String>>,
    is_shown: bool,
}

impl Progress {
    pub(super) fn start(parts: Vec<String>) -> Self {
        let progress = Self {
            left: Mutex::new(parts),
            is_shown: io::stderr().is_terminal(),
        };
        progress.finish("");
        progress
    }

    /// Removes a part that is done, and shows the others.
    pub(super) fn finish(&self, part: &str) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|name| name != part);
        if self.is_shown {
            self.draw(&line(&left));
        }
    }

    /// Removes the line from the terminal.
    pub(super) fn end(&self) {
        if self.is_shown {
            self.draw("");
        }
    }

    fn draw(&self, line: &str) {
        // The progress is only for people, so a failure to show it is ignored.
        let _ = write!(io::stderr().lock(), "\r\x1b[2K{line}");
        let _ = io::stderr().flush();
    }
}

/// The progress as one line of a terminal.
fn line(left: &[String]) -> String {
    match left {
        [] => String::new(),
        [one] => format!("checking {one} ..."),
        [first, rest @ ..] => format!("checking {first} and {} more ...", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_one_part_and_counts_the_others() {
        let parts = |count: usize| vec!["main".to_owned(); count];
        assert_eq!(line(&parts(0)), "");
        assert_eq!(line(&parts(1)), "checking main ...");
        assert_eq!(line(&parts(3)), "checking main and 2 more ...");
    }
}
