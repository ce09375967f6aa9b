//! What writes to the Kubernetes cluster.

use tokio::sync::mpsc;

use super::Tasks;
use crate::k8s;
use crate::k8s::write_guard::WriteGuard;
use crate::model::diagnostics::hpa_events::HpaEvent;

/// Starts what tells people of HPAs, and, unless nothing is to be written about HPAs and what they scale,
/// what does that.
pub(super) fn spawn(
    writing: WriteGuard,
    told: mpsc::Receiver<HpaEvent>,
    read_only: bool,
    tasks: &mut Tasks,
) {
    let telling = writing.clone();
    tasks.spawn(async move {
        k8s::events::keep(telling, told).await;
        ("writer of events", Ok(()))
    });
    if read_only {
        return;
    }
    let (capping, zeroing, claiming) = (writing.clone(), writing.clone(), writing);
    tasks.spawn(async move {
        k8s::epoch::keep(claiming).await;
        ("writer of the term", Ok(()))
    });
    tasks.spawn(async move {
        k8s::cap::keep(capping).await;
        ("writer of the cap", Ok(()))
    });
    tasks.spawn(async move {
        k8s::scale_to_zero::keep(zeroing).await;
        ("keeper of what sleeps", Ok(()))
    });
}
