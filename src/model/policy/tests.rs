//! Decisions of the policy on constructed readings, and properties for any readings.

use std::time::Duration;

use proptest::prelude::*;

use super::capacity::MIN_CAPACITY_SAMPLES;
use super::decision::RateHoldReason;
use super::policy_time::messages_between;
use super::reading::{GroupPartition, SupposedGroup};
use super::settings::PolicyRule;
use super::*;
use crate::model::lag::lag_age::LagAge;
use crate::model::units::newtypes::Offset;

const POLL: u64 = 5;

/// A group whose members commit at every poll.
struct Group {
    policy: RatePolicy,
    scratch: PolicyScratch,
    now: u64,
    rate: i64,
    capacity: i64,
    replicas: u32,
    ends: Vec<i64>,
    committed: Vec<i64>,
    is_committing: bool,
    stuck: Option<usize>,
    bounds: (u32, u32),
    /// Replicas whose consumers are not members yet.
    starting: u32,
    supposed: Option<SupposedGroup>,
}

fn from_seconds(seconds: u64) -> f64 {
    Duration::from_secs(seconds).as_secs_f64()
}

impl Group {
    fn new(partitions: usize, replicas: u32) -> Self {
        Self {
            policy: RatePolicy::new(RatePolicySettings::default(), LearnedPolicy::default()),
            scratch: PolicyScratch::default(),
            now: 1_000_000,
            rate: 0,
            capacity: 100,
            replicas,
            ends: vec![0; partitions],
            committed: vec![0; partitions],
            is_committing: true,
            stuck: None,
            bounds: (1, u32::MAX),
            starting: 0,
            supposed: None,
        }
    }

    fn with_known_capacity(mut self) -> Self {
        let learned = LearnedPolicy {
            capacity: Some(100.0),
            capacity_samples: MIN_CAPACITY_SAMPLES,
            ..LearnedPolicy::default()
        };
        self.policy = RatePolicy::new(RatePolicySettings::default(), learned);
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

    /// Lets 120,000 messages arrive at once.
    fn burst(&mut self) {
        let each = 120_000 / i64::try_from(self.ends.len()).unwrap();
        self.ends.iter_mut().for_each(|end| *end += each);
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
        let reading = GroupReading {
            at: Duration::from_secs(self.now),
            poll_interval: Duration::from_secs(POLL),
            partitions: &partitions,
            ceiling: u32::try_from(partitions.len()).unwrap(),
            bounds: self.bounds,
            all: u32::MAX,
            is_stable: true,
            members: self.replicas,
            status_replicas: self.replicas + self.starting,
            supposed: self.supposed,
        };
        self.policy.observe(&reading, &mut self.scratch)
    }

    /// Continues with the policy that was saved just now, as another process.
    fn restart(&mut self) {
        let now = from_seconds(self.now);
        let saved = self.policy.learned().save(now);
        let learned = LearnedPolicy::restore(&saved, now, now).unwrap();
        self.policy = RatePolicy::new(self.policy.settings, learned);
    }

    /// Polls until the policy steps up, and returns the replicas that it then wants.
    fn step_up(&mut self) -> u32 {
        let steps = std::iter::from_fn(|| Some(self.poll()));
        let step = steps.take(40).find(|step| step.rule == RateRule::Up);
        step.unwrap().replicas
    }

    /// Polls for this number of seconds, with the replicas of the policy. Returns the changes.
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
    let mut group = Group::new(24, 3).with_known_capacity();
    group.rate = 240;
    assert_eq!(group.run(300), []);
    group.rate = 840;
    let changes = group.run(60);
    assert_eq!(changes, [(RateRule::Up, 12)]);
}

#[test]
fn batches_that_come_again_need_no_more_replicas_than_their_mean() {
    let with = |without| {
        let mut group = Group::new(24, 24).with_known_capacity();
        group.policy.set_settings(RatePolicySettings {
            without,
            ..RatePolicySettings::default()
        });
        // 24,000 messages at the beginning of each minute.
        let minute = |group: &mut Group| {
            let each = 24_000 / i64::try_from(group.ends.len()).unwrap();
            group.ends.iter_mut().for_each(|end| *end += each);
            group.run(60);
        };
        (0..60).for_each(|_| minute(&mut group));
        group.replicas
    };
    let replicas = with(None);
    assert!((5..=12).contains(&replicas), "{replicas}");
    let replicas = with(Some(PolicyRule::RepeatedPeak));
    assert!(replicas > 12, "{replicas}");
}

#[test]
fn scales_down_when_the_step_is_worth_it() {
    let mut group = Group::new(24, 24).with_known_capacity();
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
    let mut group = Group::new(24, 24).with_known_capacity();
    group.rate = 480;
    group.run(200);
    let hold = group.poll().hold.unwrap();
    assert_eq!(hold.reason, RateHoldReason::HoldPrice);
    assert_eq!(hold.replicas, 6);
    assert_eq!(hold.until, Some(1_000_005.0 + 420.0));
}

#[test]
fn missing_offsets_keep_the_output() {
    let mut group = Group::new(12, 6).with_known_capacity();
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
    let mut group = Group::new(12, 6).with_known_capacity();
    group.rate = 300;
    group.run(300);
    group.is_committing = false;
    let changes = group.run(900);
    assert!(changes.len() <= 1, "{changes:?}");
    assert_eq!(group.poll().rule, RateRule::Stalled);
}

#[test]
fn the_time_of_a_standstill_is_no_time_between_commits() {
    for standstill in [200, 900] {
        let mut group = Group::new(12, 6).with_known_capacity();
        group.rate = 300;
        group.run(300);
        group.is_committing = false;
        group.run(standstill);
        // One partition commits later than the others.
        group.is_committing = true;
        group.stuck = Some(3);
        let terms = group.poll().terms.unwrap();
        let lags = group.ends.iter().zip(&group.committed);
        let lag = lags.map(|(end, committed)| messages_between(*committed, *end));
        let lag: f64 = lag.sum();
        assert!(terms.backlog > 0.95 * lag, "{lag} {terms:?}");
        group.stuck = None;
        for _ in 0..4 {
            let terms = group.poll().terms.unwrap();
            assert!(terms.commit_interval <= 10.0, "{terms:?}");
        }
        let longest = group.policy.learned().longest_commit_gap;
        assert!(longest <= Some(10.0), "{longest:?}");
    }
}

#[test]
fn members_that_commit_every_few_minutes_are_no_standstill() {
    let mut group = Group::new(12, 6).with_known_capacity();
    group.rate = 300;
    group.capacity = 10_000;
    for poll in 0..1200 {
        group.is_committing = poll % 60 == 0;
        group.poll();
    }
    let interval = group.policy.learned().commit_interval;
    assert_eq!(interval, Some(300.0));
}

#[test]
fn a_stuck_partition_is_left_out() {
    let mut group = Group::new(12, 6).with_known_capacity();
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
fn learned_state_survives_a_restart_without_a_jump() {
    let mut group = Group::new(24, 12).with_known_capacity();
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
fn a_restart_while_pods_start_adds_no_step_up() {
    // Polls from the step until the restart, and how many members run before it.
    for (polls, before, rate) in [(0, 3, 840), (2, 3, 840), (6, 3, 840), (1, 6, 1400)] {
        let mut group = Group::new(24, before).with_known_capacity();
        group.rate = 240;
        group.run(600);
        let before = group.replicas;
        group.rate = rate;
        let decided = group.step_up();
        group.starting = decided - before;
        for _ in 0..polls {
            assert_eq!(group.poll().replicas, decided);
        }
        group.restart();
        assert!(group.policy.awaits_members());
        // The backlog grows until the pods have started.
        for _ in 0..50 / POLL {
            let decision = group.poll();
            assert_eq!(decision.replicas, decided, "{polls}: {decision:?}");
        }
        (group.replicas, group.starting) = (decided, 0);
        assert_eq!(group.run(60), []);
        assert!(!group.policy.awaits_members());
    }
}

#[test]
fn members_that_never_join_are_not_awaited_for_ever() {
    // Pods that cannot start, and a quota that allows none.
    for (starting, learned) in [(9, 900.0), (0, 50.0)] {
        let mut group = Group::new(24, 3).with_known_capacity();
        group.rate = 240;
        group.run(300);
        group.rate = 840;
        group.step_up();
        group.starting = starting;
        assert!(group.policy.awaits_members());
        // Nothing more arrives, so that no further step is awaited.
        group.rate = 0;
        for _ in 0..1000 / POLL {
            group.poll();
        }
        assert!(!group.policy.awaits_members());
        let reaction = group.policy.learned().reaction;
        assert!((reaction - learned).abs() < 10.0, "{reaction}");
    }
}

#[test]
fn only_pods_that_start_are_learned_as_reaction() {
    // Seconds without lagwise, and seconds for which a quota allows no new replica.
    for (restarted_for, limited_for) in [(600, 0), (3000, 0), (0, 600), (0, 200)] {
        let mut group = Group::new(24, 3).with_known_capacity();
        group.rate = 240;
        group.run(300);
        group.rate = 840;
        let decided = group.step_up();
        group.rate = 240;
        for _ in 0..limited_for / POLL {
            group.poll();
        }
        if restarted_for > 0 {
            group.restart();
            group.now += restarted_for;
        }
        // The pods start within ten seconds.
        group.starting = decided - 3;
        group.poll();
        (group.replicas, group.starting) = (decided, 0);
        group.poll();
        assert!(!group.policy.awaits_members());
        let reaction = group.policy.learned().reaction;
        assert!(
            reaction <= 70.0,
            "{restarted_for} {limited_for}: {reaction}"
        );
    }
}

#[test]
fn pods_that_start_one_after_the_other_are_learned_as_reaction() {
    let mut group = Group::new(24, 3).with_known_capacity();
    group.rate = 240;
    group.run(300);
    group.rate = 840;
    let decided = group.step_up();
    // As with a StatefulSet: the next pod is created when the one before is ready.
    for _ in 3..decided {
        group.starting = 1;
        for _ in 0..30 / POLL {
            group.poll();
        }
        (group.replicas, group.starting) = (group.replicas + 1, 0);
    }
    group.poll();
    assert!(!group.policy.awaits_members());
    let reaction = group.policy.learned().reaction;
    assert!(reaction > 150.0, "{reaction}");
}

#[test]
fn the_policy_decides_as_if_its_number_were_applied() {
    let mut group = Group::new(24, 24).with_known_capacity();
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
fn late_messages_do_not_count_against_the_policy_while_others_limit_the_replicas() {
    // Someone keeps 4 replicas from the beginning, or after half an hour in which the policy was followed.
    for followed in [0, 1800] {
        let mut group = Group::new(24, 12).with_known_capacity();
        group.rate = 960;
        group.run(followed);
        group.replicas = 4;
        let mut decision = group.poll();
        for _ in 0..1500 {
            decision = group.poll();
        }
        let compared = decision.against_all.unwrap();
        assert!(decision.replicas > 4, "{decision:?}");
        assert!(compared.policy.late_share().unwrap() > 0.5, "{compared:?}");
        assert!(!compared.is_all_cheaper, "{compared:?}");
    }
}

#[test]
fn time_under_a_hold_is_not_held_against_the_policy() {
    for (free, held) in [(2400, 1200), (6000, 600)] {
        let mut group = Group::new(24, 12).with_known_capacity();
        group.rate = 960;
        group.run(free);
        for _ in 0..4 {
            group.bounds = (1, 4);
            group.run(held);
            assert_eq!(group.replicas, 4);
            group.bounds = (1, u32::MAX);
            group.run(free);
        }
        let compared = group.poll().against_all.unwrap();
        assert!(compared.policy.late_share().unwrap() > 0.05, "{compared:?}");
        assert!(!compared.is_all_cheaper, "{compared:?}");
        // The comparison goes on over holds.
        let seconds = Duration::from_secs(5 * free + 4 * held).as_secs_f64();
        assert!((compared.seconds - seconds).abs() < 20.0, "{compared:?}");
    }
}

/// Hours in which 120,000 messages arrive at once every half an hour. The pods of a step up take so long to start.
fn hours_of_dumps(starting_for: u64) -> RateDecision {
    let mut group = Group::new(24, 3).with_known_capacity();
    // It would keep the replicas for the next dump.
    group.policy.settings.without = Some(PolicyRule::Damage);
    group.rate = 120;
    group.run(1800);
    for _ in 0..8 {
        group.burst();
        let before = group.replicas;
        for _ in 0..starting_for / POLL {
            let decision = group.poll();
            group.starting = decision.replicas.saturating_sub(before);
        }
        group.starting = 0;
        group.run(1800);
    }
    group.poll()
}

#[test]
fn dumps_that_are_soon_processed_are_not_held_against_the_policy() {
    for (starting_for, is_all_cheaper) in [(0, false), (30, false), (300, true), (600, true)] {
        let compared = hours_of_dumps(starting_for).against_all.unwrap();
        assert_eq!(
            compared.is_all_cheaper, is_all_cheaper,
            "{starting_for}: {compared:?}"
        );
    }
}

#[test]
fn the_number_rises_to_what_is_needed_while_others_keep_more() {
    // 12 replicas stay, whatever the policy says. The arrivals fall and come back.
    for (rate, needed) in [(500, 6), (640, 8)] {
        let mut group = Group::new(24, 12).with_known_capacity();
        let polls = |group: &mut Group, rate, seconds| {
            group.rate = rate;
            let decisions = (0..seconds / POLL).map(|_| group.poll());
            decisions.collect::<Vec<_>>()
        };
        let quiet = polls(&mut group, 120, 1800);
        assert_eq!(quiet.last().unwrap().replicas, 2);
        let busy = polls(&mut group, rate, 1200);
        let last = busy.last().unwrap();
        assert_eq!(last.replicas, needed, "{last:?}");
        let rules: Vec<_> = busy.iter().map(|decision| decision.rule).collect();
        assert!(rules.contains(&RateRule::Claim) && !rules.contains(&RateRule::Up));
        // So nothing is late when the others let go.
        group.replicas = last.replicas;
        let after = polls(&mut group, rate, 1200);
        let is_young =
            |decision: &RateDecision| decision.terms.is_none_or(|terms| terms.age < 15.0);
        assert!(after.iter().all(is_young));
        assert!(after.iter().all(|decision| decision.replicas == needed));
    }
}

#[test]
fn more_replicas_for_a_few_minutes_do_not_raise_the_number() {
    let mut group = Group::new(24, 6).with_known_capacity();
    // A little more than 6 replicas should have, but no message becomes old.
    group.rate = 540;
    assert_eq!(group.run(900), []);
    for _ in 0..3 {
        group.replicas = 8;
        for _ in 0..300 / POLL {
            assert_eq!(group.poll().replicas, 6);
        }
        group.replicas = 6;
        assert_eq!(group.run(600), []);
    }
}

/// A group with little to do that gets 120,000 messages at once.
fn after_a_burst(without: Option<PolicyRule>) -> Group {
    let mut group = Group::new(24, 3).with_known_capacity();
    group.policy.settings.without = without;
    group.rate = 120;
    group.run(900);
    group.burst();
    group.run(60);
    assert_eq!(group.replicas, 24);
    group
}

#[test]
fn a_burst_is_waited_for_as_long_as_that_costs_less_than_the_next_one() {
    let mut group = after_a_burst(None);
    assert_eq!(group.run(1500), []);
    let hold = group.poll().hold.unwrap();
    assert_eq!(hold.reason, RateHoldReason::Damage);
    // The next one restarts the wait.
    group.burst();
    assert_eq!(group.run(1500), []);
    // And if none comes, the replicas go.
    let changes = group.run(12_000);
    assert!(group.replicas <= 3, "{changes:?}");
}

#[test]
fn without_the_rule_or_a_burst_there_is_no_wait() {
    let mut group = after_a_burst(Some(PolicyRule::Damage));
    group.run(900);
    assert!(group.replicas <= 3);
    // As many messages, but so slowly that replicas can be there in time.
    let mut group = Group::new(24, 3).with_known_capacity();
    group.rate = 120;
    group.run(900);
    group.rate = 720;
    group.run(200);
    assert!(group.replicas > 3);
    group.rate = 120;
    group.run(1800);
    assert!(group.replicas <= 3);
}

#[test]
fn estimates_take_at_most_200_bytes_per_partition() {
    let mut group = Group::new(24, 12).with_known_capacity();
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
                0u32..12,
                prop::option::of((0u32..12, 0.0f64..1e9)),
            ),
            1..60,
        ),
    ) {
        let mut policy = RatePolicy::new(RatePolicySettings::default(), LearnedPolicy::default());
        let mut scratch = PolicyScratch::default();
        let mut now = 0;
        for (step, partitions, is_stable, (ceiling, members, replicas), bounds, all, supposed) in readings {
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
            let reading = GroupReading {
                at: Duration::from_secs(now),
                poll_interval: Duration::from_secs(5),
                partitions: &partitions,
                ceiling,
                bounds,
                all,
                is_stable,
                members,
                status_replicas: replicas,
                supposed: supposed.map(|(members, backlog)| SupposedGroup {
                    members,
                    backlog,
                    age: backlog / 100.0,
                    processed: backlog / 10.0,
                }),
            };
            let decision = policy.observe(&reading, &mut scratch);
            prop_assert!((1..=ceiling.max(1)).contains(&decision.replicas), "{:?}", decision);
            let learned = policy.learned();
            prop_assert!(learned.reaction.is_finite() && learned.pause.is_finite());
            prop_assert!(learned.capacity.is_none_or(f64::is_finite));
        }
    }
}
