//! Where logs ended a while ago: asked once for each topic, by the timestamps of its records.
//!
//! A broker reads index files to answer, and a connection's other requests wait behind that one. So
//! topics are asked about in small batches, for as long as the sweep's patience lasts; what is left
//! waits for the next sweep.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{LOOK_BACK, OffsetColumn, PastEnds, TopicOffsets};
use crate::model::units::newtypes::{Moment, Offset, TopicId, TopicName};

/// Partitions that are asked about together, unless one topic has more.
const BATCH: usize = 500;

/// What of a sweep's time may go into waiting for the answers: one part in this many.
const PATIENCE: u32 = 10;

/// The offset of a record that is yet to be written: the answer where no record is young enough.
pub(super) const NO_RECORD: Offset = Offset(i64::MAX);

/// What a sweep has read of each topic so far.
pub(super) type LogsToAsk = BTreeMap<TopicName, Result<TopicOffsets, Fault>>;

/// The topics that were asked about, and when each was last read.
#[derive(Debug, Default)]
pub(super) struct TimeLookup(Mutex<HashMap<TopicName, (Option<TopicId>, Instant)>>);

impl TimeLookup {
    /// The next topics to ask about, each for the first time under its ID; none when all were.
    pub(super) fn next(&self, logs: &LogsToAsk) -> Vec<TopicName> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut batch = Vec::new();
        let mut partitions = 0_usize;
        for (name, log) in logs {
            let Ok(log) = log else { continue };
            match asked.get_mut(name) {
                Some((id, read)) if *id == log.id => *read = now,
                // What gives no end gives no older one.
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

/// Until when a sweep waits for answers.
pub(super) fn patience(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / PATIENCE
}

/// The timestamp to ask for, in milliseconds since 1970; `None` where the clock is before that.
pub(super) fn timestamp(started: &Moment) -> Option<i64> {
    let then = started.wall.checked_sub(LOOK_BACK)?;
    let since = then.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// The answers for a topic, beside the ends that were read before.
pub(super) fn past_ends(found: &OffsetColumn, ends: &OffsetColumn) -> PastEnds {
    // Records that came since the end was read are none of this sweep's.
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
    fn each_topic_is_asked_about_once_under_its_id() {
        let past = TimeLookup::default();
        let mut logs: LogsToAsk = [
            ("a".into(), log(1, &[Ok(5)])),
            ("down".into(), log(1, &[Err(Fault::NoAnswer)])),
            ("gone".into(), Err(Fault::TopicMissing)),
        ]
        .into();
        assert_eq!(names(&past.next(&logs)), ["a"]);
        assert!(past.next(&logs).is_empty());
        logs.insert("down".into(), log(1, &[Err(Fault::NoAnswer), Ok(1)]));
        assert_eq!(names(&past.next(&logs)), ["down"]);
        logs.insert("a".into(), log(2, &[Ok(0)]));
        assert_eq!(names(&past.next(&logs)), ["a"]);
    }

    #[test]
    fn batches_are_small() {
        let past = TimeLookup::default();
        let logs: LogsToAsk = [("big", 600), ("c", 200), ("d", 200), ("e", 200)]
            .map(|(name, partitions)| (name.into(), log(1, &vec![Ok(1); partitions])))
            .into();
        assert_eq!(names(&past.next(&logs)), ["big"]);
        assert_eq!(names(&past.next(&logs)), ["c", "d"]);
        assert_eq!(names(&past.next(&logs)), ["e"]);
        assert!(past.next(&logs).is_empty());
    }

    #[test]
    fn no_young_record_means_the_end_and_no_answer_nothing() {
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
    fn a_clock_before_1970_asks_nothing() {
        let at = |wall| Moment {
            monotonic: Instant::now(),
            wall,
        };
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(timestamp(&at(start)), None);
        let later = start + LOOK_BACK + Duration::from_millis(7);
        assert_eq!(timestamp(&at(later)), Some(7));
    }
}
