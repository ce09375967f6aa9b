//! Changes of the output, and what is learned from them.

use super::learned::LastChange;
use super::settings::{DAMAGE_PRICE, PolicyRule};
use super::up::UpTrial;
use super::{RatePolicy, Situation};

/// Arrivals in proportion to the capacity from which late messages are due to too few replicas.
const SURPLUS: f64 = 1.2;

impl RatePolicy {
    /// Records a step up, and what follows if it undoes a step down.
    pub(super) fn raise(&mut self, situation: &Situation, replicas: u32, needed: f64) {
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

    pub(super) fn change(
        &mut self,
        situation: &Situation,
        replicas: u32,
        held: f64,
        is_trial: bool,
    ) {
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
    pub(super) fn count_damage(&mut self, situation: &Situation, consumed: f64) {
        let Some(late) = &mut self.late else { return };
        let Situation {
            now, terms, slo, ..
        } = *situation;
        if situation.is_late {
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
}
