//! What has to survive a restart, and where it is kept.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::{STATE, Tasks, in_pod};
use crate::config::Config;
use crate::k8s;
use crate::k8s::state::StateConfigMap;
use crate::leading::Leadership;
use crate::model::history::memory::Memory;
use crate::poller::Remembering;
use crate::state::{self, StateFile, StateStore};

/// The ConfigMap of the state, where the configuration names none.
const STATE_CONFIG_MAP: &str = "lagwise-state";

/// Keeps what has to survive a restart, where the configuration says or a pod is expected to.
pub(super) fn remember(
    config: &Config,
    client: Option<k8s::client::Client>,
    stop: watch::Receiver<bool>,
    leadership: Leadership,
    tasks: &mut Tasks,
) -> Option<Remembering> {
    let (recall, recalled) = oneshot::channel();
    let (keep, memories) = watch::channel(None);
    let config_map = config.state.config_map.clone();
    let config_map = config_map.or_else(|| in_pod().then(|| STATE_CONFIG_MAP.to_owned()));
    if let Some(file) = &config.state.file {
        // A file is this daemon's own, whoever leads.
        let alone = Leadership::alone();
        spawn_keeper(StateFile::new(file), recall, memories, alone, tasks);
    } else {
        let store = StateConfigMap::new(client?, config_map?);
        spawn_keeper(store, recall, memories, leadership, tasks);
    }
    Some(Remembering {
        recalled,
        keep,
        stop,
    })
}

fn spawn_keeper<S: StateStore>(
    store: S,
    recall: oneshot::Sender<Memory>,
    memories: watch::Receiver<Option<Arc<Memory>>>,
    leadership: Leadership,
    tasks: &mut Tasks,
) {
    tasks.spawn(async move {
        state::keep(store, recall, memories, leadership).await;
        (STATE, Ok(()))
    });
}
