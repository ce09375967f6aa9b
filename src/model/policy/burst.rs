//! Bursts: messages that arrive faster than new replicas can start, and how long to stay ready for the next burst.

use super::learned::BURST_HALF_LIFE;
use super::settings::{DAMAGE_PRICE, PolicyRule};
use super::{RatePolicy, Situation};

/// Factor by which arrivals over 20 s exceed the capacity, and those over 180 s, in a burst.
const SURPLUS: f64 = 1.2;

/// A burst that is being watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrivalBurst {
    /// Time when it was noticed, in seconds.
    began: f64,
    /// Messages that had arrived by then and were processed.
    processed: f64,
    /// Messages that even all replicas could not have processed in time, counted from when they would have been
    /// running.
    excess: f64,
}

impl RatePolicy {
    /// Adds the arrivals since the last complete reading to the long-term mean.
    pub(super) fn average_arrivals(&mut self, now: f64) {
        let total = self.estimates.arrivals.total();
        if let Some((at, before)) = self.arrived.replace((now, total)) {
            self.learned.average_arrivals(total - before, now - at, now);
        }
    }

    /// Watches a burst from a step up until no message is too old any more, and remembers it.
    pub(super) fn watch_burst(&mut self, situation: &Situation) {
        if !self.settings.has(PolicyRule::Damage) {
            return;
        }
        let Situation {
            now, terms, slo, ..
        } = *situation;
        let arrived = self.estimates.arrivals.total();
        if self.burst.is_none()
            && let Some(trial) = &self.learned.trial
            && now < trial.at + terms.delay
            && terms.arrivals_fast > SURPLUS * terms.capacity * f64::from(trial.from)
            && terms.arrivals_fast > SURPLUS * terms.arrivals_slow
        {
            self.burst = Some(ArrivalBurst {
                began: now,
                processed: arrived - terms.backlog,
                excess: 0.0,
            });
        }
        let Some(burst) = &mut self.burst else { return };
        let elapsed = now - burst.began;
        if elapsed <= terms.delay {
            // Messages that have arrived by now become late in `slo` seconds. Until then, all replicas could work from
            // the end of the delay on.
            let working_seconds = (elapsed + slo - terms.delay).max(0.0);
            let all = terms.capacity * f64::from(self.all);
            burst.excess = burst
                .excess
                .max(arrived - burst.processed - all * working_seconds);
        }
        let is_over = terms.age < slo / 4.0 && terms.projected_age < slo / 4.0;
        if is_over && situation.stable_for >= 60.0 {
            self.learned.remember_burst(burst.excess, now);
            self.burst = None;
        }
    }

    /// Price of the messages that would be late with this number of replicas if the remembered burst came again, in
    /// replica-seconds.
    pub(super) fn burst_price(&self, situation: &Situation, replicas: u32) -> f64 {
        if !self.settings.has(PolicyRule::Damage) {
            return 0.0;
        }
        let Situation { now, terms, .. } = *situation;
        let processed = terms.capacity * f64::from(replicas) * (terms.delay - terms.pause).max(0.0);
        let burst = self.learned.burst(now);
        let late = (burst - processed).max(0.0);
        if late <= 0.0 {
            return 0.0;
        }
        // The mean includes the burst itself, but a saved mean may have been rounded to zero.
        let mean = self.learned.mean_arrivals.max(burst / BURST_HALF_LIFE);
        DAMAGE_PRICE * f64::from(self.all) * late / mean
    }
}
