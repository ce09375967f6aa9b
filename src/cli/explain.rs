//! `lagwise explain`: derives the replicas of an HPA from the offsets.

mod daemon;
mod figures;
mod partitions;
mod text;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};

pub(super) use self::daemon::fetch_explanation;
use self::partitions::ShownPartitions;
use super::daemon_client::DaemonArgs;
use super::kafka_args::pick_cluster;
use super::kube_args::KubeArgs;
use super::single_reading::{HpaReading, read_hpas, read_once};
use super::{Output, error_text, print_error, print_output, timeout, wrong_usage};
use crate::config::Config;
use crate::k8s::client::Client;
use crate::k8s::live_hpa;
use crate::model::diagnostics::explain::{Explanation, Subject, derive, outcome};
use crate::model::targets::WatchKey;
use crate::model::units::hpa_key::{HpaKey, InvalidHpaKey};
use crate::model::units::newtypes::{GroupId, Moment, TopicName};

/// The arguments of `lagwise explain`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["hpa", "group"])))]
#[command(group(ArgGroup::new("whence").required(true).args(["config", "daemon"])))]
#[command(after_help = "Examples:\n  \
    lagwise explain shop/billing --config lagwise.yaml\n  \
    lagwise explain -n shop billing --daemon\n  \
    lagwise explain shop/billing --daemon -o json | jq -r .verdict\n  \
    lagwise explain --group orders --topic payments --config lagwise.yaml\n\n\
    With --config the command reads Kafka itself, once. It cannot tell what takes time to observe (residual \
    or stuck lag); a running daemon can. The HPA and its scale target are read from the cluster that kubectl \
    would use.\n\n\
    Exit code: 0 if all is known, 1 if some of it is unknown (the rest is still printed), 2 for wrong usage.")]
pub struct ExplainArgs {
    /// The HPA to explain
    #[arg(value_name = "[NAMESPACE/]HPA")]
    hpa: Option<String>,
    /// Namespace of the HPA
    #[arg(short, long, value_name = "NAME", conflicts_with = "group")]
    namespace: Option<String>,
    /// Explain a consumer group instead, with or without an HPA
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// Only this topic of the group; may be repeated
    #[arg(short, long, value_name = "TOPIC", requires = "group")]
    topic: Vec<String>,
    /// Kafka cluster of the group, if the configuration has several
    #[arg(long, value_name = "NAME", requires = "group")]
    cluster: Option<String>,
    /// Configuration file of the daemon, to read its Kafka clusters
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    kube: KubeArgs,
    /// Partitions in a table
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = ShownPartitions::Worst)]
    partitions: ShownPartitions,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Timeout of each of Kafka, Kubernetes and the daemon
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
}

impl ExplainArgs {
    /// The HPA, with its namespace before the slash or in `--namespace`.
    ///
    /// # Errors
    /// An argument is missing, or arguments contradict each other.
    fn hpa_key(&self) -> Result<Option<HpaKey>, String> {
        let Some(text) = &self.hpa else {
            return Ok(None);
        };
        let key = match (&self.namespace, text.contains('/')) {
            (Some(namespace), false) => format!("{namespace}/{text}"),
            (Some(namespace), true) if text.starts_with(&format!("{namespace}/")) => text.clone(),
            (Some(namespace), true) => {
                return Err(format!(
                    "HPA {text} and --namespace {namespace}: two namespaces; leave one out"
                ));
            }
            (None, true) => text.clone(),
            (None, false) => {
                return Err(format!(
                    "HPA {text}: no namespace; write NAMESPACE/{text}, or add -n NAMESPACE"
                ));
            }
        };
        let parsed = key.parse().map(Some);
        parsed.map_err(|error: InvalidHpaKey| format!("HPA {key}: {error}"))
    }
}

/// Runs `lagwise explain`.
///
/// # Errors
/// An invalid configuration, or a cluster or daemon that does not answer.
pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let hpa = args.hpa_key().map_err(wrong_usage)?;
    let hpa = hpa.as_ref();
    let (explanation, is_complete) = match &args.config {
        Some(path) => (explain_by_reading(&args, hpa, path).await?, true),
        None => explain_by_daemon(&args, hpa).await?,
    };
    let text = args.output.serialize(&explanation)?;
    let text = text.unwrap_or_else(|| text::render(&explanation, args.partitions));
    print_output(args.output, &text)?;
    Ok(match is_complete && !explanation.is_unknown() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Reads Kafka and the HPAs of the cluster once.
async fn explain_by_reading(
    args: &ExplainArgs,
    hpa: Option<&HpaKey>,
    path: &Path,
) -> anyhow::Result<Explanation> {
    let config = Config::load(path)?;
    let Some(hpa) = hpa else {
        let subject = group(args, &config)?;
        let Subject::Group(watch_key) = &subject else {
            bail!("neither an HPA nor --group");
        };
        let groups = vec![watch_key.clone()];
        let snapshot = read_once(&config, Vec::new(), groups, args.timeout).await?;
        let now = Moment::now();
        let derived = derive(&subject, snapshot.at(&now), snapshot.all_findings());
        return derived.context("nothing to explain");
    };
    // Read all HPAs of the namespace: one with the same selector affects the value.
    let HpaReading {
        client, snapshot, ..
    } = read_hpas(&config, &args.kube, Some(&*hpa.namespace), args.timeout).await?;
    let subject = Subject::Hpa(hpa.clone());
    let now = Moment::now();
    let derived = derive(&subject, snapshot.at(&now), snapshot.all_findings());
    let derived = derived
        .with_context(|| format!("HPA {hpa} does not exist, or uses no metric of lagwise"))?;
    with_outcome(derived, &client, hpa, args.timeout).await
}

/// Takes the derivation from a running daemon, and the HPA from the cluster. `false` if the HPA cannot be read, so that
/// its part is missing.
async fn explain_by_daemon(
    args: &ExplainArgs,
    hpa: Option<&HpaKey>,
) -> anyhow::Result<(Explanation, bool)> {
    let mut query = Vec::new();
    match (hpa, &args.group) {
        (Some(HpaKey { namespace, name }), _) => {
            query.extend([
                ("namespace", namespace.to_string()),
                ("hpa", name.to_string()),
            ]);
        }
        (None, group) => query.push(("group", group.clone().unwrap_or_default())),
    }
    query.extend(args.cluster.iter().map(|name| ("cluster", name.clone())));
    query.extend(args.topic.iter().map(|topic| ("topic", topic.clone())));
    let derived = fetch_explanation(&args.daemon, &args.kube, &query, args.timeout).await?;
    let Some(hpa) = hpa else {
        return Ok((derived, true));
    };
    let complete = match args.kube.connect().await {
        Ok(client) => with_outcome(derived.clone(), &client, hpa, args.timeout).await,
        Err(error) => Err(error),
    };
    Ok(match complete {
        Ok(explanation) => (explanation, true),
        Err(error) => {
            print_error(&format!(
                "cannot read the HPA, so the HPA controller's part is missing: {}",
                error_text(&error)
            ));
            (derived, false)
        }
    })
}

async fn with_outcome(
    derived: Explanation,
    client: &Client,
    hpa: &HpaKey,
    timeout: Duration,
) -> anyhow::Result<Explanation> {
    let found = live_hpa::read(client, hpa, timeout).await;
    let found = found.with_context(|| format!("cannot read HPA {hpa}"))?;
    let live = found.with_context(|| format!("HPA {hpa} does not exist"))?;
    Ok(outcome(derived, &live))
}

fn group(args: &ExplainArgs, config: &Config) -> anyhow::Result<Subject> {
    let cluster = &pick_cluster(config, args.cluster.as_deref())?.name;
    let topics: BTreeSet<_> = args
        .topic
        .iter()
        .map(|t| TopicName::from(t.as_str()))
        .collect();
    Ok(Subject::Group(WatchKey {
        cluster: cluster.clone(),
        group: GroupId::from(args.group.as_deref().unwrap_or_default()),
        topics,
    }))
}

#[cfg(test)]
mod tests;
