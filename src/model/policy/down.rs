//! Steps down: taken if fewer replicas have been enough for so long that the step saves more than it costs.

use super::decision::{DownRequirement, RateDecision, RateHold, RateHoldReason};
use super::requirement::{RateDemand, ReplicaRequirement, RequirementScratch, find_requirement};
use super::settings::{CATCH_UP_DOWN, HOLDS, PEAK_UTILISATION, PolicyRule};
use super::{RatePolicy, Situation};

/// Length of a slot of [`DownHistory`] in seconds, and their number: an hour and the present slot.
const SLOT: f64 = 60.0;
const SLOTS: usize = 61;
/// Minimum time without a rebalance before a step down.
const MIN_STABLE_SECONDS: f64 = 60.0;
/// Seconds without a change after which a group of unknown capacity is probed.
const PROBE_AFTER: f64 = 900.0;
/// Seconds that a step down waits if it can be larger then.
const LARGER_STEP_WAIT: f64 = 90.0;
/// Growth of the capacity from which older requirements are recomputed.
const CAPACITY_GROWTH: f64 = 1.1;

/// The largest requirement of each minute of the last hour, the present one first.
#[derive(Clone, Debug, Default)]
pub(super) struct DownHistory {
    slots: Vec<DownSlot>,
    began: f64,
    /// When the first slot of all began.
    watched_since: f64,
    /// Capacity that the requirements are computed with.
    capacity: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct DownSlot {
    /// The requirement.
    replicas: u16,
    /// Messages per second that were to be processed, which may have been more than all members can.
    needed: f32,
}

impl DownSlot {
    fn max(self, other: Self) -> Self {
        Self {
            replicas: self.replicas.max(other.replicas),
            needed: self.needed.max(other.needed),
        }
    }
}

impl DownHistory {
    /// Records a requirement: `replicas`, for `needed` messages per second at this capacity of a member.
    pub(super) fn record(&mut self, now: f64, replicas: u32, needed: f64, capacity: f64) {
        let slot = DownSlot {
            replicas: u16::try_from(replicas).unwrap_or(u16::MAX),
            needed: super::policy_time::compact(needed),
        };
        if self.slots.is_empty() {
            (self.began, self.watched_since) = (now, now);
            self.slots.push(slot);
            self.capacity = capacity;
        }
        // Requirements that were computed with a much smaller capacity would delay the next step down.
        if capacity > CAPACITY_GROWTH * self.capacity {
            let ratio = self.capacity / capacity;
            for slot in &mut self.slots {
                let replicas = f64::from(slot.replicas) * ratio;
                let needed = f64::from(slot.needed) / capacity;
                let replicas = super::policy_time::to_counter(replicas.max(needed).ceil());
                slot.replicas = u16::try_from(replicas)
                    .unwrap_or(u16::MAX)
                    .min(slot.replicas);
            }
            self.capacity = capacity;
        }
        while now - self.began >= SLOT {
            self.began += SLOT;
            self.slots.reserve_exact(1);
            self.slots.insert(0, slot);
            self.slots.truncate(SLOTS);
            // After a gap longer than the history, the slots in between are not needed.
            if now - self.began > SLOT * 61.0 {
                self.began = now;
            }
        }
        if let Some(first) = self.slots.first_mut() {
            *first = first.max(slot);
        }
    }

    /// The largest requirement of the last `window` seconds; `None` if they were not watched.
    pub(super) fn max_replicas(&self, now: f64, window: f64) -> Option<u32> {
        if now - self.watched_since < window {
            return None;
        }
        let reached = |place: &usize| {
            let end = now - self.began + SLOT * super::from_count(place.saturating_sub(1));
            *place == 0 || end < window
        };
        let slots = self.slots.iter().enumerate();
        let slots = slots.take_while(|(place, _)| reached(place));
        slots.map(|(_, slot)| u32::from(slot.replicas)).max()
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        self.slots.capacity().saturating_mul(size_of::<DownSlot>())
    }
}

/// Whether to step down.
#[derive(Clone, Copy, Debug)]
pub(super) enum StepDown {
    No,
    To { replicas: u32, held: f64 },
    Probe { replicas: u32 },
    Held(RateHold),
}

impl RatePolicy {
    /// Computes the requirements of the arrivals of three minutes and of one minute, and records the larger.
    pub(super) fn record_requirement(
        &mut self,
        situation: &Situation,
        decision: &mut RateDecision,
        scratch: &mut RequirementScratch,
    ) {
        let terms = &situation.terms;
        let utilisation = self.settings.utilisation;
        let mean = self.require_down(situation, terms.arrivals_slow, utilisation, scratch);
        let peak = self.require_down(situation, terms.arrivals_medium, PEAK_UTILISATION, scratch);
        let replicas = mean.replicas.max(peak.replicas);
        if replicas >= situation.output {
            self.learned.last_needed = situation.now;
        }
        let needed = unclipped(&mean.demand).max(unclipped(&peak.demand));
        self.history
            .record(situation.now, replicas, needed, terms.capacity);
        decision.down = Some(DownRequirement { mean, peak });
    }

    fn require_down(
        &self,
        situation: &Situation,
        rate: f64,
        utilisation: f64,
        scratch: &mut RequirementScratch,
    ) -> ReplicaRequirement {
        let terms = &situation.terms;
        let demand = RateDemand {
            rate,
            backlog: terms.backlog,
            utilisation,
            catch_up: CATCH_UP_DOWN,
            pause: terms.pause,
            capacity: terms.capacity,
        };
        let partitions = self.estimates.partitions.iter();
        let partitions = partitions.map(|p| (f64::from(p.share), f64::from(p.backlog)));
        find_requirement(demand, &self.ladder, partitions, scratch)
    }

    /// Considers a step down to what has been enough for one of [`HOLDS`], if it is worth its price.
    pub(super) fn consider_down(&mut self, situation: &Situation) -> StepDown {
        let Situation {
            now,
            output,
            terms,
            slo,
            ..
        } = *situation;
        let changed = self
            .learned
            .last_change
            .map_or(self.learned.began, |last| last.at);
        let unchanged = now - changed;
        let lowest = self.step_at_least(self.history.max_replicas(now, 0.0).unwrap_or(output));
        let held = |reason, until| match lowest < output {
            true => StepDown::Held(RateHold {
                reason,
                until,
                replicas: lowest,
            }),
            false => StepDown::No,
        };
        let is_settled = terms.members == output
            && situation.status_replicas == output
            && situation.stable_for >= MIN_STABLE_SECONDS;
        if !is_settled {
            return held(RateHoldReason::NotSettled, None);
        }
        if terms.age >= slo / 4.0 || terms.projected_age >= slo / 4.0 {
            return held(RateHoldReason::Age, None);
        }
        let price = self.settings.hold.as_secs_f64() * self.learned.hold_factor(now);
        let has_price = self.settings.has(PolicyRule::HoldPrice);
        let mut waits = None;
        let longest = HOLDS.last().copied().unwrap_or_default();
        for hold in HOLDS {
            let Some(replicas) = self.history.max_replicas(now, hold.min(unchanged)) else {
                break;
            };
            let replicas = self.step_at_least(replicas);
            if replicas >= output {
                break;
            }
            let fewer = f64::from(output.saturating_sub(replicas));
            let is_worth = match has_price {
                true => fewer / f64::from(output) * hold >= price || hold >= longest,
                false => true,
            };
            if !is_worth {
                continue;
            }
            if unchanged < hold {
                waits = Some((RateHoldReason::HoldPrice, changed + hold));
                break;
            }
            let damage = self.burst_price(situation, replicas);
            if (now - self.learned.last_needed) * fewer < damage {
                let until = self.learned.last_needed + damage / fewer;
                if waits.is_none_or(|(_, earlier)| until < earlier) {
                    waits = Some((RateHoldReason::Damage, until));
                }
                continue;
            }
            let soon = self
                .history
                .max_replicas(now, hold - LARGER_STEP_WAIT)
                .unwrap_or(replicas);
            if self.step_at_least(soon) < replicas {
                // One larger step instead of two.
                waits = Some((RateHoldReason::HoldPrice, now + LARGER_STEP_WAIT));
                break;
            }
            return StepDown::To {
                replicas,
                held: hold,
            };
        }
        // A probe that is only recommended would measure nothing.
        if !situation.is_supposed
            && !terms.is_capacity_known
            && unchanged >= PROBE_AFTER * self.learned.probe_factor()
            && let Some(replicas) = self.step_below(output)
            && self.is_harmless(situation, replicas)
        {
            return StepDown::Probe { replicas };
        }
        match waits {
            Some((reason, until)) => held(reason, Some(until)),
            None => held(RateHoldReason::HoldPrice, None),
        }
    }

    /// Whether messages stay within the objective until a step back up takes effect, if the capacity is only its lower
    /// bound.
    fn is_harmless(&self, situation: &Situation, replicas: u32) -> bool {
        let terms = &situation.terms;
        let missing = terms.arrivals_medium - terms.capacity * f64::from(replicas);
        let age = missing.max(0.0) * terms.delay / terms.arrivals_medium.max(1e-9);
        age <= situation.slo / 2.0
    }
}

/// Messages per second that have to be processed, even if a partition gets more than a consumer can process.
fn unclipped(demand: &RateDemand) -> f64 {
    let RateDemand {
        rate,
        backlog,
        utilisation,
        catch_up,
        pause,
        ..
    } = *demand;
    rate / utilisation + (backlog + rate * pause) / catch_up
}
