//! `lagwise record`: writes what happens to a consumer group into a trace, which `lagwise simulate --trace` replays.

mod group_source;
mod trace_file;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::group_source::GroupSource;
use self::trace_file::{Appended, TraceFile};
use super::daemon_client::DaemonArgs;
use super::kafka_args::KafkaArgs;
use super::kube_args::KubeArgs;
use super::run::Signals;
use super::{duration_within, error_text, print_error};
use crate::model::units::counted::counted;
use crate::model::units::short_duration::short_duration;

/// The arguments of `lagwise record`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("where").required(true).args(["bootstrap", "config", "daemon"])))]
#[command(after_help = "Examples:\n  \
    lagwise record orders.jsonl --group orders --bootstrap localhost:9092 --for 1h\n  \
    lagwise record orders.jsonl --group orders --config lagwise.yaml --append\n  \
    lagwise record orders.jsonl --group orders --daemon\n  \
    lagwise simulate --trace orders.jsonl\n\n\
    Each line of FILE is a sample: the log end and the committed offset of each partition, and the number of members. \
    Each line is written at once, so you can interrupt the recording at any time. A recording ends after --for, when \
    interrupted, or when FILE has 128 MiB or 8 million pairs of offsets. With 100 partitions and the default \
    interval, that is about four days.\n\n\
    Topics that cannot be read are left out of a sample. If no topic can be read, no sample is written. Each reason is \
    printed once, and again if it recurs after a complete reading. lagwise simulate bridges such gaps.\n\n\
    Exit code: 0 if FILE has at least one new sample, 1 if it has none or an error ended the recording, 2 for wrong \
    usage.")]
pub struct RecordArgs {
    /// Trace to write; it must not exist, except with --append
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Consumer group to record
    #[arg(short, long, value_name = "GROUP")]
    group: String,
    /// Only this topic, or the topics of a pattern such as 'orders-*'; may be repeated
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    kube: KubeArgs,
    /// Time between two samples, 1s to 5m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = sample_interval, allow_hyphen_values = true)]
    interval: Duration,
    /// Time to record, 1s to 31d [default: until interrupted]
    #[arg(long = "for", value_name = "DURATION", value_parser = whole_time, allow_hyphen_values = true)]
    whole: Option<Duration>,
    /// Continue a trace of the same group
    #[arg(long)]
    append: bool,
    /// Timeout of each reading
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
}

fn sample_interval(text: &str) -> Result<Duration, String> {
    duration_within(
        text,
        Duration::from_secs(1),
        Duration::from_secs(300),
        "1s to 5m",
    )
}

fn whole_time(text: &str) -> Result<Duration, String> {
    duration_within(
        text,
        Duration::from_secs(1),
        Duration::from_secs(31 * 86_400),
        "1s to 31d",
    )
}

/// Runs `lagwise record`.
///
/// # Errors
/// A group that cannot be read at first, or a file that cannot be written.
pub async fn run(args: RecordArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut source = GroupSource::new(&args)?;
    // Read before the file is made, so that a wrong name leaves no empty file.
    let first = tokio::select! {
        sample = source.read() => sample?,
        () = signals.next() => return Ok(ExitCode::FAILURE),
    };
    let mut file = TraceFile::open(&args.file, args.append, &args.group, source.cluster())?;
    let clock = RecordingClock::start();
    let mut recorded = u64::from(file.append(&first, clock.now())? == Appended::Written);
    print_error(&format!(
        "recording group {} into {}, a sample every {}; press Ctrl+C to end",
        args.group,
        args.file.display(),
        short_duration(args.interval)
    ));
    let end = clock.start + args.whole.unwrap_or(Duration::from_secs(366 * 86_400));
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    ticks.tick().await;
    let mut printed = PrintedReasons::default();
    print_reasons(printed.add(first.missing));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(end) => break,
            () = signals.next() => break,
        }
        let sample = tokio::select! {
            sample = source.read() => sample,
            () = signals.next() => break,
        };
        let sample = match sample {
            Ok(sample) => sample,
            Err(error) => {
                print_reasons(printed.add(vec![error_text(&error)]));
                continue;
            }
        };
        let appended = file.append(&sample, clock.now())?;
        print_reasons(printed.add(sample.missing));
        match appended {
            Appended::Written => recorded += 1,
            // A daemon polls Kafka less often than this command polls the daemon.
            Appended::Known => {}
            Appended::Full => {
                print_error(&format!(
                    "{}: full, because lagwise simulate reads at most this much; continue in another file",
                    args.file.display()
                ));
                break;
            }
        }
    }
    print_error(&format!(
        "recorded {} in {} into {}",
        counted(recorded, "sample"),
        short_duration(clock.start.elapsed()),
        args.file.display()
    ));
    Ok(match recorded {
        0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// Maximum number of reasons that are printed before a reading is complete. They have addresses of brokers, so brokers
/// decide how many there are.
const MAX_PRINTED_REASONS: usize = 200;

/// The reasons that were printed since the last complete reading.
#[derive(Debug, Default)]
struct PrintedReasons(BTreeSet<String>);

impl PrintedReasons {
    /// Adds the reasons why a reading is not complete, and returns those to print.
    fn add(&mut self, reasons: Vec<String>) -> Vec<String> {
        if reasons.is_empty() {
            self.0.clear();
        }
        let mut new = Vec::new();
        for reason in reasons {
            if self.0.len() < MAX_PRINTED_REASONS && self.0.insert(reason.clone()) {
                new.push(reason);
                if self.0.len() == MAX_PRINTED_REASONS {
                    new.push(
                        "further reasons are not printed before a reading is complete".to_owned(),
                    );
                }
            }
        }
        new
    }
}

fn print_reasons(reasons: Vec<String>) {
    for reason in reasons {
        print_error(&reason);
    }
}

/// The wall clock at the start, and the monotonic clock since: the times of a trace never go back.
struct RecordingClock {
    wall: Duration,
    start: Instant,
}

impl RecordingClock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            wall: wall.unwrap_or_default(),
            start: Instant::now(),
        }
    }

    /// Milliseconds since 1970.
    fn now(&self) -> u64 {
        u64::try_from((self.wall + self.start.elapsed()).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_printed_once_until_a_reading_is_complete() {
        let mut printed = PrintedReasons::default();
        for (reasons, expected) in [
            (&["a"][..], &["a"][..]),
            (&["a"], &[]),
            (&["b", "a"], &["b"]),
            (&["a"], &[]),
            (&["b"], &[]),
            (&[], &[]),
            (&["b", "b"], &["b"]),
            (&[], &[]),
            (&["a", "b"], &["a", "b"]),
        ] {
            let reasons = reasons.iter().map(|reason| (*reason).to_owned());
            assert_eq!(printed.add(reasons.collect()), expected);
        }
    }

    #[test]
    fn a_limited_number_of_reasons_is_printed() {
        let mut printed = PrintedReasons::default();
        let reasons = |from: usize| (from..from + 150).map(|n| format!("broker {n}")).collect();
        assert_eq!(printed.add(reasons(0)).len(), 150);
        let last = printed.add(reasons(100));
        assert_eq!(last.len(), 51);
        assert!(last[50].starts_with("further reasons"), "{last:?}");
        assert!(printed.add(reasons(400)).is_empty());
        printed.add(Vec::new());
        assert_eq!(printed.add(reasons(400)).len(), 150);
    }
}
