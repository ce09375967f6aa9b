//! Writes the state of Kafka clusters, and the cost of reading them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::exported::is_only_requested;
use super::sample::{ReaderGone, SampleStream, SampleValue};
use super::{families, in_cluster};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::CertificateExpiry;
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::snapshot::LagSnapshot;

/// Writes whether Kafka clusters and brokers answer, and counts unknown data.
pub(super) async fn clusters(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
) -> Result<(), ReaderGone> {
    samples.family(&families::PARTITION_FAULTS);
    for (name, cluster) in &snapshot.clusters {
        // The groups of requests are left out, since a request must not raise an alert.
        let groups = cluster.groups.iter();
        let groups = groups.filter(|(id, _)| !is_only_requested(&snapshot.targets, name, id));
        for (kind, count) in faults(groups.map(|(_, group)| &**group)) {
            samples.sample(&in_cluster(name).with("kind", kind), count);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::CLUSTER_UP);
    for (name, cluster) in &snapshot.clusters {
        if cluster.sweep.is_some() || cluster.connection.is_some() {
            samples.sample(&in_cluster(name), cluster.connection.is_none());
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::BROKERS_UNREACHABLE);
    for (name, cluster) in &snapshot.clusters {
        if cluster.sweep.is_some() || cluster.connection.is_some() {
            samples.sample(&in_cluster(name), cluster.unreachable_brokers.len());
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::CLUSTER_FAULT);
    for (name, cluster) in &snapshot.clusters {
        if let Some(fault) = &cluster.connection {
            let labels = in_cluster(name)
                .with("kind", fault.kind.label())
                .with_text("reason", &fault.reason);
            samples.sample(&labels, true);
            samples.flush_if_full().await?;
        }
    }
    Ok(())
}

/// Writes the cost of reading Kafka clusters.
pub(super) async fn traffic(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
) -> Result<(), ReaderGone> {
    let counted: Vec<_> = snapshot
        .clusters
        .iter()
        .filter_map(|(name, cluster)| Some((in_cluster(name), cluster.traffic?)))
        .collect();
    samples.family(&families::KAFKA_REQUESTS_TOTAL);
    for (labels, traffic) in &counted {
        samples.sample(labels, traffic.requests);
        samples.flush_if_full().await?;
    }
    samples.family(&families::KAFKA_RECEIVED_BYTES_TOTAL);
    for (labels, traffic) in &counted {
        samples.sample(labels, traffic.received_bytes);
        samples.flush_if_full().await?;
    }
    samples.family(&families::KAFKA_CONNECTIONS);
    for (labels, traffic) in &counted {
        samples.sample(labels, traffic.connections);
        samples.flush_if_full().await?;
    }
    samples.family(&families::KAFKA_THROTTLED_SECONDS_TOTAL);
    for (labels, traffic) in &counted {
        let seconds = traffic.throttled.as_secs_f64();
        samples.sample(labels, SampleValue::Rounded(seconds));
        samples.flush_if_full().await?;
    }
    Ok(())
}

/// Writes when the certificates of connections to Kafka clusters expire.
pub(super) async fn certificates(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
) -> Result<(), ReaderGone> {
    samples.family(&families::KAFKA_CERTIFICATE_EXPIRY);
    for (name, cluster) in &snapshot.clusters {
        let CertificateExpiry { client, broker } = cluster.certificates;
        for (certificate, expires) in [("client", client), ("broker", broker)] {
            let since_epoch = expires.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            if let Some(since_epoch) = since_epoch {
                samples.sample(
                    &in_cluster(name).with("certificate", certificate),
                    since_epoch.as_secs(),
                );
                samples.flush_if_full().await?;
            }
        }
    }
    Ok(())
}

/// Partitions whose lag is unknown, by cause.
pub(super) fn faults<'a>(
    groups: impl Iterator<Item = &'a GroupSnapshot> + Clone,
) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    let mut add = |fault: Fault, count: usize| {
        let known: &mut usize = counts.entry(fault.label()).or_default();
        *known = known.saturating_add(count);
    };
    let unknown = groups.clone().filter(|group| group.is_unknown());
    for fault in unknown.filter_map(|group| group.fault) {
        add(fault, 1);
    }
    for (_, topic) in groups.flat_map(GroupSnapshot::counted_topics) {
        match &topic.latest {
            Ok(lag) => {
                for fault in lag.lags.iter().filter_map(|lag| lag.err()) {
                    add(fault, 1);
                }
            }
            Err(fault) => add(*fault, topic.complete.as_ref().map_or(1, |c| c.lags.len())),
        }
    }
    counts
}
