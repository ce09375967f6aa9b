//! `lagwise explain`: how the replicas of an HPA come about, from the offsets on.

mod daemon;
mod text;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};

use super::kube_args::KubeArgs;
use super::look::{HpaReading, look, look_at_hpas};
use super::{Output, print, timeout};
use crate::config::Config;
use crate::k8s::client::{Client, connect};
use crate::k8s::live_hpa;
use crate::model::diagnostics::explain::{Explanation, Subject, derive, outcome};
use crate::model::targets::WatchKey;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment, TopicName};

/// The arguments of `lagwise explain`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["hpa", "group"])))]
#[command(group(ArgGroup::new("whence").required(true).args(["config", "daemon"])))]
#[command(after_help = "Examples:\n  \
    lagwise explain shop/billing --config lagwise.yaml\n  \
    lagwise explain shop/billing --daemon http://localhost:8080 -o json | jq .outcome.next\n  \
    lagwise explain --group orders --topic payments --config lagwise.yaml\n\n\
    With --config it looks at Kafka itself, once: what only time tells (residual, stuck) it cannot see; \
    a running daemon can. The HPA and its scale target are read from the cluster that kubectl would use.\n\n\
    Exit code: 0; 1 if something that was asked for is unknown (the rest is still printed); 2 for wrong usage.")]
pub struct ExplainArgs {
    /// The HPA
    #[arg(value_name = "NAMESPACE/HPA")]
    hpa: Option<HpaKey>,
    /// A consumer group instead, whether an HPA asks for it or not
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// Of the group only this topic; may be repeated
    #[arg(short, long, value_name = "TOPIC", requires = "group")]
    topic: Vec<String>,
    /// The group's Kafka cluster, where the configuration has several
    #[arg(long, value_name = "NAME", requires = "group")]
    cluster: Option<String>,
    /// The configuration file whose Kafka clusters are looked at
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address of a running daemon's HTTP side, which tells what it knows instead
    #[arg(long, value_name = "URL")]
    daemon: Option<String>,
    #[command(flatten)]
    kube: KubeArgs,
    /// How the explanation is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// How long Kafka, Kubernetes and the daemon may each take to answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
}

/// Runs `lagwise explain`.
///
/// # Errors
/// A configuration that cannot be used, or nobody who answers.
pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let explanation = match (&args.config, &args.daemon) {
        (Some(path), _) => by_look(&args, path).await?,
        (None, Some(url)) => by_daemon(&args, url).await?,
        (None, None) => bail!("neither --config nor --daemon"),
    };
    let text = args.output.serialize(&explanation)?;
    print(
        text.unwrap_or_else(|| text::render(&explanation))
            .as_bytes(),
    )?;
    Ok(match explanation.is_unknown() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// By a look at Kafka and at the cluster's HPAs.
async fn by_look(args: &ExplainArgs, path: &Path) -> anyhow::Result<Explanation> {
    let config = Config::load(path)?;
    let Some(hpa) = &args.hpa else {
        let subject = group(args, &config)?;
        let Subject::Group(interest) = &subject else {
            bail!("neither an HPA nor --group");
        };
        let asked = vec![interest.clone()];
        let snapshot = look(&config, Vec::new(), asked, args.timeout).await?;
        let now = Moment::now();
        let derived = derive(&subject, snapshot.at(&now), snapshot.all_findings());
        return derived.context("nothing to explain");
    };
    // All of its namespace: another HPA that asks alike has a say in what it is served.
    let HpaReading {
        client, snapshot, ..
    } = look_at_hpas(&config, &args.kube, Some(&*hpa.namespace), args.timeout).await?;
    let subject = Subject::Hpa(hpa.clone());
    let now = Moment::now();
    let derived = derive(&subject, snapshot.at(&now), snapshot.all_findings());
    let derived = derived
        .with_context(|| format!("HPA {hpa} does not exist, or uses no metric of lagwise"))?;
    with_outcome(derived, &client, hpa, args.timeout).await
}

/// What a running daemon tells, and the HPA as the cluster has it.
async fn by_daemon(args: &ExplainArgs, url: &str) -> anyhow::Result<Explanation> {
    let mut query = Vec::new();
    match (&args.hpa, &args.group) {
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
    let derived = daemon::ask(url, &query, args.timeout).await?;
    let Some(hpa) = &args.hpa else {
        return Ok(derived);
    };
    let looked = match connect(&args.kube.options()).await {
        Ok(client) => with_outcome(derived.clone(), &client, hpa, args.timeout).await,
        Err(error) => Err(error.into()),
    };
    Ok(looked.unwrap_or_else(|error| {
        let mut err = io::stderr().lock();
        // Where standard error is closed there is nobody left to tell.
        let _ = writeln!(
            err,
            "lagwise: what the HPA itself makes of it is not known: {error:#}"
        );
        derived
    }))
}

async fn with_outcome(
    derived: Explanation,
    client: &Client,
    hpa: &HpaKey,
    within: Duration,
) -> anyhow::Result<Explanation> {
    let live = live_hpa::read(client, hpa, within).await;
    let live = live.with_context(|| format!("cannot read HPA {hpa}"))?;
    let live = live.with_context(|| format!("HPA {hpa} does not exist"))?;
    Ok(outcome(derived, &live))
}

fn group(args: &ExplainArgs, config: &Config) -> anyhow::Result<Subject> {
    let mut names = config.clusters.iter().map(|cluster| &cluster.name);
    let known = || {
        let names = config.clusters.iter().map(|cluster| cluster.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let cluster: &ClusterName = match (&args.cluster, config.clusters.as_slice()) {
        (Some(name), _) => names
            .find(|known| known.as_str() == name)
            .with_context(|| {
                format!(
                    "--cluster {name}: no such cluster in the configuration; there are: {}",
                    known()
                )
            })?,
        (None, [only]) => &only.name,
        (None, _) => bail!(
            "name one of the configuration's clusters with --cluster: {}",
            known()
        ),
    };
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
