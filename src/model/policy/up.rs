//! Steps up, and the check whether they helped.

use super::decision::{RateDecision, RateHold, RateHoldReason};
use super::requirement::{RateDemand, ReplicaRequirement, RequirementScratch, find_requirement};
use super::settings::{BURST_UTILISATION, CATCH_UP_UP, PolicyRule};
use super::{RatePolicy, Situation};

/// A step up waits until the delay of the previous one, or [`MAX_WAIT_SECONDS`] if that is shorter, plus
/// [`WAIT_MARGIN`] have passed, in seconds.
const MAX_WAIT_SECONDS: f64 = 90.0;
const WAIT_MARGIN: f64 = 20.0;
/// Seconds from the end of a step's delay until its effect is checked.
const JUDGED_AFTER: f64 = 70.0;
/// Minimum part of the expected gain that a step up has to reach, or else it counts as ineffective.
const MIN_GAIN: f64 = 0.2;

/// After an ineffective step up, the next one waits, unless arrivals or consumption exceed those at its check by this
/// factor.
const UNBLOCKED_GROWTH: f64 = 1.2;
/// A step up does not wait for the previous one if arrivals exceed those at the previous one by this factor, or if the
/// capacity of a member has fallen below that at the previous one times the second factor.
const MUCH_MORE_ARRIVALS: f64 = 1.15;
const MUCH_LESS_CAPACITY: f64 = 0.85;

/// Whether to step up.
#[derive(Clone, Copy, Debug)]
pub(super) enum StepUp {
    No,
    To(u32),
    Held(RateHold),
}

impl RatePolicy {
    /// Considers a step up: if messages will be too old by the time it takes effect.
    pub(super) fn consider_up(
        &mut self,
        situation: &Situation,
        decision: &mut RateDecision,
        scratch: &mut RequirementScratch,
    ) -> StepUp {
        let Situation {
            now,
            output,
            terms,
            slo,
            ..
        } = *situation;
        let will_be_old = terms.projected_age > slo / 2.0;
        let stays_old = terms.age > slo / 4.0 && terms.projected_age > slo / 4.0;
        if !will_be_old && !stays_old {
            return StepUp::No;
        }
        let required = self.require_up(situation, scratch);
        let mut replicas = required.replicas;
        decision.up = Some(required);
        // With a lower bound of the capacity, the requirement is not exact: old messages show that at least one step is
        // needed, and without a projection of old messages the step is limited to twice the output.
        if !terms.is_capacity_known {
            if terms.age > slo / 4.0 {
                replicas = replicas.max(self.step_above(output));
            }
            if !will_be_old {
                replicas = replicas.min(self.step_at_most(output.saturating_mul(2)));
            }
        }
        if replicas <= output {
            return StepUp::No;
        }
        let held = |reason, until| {
            StepUp::Held(RateHold {
                reason,
                until,
                replicas,
            })
        };
        if !situation.is_stable && terms.projected_age <= slo {
            return held(RateHoldReason::Rebalancing, None);
        }
        if self.settings.has(PolicyRule::Ineffective)
            && now < self.learned.blocked_until
            && terms.arrivals_medium < UNBLOCKED_GROWTH * self.learned.blocked_rate
            && situation.consumption_fast < UNBLOCKED_GROWTH * self.learned.blocked_consumption
        {
            return held(
                RateHoldReason::IneffectiveUp,
                Some(self.learned.blocked_until),
            );
        }
        if self.settings.has(PolicyRule::OneUpAtATime)
            && let Some(trial) = &self.learned.trial
        {
            let wait_until = trial.at + terms.delay.min(MAX_WAIT_SECONDS) + WAIT_MARGIN;
            let is_pending = trial.is_awaited;
            let is_worse = terms.arrivals_expected > MUCH_MORE_ARRIVALS * trial.arrivals
                || terms.capacity < MUCH_LESS_CAPACITY * trial.capacity;
            if (now < wait_until || is_pending) && !is_worse {
                let until = (!is_pending).then_some(wait_until);
                return held(RateHoldReason::PodsStarting, until);
            }
        }
        StepUp::To(replicas)
    }

    fn require_up(
        &self,
        situation: &Situation,
        scratch: &mut RequirementScratch,
    ) -> ReplicaRequirement {
        let terms = &situation.terms;
        let processed = terms.capacity * f64::from(terms.members);
        let more = (terms.arrivals_expected - processed).max(0.0) * terms.delay;
        let demand = RateDemand {
            rate: terms.arrivals_expected,
            backlog: terms.backlog + more,
            utilisation: BURST_UTILISATION,
            catch_up: CATCH_UP_UP,
            pause: terms.pause,
            capacity: terms.capacity,
        };
        let partitions = self.estimates.partitions.iter().map(move |partition| {
            let share = f64::from(partition.share);
            (share, f64::from(partition.backlog) + share * more)
        });
        find_requirement(demand, &self.ladder, partitions, scratch)
    }

    /// Checks the effect of the last step up, once its pods had time to show one. Returns the number to go back to, if
    /// messages are still old and the group consumes hardly more than before.
    pub(super) fn judge_up(&mut self, situation: &Situation) -> Option<u32> {
        let Situation {
            now,
            output,
            terms,
            slo,
            ..
        } = *situation;
        let trial = self
            .learned
            .trial
            .as_mut()
            .filter(|trial| !trial.is_judged)?;
        if situation.progress_since >= trial.at {
            // The group stood still after the step, so its consumption says nothing about the replicas.
            trial.is_judged = true;
            return None;
        }
        let is_due = now >= trial.at + terms.delay + JUDGED_AFTER
            && terms.members >= trial.to
            && situation.is_stable
            && situation.stable_for >= 2.0 * terms.commit_interval;
        if !is_due {
            return None;
        }
        trial.is_judged = true;
        let trial = *trial;
        if !self.settings.has(PolicyRule::Ineffective) || output != trial.to {
            return None;
        }
        let helped = terms.consumption - trial.consumed >= MIN_GAIN * trial.expected;
        if terms.age <= slo / 4.0 || helped {
            return None;
        }
        self.learned
            .block(terms.arrivals_medium, terms.consumption, now);
        Some(trial.from.max(self.bounds.0))
    }

    pub(super) fn step_above(&self, replicas: u32) -> u32 {
        let mut steps = self.ladder.iter().copied();
        steps.find(|step| *step > replicas).unwrap_or(replicas)
    }

    pub(super) fn step_at_least(&self, replicas: u32) -> u32 {
        let mut steps = self.ladder.iter().copied();
        steps.find(|step| *step >= replicas).unwrap_or(replicas)
    }

    fn step_at_most(&self, replicas: u32) -> u32 {
        let mut steps = self.ladder.iter().rev().copied();
        steps.find(|step| *step <= replicas).unwrap_or(replicas)
    }

    pub(super) fn step_below(&self, replicas: u32) -> Option<u32> {
        let mut steps = self.ladder.iter().rev().copied();
        steps.find(|step| *step < replicas)
    }
}
