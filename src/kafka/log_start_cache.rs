//! Log start offsets, kept for a while: only retention moves them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{CommittedColumn, OffsetColumn};
use crate::model::units::newtypes::{Offset, TopicId, TopicName};

/// How long log start offsets are used without asking again.
const LAST: Duration = Duration::from_secs(60);

/// The log starts of a cluster's topics.
#[derive(Debug, Default)]
pub(super) struct LogStartCache(Mutex<HashMap<TopicName, CachedStart>>);

#[derive(Debug)]
struct CachedStart {
    since: Instant,
    topic: Option<TopicId>,
    starts: OffsetColumn,
}

impl LogStartCache {
    /// Keeps what was read just now.
    pub(super) fn keep(&self, name: TopicName, topic: Option<TopicId>, starts: OffsetColumn) {
        let since = Instant::now();
        let kept = CachedStart {
            since,
            topic,
            starts,
        };
        self.all().insert(name, kept);
    }

    /// Lets go of topics that nobody reads any more.
    pub(super) fn let_go(&self) {
        self.all().retain(|_, kept| kept.since.elapsed() < LAST * 2);
    }

    /// The kept log starts, where they can be relied on: whole, young, and not past one of the
    /// topic's commits, where retention is at work. A partition without a commit may begin at its
    /// log's start, so there all depends on it.
    pub(super) fn kept(
        &self,
        name: &TopicName,
        topic: Option<TopicId>,
        partitions: usize,
        commits: &[&CommittedColumn],
    ) -> Option<OffsetColumn> {
        let all = self.all();
        let kept = all.get(name)?;
        let is_safe = |(start, committed): (
            &Result<Offset, Fault>,
            &Result<Option<Offset>, Fault>,
        )| match (start, committed) {
            (_, Ok(None)) => false,
            (Ok(start), Ok(Some(committed))) => committed >= start,
            _ => true,
        };
        let usable = kept.since.elapsed() < LAST
            && kept.topic == topic
            && kept.starts.len() == partitions
            && kept.starts.iter().all(Result::is_ok)
            && commits
                .iter()
                .all(|column| kept.starts.iter().zip(*column).all(is_safe));
        usable.then(|| kept.starts.clone())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<TopicName, CachedStart>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
