//! `lagwise topics compare`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::cli::daemon_client::DaemonArgs;
use crate::cli::kube_args::KubeArgs;
use crate::cli::single_reading::read_hpas;
use crate::cli::status::{MAX_RESPONSE_BYTES, query_statuses};
use crate::cli::text_table::{TableColumn, TextTable};
use crate::cli::{Output, print_output};
use crate::config::Config;
use crate::model::diagnostics::topic_growth::{TopicComparison, TopicFit, compare_topics};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;
use crate::serve::hpa_peaks::HpaPeaks;

/// The arguments of `lagwise topics compare`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise topics compare --config lagwise.yaml\n  \
    lagwise topics compare --config lagwise.yaml --daemon\n  \
    lagwise topics compare --config lagwise.yaml -o json | jq '.[]|select(.fit==\"too_few_partitions\")'\n\n\
    WANTED is what the lag is worth in replicas, without the ceiling. With --daemon it is the most that the history of \
    the daemon has, a day at most; the daemon also knows which lag is stuck or residual. Which of several topics of a group decide how many \
    replicas have work depends on the assignor of the group.\n\n\
    Exit code: 0 if all topics have enough partitions, 1 if one has too few, or its partitions are unknown, 2 for \
    wrong usage.")]
pub(super) struct CompareArgs {
    /// Configuration file of the daemon, to read its Kafka clusters and Kubernetes cluster
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Only the HPAs of this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    kube: KubeArgs,
    /// Timeout of each of Kafka, Kubernetes and the daemon
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::cli::timeout)]
    timeout: Duration,
}

pub(super) async fn run(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let mut known: BTreeMap<HpaKey, u32> = BTreeMap::new();
    if args.daemon.is_given() {
        let statuses = query_statuses(&args.daemon, &args.kube, args.timeout).await?;
        for status in statuses.hpas {
            let key = HpaKey::new(&*status.namespace, &*status.hpa);
            known.extend(status.uncapped.map(|uncapped| (key, uncapped)));
        }
        let peaks =
            args.daemon
                .get_json("/api/peaks", &args.kube, MAX_RESPONSE_BYTES, args.timeout);
        let peaks = peaks.await;
        let peaks: HpaPeaks = peaks
            .context("cannot read the history of the daemon; without --daemon it is not needed")?;
        for peak in peaks.hpas {
            let now = known
                .entry(HpaKey::new(peak.namespace, peak.hpa))
                .or_default();
            *now = peak.uncapped.max(*now);
        }
    }
    let namespace = args.namespace.as_deref();
    let reading = read_hpas(&config, &args.kube, namespace, args.timeout).await?;
    let now = Moment::now();
    let rows = compare_topics(reading.snapshot.at(&now), |key| known.get(key).copied());
    let text = match args.output.serialize(&rows)? {
        Some(text) => text,
        None => table(&rows),
    };
    let printed = print_output(args.output, &text)?;
    let is_wrong =
        |row: &TopicComparison| matches!(row.fit, TopicFit::TooFewPartitions | TopicFit::Unknown);
    Ok(match rows.iter().any(is_wrong) {
        true => ExitCode::FAILURE,
        false => printed,
    })
}

fn table(rows: &[TopicComparison]) -> String {
    let mut table = TextTable::new([
        TableColumn::text("TOPIC"),
        TableColumn::number("PARTITIONS"),
        TableColumn::text("HPA"),
        TableColumn::number("MAX"),
        TableColumn::number("WANTED"),
        TableColumn::text("VERDICT"),
    ]);
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    for row in rows {
        table.add_row([
            row.topic.clone(),
            number(row.partitions),
            format!("{}/{}", row.namespace, row.hpa),
            row.max_replicas.to_string(),
            number(row.wanted_replicas),
            verdict(row),
        ]);
    }
    table.render()
}

fn verdict(row: &TopicComparison) -> String {
    let topic = &row.topic;
    match (row.fit, row.partitions, row.wanted_partitions) {
        (TopicFit::TooFewPartitions, Some(partitions), Some(wanted)) => {
            format!("{topic} wants {wanted}, has {partitions}")
        }
        (TopicFit::MaxAbovePartitions, Some(_), _) => {
            "replicas above the partitions have no work".to_owned()
        }
        (TopicFit::MaxBelowPartitions, Some(_), _) => "enough".to_owned(),
        (TopicFit::Equal, ..) => "equal".to_owned(),
        (TopicFit::NotDeciding, ..) => "does not limit the replicas".to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        topic: &str,
        hpa: &str,
        partitions: Option<u32>,
        wanted: u32,
        fit: TopicFit,
    ) -> TopicComparison {
        TopicComparison {
            cluster: "main".into(),
            topic: topic.into(),
            group: hpa.into(),
            namespace: "shop".into(),
            hpa: hpa.into(),
            partitions,
            max_replicas: 20,
            wanted_replicas: Some(wanted),
            wanted_partitions: Some(wanted),
            fit,
        }
    }

    #[test]
    fn the_table_names_the_topics_with_too_few_partitions() {
        let rows = [
            row(
                "orders",
                "billing",
                Some(12),
                18,
                TopicFit::TooFewPartitions,
            ),
            row(
                "refunds",
                "refunds",
                Some(12),
                10,
                TopicFit::MaxAbovePartitions,
            ),
            row(
                "returns",
                "returns",
                Some(24),
                18,
                TopicFit::MaxBelowPartitions,
            ),
            row("sales", "sales", Some(20), 18, TopicFit::Equal),
            row("stock", "stock", None, 18, TopicFit::Unknown),
            row("stores", "billing", Some(4), 18, TopicFit::NotDeciding),
        ];
        insta::assert_snapshot!(table(&rows));
    }
}
