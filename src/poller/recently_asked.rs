//! What requests asked for lately, so that it is kept ready for the next one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long something is kept after the last request for it.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// What requests asked for lately. Bounded: what was asked for longest ago makes room.
#[derive(Debug)]
pub(super) struct RecentlyAsked<T> {
    asked: BTreeMap<T, Instant>,
    max_len: usize,
}

impl<T: Ord + Clone> RecentlyAsked<T> {
    pub(super) fn new(max_len: usize) -> Self {
        Self {
            asked: BTreeMap::new(),
            max_len,
        }
    }

    /// Inserts something that was asked for now. Returns whether it is new.
    pub(super) fn insert(&mut self, asked: T) -> bool {
        let is_new = !self.asked.contains_key(&asked);
        if is_new && self.asked.len() >= self.max_len {
            let oldest = self.asked.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(oldest, _)| oldest.clone()) {
                self.asked.remove(&oldest);
            }
        }
        self.asked.insert(asked, Instant::now());
        is_new
    }

    /// Removes what was not asked for lately. Returns whether there was anything to remove.
    pub(super) fn expire(&mut self) -> bool {
        let before = self.asked.len();
        self.asked.retain(|_, at| at.elapsed() < KEPT_FOR);
        self.asked.len() < before
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.asked.keys()
    }
}
