//! A progress bar on standard error, for people only.

use std::io::{self, IsTerminal, Write};

/// Width of the bar in characters.
const WIDTH: u64 = 30;

/// A line that shows how much is done, if standard error is a terminal.
#[derive(Debug)]
pub(super) struct ProgressLine {
    is_shown: bool,
}

impl ProgressLine {
    /// Shown if standard error is a terminal.
    pub(super) fn for_standard_error() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
        }
    }

    /// Never shown.
    #[cfg(test)]
    pub(super) fn hidden() -> Self {
        Self { is_shown: false }
    }

    /// Shows how many of all runs are done.
    pub(super) fn show(&self, done: u64, total: u64) {
        if self.is_shown {
            // Progress that cannot be shown is no reason to fail.
            let _ = write!(io::stderr().lock(), "\r{}", bar(done, total));
        }
    }

    /// Removes the line.
    pub(super) fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn bar(done: u64, total: u64) -> String {
    let filled = done
        .saturating_mul(WIDTH)
        .checked_div(total)
        .unwrap_or(WIDTH)
        .min(WIDTH);
    let bar: String = (0..WIDTH)
        .map(|place| if place < filled { '#' } else { '.' })
        .collect();
    format!("simulating [{bar}] {done}/{total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_fills_from_left_to_right() {
        assert_eq!(bar(0, 4), "simulating [..............................] 0/4");
        assert_eq!(bar(2, 4), "simulating [###############...............] 2/4");
        assert_eq!(bar(4, 4), "simulating [##############################] 4/4");
    }
}
