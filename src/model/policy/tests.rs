//! What the policy decides on readings made by hand, and what holds for any readings.

use std::time::Duration;

use proptest::prelude::*;

use super::decision::RateHoldReason;
use super::reading::{GroupPartition, SupposedGroup};
use super::*;
use crate::model::lag::lag_age::LagAge;
use crate::model::units::newtypes::Offset;

const POLL: u64 = 5;

/// A group whose members commit at every poll what they processed.
struct Group {
    policy: RatePolicy,
    now: u64,
    rate: i64,
    capacity: i64,
    replicas: u32,
    ends: Vec<i64>,
    committed: Vec<i64>,
    is_committing: bool,
    stuck: Option<usize>,
    bounds: (u32, u32),
    supposed: Option<SupposedGroup>,
}

impl Group {
    fn new(partitions: usize, replicas: u32) -> Self {
        Self {
            policy: RatePolicy::new(RatePolicySettings::default(), LearnedPolicy::default()),
            now: 1_000_000,
            rate: 0,
            capacity: 100,
            replicas,
            ends: vec![0; partitions],
            committed: vec![0; partitions],
            is_committing: true,
            stuck: None,
            bounds: (1, u32::MAX),
            supposed: None,
        }
    }

    fn with_hint(mut self) -> Self {
        let settings = RatePolicySettings {
            capacity_hint: Some(100.0),
            ..RatePolicySettings::default()
        };
        self.policy = RatePolicy::new(settings, LearnedPolicy::default());
        self
    }

    fn owner(&self, partition: usize) -> u32 {
        u32::try_from(partition).unwrap() % self.replicas
    }

    /// Lets the time of one poll pass.
    fn poll(&mut self) -> RateDecision {
        self.now += POLL;
        let partitions = i64::try_from(self.ends.len()).unwrap();
        for end in &mut self.ends {
            *end += self.rate * 5 / partitions;
        }
        let each = partitions / i64::from(self.replicas).max(1);
        for place in 0..self.ends.len() {
            let most = self.capacity * 5 / each.max(1);
            if self.is_committing && self.stuck != Some(place) {
                let lag = self.ends[place] - self.committed[place];
                self.committed[place] += lag.min(most);
            }
        }
        self.read(false)
    }

    fn read(&mut self, is_missing: bool) -> RateDecision {
        let partitions: Vec<GroupPartition> = (0..self.ends.len())
            .map(|place| {
                let lag = self.ends[place] - self.committed[place];
                let per_second = (self.rate / i64::try_from(self.ends.len()).unwrap()).max(1);
                GroupPartition {
                    end: (!is_missing).then_some(Offset(self.ends[place])),
                    committed: Some(Offset(self.committed[place])),
                    age: Some(LagAge::exactly(
                        u64::try_from(lag * 1000 / per_second).unwrap(),
                    )),
                    owner: Some(self.owner(place)),
                }
            })
            .collect();
        self.policy.observe(&GroupReading {
            at: Duration::from_secs(self.now),
            poll_interval: Duration::from_secs(POLL),
            partitions: &partitions,
            ceiling: u32::try_from(partitions.len()).unwrap(),
            bounds: self.bounds,
            is_stable: true,
            members: self.replicas,
            status_replicas: self.replicas,
            supposed: self.supposed,
        })
    }

    /// Polls for so many seconds, with as many replicas as the policy says. Returns the changes.
    fn run(&mut self, seconds: u64) -> Vec<(RateRule, u32)> {
        let mut changes = Vec::new();
        for _ in 0..seconds / POLL {
            let decision = self.poll();
            if decision.replicas != self.replicas {
                changes.push((decision.rule, decision.replicas));
                self.replicas = decision.replicas;
            }
        }
        changes
    }
}

#[test]
fn starts_with_the_present_replicas() {
    let mut group = Group::new(12, 5);
    group.rate = 120;
    let first = group.poll();
    assert_eq!((first.rule, first.replicas), (RateRule::Start, 5));
    assert_eq!(group.poll().rule, RateRule::Watching);
}

#[test]
fn scales_up_before_messages_are_late_and_in_one_step() {
    let mut group = Group::new(24, 3).with_hint();
    group.rate = 240;
    assert_eq!(group.run(300), []);
    group.rate = 960;
    let changes = group.run(60);
    assert_eq!(changes, [(RateRule::Up, 12)]);
}

#[test]
fn scales_down_when_the_step_is_worth_it() {
    let mut group = Group::new(24, 24).with_hint();
    group.rate = 480;
    let mut decision = group.poll();
    while decision.rule != RateRule::Down {
        assert!(group.now < 1_003_600, "{decision:?}");
        decision = group.poll();
        assert!(decision.terms.is_none_or(|terms| terms.age < 15.0));
    }
    // 18 of 24 replicas less for 420 s save more than 300 s; for 300 s they do not.
    assert_eq!(decision.replicas, 6);
    let waited = group.now - 1_000_000;
    assert!((420..540).contains(&waited), "{waited}");
    let down = decision.down.unwrap();
    assert_eq!(down.mean.replicas, 6);
    assert_eq!(down.mean.candidates.last().unwrap().replicas, 6);
}

#[test]
fn says_what_holds_a_step_down_and_until_when() {
    let mut group = Group::new(24, 24).with_hint();
    group.rate = 480;
    group.run(200);
    let hold = group.poll().hold.unwrap();
    assert_eq!(hold.reason, RateHoldReason::HoldPrice);
    assert_eq!(hold.replicas, 6);
    assert_eq!(hold.until, Some(1_000_005.0 + 420.0));
}

#[test]
fn missing_offsets_keep_the_output() {
    let mut group = Group::new(12, 6).with_hint();
    group.rate = 300;
    group.run(100);
    group.now += POLL;
    let decision = group.read(true);
    assert_eq!(
        (decision.rule, decision.replicas),
        (RateRule::MissingOffsets, 6)
    );
    assert!(decision.terms.is_none());
}

#[test]
fn a_gap_in_the_readings_is_no_throughput() {
    let mut group = Group::new(12, 6);
    group.rate = 300;
    group.run(200);
    let before = group.policy.learned().best_floor.value;
    for _ in 0..60 {
        group.now += POLL;
        for place in 0..12 {
            group.ends[place] += 125;
            group.committed[place] += 125;
        }
        group.read(true);
    }
    group.run(60);
    assert!(group.policy.learned().best_floor.value <= 1.05 * before.max(50.0));
}

#[test]
fn a_group_that_stands_still_is_not_scaled() {
    let mut group = Group::new(12, 6).with_hint();
    group.rate = 300;
    group.run(300);
    group.is_committing = false;
    let changes = group.run(900);
    assert!(changes.len() <= 1, "{changes:?}");
    assert_eq!(group.poll().rule, RateRule::Stalled);
}

#[test]
fn a_stuck_partition_is_left_out() {
    let mut group = Group::new(12, 6).with_hint();
    group.rate = 300;
    group.run(300);
    group.stuck = Some(3);
    let most = group.run(1200).iter().map(|(_, replicas)| *replicas).max();
    let terms = group.poll().terms.unwrap();
    assert_eq!(terms.stuck_partitions, 1);
    assert!(
        terms.age < 15.0 && most.is_none_or(|most| most <= 6),
        "{most:?} {terms:?}"
    );
}

#[test]
fn learns_the_capacity_of_busy_members() {
    let mut group = Group::new(12, 4);
    group.capacity = 80;
    group.rate = 600;
    group.policy.learned.output = Some(4);
    for _ in 0..40 {
        group.poll();
    }
    let learned = *group.policy.learned();
    assert!(
        (learned.capacity.unwrap() - 80.0).abs() < 5.0,
        "{learned:?}"
    );
}

#[test]
fn what_was_learned_survives_a_restart_without_a_jump() {
    let mut group = Group::new(24, 12).with_hint();
    group.rate = 700;
    group.run(600);
    let now = 1_000_600.0;
    let saved = group.policy.learned().save(now);
    let learned = LearnedPolicy::restore(&saved, now, now + 10.0).unwrap();
    assert_eq!(learned.output, group.policy.learned().output);
    let settings = group.policy.settings;
    group.policy = RatePolicy::new(settings, learned);
    assert_eq!(group.run(300), []);
}

#[test]
fn a_group_that_is_not_at_the_number_is_supposed_to_be() {
    let mut group = Group::new(24, 24).with_hint();
    group.rate = 480;
    // 24 members run, whatever the policy says.
    let mut lowest = 24;
    for _ in 0..200 {
        let members = group.policy.learned().output.unwrap_or(24);
        group.supposed = Some(SupposedGroup {
            members,
            backlog: 0.0,
            age: 0.0,
            processed: 0.0,
        });
        lowest = lowest.min(group.poll().replicas);
    }
    assert_eq!(lowest, 6);
    // Supposed to be far behind with them.
    group.supposed = Some(SupposedGroup {
        members: 6,
        backlog: 50_000.0,
        age: 100.0,
        processed: 0.0,
    });
    assert_eq!(group.poll().rule, RateRule::Up);
}

#[test]
fn estimates_take_at_most_200_bytes_per_partition() {
    let mut group = Group::new(24, 12).with_hint();
    group.rate = 480;
    for _ in 0..1000 {
        group.poll();
    }
    let bytes = group.policy.memory_bytes();
    assert!(bytes <= 200 * 24, "{bytes}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_readings_give_a_number_up_to_the_ceiling(
        readings in prop::collection::vec(
            (
                0u64..100,
                prop::collection::vec((any::<Option<i64>>(), any::<Option<i64>>(), any::<Option<u32>>(), 0u64..10_000_000), 0..9),
                any::<bool>(),
                (0u32..12, 0u32..12, 0u32..12),
                (0u32..12, 0u32..12),
                prop::option::of((0u32..12, 0.0f64..1e9)),
            ),
            1..60,
        ),
    ) {
        let mut policy = RatePolicy::new(RatePolicySettings::default(), LearnedPolicy::default());
        let mut now = 0;
        for (step, partitions, is_stable, (ceiling, members, replicas), bounds, supposed) in readings {
            now += step;
            let partitions: Vec<GroupPartition> = partitions
                .into_iter()
                .map(|(end, committed, owner, age)| GroupPartition {
                    end: end.map(Offset),
                    committed: committed.map(Offset),
                    age: Some(LagAge::exactly(age)),
                    owner,
                })
                .collect();
            let decision = policy.observe(&GroupReading {
                at: Duration::from_secs(now),
                poll_interval: Duration::from_secs(5),
                partitions: &partitions,
                ceiling,
                bounds,
                is_stable,
                members,
                status_replicas: replicas,
                supposed: supposed.map(|(members, backlog)| SupposedGroup {
                    members,
                    backlog,
                    age: backlog / 100.0,
                    processed: backlog / 10.0,
                }),
            });
            prop_assert!((1..=ceiling.max(1)).contains(&decision.replicas), "{:?}", decision);
            let learned = policy.learned();
            prop_assert!(learned.reaction.is_finite() && learned.pause.is_finite());
            prop_assert!(learned.capacity.is_none_or(f64::is_finite));
        }
    }
}
