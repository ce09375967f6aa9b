//! Looks up past log ends by record timestamps after a start, so that lag in seconds is known before the log was
//! watched for that long.
//!
//! Each lookup of a topic is for one time. The first is [`LOOK_BACK`]; further ones follow only while
//! a group has unread records whose age is not yet bounded well by those before.
//!
//! A broker reads index files to answer, and other requests on the connection wait for that. So topics are looked up in
//! small batches within a share of the sweep's time; the rest waits for the next sweep.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{
    GroupObservation, LOOK_BACK, OffsetColumn, PastEnds, PastRecord, TopicOffsets,
};
use crate::model::units::newtypes::{Moment, Offset, OffsetReset, TopicId, TopicName};

/// Maximum number of partitions in a batch, unless a single topic has more.
const MAX_BATCH_PARTITIONS: usize = 500;

/// One part in this many of a sweep's remaining time may be spent on waiting for the answers.
const SWEEP_SHARE: u32 = 10;

/// Maximum number of times that a lookup without an answer is made, once in a sweep.
const MAX_TRIES: u8 = 3;

/// Means "no record is new enough": the offset of a record yet to be written.
pub(super) const NO_RECORD: Offset = Offset(i64::MAX);

/// How far back to look for records that are older than those of the lookups before, in order.
const OLDER: [Duration; 5] = [
    LOOK_BACK,
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(8 * 3600),
    Duration::from_secs(24 * 3600),
];

/// How far back to look for records that are newer than those of the lookups before, in order.
const NEWER: [Duration; 4] = [
    Duration::from_secs(180),
    Duration::from_secs(60),
    Duration::from_secs(20),
    Duration::from_secs(5),
];

/// Log offsets that a sweep has read so far.
pub(super) type TopicLogs = BTreeMap<TopicName, Result<TopicOffsets, Fault>>;

/// The topics looked up so far.
#[derive(Debug, Default)]
pub(super) struct TimeLookups(Mutex<HashMap<TopicName, TopicLookups>>);

/// The lookups of one topic.
#[derive(Clone, Copy, Debug)]
struct TopicLookups {
    id: Option<TopicId>,
    /// When the topic was last read.
    read: Instant,
    older: LookupSeries<{ OLDER.len() }>,
    newer: LookupSeries<{ NEWER.len() }>,
    /// Tries of the next lookup that were not answered.
    unanswered: u8,
    /// When the sweep began that made the last lookup, if that was not answered.
    failed_in: Option<Instant>,
}

/// Lookups that are made one after the other as long as they are needed.
#[derive(Clone, Copy, Debug)]
struct LookupSeries<const N: usize> {
    times: [Duration; N],
    made: usize,
    is_needed: bool,
}

impl<const N: usize> LookupSeries<N> {
    fn new(times: [Duration; N], is_needed: bool) -> Self {
        Self {
            times,
            made: 0,
            is_needed,
        }
    }

    fn next(&self) -> Option<Duration> {
        let next = self.times.get(self.made).copied();
        next.filter(|_| self.is_needed)
    }
}

impl TopicLookups {
    fn new(id: Option<TopicId>, now: Instant) -> Self {
        Self {
            id,
            read: now,
            older: LookupSeries::new(OLDER, true),
            newer: LookupSeries::new(NEWER, false),
            unanswered: 0,
            failed_in: None,
        }
    }

    fn next(&self) -> Option<Duration> {
        self.newer.next().or_else(|| self.older.next())
    }

    /// Records the result of a lookup in the sweep that began at `sweep`. A lookup is answered if it found the log end
    /// of every partition with unread messages. If not, it is next again, up to [`MAX_TRIES`] times in all.
    fn finish(
        &mut self,
        sweep: Instant,
        ago: Duration,
        found: &PastEnds,
        unread: &[(usize, Offset)],
    ) {
        let found = |partition: usize| found.ends.get(partition).copied().flatten();
        let is_answered = unread
            .iter()
            .all(|(partition, _)| found(*partition).is_some());
        self.failed_in = (!is_answered).then_some(sweep);
        self.unanswered = self.unanswered.saturating_add(1);
        if !is_answered && self.unanswered < MAX_TRIES {
            return;
        }
        self.unanswered = 0;
        let some = |is_such: fn(Offset, Offset) -> bool| {
            let mut unread = unread.iter();
            unread.any(|(partition, unread)| found(*partition).is_some_and(|f| is_such(*unread, f)))
        };
        if self.newer.next() == Some(ago) {
            self.newer.made = self.newer.made.saturating_add(1);
            self.newer.is_needed = some(|unread, found| unread > found);
            return;
        }
        if ago == LOOK_BACK {
            self.newer.is_needed = some(|unread, found| unread > found);
        }
        self.older.made = self.older.made.saturating_add(1);
        self.older.is_needed = some(|unread, found| unread < found);
    }
}

impl TimeLookups {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicName, TopicLookups>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch of topics to look up in the sweep that began at `sweep`, each with the time before that; empty
    /// when no more are needed. A topic whose last lookup was not answered is looked up once a sweep, and not in a
    /// batch with others, which would wait for it.
    pub(super) fn next_batch(
        &self,
        logs: &TopicLogs,
        sweep: Instant,
    ) -> Vec<(TopicName, Duration)> {
        let mut known = self.lock();
        let now = Instant::now();
        let (mut batch, mut failed) = (Batch::default(), Batch::default());
        for (name, log) in logs {
            let Ok(log) = log else { continue };
            // A log whose end cannot be read cannot be looked up either.
            if !log.ends.iter().any(Result::is_ok) {
                continue;
            }
            let lookups = match known.get_mut(name) {
                Some(lookups) if lookups.id == log.id => lookups,
                _ => {
                    let new = TopicLookups::new(log.id, now);
                    known.entry(name.clone()).insert_entry(new).into_mut()
                }
            };
            lookups.read = now;
            let Some(ago) = lookups.next() else { continue };
            match lookups.failed_in {
                None => batch.add(name, ago, log.ends.len()),
                Some(in_sweep) if in_sweep == sweep => {}
                Some(_) => failed.add(name, ago, log.ends.len()),
            }
        }
        known.retain(|_, lookups| now.saturating_duration_since(lookups.read) < LOOK_BACK);
        if batch.topics.is_empty() {
            failed.topics
        } else {
            batch.topics
        }
    }

    /// Records the response to a lookup of a batch, and adds it to the log.
    pub(super) fn finish(
        &self,
        name: &TopicName,
        sweep: Instant,
        ago: Duration,
        found: &FoundRecords,
        unread: &UnreadOffsets<'_>,
        log: &mut TopicOffsets,
    ) {
        let unread = unread.first_unread(name, log);
        let past = past_ends(ago, found, log, &unread);
        if let Some(lookups) = self.lock().get_mut(name) {
            lookups.finish(sweep, ago, &past, &unread);
        }
        log.past.push(past);
    }
}

/// Topics to look up together, each with the time before the start of the sweep.
#[derive(Debug, Default)]
struct Batch {
    topics: Vec<(TopicName, Duration)>,
    partitions: usize,
}

impl Batch {
    /// Adds a topic if there is room for its partitions.
    fn add(&mut self, name: &TopicName, ago: Duration, partitions: usize) {
        let total = self.partitions.saturating_add(partitions);
        if self.topics.is_empty() || total <= MAX_BATCH_PARTITIONS {
            self.partitions = total;
            self.topics.push((name.clone(), ago));
        }
    }
}

/// The time until which a sweep waits for answers.
pub(super) fn answer_deadline(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / SWEEP_SHARE
}

/// The timestamp to look up, in milliseconds since 1970; `None` if the clock is earlier than that.
pub(super) fn lookup_timestamp(started: &Moment, ago: Duration) -> Option<i64> {
    let then = started.wall.checked_sub(ago)?;
    let since = then.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Answers to one lookup of a topic, by partition.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundRecords {
    /// The first record that is new enough, or [`NO_RECORD`].
    pub(super) offsets: OffsetColumn,
    /// Time from its timestamp to the start of the sweep, if known.
    pub(super) ages: Vec<Option<Duration>>,
}

/// The age of a record at the start of a sweep, by its timestamp in milliseconds since 1970. A timestamp in the
/// future is now: clocks differ.
pub(super) fn record_age(started: &Moment, timestamp: i64) -> Option<Duration> {
    let timestamp = Duration::from_millis(u64::try_from(timestamp).ok()?);
    let since_1970 = started.wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since_1970.saturating_sub(timestamp))
}

/// The groups of a sweep by the topics that they read.
#[derive(Debug)]
pub(super) struct UnreadOffsets<'a>(HashMap<&'a TopicName, Vec<&'a GroupObservation>>);

impl<'a> UnreadOffsets<'a> {
    pub(super) fn new(groups: &'a [GroupObservation]) -> Self {
        let mut by_topic: HashMap<_, Vec<_>> = HashMap::new();
        for group in groups {
            for topic in group.committed.iter().flat_map(|columns| columns.keys()) {
                by_topic.entry(topic).or_default().push(group);
            }
        }
        Self(by_topic)
    }

    /// The first offset that each group has yet to read, of each partition where it is behind.
    fn first_unread(&self, topic: &TopicName, log: &TopicOffsets) -> Vec<(usize, Offset)> {
        let mut unread = Vec::new();
        for group in self.0.get(topic).into_iter().flatten() {
            let Some(commits) = group.committed.as_ref().ok().and_then(|c| c.get(topic)) else {
                continue;
            };
            let logs = log.starts.iter().zip(&log.ends);
            for ((partition, commit), (start, end)) in commits.iter().enumerate().zip(logs) {
                let (Ok(commit), Ok(start), Ok(end)) = (commit, start, end) else {
                    continue;
                };
                let first = match (commit, group.plan.reset) {
                    (Some(commit), _) => commit.max(*start),
                    (None, OffsetReset::Earliest) => *start,
                    (None, OffsetReset::Latest) => continue,
                };
                if first < *end {
                    unread.push((partition, first));
                }
            }
        }
        unread.sort_unstable();
        unread.dedup();
        unread
    }
}

/// Combines a topic's answers with the ends read before.
fn past_ends(
    ago: Duration,
    found: &FoundRecords,
    log: &TopicOffsets,
    unread: &[(usize, Offset)],
) -> PastEnds {
    // Records written after the end was read do not count in this sweep.
    let earlier = |(found, end): (&Result<Offset, _>, &Result<Offset, _>)| match (found, end) {
        (Ok(found), Ok(end)) => Some(*found.min(end)),
        _ => None,
    };
    let record = |(partition, offset): &(usize, Offset)| {
        let is_found = found.offsets.get(*partition) == Some(&Ok(*offset));
        let age = found.ages.get(*partition).copied().flatten();
        Some(PastRecord {
            partition: *partition,
            offset: *offset,
            age: age.filter(|_| is_found)?,
        })
    };
    PastEnds {
        ago,
        ends: found.offsets.iter().zip(&log.ends).map(earlier).collect(),
        records: unread.iter().filter_map(record).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::kafka::sweep_plan::GroupPlan;

    const SECOND: Duration = Duration::from_secs(1);

    fn log(id: u8, ends: &[Result<i64, Fault>]) -> Result<TopicOffsets, Fault> {
        Ok(TopicOffsets {
            id: Some(TopicId([id; 16])),
            starts: vec![Ok(Offset(0)); ends.len()],
            ends: ends.iter().map(|end| end.map(Offset)).collect(),
            ..TopicOffsets::default()
        })
    }

    fn names(batch: &[(TopicName, Duration)]) -> Vec<&str> {
        batch.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn group(commits: &[Option<i64>], reset: OffsetReset) -> GroupObservation {
        let commits = commits.iter().map(|c| Ok(c.map(Offset))).collect();
        GroupObservation {
            plan: GroupPlan {
                reset,
                ..GroupPlan::new("g", BTreeSet::new())
            },
            committed: Ok([("t".into(), commits)].into()),
            description: Err(Fault::Unsupported),
            refused_partitions: None,
            reported_lags: None,
        }
    }

    fn found(offsets: &[Offset]) -> FoundRecords {
        FoundRecords {
            offsets: offsets.iter().map(|offset| Ok(*offset)).collect(),
            ages: vec![Some(SECOND); offsets.len()],
        }
    }

    /// Looks a topic up, whose records `found` are found by how far back they are, and returns the times.
    fn look_back(
        groups: &[GroupObservation],
        end: i64,
        found_at: impl Fn(Duration) -> Offset,
    ) -> (Vec<u64>, Vec<PastEnds>) {
        let lookups = TimeLookups::default();
        let mut logs: TopicLogs = [("t".into(), log(1, &[Ok(end)]))].into();
        let unread = UnreadOffsets::new(groups);
        let mut times = Vec::new();
        let sweep = Instant::now();
        while let [(name, ago)] = &lookups.next_batch(&logs, sweep)[..] {
            times.push(ago.as_secs());
            let log = logs.get_mut(name).unwrap().as_mut().unwrap();
            lookups.finish(name, sweep, *ago, &found(&[found_at(*ago)]), &unread, log);
        }
        (times, logs.remove("t").unwrap().unwrap().past)
    }

    #[test]
    fn further_lookups_are_made_only_while_unread_records_are_older_or_newer() {
        let (latest, earliest) = (OffsetReset::Latest, OffsetReset::Earliest);
        let minutes = |ago: Duration| i64::try_from(ago.as_secs()).unwrap() / 60;
        // A record each minute for an hour; the one at 60 - n is n minutes old.
        let steady = |ago| Offset((60 - minutes(ago)).max(0));
        for (what, commits, reset, expected) in [
            ("read everything", Some(60), latest, &[600][..]),
            ("begins at the end", None, latest, &[600]),
            ("ten minutes behind", Some(50), latest, &[600]),
            ("a minute behind", Some(59), latest, &[600, 180, 60]),
            ("40 minutes behind", Some(20), latest, &[600, 1800, 7200]),
            ("begins at the start", None, earliest, &[600, 1800, 7200]),
        ] {
            let (times, _) = look_back(&[group(&[commits], reset)], 60, steady);
            assert_eq!(times, expected, "{what}");
        }
        // Two groups, and a log without records of this day.
        let both = [group(&[Some(59)], latest), group(&[Some(3)], latest)];
        let (times, past) = look_back(&both, 60, |_| NO_RECORD);
        assert_eq!(times, [600, 1800, 7200, 8 * 3600, 24 * 3600]);
        assert!(past.iter().all(|past| past.ends == [Some(Offset(60))]));
    }

    #[test]
    fn the_age_of_a_record_is_kept_if_it_is_the_first_unread_one() {
        let groups = [group(&[Some(100)], OffsetReset::Latest)];
        let (times, past) = look_back(&groups, 101, |_| Offset(100));
        assert_eq!(times, [600]);
        let record = PastRecord {
            partition: 0,
            offset: Offset(100),
            age: SECOND,
        };
        assert_eq!(past[0].records, [record]);
        let (_, past) = look_back(&groups, 101, |_| Offset(99));
        assert_eq!(past[0].records, []);
    }

    #[test]
    fn a_record_from_the_future_is_new() {
        let started = Moment {
            monotonic: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + 10 * SECOND,
        };
        assert_eq!(record_age(&started, 7_000), Some(3 * SECOND));
        assert_eq!(record_age(&started, 17_000), Some(Duration::ZERO));
        assert_eq!(record_age(&started, -1), None);
    }

    fn no_answer() -> FoundRecords {
        FoundRecords {
            offsets: [Err(Fault::NoAnswer)].into_iter().collect(),
            ages: vec![None],
        }
    }

    /// Makes the lookups of one sweep, and returns them in their order, with "+" between those of a batch.
    fn sweep(
        lookups: &TimeLookups,
        logs: &mut TopicLogs,
        groups: &[GroupObservation],
        answer: impl Fn(&TopicName, Duration) -> FoundRecords,
    ) -> String {
        let sweep = Instant::now();
        let unread = UnreadOffsets::new(groups);
        let mut made = Vec::new();
        loop {
            let batch = lookups.next_batch(logs, sweep);
            if batch.is_empty() {
                return made.join(" ");
            }
            for (name, ago) in &batch {
                let log = logs.get_mut(name).unwrap().as_mut().unwrap();
                lookups.finish(name, sweep, *ago, &answer(name, *ago), &unread, log);
            }
            let batch: Vec<_> = batch
                .iter()
                .map(|(name, ago)| format!("{name}:{}", ago.as_secs()))
                .collect();
            made.push(batch.join("+"));
        }
    }

    #[test]
    fn a_lookup_without_an_answer_is_repeated_in_a_few_sweeps() {
        let groups = [group(&[Some(5)], OffsetReset::Latest)];
        let lookups = TimeLookups::default();
        let mut logs: TopicLogs = [("t".into(), log(1, &[Ok(60)]))].into();
        let silent = |_: &TopicName, _| no_answer();
        let mut answered = |answer: &dyn Fn(&TopicName, Duration) -> FoundRecords| {
            sweep(&lookups, &mut logs, &groups, answer)
        };
        // The first time is answered at the second try, the next one never.
        assert_eq!(answered(&silent), "t:600");
        let older = |_: &TopicName, ago| match ago {
            LOOK_BACK => found(&[Offset(50)]),
            _ => no_answer(),
        };
        assert_eq!(answered(&older), "t:600 t:1800");
        for expected in ["t:1800", "t:1800", ""] {
            assert_eq!(answered(&silent), expected);
        }
    }

    #[test]
    fn a_topic_without_an_answer_neither_ends_nor_delays_the_lookups_of_others() {
        for (silent, first) in [("a", "b:1800+c:1800"), ("c", "a:1800+b:1800")] {
            let logs = ["a", "b", "c"].map(|name| (name.into(), log(1, &[Ok(60)])));
            let mut logs = TopicLogs::from(logs);
            let mut group = group(&[], OffsetReset::Earliest);
            for name in logs.keys() {
                let commits = [Ok(Some(Offset(5)))].into_iter().collect();
                group
                    .committed
                    .as_mut()
                    .unwrap()
                    .insert(name.clone(), commits);
            }
            let lookups = TimeLookups::default();
            let groups = [group];
            let answer = |name: &TopicName, ago| match ago {
                _ if name.as_str() == silent => no_answer(),
                LOOK_BACK => found(&[Offset(50)]),
                _ => found(&[Offset(0)]),
            };
            let made = sweep(&lookups, &mut logs, &groups, answer);
            assert_eq!(made, format!("a:600+b:600+c:600 {first}"));
            // The others are done.
            let made = sweep(&lookups, &mut logs, &groups, answer);
            assert_eq!(made, format!("{silent}:600"));
        }
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
        let groups = UnreadOffsets::new(&[]);
        let finish = |logs: &mut TopicLogs| {
            let sweep = Instant::now();
            let batch = past.next_batch(logs, sweep);
            for (name, ago) in &batch {
                let log = logs.get_mut(name).unwrap().as_mut().unwrap();
                past.finish(name, sweep, *ago, &FoundRecords::default(), &groups, log);
            }
            names(&batch).join(" ")
        };
        assert_eq!(finish(&mut logs), "a");
        assert_eq!(finish(&mut logs), "");
        logs.insert("down".into(), log(1, &[Err(Fault::NoAnswer), Ok(1)]));
        assert_eq!(finish(&mut logs), "down");
        logs.insert("a".into(), log(2, &[Ok(0)]));
        assert_eq!(finish(&mut logs), "a");
    }

    #[test]
    fn a_batch_has_a_bounded_number_of_partitions() {
        let past = TimeLookups::default();
        let mut logs: TopicLogs = [("big", 600), ("c", 200), ("d", 200), ("e", 200)]
            .map(|(name, partitions)| (name.into(), log(1, &vec![Ok(1); partitions])))
            .into();
        for expected in [&["big"][..], &["c", "d"], &["e"], &[]] {
            let sweep = Instant::now();
            let batch = past.next_batch(&logs, sweep);
            assert_eq!(names(&batch), expected);
            for (name, ago) in batch {
                let log = logs.get_mut(&name).unwrap().as_mut().unwrap();
                let none = UnreadOffsets::new(&[]);
                past.finish(&name, sweep, ago, &FoundRecords::default(), &none, log);
            }
        }
    }

    #[test]
    fn no_recent_record_yields_the_end_and_no_answer_yields_none() {
        let found = FoundRecords {
            offsets: vec![
                Ok(Offset(3)),
                Ok(NO_RECORD),
                Ok(Offset(12)),
                Err(Fault::NoAnswer),
                Ok(NO_RECORD),
            ],
            ages: Vec::new(),
        };
        let ends = [Ok(10), Ok(10), Ok(10), Ok(10), Err(Fault::NoAnswer)];
        let log = log(1, &ends).unwrap();
        let [a, b, c] = [3, 10, 10].map(|offset| Some(Offset(offset)));
        assert_eq!(
            past_ends(LOOK_BACK, &found, &log, &[]).ends,
            [a, b, c, None, None]
        );
    }

    #[test]
    fn no_offsets_by_timestamp_are_requested_with_a_clock_before_1970() {
        let at = |wall| Moment {
            monotonic: Instant::now(),
            wall,
        };
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(lookup_timestamp(&at(start), LOOK_BACK), None);
        let later = start + LOOK_BACK + Duration::from_millis(7);
        assert_eq!(lookup_timestamp(&at(later), LOOK_BACK), Some(7));
    }
}
