//! Output of the demo: redrawn in place on a terminal, line by line elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::report::Summary;
use super::screen::{Frame, Links, Style};
use crate::cli::{Output, terminal_size, write_stdout};

/// Switches to the alternate screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// An output of the demo.
pub(super) enum View {
    /// A redrawn terminal.
    Live(LiveTerminal),
    /// A line per tick.
    Lines,
    /// A JSON object per tick, preceded by this text.
    Json(&'static str),
}

/// A terminal on its alternate screen, restored when dropped.
pub(super) struct LiveTerminal {
    style: Style,
    entered: bool,
}

/// Parses the output format: table or JSON lines.
pub(super) fn output() -> impl TypedValueParser<Value = Output> {
    PossibleValuesParser::new(["table", "json"]).map(|text| match text.as_str() {
        "json" => Output::Json,
        _ => Output::Table,
    })
}

impl View {
    pub(super) fn open(output: Output) -> Self {
        match output {
            Output::Json => View::Json(""),
            // JSON is valid YAML, apart from the document separator.
            Output::Yaml => View::Json("---\n"),
            Output::Table if io::stdout().is_terminal() => {
                let mut live = LiveTerminal {
                    style: style(),
                    entered: false,
                };
                live.enter();
                View::Live(live)
            }
            Output::Table => View::Lines,
        }
    }

    /// Prints the URLs where frames do not show them.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn begin(&self, links: &Links) -> anyhow::Result<bool> {
        match self {
            View::Live(_) | View::Json(_) => Ok(true),
            View::Lines => {
                let (urls, commands) = (links.text(), links.commands());
                let text = format!("page  {}\n\n{urls}{commands}\n", links.page);
                Ok(write_stdout(text.as_bytes())?)
            }
        }
    }

    /// Interval between frames.
    pub(super) fn tick(&self) -> Duration {
        match self {
            View::Live(_) => Duration::from_millis(500),
            View::Lines | View::Json(_) => Duration::from_secs(1),
        }
    }

    /// Displays a frame. Returns `false` if standard output is closed.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn show(&mut self, frame: &Frame) -> anyhow::Result<bool> {
        let text = match self {
            View::Live(live) => {
                (live.style.width, live.style.height) = terminal_size();
                live.redraw(&frame.render(live.style))
            }
            View::Lines => format!("{}\n", frame.line()),
            View::Json(before) => format!("{before}{}\n", frame.json()?),
        };
        Ok(write_stdout(text.as_bytes())?)
    }

    /// Displays the last frame and the summary.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn finish(&mut self, last: &Frame, summary: &Summary) -> anyhow::Result<()> {
        let text = match self {
            View::Live(live) => {
                live.leave();
                let text = summary.text();
                last.render_above(text.lines().count(), live.style) + &text
            }
            View::Lines => format!("\n{}", summary.text()),
            View::Json(before) => format!("{before}{}\n", summary.json()?),
        };
        write_stdout(text.as_bytes())?;
        Ok(())
    }

    /// Restores the terminal.
    pub(super) fn close(&mut self) {
        if let View::Live(live) = self {
            live.leave();
        }
    }
}

impl LiveTerminal {
    fn enter(&mut self) {
        self.entered = true;
        // A failure will show with the first frame.
        let text = format!("{ENTER}\x1b[H\x1b[2Jlagwise demo: starting an embedded Kafka ...\n");
        let _ = write_stdout(text.as_bytes());
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.entered) {
            let _ = write_stdout(LEAVE.as_bytes());
        }
    }

    /// Draws over the previous picture line by line, clearing each line's end, so that nothing
    /// flickers.
    fn redraw(&self, picture: &str) -> String {
        let lines: String = picture
            .lines()
            .map(|line| format!("{line}\x1b[K\n"))
            .collect();
        format!("\x1b[H{lines}\x1b[J")
    }
}

impl Drop for LiveTerminal {
    fn drop(&mut self) {
        self.leave();
    }
}

fn style() -> Style {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(variable);
    let (width, height) = terminal_size();
    Style {
        unicode: speaks_utf8(locale.as_deref()),
        colour: variable("NO_COLOR").is_none()
            && variable("TERM").is_none_or(|term| term != "dumb"),
        width,
        height,
    }
}

fn speaks_utf8(locale: Option<&str>) -> bool {
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales() {
        for (locale, expected) in [
            (Some("en_US.UTF-8"), true),
            (Some("C.utf8"), true),
            (Some("C"), false),
            (Some("de_DE.ISO-8859-1"), false),
            (None, false),
        ] {
            assert_eq!(speaks_utf8(locale), expected, "{locale:?}");
        }
    }
}
