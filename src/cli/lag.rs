//! `lagwise lag`: current lag per partition, of whole clusters.

mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};

use self::table::{TableRow, bounds, row, table};
use super::{Output, clear_screen, print_error, print_output};
use crate::config::{ClusterConfig, Config, Properties, SystemEnvironment};
use crate::kafka::{ClientKind, ClientSettings, KafkaSource};
use crate::model::evaluation::topic_selection::whole_parallelism;
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot};
use crate::model::units::newtypes::{GroupId, TopicName};
use crate::poller::OffsetSource;

/// Name of a cluster given by its address.
const DEFAULT_CLUSTER: &str = "default";

/// Groups read at once with librdkafka, where each costs a client.
const MAX_GROUPS_AT_ONCE: usize = 50;

/// The arguments of `lagwise lag`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("where").required(true).args(["bootstrap", "config"])))]
#[command(after_help = "Examples:\n  \
    lagwise lag --bootstrap localhost:9092\n  \
    lagwise lag --bootstrap kafka:9094 -X security.protocol=SSL -X ssl.ca.location=ca.pem --group orders\n  \
    lagwise lag --config lagwise.yaml --cluster main --topic orders -o json | jq 'map(.lag) | add'\n  \
    lagwise lag --config lagwise.yaml --watch\n\n\
    Exit code: 0 if all is known, 1 if some requested lag is unknown (the rest is still printed), 2 for wrong usage.")]
pub struct LagArgs {
    /// Address of the Kafka cluster: HOST:PORT, several separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Configuration file whose clusters to read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this cluster of the configuration; may be repeated
    #[arg(long, value_name = "NAME", requires = "config")]
    cluster: Vec<String>,
    /// Only this consumer group; may be repeated
    #[arg(short, long, value_name = "GROUP")]
    group: Vec<String>,
    /// Only this topic; may be repeated
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// A librdkafka property; the value may refer to ${env:NAME} or ${file:PATH}
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = key_value)]
    property: Vec<(String, String)>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Read and print again every two seconds, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Timeout of Kafka
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as security.protocol=SSL".into()),
    }
}

/// Result of one reading.
#[derive(Debug, Default)]
struct LagResult {
    /// Snapshots per cluster and batch of groups.
    read: Vec<(String, std::sync::Arc<ClusterSnapshot>)>,
    /// Requested data that is completely unknown.
    unknown: BTreeSet<String>,
}

/// Runs `lagwise lag`.
///
/// # Errors
/// An unusable configuration.
pub async fn run(args: LagArgs) -> anyhow::Result<ExitCode> {
    let clusters = clusters(&args)?;
    loop {
        let mut found = LagResult::default();
        for settings in &clusters {
            read(settings, &args, &mut found).await?;
        }
        let exit = print_result(&args, &found)?;
        if !args.watch {
            return Ok(exit);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            interrupted = tokio::signal::ctrl_c() => return interrupted.map(|()| exit).context("no signals"),
        }
    }
}

fn clusters(args: &LagArgs) -> anyhow::Result<Vec<ClientSettings>> {
    let mut configured = match (&args.config, &args.bootstrap) {
        (Some(path), _) => Config::load(path)?.clusters,
        (None, bootstrap) => {
            let mut properties = Properties::default();
            properties.insert("bootstrap.servers", bootstrap.clone().unwrap_or_default());
            vec![ClusterConfig::new(DEFAULT_CLUSTER.into(), properties)]
        }
    };
    for name in &args.cluster {
        if !configured
            .iter()
            .any(|cluster| cluster.name.as_str() == name)
        {
            let known: Vec<_> = configured
                .iter()
                .map(|cluster| cluster.name.as_str())
                .collect();
            bail!(
                "--cluster {name}: not in the configuration; it has: {}",
                known.join(", ")
            );
        }
    }
    configured.retain(|cluster| {
        args.cluster.is_empty() || args.cluster.iter().any(|n| n == cluster.name.as_str())
    });
    for (key, value) in &args.property {
        for cluster in &mut configured {
            let set = cluster.properties.set(key, value, &SystemEnvironment);
            if let Err(problems) = set {
                let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                bail!("-X {}", problems.join("\n-X "));
            }
        }
    }
    let settings = configured.iter().map(|cluster| ClientSettings {
        max_groups: MAX_GROUPS_AT_ONCE,
        ..ClientSettings::from(cluster)
    });
    Ok(settings.collect())
}

async fn read(
    settings: &ClientSettings,
    args: &LagArgs,
    found: &mut LagResult,
) -> anyhow::Result<()> {
    let name = settings.name.to_string();
    let mut source = KafkaSource::connect(settings.clone())?;
    let mut groups: Vec<GroupId> = args
        .group
        .iter()
        .map(|group| GroupId::from(group.as_str()))
        .collect();
    if groups.is_empty() {
        let listed = source.list_groups(Instant::now() + args.timeout).await;
        match listed.connection {
            Some(fault) => found.unknown.extend([format!("{name}: {}", fault.reason)]),
            None => {
                let missing = |fault: &String| format!("{name}: some groups are missing: {fault}");
                found.unknown.extend(listed.faults.iter().map(missing));
            }
        }
        groups = listed.groups;
    }
    let is_costly = source.client() == ClientKind::Librdkafka;
    let at_once = if is_costly {
        MAX_GROUPS_AT_ONCE
    } else {
        usize::MAX
    };
    for (i, batch) in groups.chunks(at_once).enumerate() {
        if i > 0 {
            // A new source drops the clients of the previous batch.
            source = KafkaSource::connect(settings.clone())?;
        }
        let topics: BTreeSet<_> = args
            .topic
            .iter()
            .map(|topic| TopicName::from(topic.as_str()))
            .collect();
        let plan = |group: &GroupId| GroupPlan::new(group.clone(), topics.clone());
        let plan = SweepPlan {
            groups: batch.iter().map(plan).collect(),
            ..SweepPlan::default()
        };
        let observation = source.observe(plan, Instant::now() + args.timeout).await;
        let snapshot = ClusterHistory::default().apply(observation, Scope::Whole);
        for (group, read) in &snapshot.groups {
            found
                .unknown
                .extend(unknown(args, &name, group, read, &snapshot));
        }
        found.read.push((name.clone(), snapshot));
    }
    Ok(())
}

/// Requested data of a group that cannot be shown per partition.
fn unknown(
    args: &LagArgs,
    cluster: &str,
    group: &GroupId,
    read: &GroupSnapshot,
    snapshot: &ClusterSnapshot,
) -> Vec<String> {
    match read.fault {
        Some(fault) if fault.is_connection() && snapshot.connection.is_some() => {
            vec![format!("{cluster}: {}", snapshot.cause(fault))]
        }
        Some(fault) => vec![format!("{cluster}: group {group}: {fault}")],
        None if read.topics.is_empty() && !args.group.is_empty() => {
            vec![format!("{cluster}: group {group} has no committed offset")]
        }
        None => {
            let missing = read
                .topics
                .iter()
                .filter_map(|(topic, t)| Some((topic, t.latest.as_ref().err()?)));
            missing
                .map(|(topic, fault)| format!("{cluster}: topic {topic}: {fault}"))
                .collect()
        }
    }
}

fn rows<'a>(args: &LagArgs, found: &'a LagResult) -> Vec<TableRow<'a>> {
    let groups = found
        .read
        .iter()
        .flat_map(|(cluster, read)| read.groups.iter().map(move |g| (cluster, g)));
    let mut rows = Vec::new();
    for (cluster, (group, read)) in groups {
        let useful = whole_parallelism(read);
        // When listing all groups, omit those unrelated to a requested topic.
        let topics = read
            .topics
            .iter()
            .filter(|(_, read)| !args.group.is_empty() || read.may_have_commits());
        for (topic, read) in topics {
            let Ok(lag) = &read.latest else {
                continue;
            };
            rows.extend((0..lag.lags.len()).map(|partition| TableRow {
                useful_parallelism: useful,
                ..row(cluster, group, topic, lag, partition)
            }));
        }
    }
    rows
}

fn print_result(args: &LagArgs, found: &LagResult) -> anyhow::Result<ExitCode> {
    let rows = rows(args, found);
    let text = match args.output.serialize(&rows)? {
        Some(text) => text,
        None if rows.is_empty() && !found.unknown.is_empty() => String::new(),
        // For whole clusters the table suffices.
        None if args.group.is_empty() => table(&rows),
        None => table(&rows) + &bounds(&rows),
    };
    if args.watch && args.output == Output::Table {
        clear_screen()?;
    }
    print_output(args.output, &text)?;
    for unknown in &found.unknown {
        print_error(unknown);
    }
    let faulty = |row: &TableRow<'_>| {
        row.lag.is_none()
            && (row.committed_offset.is_some() || row.note.as_deref() != Some("no commit"))
    };
    let is_known = found.unknown.is_empty() && !rows.iter().any(faulty);
    Ok(if is_known {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::model::fixtures;

    #[test]
    fn named_group_shows_its_useful_parallelism() {
        let rows = [(0, Ok(Some(3)), Ok(8)), (0, Ok(Some(3)), Ok(8))];
        let read = fixtures::read(Duration::ZERO, "g", "orders", &rows);
        let found = LagResult {
            read: vec![(
                "main".into(),
                ClusterHistory::default().apply(read, Scope::Partial),
            )],
            ..LagResult::default()
        };
        let args = clap::Command::new("lag");
        let args = LagArgs::augment_args(args).get_matches_from([
            "lag",
            "--bootstrap",
            "k:9092",
            "-g",
            "g",
        ]);
        let rows = super::rows(&LagArgs::from_arg_matches(&args).unwrap(), &found);
        assert_eq!(
            bounds(&rows),
            "group g: at most 2 members can have work: the topic's partitions\n"
        );
        let shown = serde_json::to_value(&rows[0]).unwrap();
        let expected = serde_json::json!({"limit": {"bounded": 2}, "rule": "one_topic"});
        assert_eq!(shown["useful_parallelism"], expected);
    }

    #[test]
    fn timeout_is_capped_at_an_hour() {
        assert_eq!(
            crate::cli::timeout("500000000000y"),
            Ok(Duration::from_secs(3600))
        );
        assert_eq!(crate::cli::timeout("10s"), Ok(Duration::from_secs(10)));
        assert!(crate::cli::timeout("10").is_err());
    }

    #[test]
    fn topic_filter_keeps_groups_with_commits_on_it() {
        let mut history = ClusterHistory::default();
        for (group, committed) in [("reads", Some(3)), ("other", None)] {
            let rows = [(0, Ok(committed), Ok(8))];
            let read = fixtures::read(Duration::ZERO, group, "orders", &rows);
            history.apply(read, Scope::Partial);
        }
        let nothing = fixtures::nothing(Duration::ZERO, "idle");
        let found = LagResult {
            read: vec![("main".into(), history.apply(nothing, Scope::Partial))],
            ..LagResult::default()
        };
        for (flags, expected) in [
            (&["--topic", "orders"][..], &["reads"][..]),
            (
                &["--topic", "orders", "--group", "other"],
                &["other", "reads"],
            ),
        ] {
            let args = ["lag", "--bootstrap", "k:9092"].iter().chain(flags);
            let args = LagArgs::augment_args(clap::Command::new("lag")).get_matches_from(args);
            let args = LagArgs::from_arg_matches(&args).unwrap();
            let groups: Vec<_> = rows(&args, &found).iter().map(|row| row.group).collect();
            assert_eq!(groups, expected, "{flags:?}");
        }
    }
}
