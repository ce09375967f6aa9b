//! The rate policy: the number of consumers from rates and capacity, with few rebalances.
//!
//! Replicas in proportion to lag swing: lag drains, replicas fall, lag returns, and each change stops the group for a
//! rebalance. This policy needs only what Kafka shows: log ends, committed offsets over time, owners of partitions, and
//! members.
//!
//! It scales up if messages will be too old by the time a change takes effect ([`up`]). The new number is enough to
//! process the arrivals and to drain the backlog ([`requirement`]), and shares the partitions evenly ([`ladder`]). It
//! scales down if fewer replicas have been enough for so long that the step is worth its rebalances ([`down`]).
//!
//! [`RatePolicy::observe`] is a function of the readings only, which include the time. The daemon and `lagwise
//! simulate` run the same policy.

mod arrival_peaks;
mod burst;
mod capacity;
mod changes;
mod claim;
mod commits;
pub mod decision;
mod down;
pub mod drain;
mod estimates;
mod fluid_group;
mod ladder;
pub mod learned;
mod member_capacities;
mod policy_time;
mod rates;
mod reaction;
pub mod reading;
pub mod recommendation;
pub mod requirement;
pub mod saved;
pub mod scaling_totals;
pub mod settings;
mod situation;
pub mod static_comparison;
mod up;

use self::burst::ArrivalBurst;
use self::decision::{RateDecision, RateRule};
use self::down::{DownHistory, StepDown};
use self::drain::DrainJudge;
use self::estimates::{EstimateScratch, GroupEstimates};
use self::ladder::{bound_ladder, build_ladder};
use self::learned::LearnedPolicy;
use self::policy_time::{PolicyTime, from_count};
use self::reading::GroupReading;
use self::requirement::RequirementScratch;
use self::settings::RatePolicySettings;
use self::situation::Situation;
use self::static_comparison::StaticGroup;
use self::up::StepUp;

/// The rate policy of one consumer group.
#[derive(Clone, Debug)]
pub struct RatePolicy {
    settings: RatePolicySettings,
    learned: LearnedPolicy,
    estimates: GroupEstimates,
    history: DownHistory,
    /// The burst since which arrivals exceeded the capacity, while it is watched.
    burst: Option<ArrivalBurst>,
    /// Time of the last complete reading in seconds, and the messages that had arrived by then since the start.
    arrived: Option<(f64, f64)>,
    /// Time since which something other than the policy keeps more replicas than it wants, in seconds.
    kept_since: Option<f64>,
    /// Age of the oldest unprocessed message at the previous reading, in seconds.
    last_age: f64,
    /// The simulated group with all replicas, with which the policy is compared; `None` before the first complete
    /// reading.
    static_group: Option<StaticGroup>,
    drains: DrainJudge,
    ladder: Vec<u32>,
    ceiling: u32,
    bounds: (u32, u32),
    /// The upper bound of the replicas without a hold, with which the policy is compared.
    all: u32,
    /// Time of the first reading since the start, in seconds; `None` before it.
    started: Option<f64>,
}

/// Buffers that hold nothing between two readings. One can serve any number of policies.
#[derive(Clone, Debug, Default)]
pub struct PolicyScratch {
    offsets: Vec<(i64, i64)>,
    estimates: EstimateScratch,
    requirement: RequirementScratch,
}

impl RatePolicy {
    /// Starts with learned state; [`LearnedPolicy::default`] for a new group.
    #[must_use]
    pub fn new(settings: RatePolicySettings, mut learned: LearnedPolicy) -> Self {
        // What the group consumed before the step is compared with estimates that begin anew here.
        if let Some(trial) = &mut learned.trial {
            trial.is_judged = true;
        }
        let gaps =
            commits::CommitGaps::restored(learned.commit_interval, learned.longest_commit_gap);
        Self {
            settings,
            learned,
            estimates: GroupEstimates::new(gaps, learned.capacity.is_some()),
            history: DownHistory::default(),
            burst: None,
            arrived: None,
            kept_since: None,
            last_age: 0.0,
            static_group: None,
            drains: DrainJudge::default(),
            ladder: Vec::new(),
            ceiling: 0,
            bounds: (0, 0),
            all: 0,
            started: None,
        }
    }

    /// Replaces the settings.
    pub fn set_settings(&mut self, settings: RatePolicySettings) {
        self.settings = settings;
    }

    /// Adopts a number of replicas that was not decided by this policy, as if it had started from it.
    pub fn follow(&mut self, replicas: u32) {
        self.learned.output = Some(replicas);
    }

    /// Seconds since the first observed reading.
    #[must_use]
    pub fn observed_seconds(&self, now: f64) -> f64 {
        self.started.map_or(0.0, |started| now - started)
    }

    /// Whether members of the last step up have not joined yet.
    #[must_use]
    pub fn awaits_members(&self) -> bool {
        self.learned.trial.is_some_and(|trial| trial.is_awaited)
    }

    /// State that has to survive a restart.
    #[must_use]
    pub fn learned(&self) -> &LearnedPolicy {
        &self.learned
    }

    /// Records a reading and decides. Readings are in the order of their times.
    pub fn observe(
        &mut self,
        reading: &GroupReading<'_>,
        scratch: &mut PolicyScratch,
    ) -> RateDecision {
        let now = reading.at.as_secs_f64();
        if self.started.is_none() {
            self.start(now);
        }
        let policy_time = PolicyTime::from_seconds(now - self.learned.began);
        let ceiling = reading.ceiling.max(1);
        let most = reading.bounds.1.clamp(1, ceiling);
        let bounds = (reading.bounds.0.clamp(1, most), most);
        if self.ceiling != ceiling || self.bounds != bounds {
            (self.ceiling, self.bounds) = (ceiling, bounds);
            self.ladder = build_ladder(ceiling);
            bound_ladder(&mut self.ladder, bounds);
        }
        self.all = reading.all.clamp(most, ceiling);
        let is_first = self.learned.output.is_none();
        let running = reading.status_replicas.clamp(bounds.0, most);
        let before = *self.learned.output.get_or_insert(running);
        let output = before.clamp(bounds.0, most);
        self.learned.output = Some(output);
        let mut decision = RateDecision {
            replicas: output,
            before,
            rule: if is_first {
                RateRule::Start
            } else {
                RateRule::Keep
            },
            terms: None,
            up: None,
            down: None,
            hold: None,
            against_all: None,
            drain: self.drains.judged(),
        };
        if !read_offsets(reading, &mut scratch.offsets) {
            self.estimates.drop_windows(policy_time);
            self.drains.interrupt();
            decision.rule = RateRule::MissingOffsets;
            return decision;
        }
        let mut seen = self.estimates.observe(
            reading,
            (&scratch.offsets, &mut scratch.estimates),
            policy_time,
            &self.settings,
            &mut self.learned,
        );
        if let Some(supposed) = reading.supposed {
            self.estimates.suppose(supposed, &mut seen);
        }
        self.average_arrivals(now);
        self.await_members(reading);
        let loads = &mut scratch.estimates.loads;
        let Some(situation) = self.assess(reading, seen, output, loads) else {
            decision.rule = if is_first {
                RateRule::Start
            } else {
                RateRule::Watching
            };
            return decision;
        };
        decision.terms = Some(situation.terms);
        if seen.is_stalled {
            // Messages are late because of the standstill, not for lack of replicas.
            self.burst = None;
            decision.rule = RateRule::Stalled;
        } else {
            self.decide(&situation, &mut decision, &mut scratch.requirement);
            self.watch_burst(&situation);
        }
        let loads = &scratch.estimates.loads;
        self.judge_drain(reading, &situation, loads, seen.is_stalled);
        self.compare_with_all(reading, &situation, seen, &mut decision);
        decision
    }

    fn start(&mut self, now: f64) {
        self.started = Some(now);
        if self.learned.began <= 0.0 {
            self.learned.began = now;
            self.learned.last_needed = now;
        }
    }

    fn decide(
        &mut self,
        situation: &Situation,
        decision: &mut RateDecision,
        scratch: &mut RequirementScratch,
    ) {
        if let Some(back) = self.judge_up(situation) {
            decision.rule = RateRule::Ineffective;
            self.burst = None;
            self.change(situation, back, 0.0, true);
            decision.replicas = back;
            return;
        }
        self.record_requirement(situation, decision, scratch);
        match self.consider_up(situation, decision, scratch) {
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
        if let Some(replicas) = self.consider_claim(situation, decision) {
            decision.rule = RateRule::Claim;
            decision.replicas = replicas;
            self.change(situation, replicas, 0.0, false);
            return;
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

    /// Bytes that the estimates of this group take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            .saturating_add(self.estimates.heap_bytes())
            .saturating_add(self.history.capacity_bytes())
    }
}

/// Fills `offsets` with the log ends and the committed offsets. Returns whether there are some and all are known.
fn read_offsets(reading: &GroupReading<'_>, offsets: &mut Vec<(i64, i64)>) -> bool {
    offsets.clear();
    for partition in reading.partitions {
        let (Some(end), Some(committed)) = (partition.end, partition.committed) else {
            return false;
        };
        offsets.push((end.0, committed.0));
    }
    !offsets.is_empty()
}

#[cfg(test)]
mod tests;
