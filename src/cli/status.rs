//! `lagwise status`: the state of each HPA in one line.

mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args};
use serde::Deserialize;

use self::table::table;
use super::daemon_client::DaemonArgs;
use super::kube_args::KubeArgs;
use super::repeated_output::{WATCH_INTERVAL, print_again, watch_header};
use super::shadow::shadow_table;
use super::single_reading::read_hpas;
use super::{Output, error_text, print_error, write_output};
use crate::config::Config;
use crate::k8s::client::Client;
use crate::k8s::hpa::{CurrentReplicas, list};
use crate::model::diagnostics::hpa_figures::add_figures;
use crate::model::diagnostics::hpa_status::{HpaStatus, statuses};
use crate::model::keda::shadow::ShadowRow;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;

/// Maximum size of a daemon's response.
pub(super) const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The arguments of `lagwise status`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("where").required(true).args(["config", "daemon"])))]
#[command(after_help = "Examples:\n  \
    lagwise status --config lagwise.yaml\n  \
    lagwise status --daemon --watch\n  \
    lagwise status --config lagwise.yaml -n shop -o json | jq '.[] | select(.lag == null)'\n\n\
    With --config the command reads Kafka itself, once. It cannot tell what takes time to observe (rates, \
    residual or stuck lag), and TIME is often a lower bound. With --daemon it asks the leader, for which you \
    need the rights to get its Lease and the APIService of external metrics, and to get and create \
    pods/portforward. REPLICAS comes \
    from the HPA's status, if the Kubernetes cluster can be reached; REASON says since when a workload that was \
    scaled to zero sleeps, or that it was switched off, but not by lagwise. DESIRED is for example \"12 of 53\" if the \
    lag is worth 53 replicas and the ceiling is 12. CAP is followed by * while maxReplicas is at most the ceiling, \
    and by \"paused\" while lagwise.dev/paused stops the writes of lagwise; the HPA still scales then. From a daemon \
    that observes, a second table shows KEDA's ScaledObjects; lagwise shadow report has their sums too.\n\n\
    Exit code: 0 if all is known, 1 if the lag of an HPA is unknown (the rest is still printed) or nothing \
    could be read, 2 for wrong usage.")]
pub struct StatusArgs {
    /// Configuration file of the daemon, to read its Kafka clusters, targets and Kubernetes cluster
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Only this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Read and print again every two seconds, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    kube: KubeArgs,
    /// Timeout of each of Kafka, Kubernetes and the daemon
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
}

/// Runs `lagwise status`.
///
/// # Errors
/// An invalid configuration, HPAs that cannot be listed, or a daemon that does not answer.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    loop {
        let mut rows = match &args.config {
            Some(config) => StatusRows {
                hpas: read_clusters(&args, config).await?,
                shadow: Vec::new(),
            },
            None => query_daemon(&args).await?,
        };
        let is_shown = |namespace: &str| args.namespace.as_deref().is_none_or(|n| n == namespace);
        rows.hpas.retain(|hpa| is_shown(&hpa.namespace));
        rows.shadow.retain(|row| is_shown(&row.namespace));
        let (exit, has_reader) = print_statuses(&args, &rows)?;
        if !args.watch || !has_reader {
            return Ok(exit);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn read_clusters(args: &StatusArgs, config: &Path) -> anyhow::Result<Vec<HpaStatus>> {
    let config = Config::load(config)?;
    let namespace = args.namespace.as_deref();
    let reading = read_hpas(&config, &args.kube, namespace, args.timeout).await?;
    let snapshot = reading.snapshot;
    let now = Moment::now();
    let mut hpas = statuses(snapshot.at(&now), snapshot.all_findings());
    add_figures(&mut hpas, snapshot.at(&now));
    add_replicas(&mut hpas, &reading.hpas.replicas);
    Ok(hpas)
}

type ReplicaCounts = BTreeMap<HpaKey, CurrentReplicas>;

fn add_replicas(hpas: &mut [HpaStatus], known: &ReplicaCounts) {
    for hpa in hpas {
        let key = HpaKey::new(&*hpa.namespace, &*hpa.hpa);
        if let Some(current) = known.get(&key) {
            hpa.replicas = Some(current.count);
            hpa.asleep_since.clone_from(&current.asleep_since);
        }
    }
}

/// The response of a daemon.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StatusRows {
    pub(super) hpas: Vec<HpaStatus>,
    /// KEDA's objects, while the daemon observes.
    #[serde(default)]
    pub(super) shadow: Vec<ShadowRow>,
}

/// Requests the status of the HPAs from a daemon.
pub(super) async fn query_statuses(
    daemon: &DaemonArgs,
    kube: &KubeArgs,
    timeout: Duration,
) -> anyhow::Result<StatusRows> {
    let rows = daemon.get_json("/status", kube, MAX_RESPONSE_BYTES, timeout);
    rows.await
}

async fn query_daemon(args: &StatusArgs) -> anyhow::Result<StatusRows> {
    let mut rows = query_statuses(&args.daemon, &args.kube, args.timeout).await?;
    match replicas(args).await {
        Ok(known) => add_replicas(&mut rows.hpas, &known),
        // The replicas are optional, so an error matters only if a cluster was given explicitly.
        Err(error) if args.kube.are_given() => {
            print_error(&format!("cannot read replicas: {}", error_text(&error)));
        }
        Err(_) => {}
    }
    Ok(rows)
}

/// The current replicas in the status of the cluster's HPAs.
async fn replicas(args: &StatusArgs) -> anyhow::Result<ReplicaCounts> {
    let client: Client = args.kube.connect().await?;
    let namespaces = args.namespace.as_slice();
    let listed = list(&client, namespaces, args.timeout).await?;
    Ok(listed.replicas)
}

/// Prints the status of HPAs. Returns the exit code, and whether the output is still open.
fn print_statuses(args: &StatusArgs, rows: &StatusRows) -> anyhow::Result<(ExitCode, bool)> {
    let hpas = &rows.hpas;
    let text = match (args.output.serialize(hpas)?, rows.shadow.as_slice()) {
        (Some(text), _) => text,
        (None, []) => table(hpas),
        (None, shadow) => format!("{}\n{}", table(hpas), shadow_table(shadow)),
    };
    let has_reader = match args.watch && args.output == Output::Table {
        true => {
            let header = watch_header("status", SystemTime::now(), WATCH_INTERVAL);
            print_again(&header, &text, &[])?
        }
        false => write_output(args.output, &text)?,
    };
    let exit = match hpas.iter().all(|hpa| hpa.lag.is_some()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    Ok((exit, has_reader))
}
