//! Reports what changed in a cluster from one sweep to the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::diagnostics::incidents::detect_incidents;
use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::units::newtypes::{ClusterName, Moment};
use crate::telemetry::brokers::{BrokersReachable, BrokersUnreachable};
use crate::telemetry::log_interval::LogInterval;
use crate::telemetry::{ConnectionLost, ConnectionRestored, IncidentDetected};

/// The brokers of a cluster that the log names as unreachable.
#[derive(Debug, Default)]
pub(super) struct BrokerLog {
    logged: BTreeSet<Arc<str>>,
    interval: LogInterval,
}

impl BrokerLog {
    /// Logs brokers that became unreachable since the last line, at most once a minute, and when all
    /// can be reached again. While the whole cluster does not answer, that is logged instead.
    fn update(&mut self, cluster: &ClusterName, latest: &ClusterSnapshot, now: &Moment) {
        if latest.connection.is_some() {
            return;
        }
        // The client itself logs hosts that it may not connect to.
        let all = latest.unreachable_brokers.iter();
        let all: Vec<_> = all.filter(|b| b.kind != Fault::HostNotAllowed).collect();
        let new = all.iter().copied();
        let new: Vec<_> = new.filter(|b| !self.logged.contains(&b.address)).collect();
        if new.is_empty() {
            if all.is_empty() && !self.logged.is_empty() {
                self.logged.clear();
                BrokersReachable { cluster }.emit();
            }
            return;
        }
        if self.interval.is_due(now.monotonic) {
            self.logged = all.iter().map(|b| Arc::clone(&b.address)).collect();
            BrokersUnreachable {
                cluster,
                brokers: &new,
            }
            .emit();
        }
    }
}

/// Logs and counts the incidents that began between two snapshots of a cluster, whether it stopped or
/// started to answer, and which of its brokers cannot be reached. `now` is the time of the later snapshot.
pub(super) fn report_transitions(
    cluster: &ClusterName,
    before: &ClusterSnapshot,
    after: &ClusterSnapshot,
    now: &Moment,
    brokers: &mut BrokerLog,
) {
    for incident in &detect_incidents(cluster, before, after) {
        IncidentDetected(incident).emit();
    }
    match (&before.connection, &after.connection) {
        (was, Some(fault)) if was.as_ref() != Some(fault) => {
            ConnectionLost { cluster, fault }.emit();
        }
        (Some(was), None) => ConnectionRestored {
            cluster,
            after: now.since(&was.since),
        }
        .emit(),
        _ => {}
    }
    brokers.update(cluster, after, now);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::fixtures;
    use crate::model::kafka::fault::BrokerFault;
    use crate::telemetry::log_buffer::LogBuffer;

    #[test]
    fn unreachable_brokers_are_logged_once_and_at_most_once_a_minute() {
        let log = LogBuffer::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || to.clone())
            .with_ansi(false)
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut brokers = BrokerLog::default();
        let cluster = ClusterName::from("main");
        let mut sweep = |seconds, addresses: &[&str]| {
            let broker = |address: &&str| BrokerFault {
                address: (*address).into(),
                kind: Fault::NameResolution,
                reason: format!("{address}: failed to resolve").into(),
            };
            let latest = ClusterSnapshot {
                unreachable_brokers: addresses.iter().map(broker).collect(),
                ..ClusterSnapshot::default()
            };
            brokers.update(
                &cluster,
                &latest,
                &fixtures::at(Duration::from_secs(seconds)),
            );
            log.text().lines().count()
        };
        assert_eq!(sweep(0, &["a:1"]), 1);
        assert_eq!(sweep(5, &["a:1"]), 1);
        // Another one waits for its turn.
        assert_eq!(sweep(10, &["a:1", "b:1"]), 1);
        assert_eq!(sweep(61, &["a:1", "b:1"]), 2);
        assert_eq!(sweep(70, &["b:1"]), 2);
        assert_eq!(sweep(75, &[]), 3);
        assert_eq!(sweep(80, &[]), 3);
        let text = log.text();
        for part in [
            "a:1: failed to resolve",
            "b:1: failed to resolve",
            "can be reached",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
