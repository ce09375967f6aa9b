//! Reads Kafka once like the daemon, for commands that need no daemon: the same poller with the
//! same plan, until everything requested is known or fails.
//!
//! A single reading has no history: it cannot see what takes time to observe (residual or stuck
//! lag, forgotten groups).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::kube_args::KubeArgs;
use crate::config::Config;
use crate::daemon::{answers, clusters};
use crate::k8s::client::{Client, connect};
use crate::k8s::hpa::{HpaList, list};
use crate::model::diagnostics::current_findings::{FindingOptions, findings};
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::WatchKey;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::Moment;
use crate::poller::{Inputs, Poller};
use crate::snapshot_channel;

/// HPAs of a cluster, and the reading of what they need.
pub(super) struct HpaReading {
    pub(super) client: Client,
    pub(super) hpas: HpaList,
    /// What there was to see.
    pub(super) snapshot: Arc<LagSnapshot>,
}

/// Reads what all HPAs of a namespace need, or those of the configured namespaces.
///
/// # Errors
/// HPAs that cannot be listed, or settings that a Kafka client does not support.
pub(super) async fn look_at_hpas(
    config: &Config,
    kube: &KubeArgs,
    namespace: Option<&str>,
    within: Duration,
) -> anyhow::Result<HpaReading> {
    let client = connect(&kube.options_over(&config.kubernetes)).await?;
    let own = namespace.map(str::to_owned);
    let namespaces = match &own {
        Some(namespace) => std::slice::from_ref(namespace),
        None => &config.kubernetes.namespaces,
    };
    let hpas = list(&client, namespaces, within).await;
    let hpas = hpas.with_context(|| match namespace {
        Some(namespace) => format!("cannot list the HPAs of namespace {namespace}"),
        None => "cannot list the HPAs".to_owned(),
    })?;
    let snapshot = look(config, hpas.facts.clone(), Vec::new(), within).await?;
    Ok(HpaReading {
        client,
        hpas,
        snapshot,
    })
}

/// Reads everything that the HPAs, the configured targets and the given keys need. What did not
/// answer `within` that time is unknown in the snapshot.
///
/// # Errors
/// Settings that a Kafka client does not support.
pub(super) async fn look(
    config: &Config,
    hpas: Vec<Arc<HpaFacts>>,
    asked: Vec<WatchKey>,
    within: Duration,
) -> anyhow::Result<Arc<LagSnapshot>> {
    let rules = answers::rules(config);
    let sources = clusters::sources(config)?;
    let (publisher, mut reader) = snapshot_channel::channel(LagSnapshot::default());
    let (interests, interests_in) = mpsc::channel(asked.len().max(1));
    for interest in &asked {
        // The channel has room for all of them.
        let _ = interests.try_send(interest.clone());
    }
    let fixed = answers::fixed_targets(config);
    let poller = Poller::new(sources, fixed, answers::cadence(config), publisher)
        .with_rules(config.lag.rules())
        .with_policy(rules);
    let inputs = Inputs {
        hpas: watch::channel(Some(hpas.clone())).1,
        interests: interests_in,
        // Nothing is asked a second time.
        queries: mpsc::channel(1).1,
    };
    let polling = tokio::spawn(poller.run(inputs));
    let deadline = Instant::now() + within;
    while !is_whole(&reader.latest(), &asked) {
        match timeout_at(deadline, reader.changed()).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(anyhow::Error::from(
                    polling
                        .await
                        .context("the look panicked")?
                        .err()
                        .context("the look ended")?,
                ));
            }
            Err(_) => break,
        }
    }
    polling.abort();
    let mut snapshot = LagSnapshot::clone(&reader.latest());
    // Recompute the findings: the poller's belong to a sweep that may have known less, and wait
    // until a problem lasts.
    let now = Moment::now();
    let evaluations = snapshot.at(&now);
    let looking = FindingOptions {
        cap: evaluations.policy().cap,
        members_within: Duration::ZERO,
    };
    let metrics = evaluations.hpa_metrics();
    let found = findings(&snapshot.evaluations, &metrics, &hpas, looking);
    snapshot.findings = Arc::new(found);
    Ok(Arc::new(snapshot))
}

/// Whether everything was read. What Kafka denies counts as read.
fn is_whole(snapshot: &LagSnapshot, asked: &[WatchKey]) -> bool {
    let is_read = |interest: &WatchKey| {
        let cluster = snapshot.clusters.get(&interest.cluster);
        cluster.is_some_and(|cluster| cluster.groups.contains_key(&interest.group))
    };
    let now = Moment::now();
    let metrics = snapshot.at(&now).hpa_metrics();
    let is_open =
        |outcome: &Result<_, NoValueReason>| matches!(outcome, Err(NoValueReason::NotYetRead(_)));
    snapshot.is_swept()
        && asked.iter().all(is_read)
        && !metrics.iter().any(|metric| is_open(&metric.outcome))
}
