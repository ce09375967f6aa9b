//! Reaction: the time from a higher output until the group has that many members.

use super::RatePolicy;
use super::reading::GroupReading;
use super::settings::PolicyRule;
use super::situation::{APPLIED_WITHIN, assumed_members};

/// Seconds by which a reaction may exceed the learned one before the learned one is raised at once.
const OVERDUE: f64 = 20.0;
/// Maximum reaction that is learned. Members that are missing for longer are not awaited any more.
const MAX_REACTION_SECONDS: f64 = 900.0;
/// Maximum time between two readings, or two polls if they take longer: members may have joined at any time in it.
const MAX_UNSEEN_SECONDS: f64 = 30.0;

impl RatePolicy {
    /// Learns how long the members of the last step up need to join.
    pub(super) fn await_members(&mut self, reading: &GroupReading<'_>) {
        let awaited = self.learned.trial.as_mut();
        let Some(trial) = awaited.filter(|trial| trial.is_awaited) else {
            return;
        };
        let now = reading.at.as_secs_f64();
        let elapsed = (now - trial.at).min(MAX_REACTION_SECONDS);
        let has_joined = assumed_members(reading) >= trial.to;
        trial.is_awaited = !has_joined && elapsed < MAX_REACTION_SECONDS;
        let unseen = now - std::mem::replace(&mut trial.seen, now);
        let poll = reading.poll_interval.as_secs_f64();
        // No new replica at all is the doing of a quota, a hold or another writer, and not a slow start.
        let is_starting = elapsed <= APPLIED_WITHIN || reading.status_replicas > trial.from;
        trial.is_timed &= is_starting && unseen <= MAX_UNSEEN_SECONDS.max(2.0 * poll);
        if !trial.is_timed || !self.settings.has(PolicyRule::LearnedReaction) {
            return;
        }
        let reaction = &mut self.learned.reaction;
        if has_joined {
            *reaction = (*reaction + elapsed) / 2.0;
        } else if elapsed > *reaction + OVERDUE {
            *reaction = elapsed;
        }
    }
}
