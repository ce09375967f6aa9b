//! Reports what changed in a cluster from one sweep to the next.

use crate::model::diagnostics::incidents::detect_incidents;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::units::newtypes::{ClusterName, Moment};
use crate::telemetry::{ConnectionLost, ConnectionRestored, IncidentDetected};

/// Logs and counts the incidents that began between two snapshots of a cluster, and whether it stopped or
/// started to answer. `now` is the time of the later snapshot.
pub(super) fn report_transitions(
    cluster: &ClusterName,
    before: &ClusterSnapshot,
    after: &ClusterSnapshot,
    now: &Moment,
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
}
