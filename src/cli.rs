//! The command line: one file per command. Commands only print; decisions are made elsewhere.

pub mod check;
pub mod config;
pub mod convert;
mod daemon_client;
pub mod demo;
pub mod explain;
mod kafka_args;
mod kube_args;
pub mod lag;
pub mod lint;
mod manifest_files;
pub mod page;
pub mod record;
pub mod release;
mod repeated_output;
pub mod run;
pub mod shadow;
pub mod simulate;
mod single_reading;
pub mod status;
mod text_table;
pub mod topics;
mod trace_text;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::kafka::{Feature, librdkafka_version};
use crate::model::units::untrusted_text::{printable_json, printable_lines, printable_yaml};

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let built_in = Feature::ALL
        .into_iter()
        .filter(|feature| feature.is_built_in());
    let built_in: Vec<_> = built_in.map(Feature::name).collect();
    let features = match built_in.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    format!(
        "{} (librdkafka {}; features: {features})",
        env!("CARGO_PKG_VERSION"),
        librdkafka_version()
    )
});

/// Kafka-native autoscaling for Kubernetes: consumer lag as an external metric for the HPA, never
/// more replicas than the consumer group can use
#[derive(Debug, Parser)]
#[command(name = "lagwise", version = VERSION.as_str(), arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::RunArgs),
    /// Run a self-contained demo: the daemon, an embedded Kafka and a simulated HPA in one process
    Demo(demo::DemoArgs),
    /// Check that Kafka, Kubernetes and the configuration are as lagwise needs them
    Check(check::PreflightArgs),
    /// Show the lag of consumer groups, their members and rates
    Lag(lag::LagArgs),
    /// Show the state of each HPA in one line
    Status(status::StatusArgs),
    /// Open the page of the running daemon in a browser
    Page(page::PageArgs),
    /// Check HPAs, consumer groups and workloads for mistakes, on the cluster or in files
    Lint(lint::LintArgs),
    /// Convert KEDA's ScaledObjects with Kafka triggers to HPAs and to configuration
    Convert(convert::ConvertArgs),
    /// Compare the replicas by KEDA with those by lagwise, while KEDA scales
    Shadow(shadow::ShadowArgs),
    /// Explain how the replicas of an HPA are derived, starting from the offsets
    Explain(explain::ExplainArgs),
    /// Record what happens to a consumer group, to simulate scaling policies on it
    Record(record::RecordArgs),
    /// Simulate scaling policies on a consumer group, and compare what they cost
    Simulate(simulate::SimulateArgs),
    /// Compare topics with the replicas of HPAs, and add partitions
    Topics(topics::TopicsArgs),
    /// Undo what the cap and scale to zero have written to HPAs and workloads
    Release(release::ReleaseArgs),
    /// Check a configuration file, or print its JSON Schema
    Config(config::ConfigArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  lagwise completions bash > /etc/bash_completion.d/lagwise")]
    Completions {
        /// Shell to print the script for
        shell: clap_complete::Shell,
    },
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

impl Output {
    /// Serializes the value for machines; `None` for a table.
    fn serialize(self, value: &impl Serialize) -> anyhow::Result<Option<String>> {
        Ok(match self {
            Output::Table => None,
            Output::Json => {
                let text = serde_json::to_string_pretty(value)?;
                Some(format!("{}\n", printable_json(&text)))
            }
            Output::Yaml => {
                let yaml = serde_saphyr::to_string(value)?;
                let text = printable_yaml(yaml, || serde_json::to_string_pretty(value))?;
                Some(format!("{}\n", text.trim_end()))
            }
        })
    }
}

/// Parses the command line, runs the command, and returns the exit code.
///
/// It is here and not in the binary, since an async function is compiled in the crate that polls it: polling it in the
/// binary would compile everything twice.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(cli.run());
    // A blocking read of Kafka may still wait for its deadline; do not wait for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome.unwrap_or_else(|error| fail(&error))
}

/// Two threads suffice. With one per core the allocator would keep memory for each.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

fn fail(error: &anyhow::Error) -> ExitCode {
    print_error(&error_text(error));
    match error.downcast_ref::<WrongUsage>() {
        Some(_) => ExitCode::from(WRONG_USAGE),
        None => ExitCode::FAILURE,
    }
}

/// Exit code of wrong usage, as by clap.
const WRONG_USAGE: u8 = 2;

/// An argument that clap accepts, but that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

/// An error that ends the command with the exit code of wrong usage.
fn wrong_usage(message: impl Into<String>) -> anyhow::Error {
    WrongUsage(message.into()).into()
}

impl Cli {
    /// Runs the command. Findings are reported through the exit code.
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Lag(args) => lag::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Page(args) => page::run(args).await,
            Command::Lint(args) => lint::run(args).await,
            Command::Convert(args) => convert::run(args).await,
            Command::Shadow(args) => shadow::run(args).await,
            Command::Explain(args) => explain::run(args).await,
            Command::Record(args) => record::run(args).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Topics(args) => topics::run(args).await,
            Command::Release(args) => release::run(args).await,
            Command::Config(args) => config::run(args).await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "lagwise", &mut script);
                write_stdout(&script)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Writes a command's output. A closed pipe (`| head`) ends the command quietly.
fn print_output(output: Output, text: &str) -> anyhow::Result<ExitCode> {
    write_output(output, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a command's output; `false` if standard output is closed. Untrusted text in tables is escaped. JSON and YAML
/// have their own escapes, which must not be escaped again.
fn write_output(output: Output, text: &str) -> io::Result<bool> {
    match output {
        Output::Table => write_stdout(printable_lines(text).as_bytes()),
        Output::Json | Output::Yaml => write_stdout(text.as_bytes()),
    }
}

/// Writes an error to standard error.
fn print_error(text: &str) {
    // If standard error is closed, the exit code still reports the failure.
    let _ = writeln!(io::stderr().lock(), "lagwise: {}", printable_lines(text));
}

/// The text of an error with its causes. Many errors contain the text of their cause, which is not repeated.
fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(cause.trim()) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Columns and lines of the terminal; the usual ones if it does not report them.
fn terminal_size() -> (usize, usize) {
    let size = terminal_size::terminal_size();
    size.map_or((80, 24), |(width, height)| {
        (width.0.into(), height.0.into())
    })
}

/// Writes to standard output; `false` if it is closed.
fn write_stdout(bytes: &[u8]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Parses a timeout, at most an hour: adding an arbitrary duration to a clock could overflow. With none, nothing could
/// answer in time.
fn timeout(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(1);
    let timeout = duration_within(text, least, Duration::MAX, "at least 1ms")?;
    Ok(timeout.min(Duration::from_secs(3600)))
}

/// Parses a duration from `least` to `most`; an error names this range.
fn duration_within(
    text: &str,
    least: Duration,
    most: Duration,
    range: &str,
) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("must be {range}")),
        Err(_) if text.starts_with('-') => Err(format!("must be {range}")),
        Err(error) => Err(format!("{error}; must be {range}")),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::model::units::untrusted_text::is_safe;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot use the file: {source}; choose another")]
    struct Outer {
        source: io::Error,
    }

    #[test]
    fn output_for_machines_shows_no_text_that_hides() {
        let names = [
            "orders\u{202e}lagwise",
            "pay\u{200b}ments",
            "\u{feff}a\u{e0061}",
        ];
        for name in names {
            let value = serde_json::json!([{"group": name, "lag": 5, "message": "a: b\nc"}]);
            for output in [Output::Json, Output::Yaml] {
                let text = output.serialize(&value).unwrap().unwrap();
                let is_shown = |c: char| c == '\n' || is_safe(c);
                assert!(text.chars().all(is_shown), "{output:?}: {text:?}");
                let read: serde_json::Value = match output {
                    Output::Json => serde_json::from_str(&text).unwrap(),
                    _ => serde_saphyr::from_str(&text).unwrap(),
                };
                assert_eq!(read, value, "{text}");
            }
        }
        let plain = Output::Yaml.serialize(&serde_json::json!({"group": "größe"}));
        assert_eq!(plain.unwrap().unwrap(), "group: größe\n");
    }

    /// The commands below this one, and itself.
    fn all_commands(command: &clap::Command) -> Vec<&clap::Command> {
        let below = command.get_subcommands().flat_map(all_commands);
        std::iter::once(command).chain(below).collect()
    }

    #[test]
    fn examples_are_not_broken_in_the_help() {
        for command in all_commands(&Cli::command()) {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let examples = help.lines().filter(|line| line.starts_with("  "));
            for example in examples {
                assert!(
                    example.chars().count() <= 100,
                    "{}: {example}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn wrong_usage_has_an_exit_code_of_its_own() {
        for error in [
            wrong_usage("--seed: too large"),
            wrong_usage("no such scenario").context("--scenario x"),
        ] {
            assert_eq!(fail(&error), ExitCode::from(2), "{error}");
        }
        let other = anyhow::anyhow!("no response").context("--from-prometheus x");
        assert_eq!(fail(&other), ExitCode::FAILURE);
    }

    #[test]
    fn a_timeout_has_a_minimum() {
        assert_eq!(timeout("1ms"), Ok(Duration::from_millis(1)));
        for wrong in ["0s", "0ms", "1us", "-5s"] {
            let expected = Err("must be at least 1ms".to_owned());
            assert_eq!(timeout(wrong), expected, "{wrong}");
        }
        let error = timeout("soon").unwrap_err();
        assert!(error.ends_with("; must be at least 1ms"), "{error}");
    }

    #[test]
    fn an_error_is_printed_once_with_its_causes() {
        let repeats = Err::<(), _>(Outer {
            source: io::Error::other("no such file"),
        });
        let repeats = repeats.context("cannot start").unwrap_err();
        assert_eq!(
            error_text(&repeats),
            "cannot start: cannot use the file: no such file; choose another"
        );
        let adds = Err::<(), _>(io::Error::other("timed out")).context("cannot list the HPAs");
        let text = error_text(&adds.unwrap_err());
        assert_eq!(text, "cannot list the HPAs: timed out");
    }
}
