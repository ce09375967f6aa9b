//! Caches the topics on which groups have commits.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::units::newtypes::{GroupId, TopicName};

/// How long the discovered topics of a group are used before they are discovered again.
const MAX_DISCOVERY_AGE: Duration = Duration::from_secs(30);

/// Topics on which groups have commits, as last discovered.
#[derive(Debug, Default)]
pub(super) struct DiscoveryCache(Mutex<HashMap<GroupId, DiscoveredTopics>>);

/// When topics were discovered, and which.
type DiscoveredTopics = (Instant, Arc<BTreeSet<TopicName>>);

impl DiscoveryCache {
    fn all(&self) -> MutexGuard<'_, HashMap<GroupId, DiscoveredTopics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, group: &GroupId) -> Option<Arc<BTreeSet<TopicName>>> {
        match self.all().get(group) {
            Some((when, topics)) if when.elapsed() < MAX_DISCOVERY_AGE => Some(Arc::clone(topics)),
            _ => None,
        }
    }

    pub(super) fn insert(&self, found: impl Iterator<Item = (GroupId, BTreeSet<TopicName>)>) {
        let now = Instant::now();
        let mut all = self.all();
        all.retain(|_, (when, _)| when.elapsed() < MAX_DISCOVERY_AGE);
        all.extend(found.map(|(group, topics)| (group, (now, Arc::new(topics)))));
    }
}
