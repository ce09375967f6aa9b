//! Where logs ended a while ago, looked up once per topic by record timestamps, so that a rate is
//! known right after a start.
//!
//! A broker reads index files to answer, and other requests on the connection wait meanwhile. So
//! topics are looked up in small batches within a share of the sweep's time; the rest waits for the
//! next sweep.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{LOOK_BACK, OffsetColumn, PastEnds, TopicOffsets};
use crate::model::units::newtypes::{Moment, Offset, TopicId, TopicName};

/// Maximum partitions per batch, unless a single topic has more.
const BATCH: usize = 500;

/// One part in this many of a sweep's remaining time may be spent on waiting for the answers.
const SWEEP_SHARE: u32 = 10;

/// Stands for "no record is young enough": the offset of a record yet to be written.
pub(super) const NO_RECORD: Offset = Offset(i64::MAX);

/// Log offsets that a sweep has read so far.
pub(super) type TopicLogs = BTreeMap<TopicName, Result<TopicOffsets, Fault>>;

/// Topics already looked up, with their IDs and when each was last read.
#[derive(Debug, Default)]
pub(super) struct TimeLookups(Mutex<HashMap<TopicName, (Option<TopicId>, Instant)>>);

impl TimeLookups {
    /// The next batch of topics to look up, each once per topic ID; empty when all were.
    pub(super) fn next_batch(&self, logs: &TopicLogs) -> Vec<TopicName> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut batch = Vec::new();
        let mut partitions = 0_usize;
        for (name, log) in logs {
            let Ok(log) = log else { continue };
            match asked.get_mut(name) {
                Some((id, read)) if *id == log.id => *read = now,
                // A log whose end cannot be read cannot be looked up either.
                _ if !log.ends.iter().any(Result::is_ok) => {}
                _ if partitions > 0 && partitions.saturating_add(log.ends.len()) > BATCH => {}
                _ => {
                    partitions = partitions.saturating_add(log.ends.len());
                    asked.insert(name.clone(), (log.id, now));
                    batch.push(name.clone());
                }
            }
        }
        asked.retain(|_, (_, read)| read.elapsed() < LOOK_BACK);
        batch
    }
}

/// The time until which a sweep waits for answers.
pub(super) fn answer_deadline(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / SWEEP_SHARE
}

/// The timestamp to look up, in milliseconds since 1970; `None` if the clock is earlier than that.
pub(super) fn lookup_timestamp(started: &Moment) -> Option<i64> {
    let then = started.wall.checked_sub(LOOK_BACK)?;
    let since = then.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Combines a topic's answers with the ends read before.
pub(super) fn past_ends(found: &OffsetColumn, ends: &OffsetColumn) -> PastEnds {
    // Records written after the end was read do not count in this sweep.
    let earlier = |(found, end): (&Result<Offset, _>, &Result<Offset, _>)| match (found, end) {
        (Ok(found), Ok(end)) => Some(*found.min(end)),
        _ => None,
    };
    PastEnds {
        ago: LOOK_BACK,
        ends: found.iter().zip(ends).map(earlier).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn log(id: u8, ends: &[Result<i64, Fault>]) -> Result<TopicOffsets, Fault> {
        Ok(TopicOffsets {
            id: Some(TopicId([id; 16])),
            ends: ends.iter().map(|end| end.map(Offset)).collect(),
            ..TopicOffsets::default()
        })
    }

    fn names(batch: &[TopicName]) -> Vec<&str> {
        batch.iter().map(TopicName::as_str).collect()
    }

    #[test]
    fn each_topic_id_is_looked_up_once() {
        let past = TimeLookups::default();
        let mut logs: TopicLogs = [
            ("a".into(), log(1, &[Ok(5)])),
            ("down".into(), log(1, &[Err(Fault::NoAnswer)])),
            ("gone".into(), Err(Fault::TopicMissing)),
        ]
        .into();
        assert_eq!(names(&past.next_batch(&logs)), ["a"]);
        assert!(past.next_batch(&logs).is_empty());
        logs.insert("down".into(), log(1, &[Err(Fault::NoAnswer), Ok(1)]));
        assert_eq!(names(&past.next_batch(&logs)), ["down"]);
        logs.insert("a".into(), log(2, &[Ok(0)]));
        assert_eq!(names(&past.next_batch(&logs)), ["a"]);
    }

    #[test]
    fn a_batch_has_a_bounded_number_of_partitions() {
        let past = TimeLookups::default();
        let logs: TopicLogs = [("big", 600), ("c", 200), ("d", 200), ("e", 200)]
            .map(|(name, partitions)| (name.into(), log(1, &vec![Ok(1); partitions])))
            .into();
        assert_eq!(names(&past.next_batch(&logs)), ["big"]);
        assert_eq!(names(&past.next_batch(&logs)), ["c", "d"]);
        assert_eq!(names(&past.next_batch(&logs)), ["e"]);
        assert!(past.next_batch(&logs).is_empty());
    }

    #[test]
    fn no_recent_record_yields_the_end_and_no_answer_yields_none() {
        let found = vec![
            Ok(Offset(3)),
            Ok(NO_RECORD),
            Ok(Offset(12)),
            Err(Fault::NoAnswer),
            Ok(NO_RECORD),
        ];
        let ends = vec![
            Ok(Offset(10)),
            Ok(Offset(10)),
            Ok(Offset(10)),
            Ok(Offset(10)),
            Err(Fault::NoAnswer),
        ];
        let [a, b, c] = [3, 10, 10].map(|offset| Some(Offset(offset)));
        assert_eq!(past_ends(&found, &ends).ends, [a, b, c, None, None]);
    }

    #[test]
    fn a_clock_before_1970_requests_nothing() {
        let at = |wall| Moment {
            monotonic: Instant::now(),
            wall,
        };
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(lookup_timestamp(&at(start)), None);
        let later = start + LOOK_BACK + Duration::from_millis(7);
        assert_eq!(lookup_timestamp(&at(later)), Some(7));
    }
}
