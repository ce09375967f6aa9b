//! Where what has to survive a restart is kept.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::in_pod;
use crate::config::Config;
use crate::k8s;
use crate::k8s::state_config_map::StateConfigMap;
use crate::leader_election::Leadership;
use crate::model::lag::history::memory::SavedHistory;
use crate::persistence::{self, StateFile};

/// The ConfigMap of the state, where the configuration names none.
const STATE_CONFIG_MAP: &str = "lagwise-state";

/// The place where the state is kept.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// A file: this daemon's own, whoever leads.
    File(StateFile),
    /// A ConfigMap, which is the leader's.
    ConfigMap(Box<StateConfigMap>),
}

impl Store {
    /// The place that the configuration says, or that a pod is expected to have.
    pub(super) fn of(config: &Config, client: Option<&k8s::client::Client>) -> Option<Self> {
        if let Some(file) = &config.state.file {
            return Some(Self::File(StateFile::new(file)));
        }
        let config_map = config.state.config_map.clone();
        let config_map = config_map.or_else(|| in_pod().then(|| STATE_CONFIG_MAP.to_owned()));
        Some(Self::ConfigMap(Box::new(StateConfigMap::new(
            client?.clone(),
            config_map?,
        ))))
    }

    /// Hands the poller what is kept there now, and keeps what it says until it is gone.
    pub(super) async fn keep(
        self,
        recall: oneshot::Sender<SavedHistory>,
        memories: watch::Receiver<Option<Arc<SavedHistory>>>,
        leadership: Leadership,
    ) {
        match self {
            Self::File(file) => {
                persistence::keep(file, recall, memories, Leadership::alone()).await
            }
            Self::ConfigMap(map) => persistence::keep(*map, recall, memories, leadership).await,
        }
    }
}
