//! Changes of the output, and the state that is learned from them.

use super::learned::{LastChange, UpTrial};
use super::{RatePolicy, Situation};

/// Minimum time after a step down in which a step up counts as undoing it, in seconds. It is twice the hold before the
/// step down, if that is longer.
const MIN_UNDO_WINDOW: f64 = 1200.0;

impl RatePolicy {
    /// Records a step up. If it undoes a step down, records that the probe failed, or doubles the hold.
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
            && now - last.at < (2.0 * last.held).max(MIN_UNDO_WINDOW)
        {
            self.learned.double_hold(now);
        }
        // A step up that follows one whose effect is not checked yet is judged together with it.
        let pending = self
            .learned
            .trial
            .filter(|trial| !trial.is_judged && trial.to == output);
        let from = pending.map_or(output, |trial| trial.from);
        let capacity = pending.map_or(terms.capacity, |trial| trial.capacity);
        let consumed = pending.map_or(terms.consumption, |trial| trial.consumed);
        let more = f64::from(replicas.saturating_sub(from)) * capacity;
        self.learned.trial = Some(UpTrial {
            at: now,
            from,
            to: replicas,
            arrivals: terms.arrivals_expected,
            capacity,
            consumed,
            expected: more.min((needed - consumed).max(0.0)),
            is_awaited: true,
            seen: now,
            is_timed: !situation.is_supposed,
            is_judged: false,
        });
        self.learned.last_needed = now;
        self.change(situation, replicas, 0.0, false);
    }

    /// Records a change of the output. `held`: how long a lower requirement was held before a step down, in seconds;
    /// `is_trial`: a probe, or a step back.
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
        if replicas < situation.output
            && let Some(trial) = &mut self.learned.trial
        {
            trial.is_awaited = false;
        }
    }
}
