//! `lagwise topics grow`.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{ArgGroup, Args};

use crate::cli::kafka_args::pick_cluster;
use crate::cli::{Output, print_error, write_output, wrong_usage};
use crate::config::Config;
use crate::kafka::topic_growth::{GrowError, sample_record_keys};
use crate::kafka::{ClientSettings, KafkaSource};
use crate::model::diagnostics::topic_growth::{MAX_PARTITIONS, needs_growth, plan_growth};
use crate::model::units::newtypes::TopicName;

/// The arguments of `lagwise topics grow`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("total").required(true).args(["partitions", "for_replicas"])))]
#[command(after_help = "Examples:\n  \
    lagwise topics grow orders --partitions 18 --config lagwise.yaml --dry-run\n  \
    lagwise topics grow orders --for-replicas 6 --threads-per-replica 3 --config lagwise.yaml --yes\n\n\
    A compacted topic, and one whose latest records have keys, is refused without --force: new records of a key may go \
    to another partition than the old ones. To see keys, the command reads up to ten records of up to 16 partitions, \
    for which the login needs Read on the topic. If it cannot read them, it refuses as well.\n\n\
    With --dry-run the broker checks the request and changes nothing. Where a service of a cloud provider refuses it, \
    the command says what to run there.\n\n\
    Exit code: 0 if the topic has as many partitions, or would have, 1 if it is refused or fails, 2 for wrong usage.")]
pub(super) struct GrowArgs {
    /// The topic
    topic: String,
    /// How many partitions it has afterwards
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    partitions: Option<u32>,
    /// As many partitions as this number of replicas can use
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    for_replicas: Option<u32>,
    /// Consumer threads in each replica
    #[arg(long, value_name = "N", default_value_t = 1, requires = "for_replicas", conflicts_with = "partitions", value_parser = clap::value_parser!(u32).range(1..=1000))]
    threads_per_replica: u32,
    /// Configuration file with the Kafka cluster
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The Kafka cluster of the topic; needed if the configuration has several
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only show what would change, and let the broker check it
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Also grow a topic that is compacted, whose records have keys, or whose configuration or records cannot be read
    #[arg(long)]
    force: bool,
    /// Timeout of Kafka
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::cli::timeout)]
    timeout: Duration,
}

impl GrowArgs {
    /// The number of partitions afterwards.
    fn total(&self) -> u32 {
        let replicas = self.for_replicas.unwrap_or_default();
        let for_replicas = replicas.saturating_mul(self.threads_per_replica);
        self.partitions.unwrap_or(for_replicas)
    }
}

pub(super) async fn run(args: GrowArgs) -> anyhow::Result<ExitCode> {
    let total = args.total();
    if total > MAX_PARTITIONS {
        return Err(wrong_usage(format!(
            "{total} partitions are more than {MAX_PARTITIONS}, the most that lagwise adds"
        )));
    }
    let config = Config::load(&args.config)?;
    let settings = ClientSettings::from(pick_cluster(&config, args.cluster.as_deref())?);
    let access = settings.access();
    let source = KafkaSource::connect(settings.clone())?;
    let topic = TopicName::from(args.topic.as_str());
    let deadline = || Instant::now() + args.timeout;
    let found = match source.topic_to_grow(&topic, deadline()).await {
        Ok(found) => found,
        Err(error) => bail!("topic {topic}: {}", explain(&source, &error)),
    };
    if !needs_growth(&found, total, args.force)? {
        let text = format!("topic {topic} has {total} partitions already\n");
        write_output(Output::Table, &text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let keys = match args.force {
        true => None,
        false => {
            Some(sample_record_keys(settings, topic.clone(), found.partitions, deadline()).await)
        }
    };
    write_output(Output::Table, &plan_growth(&found, total, keys.as_ref())?)?;
    if !args.dry_run && !args.yes && !confirm()? {
        print_error("nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    let grown = source.grow_topic(&topic, total, args.dry_run, deadline());
    match grown.await {
        Ok(()) => {
            let done = match args.dry_run {
                true => "the broker would add them; nothing was changed\n",
                false => "done\n",
            };
            write_output(Output::Table, done)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            print_error(&format!("topic {topic}: {}", explain(&source, &error)));
            if error.is_refusal()
                && let Some(command) = access.grow_command(&args.topic, total)
            {
                print_error(&format!("on this service: {command}"));
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn explain(source: &KafkaSource, error: &GrowError) -> String {
    match error {
        GrowError::Fault(fault) if fault.is_connection() => {
            let reason = source.connection_reason();
            reason.unwrap_or_else(|| error.to_string())
        }
        _ => error.to_string(),
    }
}

/// Asks for confirmation on a terminal.
fn confirm() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "standard input is not a terminal, so the change cannot be confirmed; use --yes, or --dry-run to see what would change"
        );
    }
    write_output(Output::Table, "Add them? Type yes: ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::SystemEnvironment;

    #[derive(Debug, Parser)]
    struct GrowCli {
        #[command(flatten)]
        grow: GrowArgs,
    }

    fn parsed(args: &[&str]) -> Result<GrowArgs, clap::Error> {
        let args = [&["grow", "orders", "--config", "f"], args].concat();
        GrowCli::try_parse_from(args).map(|cli| cli.grow)
    }

    #[test]
    fn the_total_follows_from_partitions_or_replicas() {
        let total = |args: &[&str]| parsed(args).map(|args| args.total()).ok();
        assert_eq!(total(&["--partitions", "18"]), Some(18));
        assert_eq!(total(&["--for-replicas", "6"]), Some(6));
        let threads = ["--for-replicas", "6", "--threads-per-replica", "3"];
        assert_eq!(total(&threads), Some(18));
        for wrong in [
            &[][..],
            &["--partitions", "0"],
            &["--partitions", "10001"],
            &["--partitions", "2", "--for-replicas", "2"],
            &["--partitions", "2", "--threads-per-replica", "2"],
        ] {
            assert_eq!(total(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_cluster_is_chosen_only_if_it_is_unambiguous() {
        let config = |names: &[&str]| {
            let clusters = names.iter().map(|name| {
                format!("{{name: {name}, properties: {{bootstrap.servers: 'k:9092'}}}}")
            });
            let clusters: Vec<_> = clusters.collect();
            let text = format!("clusters: [{}]", clusters.join(", "));
            Config::parse(&text, &SystemEnvironment).unwrap()
        };
        let picked = |names: &[&str], name: Option<&str>| {
            let config = config(names);
            let picked = pick_cluster(&config, name).map(|cluster| cluster.name.to_string());
            picked.map_err(|error| error.to_string())
        };
        assert_eq!(picked(&["a"], None), Ok("a".into()));
        assert_eq!(picked(&["a", "b"], Some("b")), Ok("b".into()));
        let unclear = picked(&["a", "b"], None).unwrap_err();
        assert!(
            unclear.ends_with("choose one with --cluster: a, b"),
            "{unclear}"
        );
        let unknown = picked(&["a"], Some("c")).unwrap_err();
        assert_eq!(unknown, "--cluster c: not in the configuration; it has: a");
    }
}
