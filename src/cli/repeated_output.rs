//! Output of commands that read and print again and again (`--watch`).

use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use unicode_width::UnicodeWidthStr;

use super::{Output, print_error, terminal_size, write_output, write_stdout};
use crate::model::units::short_duration::short_duration;

/// Interval of `--watch` unless another one is given.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The line above the output: the command, the time and the interval.
pub(super) fn watch_header(command: &str, now: SystemTime, every: Duration) -> String {
    format!(
        "lagwise {command}  {}  every {}",
        humantime::format_rfc3339_seconds(now),
        short_duration(every),
    )
}

/// Prints a table below its header, then the errors. On a terminal it replaces the last output, and is cut so that the
/// header stays visible. Returns whether the output is still open.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn print_again(header: &str, table: &str, errors: &[&str]) -> anyhow::Result<bool> {
    let table = match io::stdout().is_terminal() {
        true => {
            write_stdout(b"\x1b[H\x1b[2J")?;
            let (width, height) = terminal_size();
            let rows_of_errors = errors.iter().map(|error| rows("lagwise: ", error, width));
            // The header, the empty line below it, and the line of the cursor.
            let others = rows_of_errors.sum::<usize>().saturating_add(3);
            fit(table, width, height.saturating_sub(others))
        }
        false => table.to_owned(),
    };
    let has_reader = write_output(Output::Table, &format!("{header}\n\n{table}"))?;
    errors.iter().for_each(|error| print_error(error));
    Ok(has_reader)
}

/// Rows of the terminal that a line takes.
fn rows(prefix: &str, line: &str, width: usize) -> usize {
    let columns = prefix.width().saturating_add(line.width());
    columns.div_ceil(width.max(1)).max(1)
}

/// The first lines of a text, as many as fit. If some do not, a last line says how many.
fn fit(text: &str, width: usize, height: usize) -> String {
    let all: Vec<(&str, usize)> = text.lines().map(|l| (l, rows("", l, width))).collect();
    if all.iter().map(|(_, rows)| rows).sum::<usize>() <= height {
        return text.to_owned();
    }
    let mut room = height.saturating_sub(1);
    let mut shown = String::new();
    let mut count = 0;
    for (line, rows) in &all {
        let Some(left) = room.checked_sub(*rows) else {
            break;
        };
        room = left;
        shown.extend([line, "\n"]);
        count += 1;
    }
    shown + &format!("... and {} more lines\n", all.len() - count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_time_and_the_interval() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289);
        assert_eq!(
            watch_header("lag", at, WATCH_INTERVAL),
            "lagwise lag  2024-05-06T07:08:09Z  every 2s"
        );
        assert_eq!(
            watch_header("status", at, Duration::from_secs(90)),
            "lagwise status  2024-05-06T07:08:09Z  every 1m30s"
        );
    }

    #[test]
    fn lines_that_do_not_fit_are_counted() {
        let text = "first\nsecond is long\nthird\nfourth\n";
        for (width, height, expected) in [
            (80, 4, text),
            (80, 3, "first\nsecond is long\n... and 2 more lines\n"),
            // The second line is wrapped.
            (10, 5, text),
            (10, 4, "first\nsecond is long\n... and 2 more lines\n"),
            (10, 3, "first\n... and 3 more lines\n"),
            (0, 0, "... and 4 more lines\n"),
        ] {
            assert_eq!(fit(text, width, height), expected, "{width} x {height}");
        }
        assert_eq!(fit("", 80, 0), "");
    }
}
