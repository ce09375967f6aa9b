//! Selects the storage of the persistent state.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::in_pod;
use crate::config::Config;
use crate::k8s;
use crate::k8s::state_config_map::StateConfigMap;
use crate::leader_election::Leadership;
use crate::model::lag::history::memory::SavedHistory;
use crate::persistence::location::StateFile;
use crate::persistence::store;

/// Default name of the ConfigMap.
pub(super) const STATE_CONFIG_MAP: &str = "lagwise-state";

/// Storage of the persistent state.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// A file of this process, written also while another replica leads.
    File(StateFile),
    /// A ConfigMap, written by the leader.
    ConfigMap(Box<StateConfigMap>),
}

impl Store {
    /// The configured storage, or the default ConfigMap in a pod.
    pub(super) fn from_config(
        config: &Config,
        client: Option<&k8s::client::Client>,
    ) -> Option<Self> {
        if let Some(file) = &config.state.file {
            return Some(Self::File(StateFile::new(file)));
        }
        if config.kubernetes.observes() {
            return None;
        }
        let config_map = config.state.config_map.clone();
        let config_map = config_map.or_else(|| in_pod().then(|| STATE_CONFIG_MAP.to_owned()));
        Some(Self::ConfigMap(Box::new(StateConfigMap::new(
            client?.clone(),
            config_map?,
        ))))
    }

    /// Passes the stored state to the poller, and saves the states that it reports, until it ends.
    pub(super) async fn run(
        self,
        loaded: oneshot::Sender<SavedHistory>,
        histories: watch::Receiver<Option<Arc<SavedHistory>>>,
        leadership: Leadership,
    ) {
        match self {
            Self::File(file) => store::run(file, loaded, histories, Leadership::alone()).await,
            Self::ConfigMap(map) => store::run(*map, loaded, histories, leadership).await,
        }
    }
}
