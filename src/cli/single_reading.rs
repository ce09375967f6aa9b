//! Reads Kafka once, for commands that need no daemon: the daemon's poller with the same plan, until
//! everything requested is known or fails.
//!
//! One reading has no history, so it cannot see what takes time to observe: residual or stuck lag,
//! forgotten groups.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::kube_args::KubeArgs;
use crate::config::Config;
use crate::daemon::{clusters, options};
use crate::k8s::client::Client;
use crate::k8s::hpa::{HpaList, list};
use crate::model::diagnostics::current_findings::{FindingOptions, findings};
use crate::model::evaluation::group_evaluation::is_read;
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::WatchKey;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::Moment;
use crate::poller::{Inputs, Poller};
use crate::snapshot_channel;

/// HPAs of a cluster, and a snapshot with the lag that they need.
pub(super) struct HpaReading {
    pub(super) client: Client,
    pub(super) hpas: HpaList,
    pub(super) snapshot: Arc<LagSnapshot>,
}

/// Lists the HPAs of a namespace, or of the configured namespaces, and reads the lag that they need.
///
/// # Errors
/// HPAs that cannot be listed, or settings that a Kafka client does not support.
pub(super) async fn read_hpas(
    config: &Config,
    kube: &KubeArgs,
    namespace: Option<&str>,
    timeout: Duration,
) -> anyhow::Result<HpaReading> {
    let client = kube.connect_over(&config.kubernetes).await?;
    let own = namespace.map(str::to_owned);
    let namespaces = match &own {
        Some(namespace) => std::slice::from_ref(namespace),
        None => &config.kubernetes.namespaces,
    };
    let hpas = list(&client, namespaces, timeout).await;
    let hpas = hpas.with_context(|| match namespace {
        Some(namespace) => format!("cannot list the HPAs of namespace {namespace}"),
        None => "cannot list the HPAs".to_owned(),
    })?;
    let snapshot = read_once(config, hpas.facts.clone(), Vec::new(), timeout).await?;
    Ok(HpaReading {
        client,
        hpas,
        snapshot,
    })
}

/// Reads the lag that the HPAs, the configured targets and `groups` need. What is not answered before the timeout is
/// unknown in the snapshot.
///
/// # Errors
/// Settings that a Kafka client does not support.
pub(super) async fn read_once(
    config: &Config,
    hpas: Vec<Arc<HpaFacts>>,
    groups: Vec<WatchKey>,
    timeout: Duration,
) -> anyhow::Result<Arc<LagSnapshot>> {
    let sources = clusters::sources(config)?;
    let (publisher, mut reader) = snapshot_channel::channel(LagSnapshot::default());
    let (watch_keys, watch_keys_in) = mpsc::channel(groups.len().max(1));
    for watch_key in &groups {
        // The channel has room for all of them.
        let _ = watch_keys.try_send(watch_key.clone());
    }
    let poller = Poller::new(sources, options::poller_options(config), publisher);
    let inputs = Inputs {
        hpas: watch::channel(Some(hpas.iter().cloned().collect())).1,
        watch_keys: watch_keys_in,
        // Queries are reported for later sweeps only.
        queries: mpsc::channel(1).1,
        reported_findings: watch::channel(Arc::default()).1,
    };
    let polling = tokio::spawn(poller.run(inputs));
    let deadline = Instant::now() + timeout;
    while !is_complete(&reader.latest(), &groups) {
        match timeout_at(deadline, reader.changed()).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(anyhow::Error::from(
                    polling
                        .await
                        .context("reading Kafka panicked")?
                        .err()
                        .context("reading Kafka ended early")?,
                ));
            }
            Err(_) => break,
        }
    }
    polling.abort();
    let mut snapshot = LagSnapshot::clone(&reader.latest());
    // Recompute the findings: those of the poller come from a sweep that may have known less, and
    // include a group without members only after some time.
    let now = Moment::now();
    let evaluations = snapshot.at(&now);
    let options = FindingOptions {
        cap: evaluations.policy().cap,
        min_age: Duration::ZERO,
    };
    let metrics = evaluations.hpa_metrics();
    let found = findings(&snapshot.evaluations, &metrics, &hpas, options);
    snapshot.findings = Arc::new(found);
    Ok(Arc::new(snapshot))
}

/// Whether everything was read. A group or topic that Kafka refuses counts as read.
fn is_complete(snapshot: &LagSnapshot, groups: &[WatchKey]) -> bool {
    let now = Moment::now();
    let metrics = snapshot.at(&now).hpa_metrics();
    let is_unread =
        |outcome: &Result<_, NoValueReason>| matches!(outcome, Err(NoValueReason::NotYetRead(_)));
    snapshot.is_swept()
        && groups.iter().all(|key| is_read(&snapshot.clusters, key))
        && !metrics.iter().any(|metric| is_unread(&metric.outcome))
}
