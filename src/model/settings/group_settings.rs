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
    /// Adds the settings of one more target. A setting that it leaves unset counts as set to that of
    /// `defaults`, and is ignored if `defaults` leave it unset, too.
    pub fn add(&mut self, settings: &Settings, defaults: &Settings) {
        self.conflicts
            .extend(self.settings.join(settings, defaults));
    }
}
