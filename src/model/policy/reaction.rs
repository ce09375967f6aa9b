//! Reaction: the time from a higher output until the group has that many members.

use super::RatePolicy;
use super::reading::GroupReading;
use super::settings::PolicyRule;
use super::situation::assumed_members;

/// Seconds by which a reaction may exceed the learned one before the learned one is raised at once.
const OVERDUE: f64 = 20.0;
/// Maximum reaction that is learned. Members that are missing for longer are not awaited any more.
const MAX_REACTION_SECONDS: f64 = 900.0;

impl RatePolicy {
    /// Learns how long the members of the last step up need to join.
    pub(super) fn await_members(&mut self, reading: &GroupReading<'_>) {
        let awaited = self.learned.trial.as_mut();
        let Some(trial) = awaited.filter(|trial| trial.is_awaited) else {
            return;
        };
        let is_learning =
            reading.supposed.is_none() && self.settings.has(PolicyRule::LearnedReaction);
        let elapsed = (reading.at.as_secs_f64() - trial.at).min(MAX_REACTION_SECONDS);
        let has_joined = assumed_members(reading) >= trial.to;
        trial.is_awaited = !has_joined && elapsed < MAX_REACTION_SECONDS;
        if !is_learning {
            return;
        }
        if has_joined {
            self.learned.reaction = (self.learned.reaction + elapsed) / 2.0;
        } else if reading.status_replicas >= trial.to && elapsed > self.learned.reaction + OVERDUE {
            // Fewer replicas than decided are the doing of a quota, a hold or another writer, and not a slow start.
            self.learned.reaction = elapsed;
        }
    }
}
