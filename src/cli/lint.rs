//! `lagwise lint`: checks HPAs, consumer groups and workloads for mistakes and says how to fix them.

pub(super) mod files;
pub(super) mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args, ValueEnum};

use self::report::{CheckedObjects, FindingReport, render_code, render_codes, render_findings};
use super::kube_args::KubeArgs;
use super::single_reading::{HpaReading, read_hpas};
use super::{Output, error_text, print_error, print_output};
use crate::config::{Config, SystemEnvironment};
use crate::k8s::client::server_version;
use crate::k8s::workload::fetch;
use crate::model::diagnostics::hpa_findings::find_ended_holds;
use crate::model::diagnostics::workload_findings::find_in_workload;
use crate::model::evaluation::{HpaMetric, hpa_ceilings};
use crate::model::findings::{Finding, FindingCode, Severity, suggestion};
use crate::model::hpa::facts::{HpaFacts, has_lagwise_metric};
use crate::model::kafka::group::GroupDescription;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment};
use crate::model::units::spelling::did_you_mean;

/// Exit code if something could not be read.
const UNREAD: u8 = 2;

/// The arguments of `lagwise lint`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["config", "file", "codes", "explain"])))]
#[command(after_help = "Examples:\n  \
    lagwise lint --config lagwise.yaml\n  \
    lagwise lint --config lagwise.yaml --namespace shop -o json | jq '.[].code'\n  \
    lagwise lint -f manifests/ --fail-on warning\n  \
    helm template . | lagwise lint -f - --kubernetes 1.34\n  \
    lagwise lint --explain LW018\n\n\
    With --config the command reads Kafka once, and from Kubernetes the HPAs, their Deployments and \
    StatefulSets, and the pods of these, as far as you have the rights. With -f it reads only the files. \
    For ScaledObjects of KEDA in them it says what lagwise convert says; objects of other kinds are ignored. A file has at most 16 MiB, 100,000 YAML documents and 4,000,000 keys and values. The advice is for the version of the Kubernetes cluster, \
    or of --kubernetes.\n\n\
    Exit code: 0 without findings of the severity of --fail-on or above, 1 with some, 2 for wrong usage, if \
    something could not be read, or if the files have nothing that it checks.")]
pub struct LintArgs {
    /// Configuration file of the daemon, to read its Kafka clusters, targets and Kubernetes cluster
    #[arg(long, value_name = "FILE", conflicts_with = "codes")]
    config: Option<PathBuf>,
    /// Check manifests instead of a cluster: a file, a folder, or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["codes", "kubeconfig", "context"])]
    file: Vec<PathBuf>,
    /// Version of Kubernetes that the manifests are for, such as 1.34
    #[arg(long, value_name = "VERSION", requires = "file")]
    kubernetes: Option<KubernetesVersion>,
    /// Only this namespace; with --file, the namespace of manifests that set none
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    kube: KubeArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Lowest severity that makes the exit code 1
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// Timeout of each of Kafka and Kubernetes
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
    /// Print the table of codes
    #[arg(long)]
    codes: bool,
    /// Explain a code, such as LW018
    #[arg(long, value_name = "CODE", value_parser = finding_code, conflicts_with_all = ["codes", "config", "file"])]
    explain: Option<FindingCode>,
}

fn finding_code(text: &str) -> Result<FindingCode, String> {
    FindingCode::find(text).ok_or_else(|| {
        let labels = FindingCode::ALL.iter().map(|code| code.label());
        let meant = suggestion("", did_you_mean(text, labels));
        format!("no such code{meant}; lagwise lint --codes lists all")
    })
}

/// The lowest severity that makes the command fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Error,
    Warning,
    Info,
}

impl FailOn {
    fn severity(self) -> Severity {
        match self {
            FailOn::Error => Severity::Error,
            FailOn::Warning => Severity::Warning,
            FailOn::Info => Severity::Info,
        }
    }
}

/// The result of a check.
#[derive(Debug, Default)]
pub(super) struct LintResult {
    pub(super) findings: BTreeSet<Finding>,
    /// What could not be read, and why.
    unread: BTreeSet<String>,
    checked: CheckedObjects,
    /// Version of the Kubernetes cluster, if it is known.
    version: Option<KubernetesVersion>,
}

/// Runs `lagwise lint`.
///
/// # Errors
/// The output cannot be written.
pub async fn run(args: LintArgs) -> anyhow::Result<ExitCode> {
    if args.codes {
        return print_output(args.output, &render_codes(args.output)?);
    }
    if let Some(code) = args.explain {
        return print_output(args.output, &render_code(code, args.output)?);
    }
    let found = match (args.file.as_slice(), &args.config) {
        ([], Some(config)) => check_cluster(&args, config).await,
        (files, config) => {
            let namespace = args.namespace.as_deref();
            files::check_files(files, config.as_deref(), namespace, args.kubernetes)
        }
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            print_error(&error_text(&error));
            return Ok(ExitCode::from(UNREAD));
        }
    };
    let reported = FindingReport::sorted(&found.findings, found.version);
    let text = match args.output.serialize(&reported)? {
        Some(text) => text,
        None => render_findings(&reported, found.checked),
    };
    print_output(args.output, &text)?;
    for unread in &found.unread {
        print_error(unread);
    }
    Ok(exit_code(&found, args.fail_on))
}

fn exit_code(found: &LintResult, fail_on: FailOn) -> ExitCode {
    let least = fail_on.severity();
    let mut findings = found.findings.iter();
    if findings.any(|finding| finding.code.severity() >= least) {
        return ExitCode::FAILURE;
    }
    match found.unread.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(UNREAD),
    }
}

async fn check_cluster(args: &LintArgs, config: &std::path::Path) -> anyhow::Result<LintResult> {
    let config = Config::load(config)?;
    let namespace = args.namespace.as_deref();
    let HpaReading {
        client,
        hpas,
        snapshot,
    } = read_hpas(&config, &args.kube, namespace, args.timeout).await?;
    let now = Moment::now();
    let metrics = snapshot.at(&now).hpa_metrics();
    let served: Vec<&HpaFacts> = hpas
        .facts
        .iter()
        .map(|hpa| &**hpa)
        .filter(|hpa| has_lagwise_metric(hpa))
        .collect();
    // Without it the advice is for any version.
    let version = server_version(&client, args.timeout).await.ok();
    let (workloads, unread) = fetch(&client, &served, args.timeout).await;
    let mut found = LintResult {
        findings: snapshot.all_findings().cloned().collect(),
        unread,
        checked: CheckedObjects {
            workloads: workloads.len(),
            groups: Some(snapshot.clusters.values().map(|c| c.groups.len()).sum()),
            ..CheckedObjects::default()
        }
        .with_hpas(hpas.facts.iter().map(|hpa| &**hpa)),
        version,
    };
    found
        .findings
        .extend(config.find_insecure_settings(&SystemEnvironment));
    let ceilings = hpa_ceilings(&metrics);
    let now = SystemTime::now();
    for hpa in served {
        found.findings.extend(find_ended_holds(hpa, now));
        let ceiling = ceilings.get(&(&*hpa.namespace, &*hpa.name)).copied();
        let groups = described_groups(hpa, &snapshot);
        for workload in &workloads {
            found
                .findings
                .extend(find_in_workload(hpa, workload, ceiling, &groups));
        }
    }
    found.unread.extend(unread_data(&snapshot, &metrics));
    Ok(found)
}

/// The groups that an HPA scales on and that their coordinators have described.
fn described_groups<'a>(
    hpa: &HpaFacts,
    snapshot: &'a LagSnapshot,
) -> Vec<(&'a GroupId, &'a GroupDescription)> {
    let targets = snapshot.targets.of_hpa(&hpa.key()).iter();
    let groups: BTreeSet<_> = targets
        .map(|target| (&target.key.cluster, &target.key.group))
        .collect();
    let described = groups.into_iter().filter_map(|(cluster, group)| {
        let read = snapshot.clusters.get(cluster)?;
        let (id, read) = read.groups.get_key_value(group)?;
        Some((id, read.description.as_deref()?))
    });
    described.collect()
}

/// Messages about what Kafka did not answer. An unreachable cluster is reported once, not for each HPA.
fn unread_data(snapshot: &LagSnapshot, metrics: &[HpaMetric<'_>]) -> BTreeSet<String> {
    let mut unread = BTreeSet::new();
    let mut silent: BTreeMap<&ClusterName, BTreeSet<HpaKey>> = BTreeMap::new();
    for (name, cluster) in &snapshot.clusters {
        if cluster.connection.is_some() {
            silent.insert(name, BTreeSet::new());
        }
    }
    for metric in metrics {
        let Some(refusal) = metric.outcome.as_ref().err().filter(|r| r.is_unknown()) else {
            continue;
        };
        let hpa = HpaKey::new(metric.namespace, metric.hpa);
        match refusal
            .cluster()
            .and_then(|cluster| silent.get_mut(cluster))
        {
            Some(hpas) => {
                hpas.insert(hpa);
            }
            None => {
                unread.insert(format!("HPA {hpa}: {refusal}"));
            }
        }
    }
    for (name, cluster) in &snapshot.clusters {
        let Some(fault) = &cluster.connection else {
            let brokers = cluster.unreachable_brokers.iter();
            unread.extend(brokers.map(|broker| format!("Kafka cluster {name}: {}", broker.reason)));
            continue;
        };
        let affected = match silent.get(name).map_or(0, BTreeSet::len) {
            0 => String::new(),
            1 => "; the lag of 1 HPA is unknown".to_owned(),
            count => format!("; the lag of {count} HPAs is unknown"),
        };
        unread.insert(format!("Kafka cluster {name}: {}{affected}", fault.reason));
    }
    unread
}

#[cfg(test)]
mod tests;
