//! `lagwise lag`: current lag of consumer groups, of whole clusters.

mod csv;
pub(super) mod name_filter;
mod notes;
pub(super) mod reading;
mod rows;
mod table;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args, ValueEnum};
use serde::Serialize;

use self::name_filter::NameFilter;
use self::reading::{ClusterReader, ClusterReading, LagRequest, MAX_GROUPS_AT_ONCE};
use self::rows::{RowLag, SortKey, group_rows, partition_rows, sort_rows};
use self::table::{group_table, partition_table, useful_parallelism_lines};
use super::kafka_args::KafkaArgs;
use super::repeated_output::{WATCH_INTERVAL, print_again, watch_header};
use super::run::Signals;
use super::{Output, duration_within, print_error, write_output};
use crate::kafka::ClientSettings;

/// The arguments of `lagwise lag`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("where").required(true).args(["bootstrap", "config"])))]
#[command(after_help = "Examples:\n  \
    lagwise lag --bootstrap localhost:9092 --top 10\n  \
    lagwise lag --bootstrap kafka:9094 -X security.protocol=SSL -X ssl.ca.location=ca.pem -g orders\n  \
    lagwise lag --config lagwise.yaml --group 'orders-*' --partitions --sort time\n  \
    lagwise lag --config lagwise.yaml --group orders --for 30s\n  \
    lagwise lag --config lagwise.yaml --cluster main --topic orders -o json | jq 'map(.lag) | add'\n  \
    lagwise lag --config lagwise.yaml --watch --for 10s\n\n\
    A table has a row for each group, or for each partition if only names of groups are given with --group. The \
    other outputs have a row for each partition. --partitions and --summary choose.\n\n\
    LAG is counted as by Kafka's own tool: a partition without a committed offset has none. USEFUL is the largest \
    number of members that can have work at the same time. DRAIN is the time until the lag is gone at these rates; \
    never if it does not shrink. In a pattern, * stands for any characters.\n\n\
    Exit code: 0 if all that was asked for is known, 1 if some of it is unknown or a pattern matches nothing (the \
    rest is still printed), 2 for wrong usage. A partition without a committed offset is not unknown.")]
pub struct LagArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Only this consumer group, or the groups of a pattern such as 'orders-*'; may be repeated
    #[arg(short, long, value_name = "GROUP")]
    group: Vec<String>,
    /// Only this topic, or the topics of a pattern such as 'orders-*'; may be repeated
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// A row for each partition
    #[arg(long, conflicts_with = "summary")]
    partitions: bool,
    /// A row for each group
    #[arg(long)]
    summary: bool,
    /// Order of the rows; with --top by lag, otherwise by group
    #[arg(long, value_enum, value_name = "KEY", hide_default_value = true)]
    sort: Option<SortKey>,
    /// Only the first N rows
    #[arg(long, value_name = "N", value_parser = positive)]
    top: Option<usize>,
    /// Read twice, this long apart (1s to 1h), and show rates and the time to drain
    #[arg(long = "for", value_name = "DURATION", value_parser = rate_interval, allow_hyphen_values = true)]
    rates_over: Option<Duration>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = LagOutput::Table)]
    output: LagOutput,
    /// Read and print again every two seconds, or every --for, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Timeout of Kafka
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
}

/// Output format of `lagwise lag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LagOutput {
    /// Text for people
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Comma-separated values with a header; names like =1+1 get a ' in front
    Csv,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a number from 1".into()),
    }
}

fn rate_interval(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(3600));
    duration_within(text, least, most, "1s to 1h")
}

impl LagArgs {
    fn request(&self) -> LagRequest {
        LagRequest {
            groups: NameFilter::new(&self.group),
            topics: NameFilter::new(&self.topic),
        }
    }

    /// Whether to print a row for each group instead of each partition.
    fn is_summary(&self, request: &LagRequest) -> bool {
        let by_default = self.output == LagOutput::Table && request.groups.needs_list();
        self.summary || (by_default && !self.partitions)
    }

    fn sort_key(&self) -> SortKey {
        let default = match self.top {
            Some(_) => SortKey::Lag,
            None => SortKey::Group,
        };
        self.sort.unwrap_or(default)
    }

    fn interval(&self) -> Duration {
        self.rates_over.unwrap_or(WATCH_INTERVAL)
    }
}

/// Runs `lagwise lag`.
///
/// # Errors
/// An unusable configuration.
pub async fn run(args: LagArgs) -> anyhow::Result<ExitCode> {
    let request = args.request();
    let mut readers = Vec::new();
    for settings in clusters(&args)? {
        let reader = ClusterReader::new(settings);
        readers.push(reader.map_err(|error| args.kafka.setting_error(error))?);
    }
    if !args.watch {
        let mut before = Vec::new();
        if let Some(interval) = args.rates_over {
            before = read_all(&mut readers, &request, args.timeout).await?;
            tokio::time::sleep(interval).await;
        }
        let readings = read_all(&mut readers, &request, args.timeout).await?;
        let (exit, _) = print_readings(&args, &request, &readings, &before)?;
        return Ok(exit);
    }
    let mut signals = Signals::new()?;
    let mut exit = ExitCode::SUCCESS;
    let mut before = Vec::new();
    loop {
        let readings = tokio::select! {
            readings = read_all(&mut readers, &request, args.timeout) => readings?,
            () = signals.next() => return Ok(exit),
        };
        let (code, has_reader) = print_readings(&args, &request, &readings, &before)?;
        exit = code;
        if !has_reader {
            return Ok(exit);
        }
        if args.rates_over.is_some() {
            before = readings;
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval()) => {}
            () = signals.next() => return Ok(exit),
        }
    }
}

async fn read_all(
    readers: &mut [ClusterReader],
    request: &LagRequest,
    timeout: Duration,
) -> anyhow::Result<Vec<ClusterReading>> {
    let readings = readers.iter_mut();
    let readings = readings.map(|reader| reader.read(request, timeout));
    futures::future::try_join_all(readings).await
}

fn clusters(args: &LagArgs) -> anyhow::Result<Vec<ClientSettings>> {
    let configured = args.kafka.clusters()?;
    let settings = configured.iter().map(|cluster| ClientSettings {
        max_groups: MAX_GROUPS_AT_ONCE,
        ..ClientSettings::from(cluster)
    });
    Ok(settings.collect())
}

/// The text to print, and whether all of it is known.
struct RenderedRows {
    text: String,
    is_known: bool,
    is_empty: bool,
}

/// Prints readings. Returns the exit code, and whether the output is still open.
fn print_readings(
    args: &LagArgs,
    request: &LagRequest,
    readings: &[ClusterReading],
    before: &[ClusterReading],
) -> anyhow::Result<(ExitCode, bool)> {
    let rendered = render(args, request, readings, before)?;
    let unknown = readings.iter().flat_map(|reading| &reading.unknown);
    let unknown: Vec<&str> = unknown.map(String::as_str).collect();
    let is_table = args.output == LagOutput::Table;
    let mut text = rendered.text;
    if is_table && rendered.is_empty && !unknown.is_empty() {
        text = String::new();
    }
    let exit = match rendered.is_known && unknown.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    if is_table && args.watch {
        let header = header(args, SystemTime::now());
        return Ok((exit, print_again(&header, &text, &unknown)?));
    }
    let has_reader = match args.output {
        // Both escape untrusted text.
        LagOutput::Table | LagOutput::Csv => write_output(Output::Table, &text)?,
        LagOutput::Json | LagOutput::Yaml => write_output(Output::Json, &text)?,
    };
    unknown.iter().for_each(|unknown| print_error(unknown));
    Ok((exit, has_reader))
}

/// The line above each table of `--watch`.
fn header(args: &LagArgs, now: SystemTime) -> String {
    let rates = match args.rates_over {
        Some(_) => ", rates since the reading before",
        None => "",
    };
    watch_header("lag", now, args.interval()) + rates
}

/// Formats the selected rows: groups or partitions.
fn render(
    args: &LagArgs,
    request: &LagRequest,
    readings: &[ClusterReading],
    before: &[ClusterReading],
) -> anyhow::Result<RenderedRows> {
    let with_rates = args.rates_over.is_some();
    if args.is_summary(request) {
        return render_rows(
            args,
            group_rows(request, readings, before),
            |rows, all| group_table(rows, all, with_rates),
            csv::group_csv,
        );
    }
    render_rows(
        args,
        partition_rows(request, readings, before),
        |rows, all| {
            let table = partition_table(rows, all, with_rates);
            // For whole clusters the table suffices.
            match request.groups.needs_list() {
                true => table,
                false => table + &useful_parallelism_lines(rows),
            }
        },
        csv::partition_csv,
    )
}

/// Sorts, cuts and formats rows. `table` also takes their number before `--top`.
fn render_rows<R: RowLag + Serialize>(
    args: &LagArgs,
    mut rows: Vec<R>,
    table: impl FnOnce(&[R], usize) -> String,
    csv: impl FnOnce(&[R]) -> String,
) -> anyhow::Result<RenderedRows> {
    let all = rows.len();
    let is_known = !rows.iter().any(R::is_unknown);
    sort_rows(&mut rows, args.sort_key());
    rows.truncate(args.top.unwrap_or(usize::MAX));
    Ok(RenderedRows {
        text: match args.output {
            LagOutput::Table => table(&rows, all),
            LagOutput::Csv => csv(&rows),
            LagOutput::Json => Output::Json.serialize(&rows)?.unwrap_or_default(),
            LagOutput::Yaml => Output::Yaml.serialize(&rows)?.unwrap_or_default(),
        },
        is_known,
        is_empty: all == 0,
    })
}

#[cfg(test)]
mod tests;
