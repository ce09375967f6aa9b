//! Starts the tasks that write to Kubernetes.

use tokio::sync::mpsc;

use super::Tasks;
use crate::k8s;
use crate::k8s::write_guard::WriteGuard;
use crate::model::diagnostics::hpa_events::HpaEvent;

/// Starts the event writer and, unless `read_only`, the tasks that write to HPAs and workloads.
pub(super) fn spawn(
    writing: WriteGuard,
    pending_events: mpsc::Receiver<HpaEvent>,
    read_only: bool,
    tasks: &mut Tasks,
) {
    let event_writer = writing.clone();
    tasks.spawn(async move {
        k8s::events::keep(event_writer, pending_events).await;
        ("event writer", Ok(()))
    });
    if read_only {
        return;
    }
    let (cap_writer, zero_writer, term_writer) = (writing.clone(), writing.clone(), writing);
    tasks.spawn(async move {
        k8s::epoch::keep(term_writer).await;
        ("term writer", Ok(()))
    });
    tasks.spawn(async move {
        k8s::cap::keep(cap_writer).await;
        ("cap writer", Ok(()))
    });
    tasks.spawn(async move {
        k8s::scale_to_zero::keep(zero_writer).await;
        ("scale to zero", Ok(()))
    });
}
