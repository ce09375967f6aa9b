//! Settings of targets, by annotation or by configuration, in one table.

pub mod annotation_keys;
pub mod annotations;
pub mod cap_mode;
pub mod form;
pub mod group_settings;
pub mod replica_hold;
pub mod scaling_policy;
mod setting;
mod table;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Serialize;

pub use self::group_settings::GroupSettings;
pub use self::setting::{FileSection, SettingScope};
pub use self::table::{SETTINGS, Setting, Settings};
use super::units::lag_thresholds::LagThresholds;
use super::units::newtypes::{Isolation, OffsetReset, TopicName};
use super::units::topic_pattern::TopicPattern;

/// What limits the number of useful replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// All partitions.
    #[default]
    Partitions,
    /// The partitions with lag, at least one.
    Lagging,
}

/// Replicas wanted once lag has been unknown for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The number; never zero, which would be a guess that there is no work.
    pub replicas: NonZeroU32,
    /// How long lag must be unknown before.
    pub after: Duration,
}

impl Settings {
    /// The settings of a target that sets nothing, shared by all such targets.
    #[must_use]
    pub fn unset() -> Arc<Self> {
        static UNSET: LazyLock<Arc<Settings>> = LazyLock::new(Arc::default);
        Arc::clone(&UNSET)
    }

    /// These settings, and those of `base` where they are not set.
    #[must_use]
    pub fn over(mut self, base: &Settings) -> Settings {
        // A list of topics and a pattern replace each other: neither is inherited if the other is set.
        let choice = match (self.topics.take(), self.topic_regex.take()) {
            (None, None) => (base.topics.clone(), base.topic_regex.clone()),
            own => own,
        };
        let mut settings = self.each_over(base);
        (settings.topics, settings.topic_regex) = choice;
        settings
    }

    /// The settings that the value of a metric depends on. HPAs that select alike share one value, so
    /// their other settings must not make them differ.
    #[must_use]
    pub fn for_value(self) -> Settings {
        Settings {
            consumer_group: None,
            cap: None,
            max_replicas: None,
            paused: None,
            ..self
        }
    }

    /// The fallback, where its replicas are set.
    #[must_use]
    pub fn fallback(&self) -> Option<Fallback> {
        Some(Fallback {
            replicas: self.fallback_replicas?,
            after: self.fallback_after(),
        })
    }

    /// The lag thresholds that are set; the others are those of `base`.
    #[must_use]
    pub fn lag_thresholds(&self, base: LagThresholds) -> LagThresholds {
        LagThresholds {
            residual_max: self.residual_max.unwrap_or(base.residual_max),
            residual_after: self.residual_after.unwrap_or(base.residual_after),
            stuck_after: self.stuck_after.unwrap_or(base.stuck_after),
            forget_after: self.forget_after.unwrap_or(base.forget_after),
            stuck_counts: self.stuck_counts.unwrap_or(base.stuck_counts),
        }
    }

    /// The settings that belong to a consumer group, for targets that do not set them: these thresholds, and the
    /// defaults of Kafka's clients.
    #[must_use]
    pub fn group_defaults(thresholds: LagThresholds) -> Self {
        Self {
            offset_reset: Some(OffsetReset::default()),
            isolation: Some(Isolation::default()),
            residual_max: Some(thresholds.residual_max),
            residual_after: Some(thresholds.residual_after),
            stuck_after: Some(thresholds.stuck_after),
            stuck_counts: Some(thresholds.stuck_counts),
            forget_after: Some(thresholds.forget_after),
            ..Self::default()
        }
    }

    /// The topics named; none where the group or a pattern decides.
    #[must_use]
    pub fn named_topics(&self) -> BTreeSet<TopicName> {
        self.topics.clone().unwrap_or_default()
    }

    /// The pattern that topics must match, where there is one.
    #[must_use]
    pub fn pattern(&self) -> Option<&TopicPattern> {
        self.topic_regex.as_ref()
    }
}

#[cfg(test)]
mod tests;
