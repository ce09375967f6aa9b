//! Prints the lines of `lagwise check`.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use crate::model::diagnostics::preflight::{CheckLine, CheckStatus};
use crate::model::units::untrusted_text::printable_lines;

/// Whether to color standard output: if it is a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn is_colored() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !no_color
}

/// The lines as text, under a heading for each section. Text that lagwise did not write itself is escaped.
pub(super) fn render(lines: &[CheckLine], docs_url: Option<&str>, is_colored: bool) -> String {
    let mut text = String::new();
    let mut section = None;
    for line in lines {
        if section != Some(&line.section) {
            let gap = if section.is_some() { "\n" } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{gap}{}", printable_lines(&line.section));
            section = Some(&line.section);
        }
        let message = printable_lines(&line.message).replace('\n', "\n    ");
        let sign = sign(line.status, is_colored);
        let _ = writeln!(text, "  {sign} {}: {}", line.check, message.trim_end());
        if let Some(remedy) = &line.remedy {
            let remedy = printable_lines(remedy).replace('\n', "\n    ");
            let _ = writeln!(text, "    {}", remedy.trim_end());
        }
        if let Some(page) = line.docs {
            let url = docs_url.map(|url| format!("{}/", url.trim_end_matches('/')));
            let _ = writeln!(text, "    see {}{page}", url.unwrap_or_default());
        }
    }
    let count = |status| lines.iter().filter(|line| line.status == status).count();
    let _ = writeln!(
        text,
        "\n{} passed, {} with warnings, {} failed",
        count(CheckStatus::Passed),
        count(CheckStatus::Warning),
        count(CheckStatus::Failed)
    );
    text
}

fn sign(status: CheckStatus, is_colored: bool) -> String {
    let color = match status {
        CheckStatus::Passed => 32,
        CheckStatus::Warning => 33,
        CheckStatus::Failed => 31,
    };
    match is_colored {
        true => format!("\x1b[{color}m{}\x1b[0m", status.sign()),
        false => status.sign().to_string(),
    }
}
