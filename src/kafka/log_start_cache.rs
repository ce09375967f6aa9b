//! Cache of log start offsets, which change only when retention deletes records.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::OffsetColumn;
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::units::newtypes::{Offset, TopicId, TopicName};

/// How long log start offsets are used before they are read again.
const MAX_AGE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct LogStartCache(Mutex<HashMap<TopicName, CachedStarts>>);

#[derive(Debug)]
struct CachedStarts {
    since: Instant,
    topic: Option<TopicId>,
    starts: OffsetColumn,
}

impl LogStartCache {
    pub(super) fn insert(&self, name: TopicName, topic: Option<TopicId>, starts: OffsetColumn) {
        let since = Instant::now();
        let kept = CachedStarts {
            since,
            topic,
            starts,
        };
        self.entries().insert(name, kept);
    }

    /// Evicts topics that are no longer read.
    pub(super) fn evict_old(&self) {
        let now = Instant::now();
        let is_old = |kept: &CachedStarts| now.saturating_duration_since(kept.since) >= MAX_AGE * 2;
        self.entries().retain(|_, kept| !is_old(kept));
    }

    /// Returns the cached log starts if they are reliable: complete, recent, and not beyond any of
    /// the topic's committed offsets, which would mean that retention is deleting unread records. A
    /// partition without a commit may start at its log start, so there the exact value matters and
    /// nothing cached is used.
    pub(super) fn get_reliable(
        &self,
        name: &TopicName,
        topic: Option<TopicId>,
        partitions: usize,
        commits: &[&CommittedOffsets],
    ) -> Option<OffsetColumn> {
        let all = self.entries();
        let kept = all.get(name)?;
        let is_safe = |(start, committed): (
            &Result<Offset, Fault>,
            Result<Option<Offset>, Fault>,
        )| match (start, committed) {
            (_, Ok(None)) => false,
            (Ok(start), Ok(Some(committed))) => committed >= *start,
            _ => true,
        };
        let usable = kept.since.elapsed() < MAX_AGE
            && kept.topic == topic
            && kept.starts.len() == partitions
            && kept.starts.iter().all(Result::is_ok)
            && commits
                .iter()
                .all(|column| kept.starts.iter().zip(column.iter()).all(is_safe));
        usable.then(|| kept.starts.clone())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<TopicName, CachedStarts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
