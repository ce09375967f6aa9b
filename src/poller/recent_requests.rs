//! Keys of recent ad hoc requests, which the poller keeps reading for a while after the last request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a key is kept after its last request.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Bounded set of recently requested keys. When it is full, a new key replaces the one that was requested longest ago.
#[derive(Debug)]
pub(super) struct RecentRequests<T> {
    last_requested: BTreeMap<T, Instant>,
    max_len: usize,
}

impl<T: Ord + Clone> RecentRequests<T> {
    pub(super) fn new(max_len: usize) -> Self {
        Self {
            last_requested: BTreeMap::new(),
            max_len,
        }
    }

    /// Inserts a key that is requested now. Returns whether it is new.
    pub(super) fn insert(&mut self, key: T) -> bool {
        let is_new = !self.last_requested.contains_key(&key);
        if is_new && self.last_requested.len() >= self.max_len {
            let oldest = self.last_requested.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(oldest, _)| oldest.clone()) {
                self.last_requested.remove(&oldest);
            }
        }
        self.last_requested.insert(key, Instant::now());
        is_new
    }

    /// Removes keys that were not requested lately. Returns whether there was anything to remove.
    pub(super) fn expire(&mut self) -> bool {
        let before = self.last_requested.len();
        self.last_requested.retain(|_, at| at.elapsed() < KEPT_FOR);
        self.last_requested.len() < before
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.last_requested.keys()
    }
}
