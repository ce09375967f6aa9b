//! Observations -> snapshots: applies the lag rules and remembers what outlives one sweep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use super::lag::{NoCommit, PartitionLag, partition_lag};
use super::observation::{CommittedColumn, GroupObservation, GroupPlan, Observation, TopicOffsets};
use super::snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic, Sweep, TopicLag};
use super::types::{GroupId, Moment, Offset, TopicName};

/// How long a topic or partition that a group was seen to read is missed before it is taken to be
/// gone. The metadata of a broker that has just started may leave some out, and a sum without them
/// would be too small.
const MISSED_FOR: Duration = Duration::from_secs(60);

/// Which groups an observation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that are wanted: groups it does not name are wanted no more.
    Whole,
    /// Some, read out of turn: the others stay as they are.
    Some,
}

/// The log's end at which each partition was first seen without a commit, while the group had
/// commits on others of the topic.
type FirstSeen = Vec<Option<Offset>>;

/// What is remembered of one Kafka cluster between sweeps. One owner, the poller.
#[derive(Debug, Default)]
pub struct ClusterHistory {
    current: Arc<ClusterSnapshot>,
    uncommitted: BTreeMap<(GroupId, TopicName), FirstSeen>,
}

impl ClusterHistory {
    /// Takes in what a sweep brought and returns what is known now.
    pub fn take_in(&mut self, observation: Observation, scope: Scope) -> Arc<ClusterSnapshot> {
        let mut next = (*self.current).clone();
        let Observation {
            started,
            finished,
            topics,
            groups,
            connection,
            traffic,
            ..
        } = observation;
        if scope == Scope::Whole {
            next.sweep = Some(Sweep { started, finished });
            // A group that was read out of turn after this sweep had begun is not in its plan.
            next.groups.retain(|id, group| {
                group.asked.monotonic > started.monotonic
                    || groups.iter().any(|g| g.plan.group == *id)
            });
            self.uncommitted
                .retain(|(group, _), _| next.groups.contains_key(group));
        }
        next.connection = connection;
        next.traffic = match (next.traffic, traffic) {
            // Of two sweeps at once the one that ends last may have counted first.
            (Some(known), Some(earlier)) if earlier.requests < known.requests => Some(known),
            (known, counted) => counted.or(known),
        };
        for group in groups {
            let id = group.plan.group.clone();
            let before = next.groups.remove(&id);
            let after = match before {
                Some(newer) if newer.asked.monotonic > started.monotonic => newer,
                before => self.group(group, &topics, started, before),
            };
            next.groups.insert(id, after);
        }
        self.current = Arc::new(next);
        Arc::clone(&self.current)
    }

    fn group(
        &mut self,
        group: GroupObservation,
        topics: &BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>,
        read: Moment,
        before: Option<GroupSnapshot>,
    ) -> GroupSnapshot {
        let plan = group.plan;
        let (was_discovered, described, mut known) = before
            .map(|b| (b.discovered, b.description, b.topics))
            .unwrap_or_default();
        // Who cannot tell at the moment takes nothing back.
        let description = group.description.ok().or(described);
        let committed = match group.committed {
            Ok(committed) => committed,
            Err(fault) => {
                for topic in &plan.topics {
                    known.entry(topic.clone()).or_insert(GroupTopic {
                        latest: Err(fault),
                        complete: None,
                    });
                }
                for topic in known.values_mut() {
                    topic.latest = Err(fault);
                }
                return GroupSnapshot {
                    asked: read,
                    discovered: was_discovered,
                    fault: Some(fault),
                    description,
                    topics: known,
                };
            }
        };
        let mut read_now = BTreeMap::new();
        for (topic, column) in committed {
            let before = known.remove(&topic).and_then(|before| before.complete);
            let offsets = topics.get(&topic).cloned().unwrap_or(Err(Fault::NoAnswer));
            let latest =
                offsets.map(|offsets| Arc::new(self.topic(&plan, &topic, offsets, column, read)));
            read_now.insert(topic, group_topic(latest, before));
        }
        if plan.discover {
            // A topic that the group was just seen to read, and that metadata leaves out now.
            for (topic, before) in known {
                let commits = before.may_have_commits();
                if let Some(complete) = before.complete.filter(|c| commits && is_missed(c, &read)) {
                    read_now.insert(topic, group_topic(Err(Fault::NoAnswer), Some(complete)));
                }
            }
        }
        let topics = read_now;
        GroupSnapshot {
            asked: read,
            discovered: plan.discover,
            fault: None,
            description,
            topics,
        }
    }

    fn topic(
        &mut self,
        plan: &GroupPlan,
        topic: &TopicName,
        offsets: Arc<TopicOffsets>,
        mut committed: CommittedColumn,
        read: Moment,
    ) -> TopicLag {
        // A partition that one side knows and the other does not (yet) is unknown, not absent.
        let partitions = offsets.ends.len().max(committed.len());
        committed.resize(partitions, Err(Fault::NoAnswer));
        let runs = committed.iter().any(|c| matches!(c, Ok(Some(_))));
        let key = (plan.group.clone(), topic.clone());
        let mut first_seen = self.uncommitted.remove(&key).unwrap_or_default();
        first_seen.resize(committed.len(), None);
        let mut lags = Vec::with_capacity(committed.len());
        for ((i, committed), first_seen) in committed.iter().enumerate().zip(&mut first_seen) {
            let of = |column: &[Result<Offset, Fault>]| {
                column.get(i).copied().unwrap_or(Err(Fault::NoAnswer))
            };
            lags.push(reading(
                *committed,
                of(&offsets.starts),
                of(&offsets.ends),
                plan,
                runs,
                first_seen,
            ));
        }
        if first_seen.iter().any(Option::is_some) {
            self.uncommitted.insert(key, first_seen);
        }
        TopicLag {
            read,
            offsets,
            committed,
            lags,
        }
    }
}

/// Whether something read so lately is rather missed than gone.
fn is_missed(complete: &TopicLag, now: &Moment) -> bool {
    now.since(&complete.read) < MISSED_FOR
}

fn group_topic(latest: Result<Arc<TopicLag>, Fault>, before: Option<Arc<TopicLag>>) -> GroupTopic {
    let complete = match (&latest, before) {
        // Partitions are never taken away from a topic: some of them are left out.
        (Ok(lag), Some(before))
            if lag.partitions() < before.partitions() && is_missed(&before, &lag.read) =>
        {
            return GroupTopic {
                latest: Err(Fault::NoAnswer),
                complete: Some(before),
            };
        }
        (Ok(lag), _) if lag.first_fault().is_none() => Some(Arc::clone(lag)),
        // What was known of a topic that is gone says nothing of one made anew.
        (Err(Fault::TopicMissing), _) => None,
        (_, before) => before,
    };
    GroupTopic { latest, complete }
}

fn reading(
    committed: Result<Option<Offset>, Fault>,
    start: Result<Offset, Fault>,
    end: Result<Offset, Fault>,
    plan: &GroupPlan,
    runs: bool,
    first_seen: &mut Option<Offset>,
) -> Result<PartitionLag, Fault> {
    let (committed, end, start) = (committed?, end?, start?);
    let no_commit = if runs {
        if committed.is_some() {
            *first_seen = None;
        }
        NoCommit::Runs {
            reset: plan.reset,
            since: match committed {
                // An end before the one first seen is another log's: there it begins anew.
                None => *first_seen.insert(first_seen.map_or(end, |seen| seen.min(end))),
                Some(_) => end,
            },
        }
    } else {
        *first_seen = None;
        NoCommit::NeverRan(plan.reset)
    };
    partition_lag(start, committed, end, no_commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::group::{GroupDescription, GroupKind, GroupState};
    use crate::model::types::Lag;
    use std::time::{Duration, Instant, SystemTime};

    fn at(seconds: u64) -> Moment {
        static ZERO: std::sync::LazyLock<Moment> = std::sync::LazyLock::new(|| Moment {
            monotonic: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
        });
        Moment {
            monotonic: ZERO.monotonic + Duration::from_secs(seconds),
            wall: ZERO.wall + Duration::from_secs(seconds),
        }
    }

    fn plan(group: &str) -> GroupPlan {
        GroupPlan::new(group, ["t".into()].into())
    }

    type Committed = Result<Option<i64>, Fault>;

    fn observe(seconds: u64, group: &str, committed: &[Committed], ends: &[i64]) -> Observation {
        let committed = committed.iter().map(|c| c.map(|c| c.map(Offset))).collect();
        Observation {
            cluster: "c".into(),
            started: at(seconds),
            finished: at(seconds),
            topics: [(
                "t".into(),
                Ok(Arc::new(TopicOffsets {
                    starts: ends.iter().map(|_| Ok(Offset(0))).collect(),
                    ends: ends.iter().map(|e| Ok(Offset(*e))).collect(),
                    ..TopicOffsets::default()
                })),
            )]
            .into(),
            groups: vec![GroupObservation {
                plan: plan(group),
                committed: Ok([("t".into(), committed)].into()),
                description: Err(Fault::Untold),
            }],
            connection: None,
            traffic: None,
        }
    }

    fn topic(snapshot: &ClusterSnapshot) -> &GroupTopic {
        &snapshot.groups["g"].topics["t"]
    }

    #[test]
    fn a_partial_reading_keeps_the_last_complete_one() {
        let mut history = ClusterHistory::default();
        history.take_in(
            observe(0, "g", &[Ok(Some(5)), Ok(Some(5))], &[10, 10]),
            Scope::Whole,
        );
        let snapshot = history.take_in(
            observe(5, "g", &[Ok(Some(10)), Err(Fault::NoAnswer)], &[10, 10]),
            Scope::Whole,
        );
        let topic = topic(&snapshot);
        assert_eq!(topic.fault(), Some(Fault::NoAnswer));
        assert_eq!(topic.complete.as_ref().unwrap().total(), Ok(Lag(10)));
        assert!(topic.fresh(&at(30), Duration::from_secs(30)).is_some());
        assert!(topic.fresh(&at(31), Duration::from_secs(30)).is_none());
    }

    #[test]
    fn a_fault_of_the_whole_group_keeps_the_last_complete_reading() {
        let mut history = ClusterHistory::default();
        history.take_in(observe(0, "g", &[Ok(Some(5))], &[10]), Scope::Whole);
        let mut failed = observe(5, "g", &[], &[]);
        failed.topics.clear();
        failed.groups[0].committed = Err(Fault::Unreachable);
        let snapshot = history.take_in(failed, Scope::Whole);
        assert_eq!(snapshot.groups["g"].fault, Some(Fault::Unreachable));
        assert_eq!(topic(&snapshot).fault(), Some(Fault::Unreachable));
        assert_eq!(
            topic(&snapshot).complete.as_ref().unwrap().total(),
            Ok(Lag(5))
        );
    }

    #[test]
    fn a_description_outlives_sweeps_that_bring_none() {
        let mut history = ClusterHistory::default();
        let mut told = observe(0, "g", &[Ok(Some(5))], &[10]);
        let description = Arc::new(GroupDescription {
            kind: GroupKind::Consumer,
            state: GroupState::Empty,
            assignor: Some("uniform".into()),
            members: Vec::new(),
            subtopologies: Vec::new(),
        });
        told.groups[0].description = Ok(Arc::clone(&description));
        history.take_in(told, Scope::Whole);
        let mut failed = observe(5, "g", &[], &[]);
        failed.groups[0].committed = Err(Fault::Unreachable);
        for silent in [failed, observe(9, "g", &[Ok(Some(5))], &[10])] {
            let snapshot = history.take_in(silent, Scope::Whole);
            let kept = snapshot.groups["g"].description.as_ref();
            assert_eq!(kept, Some(&description));
        }
    }

    #[test]
    fn a_group_that_never_answered_is_unknown_not_absent() {
        let mut history = ClusterHistory::default();
        let mut failed = observe(0, "g", &[], &[]);
        failed.groups[0].committed = Err(Fault::Login);
        let snapshot = history.take_in(failed, Scope::Whole);
        assert_eq!(topic(&snapshot).fault(), Some(Fault::Login));
        assert!(topic(&snapshot).complete.is_none());
    }

    #[test]
    fn a_running_group_reads_an_uncommitted_partition_from_where_it_was_first_seen() {
        let mut history = ClusterHistory::default();
        let total = |h: &mut ClusterHistory, o| {
            topic(&h.take_in(o, Scope::Whole))
                .complete
                .as_ref()
                .unwrap()
                .total()
        };
        assert_eq!(
            total(
                &mut history,
                observe(0, "g", &[Ok(Some(10)), Ok(None)], &[10, 70])
            ),
            Ok(Lag(0))
        );
        assert_eq!(
            total(
                &mut history,
                observe(5, "g", &[Ok(Some(10)), Ok(None)], &[10, 100])
            ),
            Ok(Lag(30))
        );
        assert_eq!(
            total(
                &mut history,
                observe(9, "g", &[Ok(Some(10)), Ok(Some(90))], &[10, 100])
            ),
            Ok(Lag(10))
        );
        assert!(history.uncommitted.is_empty());
    }

    #[test]
    fn what_was_first_seen_of_a_log_does_not_outlive_it() {
        let mut history = ClusterHistory::default();
        let commits = [Ok(Some(0)), Ok(None)];
        for (seconds, end, lag) in [(0, 1000, 0), (5, 1010, 10), (10, 20, 0), (15, 50, 30)] {
            let snapshot =
                history.take_in(observe(seconds, "g", &commits, &[0, end]), Scope::Whole);
            let complete = topic(&snapshot).complete.as_ref().unwrap();
            assert_eq!(complete.total(), Ok(Lag(lag)), "{end}");
        }
    }

    #[test]
    fn without_any_commit_it_never_ran() {
        let mut history = ClusterHistory::default();
        let snapshot = history.take_in(
            observe(0, "g", &[Ok(None), Ok(None)], &[10, 70]),
            Scope::Whole,
        );
        assert!(topic(&snapshot).complete.as_ref().unwrap().never_ran());
    }

    #[test]
    fn a_deleted_topic_forgets_what_was_known() {
        let mut history = ClusterHistory::default();
        history.take_in(observe(0, "g", &[Ok(Some(5))], &[10]), Scope::Whole);
        let mut gone = observe(5, "g", &[], &[]);
        gone.topics.insert("t".into(), Err(Fault::TopicMissing));
        let snapshot = history.take_in(gone, Scope::Whole);
        assert_eq!(topic(&snapshot).fault(), Some(Fault::TopicMissing));
        assert!(topic(&snapshot).complete.is_none());
    }

    #[test]
    fn partitions_that_metadata_leaves_out_are_missed_for_a_while() {
        let mut history = ClusterHistory::default();
        let two = [Ok(Some(5)), Ok(Some(5))];
        history.take_in(observe(0, "g", &two, &[10, 10]), Scope::Whole);
        let snapshot = history.take_in(observe(5, "g", &two[..1], &[10]), Scope::Whole);
        let lag = topic(&snapshot).complete.as_ref().unwrap().total();
        assert_eq!(
            (topic(&snapshot).fault(), lag),
            (Some(Fault::NoAnswer), Ok(Lag(10)))
        );
        let snapshot = history.take_in(observe(60, "g", &two[..1], &[10]), Scope::Whole);
        let lag = topic(&snapshot).complete.as_ref().unwrap().total();
        assert_eq!((topic(&snapshot).fault(), lag), (None, Ok(Lag(5))));
    }

    #[test]
    fn a_discovered_topic_that_metadata_leaves_out_is_missed_for_a_while() {
        let discover = |seconds, gone: bool| {
            let mut read = observe(seconds, "g", &[Ok(Some(5))], &[10]);
            read.groups[0].plan.discover = true;
            read.groups[0].plan.topics.clear();
            if gone {
                read.topics.clear();
                read.groups[0].committed = Ok(BTreeMap::new());
            }
            read
        };
        let mut history = ClusterHistory::default();
        history.take_in(discover(0, false), Scope::Whole);
        let snapshot = history.take_in(discover(59, true), Scope::Whole);
        assert_eq!(topic(&snapshot).fault(), Some(Fault::NoAnswer));
        assert_eq!(
            topic(&snapshot).complete.as_ref().unwrap().total(),
            Ok(Lag(5))
        );
        let snapshot = history.take_in(discover(60, true), Scope::Whole);
        assert!(snapshot.groups["g"].topics.is_empty());
    }

    #[test]
    fn a_partition_that_only_one_side_knows_is_unknown() {
        let mut history = ClusterHistory::default();
        let snapshot = history.take_in(observe(0, "g", &[Ok(Some(5))], &[10, 10]), Scope::Whole);
        assert_eq!(topic(&snapshot).fault(), Some(Fault::NoAnswer));
    }

    #[test]
    fn a_whole_sweep_drops_groups_nobody_wants_but_not_one_read_since() {
        let mut history = ClusterHistory::default();
        history.take_in(observe(0, "old", &[Ok(Some(1))], &[1]), Scope::Whole);
        history.take_in(observe(7, "new", &[Ok(Some(1))], &[1]), Scope::Some);
        let snapshot = history.take_in(observe(5, "g", &[Ok(Some(1))], &[1]), Scope::Whole);
        let names: Vec<_> = snapshot.groups.keys().map(GroupId::as_str).collect();
        assert_eq!(names, ["g", "new"]);
    }

    #[test]
    fn an_older_reading_never_replaces_a_newer_one() {
        let mut history = ClusterHistory::default();
        history.take_in(observe(7, "g", &[Ok(Some(9))], &[10]), Scope::Some);
        let snapshot = history.take_in(observe(5, "g", &[Ok(Some(1))], &[10]), Scope::Whole);
        assert_eq!(
            topic(&snapshot).complete.as_ref().unwrap().total(),
            Ok(Lag(1))
        );
    }
}
