//! `lagwise check`: whether Kafka, Kubernetes and the configuration are as lagwise needs them.

mod progress;
mod report;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures::future::join_all;
use tokio::sync::watch;

use self::progress::Progress;
use self::report::{is_colored, render};
use super::kube_args::KubeArgs;
use super::run::ConfigFileArg;
use super::single_reading::read_once;
use super::{Output, print_output, write_stdout};
use crate::config::{Config, SystemEnvironment};
use crate::daemon::in_pod;
use crate::daemon::options::target_options;
use crate::daemon::scope::daemon_scope;
use crate::k8s::client::{Client, connect, server_version};
use crate::k8s::hpa::{HpaList, list};
use crate::k8s::preflight as cluster;
use crate::kafka::{ClientSettings, preflight};
use crate::model::diagnostics::preflight::configuration::{
    self, ConfigurationFacts, check_configuration,
};
use crate::model::diagnostics::preflight::kafka::check_kafka;
use crate::model::diagnostics::preflight::kubernetes::{
    KubernetesFacts, check_kubernetes, check_objects, check_unreachable,
};
use crate::model::diagnostics::preflight::registration::{RegistrationFacts, check_registration};
use crate::model::diagnostics::preflight::rights::{daemon_rights, install_rights};
use crate::model::diagnostics::preflight::{CheckLine, CheckStatus, PreflightProblem, worst};
use crate::model::hpa::facts::HpaFacts;
use crate::model::kafka::sweep_plan::{GroupPlan, KnownTopics};
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::targets::Targets;
use crate::model::targets::group_targets::GroupTargets;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// The arguments of `lagwise check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise check --pre --config lagwise.yaml --namespace lagwise\n  \
    lagwise check --config lagwise.yaml --group orders\n  \
    lagwise check --config lagwise.yaml -o json | jq '.[] | select(.status == \"failed\")'\n\n\
    √ is fine, ! should be changed or could not be checked, × has to be changed. Rights in Kafka are proven by reading \
    the groups of targets and HPAs. Without any, a listed group is read. Rights in Kubernetes are those of the account \
    that runs the command: with --pre the rights to install the chart, otherwise those of the daemon. So run it without \
    --pre in a pod of the daemon's service account, as helm test does. Nothing is changed.\n\n\
    The environment variable NO_COLOR turns off colors.\n\n\
    Exit code: 0 without a failure, also with warnings, 1 with a failure, 2 for wrong usage.")]
pub struct PreflightArgs {
    #[command(flatten)]
    file: ConfigFileArg,
    /// Check before the installation: the rights to install, and that no other server is registered for external
    /// metrics
    #[arg(long)]
    pre: bool,
    /// Namespace of lagwise [default: that of the pod, otherwise of the kubeconfig]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Also prove the rights to read this consumer group, on every Kafka cluster; may be repeated
    #[arg(short, long, value_name = "GROUP")]
    group: Vec<String>,
    /// Address of the documentation, in front of the pages that are named
    #[arg(long, value_name = "URL", env = "LAGWISE_DOCS_URL")]
    docs_url: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    kube: KubeArgs,
    /// Timeout of each step of Kafka and of each request to Kubernetes
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
}

/// Runs `lagwise check`.
///
/// # Errors
/// The output cannot be written.
pub async fn run(args: PreflightArgs) -> anyhow::Result<ExitCode> {
    let lines = check_file(&args).await;
    match args.output.serialize(&lines)? {
        Some(text) => print_output(args.output, &text)?,
        None => {
            // `render` escapes untrusted text itself. `print_output` would also escape the color sequences.
            let text = render(&lines, args.docs_url.as_deref(), is_colored());
            write_stdout(text.as_bytes())?;
            ExitCode::SUCCESS
        }
    };
    Ok(match worst(&lines) {
        CheckStatus::Failed => ExitCode::FAILURE,
        CheckStatus::Passed | CheckStatus::Warning => ExitCode::SUCCESS,
    })
}

async fn check_file(args: &PreflightArgs) -> Vec<CheckLine> {
    match Config::load(&args.file.config) {
        Ok(config) => check_all(args, &config).await,
        Err(error) => vec![CheckLine::problem(
            configuration::SECTION,
            "file",
            PreflightProblem::ConfigInvalid,
            error.to_string(),
        )],
    }
}

/// The requested targets; `None` until the HPAs are listed, or listing them has failed.
type TargetsReceiver = watch::Receiver<Option<Arc<RequestedTargets>>>;

/// The HPAs, and the targets of these HPAs and of the configuration.
struct RequestedTargets {
    hpas: Vec<Arc<HpaFacts>>,
    targets: Targets,
}

impl RequestedTargets {
    fn new(config: &Config, hpas: Vec<Arc<HpaFacts>>) -> Self {
        let clusters: Vec<ClusterName> = config.clusters.iter().map(|c| c.name.clone()).collect();
        let targets = Targets::new(&clusters, target_options(config), None);
        Self {
            targets: targets.with_hpas(&hpas.iter().cloned().collect(), None),
            hpas,
        }
    }

    /// What to read of a Kafka cluster.
    fn plans(&self, cluster: &ClusterName) -> Vec<GroupPlan> {
        let groups = self.targets.groups().iter();
        let groups = groups.filter(|((of, _), _)| of == cluster);
        let plan = |(key, group): (&(ClusterName, GroupId), &Arc<GroupTargets>)| {
            group.plan(&key.1, self.targets.thresholds(), |_| {
                KnownTopics::default()
            })
        };
        groups.map(plan).collect()
    }
}

async fn wait_for_targets(mut receiver: TargetsReceiver) -> Option<Arc<RequestedTargets>> {
    let known = receiver.wait_for(Option::is_some).await.ok()?;
    known.clone()
}

async fn check_all(args: &PreflightArgs, config: &Config) -> Vec<CheckLine> {
    let (publish, receiver) = watch::channel(None);
    let mut parts: Vec<_> = config.clusters.iter().map(|c| c.name.to_string()).collect();
    if config.kubernetes.enabled {
        parts.push("Kubernetes".to_owned());
    }
    let progress = Progress::start(parts);
    let kafka = config.clusters.iter().map(|cluster| {
        let receiver = receiver.clone();
        let progress = &progress;
        async move {
            let settings = ClientSettings::from(cluster);
            let groups = requested_groups(args, &cluster.name, receiver);
            let interval = config.poll.interval;
            let facts = preflight::collect(settings, groups, interval, args.timeout).await;
            progress.finish(cluster.name.as_str());
            check_kafka(&facts, SystemTime::now())
        }
    });
    let kubernetes = async {
        let lines = match config.kubernetes.enabled {
            true => check_cluster(args, config, &publish).await,
            false => Vec::new(),
        };
        // Publish targets even if the HPAs cannot be listed, because the other checks wait for them.
        publish.send_if_modified(|known| {
            let is_missing = known.is_none();
            if is_missing {
                *known = Some(Arc::new(RequestedTargets::new(config, Vec::new())));
            }
            is_missing
        });
        progress.finish("Kubernetes");
        lines
    };
    let (findings, kafka, kubernetes) = futures::join!(
        lint(args, config, receiver.clone()),
        join_all(kafka),
        kubernetes
    );
    progress.end();
    let mut lines = check_configuration(&findings);
    lines.extend(kafka.into_iter().flatten());
    lines.extend(kubernetes);
    lines
}

/// The groups to read of a Kafka cluster: those of targets, and those of `--group`.
async fn requested_groups(
    args: &PreflightArgs,
    cluster: &ClusterName,
    receiver: TargetsReceiver,
) -> Vec<GroupPlan> {
    let requested = wait_for_targets(receiver).await;
    let mut plans = requested.map_or_else(Vec::new, |requested| requested.plans(cluster));
    for group in &args.group {
        let group = GroupId::from(group.as_str());
        if plans.iter().all(|plan| plan.group != group) {
            plans.push(GroupPlan::new(group, [].into()));
        }
    }
    plans
}

/// Reads Kafka once, and collects the findings and the facts about the configuration.
async fn lint(
    args: &PreflightArgs,
    config: &Config,
    receiver: TargetsReceiver,
) -> ConfigurationFacts {
    let requested = wait_for_targets(receiver).await;
    let hpas = requested.map_or_else(Vec::new, |requested| requested.hpas.clone());
    // If a client cannot be created, the lines about its Kafka cluster say so.
    let snapshot = read_once(config, hpas, Vec::new(), args.timeout).await.ok();
    ConfigurationFacts {
        clusters: config.clusters.len(),
        targets: config.targets.len(),
        insecure: config.find_insecure_settings(&SystemEnvironment),
        findings: snapshot.map(|snapshot| snapshot.all_findings().cloned().collect()),
    }
}

async fn check_cluster(
    args: &PreflightArgs,
    config: &Config,
    publish: &watch::Sender<Option<Arc<RequestedTargets>>>,
) -> Vec<CheckLine> {
    let client = match connect(&args.kube.options_over(&config.kubernetes)).await {
        Ok(client) => client,
        Err(error) => {
            let problem = PreflightProblem::KubernetesNoClient;
            return vec![check_unreachable(problem, &error.to_string())];
        }
    };
    let timeout = args.timeout;
    let listing = async {
        let hpas = list(&client, &config.kubernetes.namespaces, timeout).await;
        let facts = hpas
            .as_ref()
            .map_or_else(|_| Vec::new(), |h| h.facts.clone());
        publish.send_replace(Some(Arc::new(RequestedTargets::new(config, facts))));
        hpas
    };
    let (version, hpas, account, registered, answer, policy, monitors) = futures::join!(
        server_version(&client, timeout),
        listing,
        cluster::account(&client),
        cluster::registered(&client, timeout),
        cluster::request_api(&client, timeout),
        cluster::policy(&client, timeout),
        cluster::monitors(&client, timeout),
    );
    let version = match version {
        Ok(version) => version,
        Err(error) => {
            let problem = PreflightProblem::KubernetesUnreachable;
            return vec![check_unreachable(problem, &error.to_string())];
        }
    };
    let own = args.namespace.clone();
    let own = own.unwrap_or_else(|| client.default_namespace().to_owned());
    let scaled = hpas.as_ref().map_or_else(|_| Vec::new(), scaled_resources);
    let scope = daemon_scope(config, &own, scaled);
    let rights = match args.pre {
        true => install_rights(&scope),
        false => daemon_rights(&scope),
    };
    let facts = KubernetesFacts {
        is_before_install: args.pre,
        version,
        account,
        rights: cluster::review_rights(&client, rights, timeout).await,
        enforces: scope.enforced.is_some(),
        policy,
        hpas: hpas
            .map(|list| cluster::count_hpas(&list))
            .map_err(|error| error.to_string()),
        monitors,
    };
    let registration = RegistrationFacts {
        is_before_install: args.pre,
        leaves_slot: leaves_slot(config),
        service: config.server.external_metrics.service.clone(),
        namespace: own_namespace(args, &client),
        registered,
        answer,
    };
    let mut lines = check_kubernetes(&facts);
    lines.extend(check_registration(&registration));
    lines.extend(check_objects(&facts));
    lines
}

/// Whether the configuration leaves external metrics to another server. This is so if lagwise only observes KEDA, or
/// serves it as an external scaler, or if the chart has `apiService.create=false`, which sets `ca_bundle: false`.
fn leaves_slot(config: &Config) -> bool {
    let server = &config.server;
    config.kubernetes.observes()
        || server.external_scaler.listen.is_some()
        || !server.external_metrics.ca_bundle
}

/// The namespace of lagwise, if it is known. Outside of a pod, that of the kubeconfig may be any.
fn own_namespace(args: &PreflightArgs, client: &Client) -> Option<String> {
    let pod = in_pod().then(|| client.default_namespace().to_owned());
    args.namespace.clone().or(pod)
}

/// The scale subresources of the workloads that lagwise is to scale to zero. Other kinds are left out, because their
/// plural is unknown.
fn scaled_resources(hpas: &HpaList) -> Vec<&'static str> {
    let key = format!("{PREFIX}scale-to-zero");
    let scaled_to_zero = hpas.facts.iter();
    let scaled_to_zero = scaled_to_zero.filter(|hpa| hpa.annotations.contains_key(&key));
    let resources = scaled_to_zero.filter_map(|hpa| match &*hpa.scale_target.kind {
        "Deployment" => Some("deployments/scale"),
        "StatefulSet" => Some("statefulsets/scale"),
        _ => None,
    });
    let resources: BTreeSet<_> = resources.collect();
    resources.into_iter().collect()
}

#[cfg(test)]
mod tests;
