//! Reaction: the time from a higher output until the group has that many members.

use super::learned::LearnedPolicy;

/// Seconds by which a reaction may exceed the learned one before the learned one is raised at once.
const OVERDUE: f64 = 20.0;
/// Maximum reaction that is learned.
const MAX_REACTION_SECONDS: f64 = 900.0;

/// The step up whose members are awaited.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reaction {
    awaited: Option<(f64, u32)>,
}

impl Reaction {
    /// Begins to measure the time until the group has this number of members. A further step while pods start replaces
    /// the measurement.
    pub(super) fn expect(&mut self, now: f64, members: u32) {
        self.awaited = Some((now, members));
    }

    pub(super) fn forget(&mut self) {
        self.awaited = None;
    }

    /// Whether the group has fewer members than the last step up was for.
    pub(super) fn is_pending(&self) -> bool {
        self.awaited.is_some()
    }

    pub(super) fn observe(
        &mut self,
        now: f64,
        members: u32,
        is_learning: bool,
        learned: &mut LearnedPolicy,
    ) {
        let Some((since, awaited)) = self.awaited else {
            return;
        };
        let elapsed = (now - since).min(MAX_REACTION_SECONDS);
        if members >= awaited {
            self.awaited = None;
            if is_learning {
                learned.reaction = (learned.reaction + elapsed) / 2.0;
            }
        } else if is_learning && elapsed > learned.reaction + OVERDUE {
            learned.reaction = elapsed;
        }
    }
}
