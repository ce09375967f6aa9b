//! The history of HPAs, and its copy on replicas that do not lead.

use std::sync::Arc;
use std::time::Duration;

use super::Tasks;
use crate::leader_election::Leading;
use crate::serve::forward::Forwarder;
use crate::serve::history::{self, HpaHistoryHandle};
use crate::serve::history_handover;
use crate::snapshot_channel::SnapshotReader;

/// Starts to record a point of each HPA every `step` while this daemon leads. Otherwise copies the history from the
/// leader, if there is a way to it.
pub(super) fn start(
    reader: &SnapshotReader,
    leading: &Leading,
    forwarder: Option<&Arc<Forwarder>>,
    step: Duration,
    tasks: &mut Tasks,
) -> HpaHistoryHandle {
    let (history, recording) = history::history(reader.clone(), leading.own.clone(), step);
    tasks.spawn(async move {
        recording.await;
        ("history of HPAs", Ok(()))
    });
    if let Some(forwarder) = forwarder.cloned() {
        let (history, leading) = (history.clone(), leading.clone());
        tasks.spawn(async move {
            history_handover::follow(history, leading, forwarder).await;
            ("handover of the history", Ok(()))
        });
    }
    history
}
