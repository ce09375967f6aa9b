//! The rate policy: the number of consumers from rates and capacity, with few rebalances.
//!
//! Replicas in proportion to lag swing: lag drains, replicas fall, lag returns, and each change stops the group for a
//! rebalance. This policy needs only what Kafka shows: log ends, committed offsets over time, owners of partitions
//! and members. It scales up if messages will be too old by the time a change takes effect ([`up`]), to what carries
//! the arrivals and drains the backlog ([`requirement`]), in steps that share the partitions evenly ([`ladder`]). It
//! scales down if fewer replicas have been enough for so long that the step is worth its rebalances ([`down`]).
//!
//! [`RatePolicy::observe`] is a function of the readings only: time is a part of them. `lagwise simulate` runs the
//! policy. The daemon does not serve it yet.

mod capacity;
mod commits;
pub mod decision;
mod down;
mod estimates;
mod ladder;
pub mod learned;
mod policy_time;
mod rates;
mod reaction;
pub mod reading;
pub mod requirement;
pub mod settings;
mod up;

use self::capacity::estimate_capacity;
use self::decision::{RateDecision, RateRule, RateTerms};
use self::down::{DownHistory, StepDown};
use self::estimates::{GroupEstimates, ObservedGroup};
use self::ladder::build_ladder;
use self::learned::{LastChange, LearnedPolicy};
use self::policy_time::{PolicyTime, from_count};
use self::rates::{FAST, MEDIUM, SLOW};
use self::reaction::Reaction;
use self::reading::GroupReading;
use self::requirement::RequirementScratch;
use self::settings::{DAMAGE_PRICE, PolicyRule, RatePolicySettings};
use self::up::{StepUp, UpTrial};

/// Seconds of consumption from which a group of unknown capacity is judged.
const WATCHED_MIN: f64 = 40.0;

/// Arrivals in proportion to the capacity from which late messages are due to too few replicas.
const SURPLUS: f64 = 1.2;

/// The rate policy of one consumer group.
#[derive(Clone, Debug)]
pub struct RatePolicy {
    settings: RatePolicySettings,
    learned: LearnedPolicy,
    estimates: GroupEstimates,
    history: DownHistory,
    reaction: Reaction,
    trial: Option<UpTrial>,
    /// Messages that were late since arrivals exceeded the capacity, while they are being counted.
    late: Option<f64>,
    /// Age of the oldest unprocessed message at the reading before, in seconds.
    last_age: f64,
    ladder: Vec<u32>,
    ceiling: u32,
    /// Time of the first reading since the start, in seconds; `None` before it.
    started: Option<f64>,
    offsets: Vec<(i64, i64)>,
    scratch: RequirementScratch,
}

/// Inputs of the rules at one poll.
#[derive(Clone, Copy, Debug)]
struct Situation {
    now: f64,
    output: u32,
    terms: RateTerms,
    is_stable: bool,
    stable_for: f64,
    progress_since: f64,
    status_replicas: u32,
    slo: f64,
}

impl RatePolicy {
    /// Starts with what was learned before; [`LearnedPolicy::default`] for a new group.
    #[must_use]
    pub fn new(settings: RatePolicySettings, learned: LearnedPolicy) -> Self {
        let gaps =
            commits::CommitGaps::restored(learned.commit_interval, learned.longest_commit_gap);
        Self {
            settings,
            learned,
            estimates: GroupEstimates::new(gaps),
            history: DownHistory::default(),
            reaction: Reaction::default(),
            trial: None,
            late: None,
            last_age: 0.0,
            ladder: Vec::new(),
            ceiling: 0,
            started: None,
            offsets: Vec::new(),
            scratch: RequirementScratch::default(),
        }
    }

    /// What has to survive a restart.
    #[must_use]
    pub fn learned(&self) -> &LearnedPolicy {
        &self.learned
    }

    /// Takes in a reading and decides. Readings are in the order of their times.
    pub fn observe(&mut self, reading: &GroupReading<'_>) -> RateDecision {
        let now = reading.at.as_secs_f64();
        if self.started.is_none() {
            self.start(now);
        }
        let moment = PolicyTime::from_seconds(now - self.learned.began);
        let ceiling = reading.ceiling.max(1);
        if self.ceiling != ceiling {
            self.ceiling = ceiling;
            self.ladder = build_ladder(ceiling);
        }
        let starts = self.learned.output.is_none();
        let present = reading.status_replicas.clamp(1, ceiling);
        let before = *self.learned.output.get_or_insert(present);
        let output = before.min(ceiling);
        self.learned.output = Some(output);
        let mut decision = RateDecision {
            replicas: output,
            before,
            rule: if starts {
                RateRule::Start
            } else {
                RateRule::Keep
            },
            terms: None,
            up: None,
            down: None,
            hold: None,
        };
        if !self.read_offsets(reading) {
            self.estimates.drop_windows(moment);
            decision.rule = RateRule::MissingOffsets;
            return decision;
        }
        let seen = self.estimates.observe(
            reading,
            &self.offsets,
            moment,
            &self.settings,
            &mut self.learned,
        );
        self.reaction.observe(
            now,
            reading.members,
            self.settings.has(PolicyRule::LearnedReaction),
            &mut self.learned,
        );
        let Some(situation) = self.assess(reading, seen, output) else {
            decision.rule = if starts {
                RateRule::Start
            } else {
                RateRule::Watching
            };
            return decision;
        };
        decision.terms = Some(situation.terms);
        if seen.is_stalled {
            // What is late after a standstill is not due to the replicas.
            self.late = None;
            decision.rule = RateRule::Stalled;
            return decision;
        }
        self.count_damage(&situation, seen.consumed);
        self.decide(&situation, &mut decision);
        decision
    }

    fn start(&mut self, now: f64) {
        self.started = Some(now);
        if self.learned.output.is_none() {
            self.learned.began = now;
            self.learned.last_up = now;
        }
    }

    fn read_offsets(&mut self, reading: &GroupReading<'_>) -> bool {
        self.offsets.clear();
        for partition in reading.partitions {
            let (Some(end), Some(committed)) = (partition.end, partition.committed) else {
                return false;
            };
            self.offsets.push((end.0, committed.0));
        }
        !self.offsets.is_empty()
    }

    fn assess(
        &mut self,
        reading: &GroupReading<'_>,
        seen: ObservedGroup,
        output: u32,
    ) -> Option<Situation> {
        let now = reading.at.as_secs_f64();
        let estimates = &mut self.estimates;
        let rate =
            |window| estimates.arrivals.per_second(window).unwrap_or(0.0) * seen.active_share;
        let (medium, slow) = (rate(MEDIUM), rate(SLOW));
        let fast = match self.settings.has(PolicyRule::FastRate) {
            true => rate(FAST),
            false => medium,
        };
        let consumed = estimates.consumption.per_second(MEDIUM).unwrap_or(0.0);
        let (capacity, is_known) = estimate_capacity(
            &self.learned,
            self.settings.capacity_hint,
            self.settings.has(PolicyRule::Floor),
            estimates.consumption.per_second_of_whole(WATCHED_MIN),
            reading.members,
            now,
        )?;
        let poll = reading.poll_interval.as_secs_f64();
        let delay = self.learned.reaction + self.learned.pause + poll;
        let share = seen.active_share.max(1e-9);
        let ahead = estimates.project_age(fast / share, capacity, reading.members, delay);
        let hot = estimates.partitions.iter().position(|partition| {
            is_known && medium / share * f64::from(partition.share) > capacity
        });
        let terms = RateTerms {
            arrivals_fast: fast,
            arrivals_medium: medium,
            arrivals_slow: slow,
            consumption: consumed,
            backlog: seen.backlog,
            age: seen.age,
            projected_age: if self.settings.has(PolicyRule::ProjectedAge) {
                ahead
            } else {
                seen.age
            },
            capacity,
            is_capacity_known: is_known,
            members: reading.members,
            delay,
            pause: self.learned.pause,
            commit_interval: estimates.gaps.interval(),
            stuck_partitions: seen.stuck,
            hot_partition: hot,
        };
        Some(Situation {
            now,
            output,
            terms,
            progress_since: seen.progress_since,
            is_stable: reading.is_stable,
            stable_for: if reading.is_stable {
                now - estimates.stable_since
            } else {
                0.0
            },
            status_replicas: reading.status_replicas,
            slo: self.settings.slo.as_secs_f64(),
        })
    }

    fn decide(&mut self, situation: &Situation, decision: &mut RateDecision) {
        if let Some(back) = self.judge_up(situation) {
            decision.rule = RateRule::Ineffective;
            self.late = None;
            self.change(situation, back, 0.0, true);
            decision.replicas = back;
            return;
        }
        self.record_requirement(situation, decision);
        match self.consider_up(situation, decision) {
            StepUp::To(replicas) => {
                decision.rule = RateRule::Up;
                decision.replicas = replicas;
                let candidate = decision.up.as_ref().and_then(|up| up.candidates.last());
                let needed = candidate.map_or(f64::INFINITY, |candidate| candidate.needed);
                self.raise(situation, replicas, needed);
                return;
            }
            StepUp::Held(hold) => {
                decision.hold = Some(hold);
                return;
            }
            StepUp::No => {}
        }
        match self.consider_down(situation) {
            StepDown::To { replicas, held } => {
                decision.rule = RateRule::Down;
                decision.replicas = replicas;
                self.change(situation, replicas, held, false);
            }
            StepDown::Probe { replicas } => {
                decision.rule = RateRule::Probe;
                decision.replicas = replicas;
                self.change(situation, replicas, 0.0, true);
            }
            StepDown::Held(hold) => decision.hold = Some(hold),
            StepDown::No => {}
        }
    }

    /// Records a step up, and what follows if it undoes a step down.
    fn raise(&mut self, situation: &Situation, replicas: u32, needed: f64) {
        let Situation {
            now, terms, output, ..
        } = *situation;
        if let Some(last) = self.learned.last_change
            && last.to < last.from
            && last.is_trial
            && !terms.is_capacity_known
        {
            self.learned.failed_probes = self.learned.failed_probes.saturating_add(1);
        }
        if let Some(last) = self.learned.last_change
            && last.to < last.from
            && !last.is_trial
            && now - last.at < (2.0 * last.held).max(1200.0)
        {
            self.learned.double_hold(now);
        }
        let exceeds = terms.arrivals_fast > SURPLUS * terms.capacity * f64::from(output);
        if self.settings.has(PolicyRule::Damage) && exceeds {
            self.late.get_or_insert(0.0);
        }
        // Steps up in quick succession are judged as one.
        let pending = self
            .trial
            .filter(|trial| !trial.is_judged && trial.to == output);
        let from = pending.map_or(output, |trial| trial.from);
        let capacity = pending.map_or(terms.capacity, |trial| trial.capacity);
        let consumed = pending.map_or(terms.consumption, |trial| trial.consumed);
        let more = f64::from(replicas.saturating_sub(from)) * capacity;
        self.trial = Some(UpTrial {
            at: now,
            from,
            to: replicas,
            arrivals: terms.arrivals_fast,
            capacity,
            consumed,
            expected: more.min((needed - consumed).max(0.0)),
            is_judged: false,
        });
        self.reaction.expect(now, replicas);
        self.learned.last_up = now;
        self.change(situation, replicas, 0.0, false);
    }

    fn change(&mut self, situation: &Situation, replicas: u32, held: f64, is_trial: bool) {
        self.learned.last_change = Some(LastChange {
            at: situation.now,
            from: situation.output,
            to: replicas,
            held,
            is_trial,
        });
        self.learned.output = Some(replicas);
        if replicas < situation.output {
            self.reaction.forget();
        }
    }

    /// Counts the messages that are late because there were too few replicas. Their price delays the next step down.
    fn count_damage(&mut self, situation: &Situation, consumed: f64) {
        let last_age = std::mem::replace(&mut self.last_age, situation.terms.age);
        let Some(late) = &mut self.late else { return };
        let Situation {
            now, terms, slo, ..
        } = *situation;
        if terms.age.max(last_age) > slo {
            *late += consumed;
        }
        let is_over = terms.age < slo / 4.0 && terms.projected_age < slo / 4.0;
        if is_over && situation.stable_for >= 60.0 {
            // The total begins at 0 after a restart.
            let watched = now - self.started.unwrap_or(now);
            let mean = self.estimates.arrivals.total() / watched.max(1.0);
            let price = DAMAGE_PRICE * f64::from(self.ceiling) / mean.max(1e-9) * *late;
            self.learned.add_damage(price, now);
            self.late = None;
        }
    }

    /// Bytes that the estimates of this group take, without buffers that hold nothing between two polls.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            .saturating_add(self.estimates.heap_bytes())
            .saturating_add(self.history.capacity_bytes())
    }
}

#[cfg(test)]
mod tests;
