//! The settings that belong to a consumer group: one value for all targets of the group.

use std::collections::BTreeSet;

use super::Settings;

/// The settings of one consumer group, joined from its targets.
///
/// Where targets differ, the safer value applies: the one that counts more lag. A few replicas too many cost
/// money, but scaling down while there is work is wrong.
///
/// A setting that a target leaves unset counts as its default. Otherwise one team's HPA could change the value
/// that is served to another team's HPA, which sets nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// The joined settings. Settings that belong to a single target stay unset.
    pub settings: Settings,
    /// The keys of the settings that targets set differently.
    pub conflicts: BTreeSet<&'static str>,
}

impl GroupSettings {
    /// Joins `theirs` into `mine`. Returns whether both are set and differ.
    pub(super) fn join<T: Copy + PartialEq>(
        mine: &mut Option<T>,
        theirs: Option<T>,
        safer: impl Fn(T, T) -> T,
    ) -> bool {
        match (*mine, theirs) {
            (Some(a), Some(b)) if a != b => {
                *mine = Some(safer(a, b));
                true
            }
            (before, theirs) => {
                *mine = before.or(theirs);
                false
            }
        }
    }
}
