//! The settings that belong to a consumer group: one value for all targets of the group.

use std::collections::BTreeSet;

use super::Settings;

/// The settings of one consumer group, joined from its targets.
///
/// Where targets differ, the safer value applies: the one that leaves more lag counted. An HPA with a
/// few replicas too many costs money, an HPA that scales down with work left is wrong.
///
/// A target that leaves a setting unset means its default. Otherwise an HPA of one team could change what
/// the HPA of another, which sets nothing, is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// The joined settings; those that belong to a target are not set.
    pub settings: Settings,
    /// The keys of the settings that targets set differently.
    pub conflicts: BTreeSet<&'static str>,
}

impl GroupSettings {
    /// Joins `theirs` into `mine`. Returns whether they differ.
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
