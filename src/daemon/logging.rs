//! Sets up logging.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};
use crate::model::units::untrusted_text::{printable_json, write_escaped};

/// Writes log lines to standard error, as configured; in colour only on a terminal and if
/// `NO_COLOR` is not set.
pub fn init_logging(config: &LogConfig) {
    // kube logs every failed attempt of a watch. lagwise logs each failure once (`telemetry::WatchLost`).
    // HTTP and TLS libraries log headers, including tokens, at fine levels, so a global level does
    // not apply to them. A configured directive for the same target comes later and wins.
    let filter = EnvFilter::new(format!(
        "kube_client=off,kube_runtime=off,h2=info,hyper=info,hyper_util=info,rustls=info,\
         tokio_rustls=info,axum=info,tower=info,{}",
        config.filter
    ));
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour);
    match config.format {
        LogFormat::Text => {
            let writer = move || EscapedLines {
                to: io::stderr(),
                escape: move |line: &str| escape_text_line(line, colour),
            };
            lines.with_writer(writer).init();
        }
        LogFormat::Json => {
            let writer = || EscapedLines {
                to: io::stderr(),
                escape: printable_json,
            };
            lines.with_writer(writer).json().init();
        }
    }
}

/// Escapes log lines on their way to `to`, because they quote text of brokers and tenants. Relies on the subscriber to
/// write each line with one call.
struct EscapedLines<W, E> {
    to: W,
    escape: E,
}

impl<W: Write, E: Fn(&str) -> String> Write for EscapedLines<W, E> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = (self.escape)(&String::from_utf8_lossy(bytes));
        self.to.write_all(line.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Escapes control characters within a line. If the subscriber colours its lines (`colour`), colour sequences stay.
fn escape_text_line(line: &str, colour: bool) -> String {
    let mut rest = line.strip_suffix('\n').unwrap_or(line);
    let mut printable = String::with_capacity(line.len().saturating_add(1));
    loop {
        let coloured = if colour { colour_sequence(rest) } else { None };
        if let Some((sequence, after)) = coloured {
            printable.push_str(sequence);
            rest = after;
            continue;
        }
        let mut characters = rest.chars();
        let Some(character) = characters.next() else {
            break;
        };
        // Writing to a String does not fail.
        let _ = write_escaped(&mut printable, character);
        rest = characters.as_str();
    }
    printable.push('\n');
    printable
}

/// The escape sequence for a colour or a style at the beginning of the text, and the text after it.
fn colour_sequence(text: &str) -> Option<(&str, &str)> {
    let parameters = text.strip_prefix("\x1b[")?;
    let after = parameters.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
    let after = after.strip_prefix('m')?;
    text.split_at_checked(text.len().checked_sub(after.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log_buffer::LogBuffer;

    /// The log line of an event that has `message` as its text and in fields of three kinds.
    fn log_line(message: &str, colour: bool) -> String {
        let log = LogBuffer::default();
        let to = log.clone();
        let writer = move || EscapedLines {
            to: to.clone(),
            escape: move |line: &str| escape_text_line(line, colour),
        };
        let subscriber = tracing_subscriber::fmt()
            .with_writer(writer)
            .with_ansi(colour)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(shown = %message, debug = ?message, text = message, "{message}");
        });
        log.text()
    }

    #[test]
    fn json_has_no_control_characters() {
        let log = LogBuffer::default();
        let to = log.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || EscapedLines {
            to: to.clone(),
            escape: printable_json,
        });
        tracing::subscriber::with_default(lines.json().finish(), || {
            tracing::warn!(text = "\u{9b}2J\r\n\u{202e}", "\x1b[2J");
        });
        let line = log.text();
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(line.ends_with('\n'), "{line:?}");
        assert!(line.contains(r"\u009b2J\r\n\u202e"), "{line:?}");
        assert!(line.contains(r"\u001b[2J"), "{line:?}");
    }

    #[test]
    fn untrusted_text_neither_forges_lines_nor_reaches_the_terminal() {
        let hostile = [
            "a\r\n2026-01-01T00:00:00Z ERROR lagwise: forged",
            "a\n\nb",
            "\x1b[2J\x1b]0;title\x07",
            "\u{9b}2J",
            "\u{202e}reversed",
        ];
        for message in hostile {
            for colour in [false, true] {
                let line = log_line(message, colour);
                assert_eq!(line.matches('\n').count(), 1, "{line:?}");
                assert!(line.ends_with('\n'), "{line:?}");
                for sequence in ["\x1b[2J", "\x1b]", "\x07", "\r", "\u{9b}", "\u{202e}"] {
                    assert!(!line.contains(sequence), "{sequence:?} in {line:?}");
                }
                assert_eq!(line.contains('\x1b'), colour, "{line:?}");
            }
        }
    }
}
