//! What is told of a cluster when a sweep changed what is known of it.

use crate::model::diagnostics::incidents::events;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::units::newtypes::{ClusterName, Moment};
use crate::telemetry::{ConnectionLost, ConnectionRestored, LagEventRaised};

/// Tells what began or ended between two snapshots of a cluster, the later of them of `now`.
pub(super) fn tell(
    cluster: &ClusterName,
    before: &ClusterSnapshot,
    after: &ClusterSnapshot,
    now: &Moment,
) {
    for event in &events(before, after) {
        LagEventRaised { cluster, event }.emit();
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
