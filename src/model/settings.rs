//! What may be set for a target, by the configuration or by an HPA's annotations, and what holds
//! where nobody sets it.

pub mod annotation_keys;
pub mod annotations;
pub mod cap_mode;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Serialize;

use super::units::lag_thresholds::LagRuleChanges;
use super::units::newtypes::{Isolation, Lag, OffsetReset, TopicName};
use super::units::partition_filter::PartitionFilter;
use super::units::quantity::Milli;
use super::units::topic_pattern::TopicPattern;

/// How long lag is unknown before the fallback, where only the replicas are set.
pub const FALLBACK_AFTER: Duration = Duration::from_secs(600);

/// The most members that one replica may be said to have.
pub const THREADS_MAX: u32 = 10_000;

/// Which of a group's topics count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicChoice {
    /// These.
    Named(BTreeSet<TopicName>),
    /// Of those that the group reads, the ones whose name matches.
    Matching(TopicPattern),
}

/// The replicas wanted where lag has been unknown for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// So many; never zero, which would be a guess that there is no work.
    pub replicas: NonZeroU32,
    /// After so long.
    pub after: Duration,
}

/// What is set for one target; `None` where it is not, and the default holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The lag wanted per replica, where the HPA asks for the replicas wanted instead.
    pub lag_per_replica: Option<Milli>,
    /// Members of the group in one replica.
    pub threads: Option<NonZeroU32>,
    /// Whether only numbers of replicas are wanted that share the partitions evenly.
    pub even: Option<bool>,
    /// What useful parallelism is counted by.
    pub by: Option<By>,
    /// Which topics count.
    pub topics: Option<TopicChoice>,
    /// Which of their partitions count.
    pub partitions: Option<PartitionFilter>,
    /// The replicas wanted where lag has been unknown for long.
    pub fallback_replicas: Option<NonZeroU32>,
    /// How long that is.
    pub fallback_after: Option<Duration>,
    /// Whether a workload without work is scaled to zero.
    pub scale_to_zero: Option<bool>,
    /// How long it has to be without work before.
    pub cooldown: Option<Duration>,
    /// Where the group's consumers start without a committed offset; the group's, not one target's.
    pub reset: Option<OffsetReset>,
    /// Which log end they read up to; the group's.
    pub isolation: Option<Isolation>,
    /// Thresholds; the group's.
    pub lag: LagRuleChanges,
}

impl Settings {
    /// Of a target for which nothing is set: one for all of them.
    #[must_use]
    pub fn unset() -> Arc<Self> {
        static UNSET: LazyLock<Arc<Settings>> = LazyLock::new(Arc::default);
        Arc::clone(&UNSET)
    }

    /// These, and `base` for what they leave open.
    #[must_use]
    pub fn over(self, base: &Settings) -> Settings {
        Settings {
            lag_per_replica: self.lag_per_replica.or(base.lag_per_replica),
            threads: self.threads.or(base.threads),
            even: self.even.or(base.even),
            by: self.by.or(base.by),
            topics: self.topics.or_else(|| base.topics.clone()),
            partitions: self.partitions.or_else(|| base.partitions.clone()),
            fallback_replicas: self.fallback_replicas.or(base.fallback_replicas),
            fallback_after: self.fallback_after.or(base.fallback_after),
            scale_to_zero: self.scale_to_zero.or(base.scale_to_zero),
            cooldown: self.cooldown.or(base.cooldown),
            reset: self.reset.or(base.reset),
            isolation: self.isolation.or(base.isolation),
            lag: self.lag.over(&base.lag),
        }
    }

    /// Members of the group in one replica.
    #[must_use]
    pub fn threads(&self) -> NonZeroU32 {
        self.threads.unwrap_or(NonZeroU32::MIN)
    }

    /// Whether only numbers of replicas are wanted that share the partitions evenly.
    #[must_use]
    pub fn even(&self) -> bool {
        self.even.unwrap_or_default()
    }

    /// What useful parallelism is counted by.
    #[must_use]
    pub fn by(&self) -> By {
        self.by.unwrap_or_default()
    }

    /// Whether a workload without work is scaled to zero.
    #[must_use]
    pub fn scale_to_zero(&self) -> bool {
        self.scale_to_zero.unwrap_or_default()
    }

    /// How long it has to be without work before.
    #[must_use]
    pub fn cooldown(&self) -> Duration {
        self.cooldown.unwrap_or(COOLDOWN)
    }

    /// The fallback, where one is wanted.
    #[must_use]
    pub fn fallback(&self) -> Option<Fallback> {
        Some(Fallback {
            replicas: self.fallback_replicas?,
            after: self.fallback_after.unwrap_or(FALLBACK_AFTER),
        })
    }

    /// The topics named; none where they are left open or chosen by a pattern.
    #[must_use]
    pub fn named_topics(&self) -> BTreeSet<TopicName> {
        match &self.topics {
            Some(TopicChoice::Named(topics)) => topics.clone(),
            Some(TopicChoice::Matching(_)) | None => BTreeSet::new(),
        }
    }

    /// The pattern that the group's topics have to match, where there is one.
    #[must_use]
    pub fn pattern(&self) -> Option<&TopicPattern> {
        match &self.topics {
            Some(TopicChoice::Matching(pattern)) => Some(pattern),
            Some(TopicChoice::Named(_)) | None => None,
        }
    }
}

/// What several targets set for one group; where they differ, the safer of the two holds.
///
/// Safer is what leaves more lag standing: an HPA that runs a little too much is dearer, one that
/// scales down what has work is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// Where its consumers start without a committed offset.
    pub reset: Option<OffsetReset>,
    /// Which log end they read up to.
    pub isolation: Option<Isolation>,
    /// Thresholds.
    pub lag: LagRuleChanges,
    /// The settings that were set differently, by the names of their annotations.
    pub conflicts: BTreeSet<&'static str>,
}

impl GroupSettings {
    /// Takes in what one more target sets.
    pub fn add(&mut self, settings: &Settings) {
        let conflicts = &mut self.conflicts;
        let earliest = |a, b| match (a, b) {
            (OffsetReset::Latest, OffsetReset::Latest) => OffsetReset::Latest,
            _ => OffsetReset::Earliest,
        };
        let uncommitted = |a, b| match (a, b) {
            (Isolation::ReadCommitted, Isolation::ReadCommitted) => Isolation::ReadCommitted,
            _ => Isolation::ReadUncommitted,
        };
        let (mine, theirs) = (&mut self.lag, &settings.lag);
        join(
            conflicts,
            "offset-reset",
            &mut self.reset,
            settings.reset,
            earliest,
        );
        join(
            conflicts,
            "isolation",
            &mut self.isolation,
            settings.isolation,
            uncommitted,
        );
        join(
            conflicts,
            "residual-max",
            &mut mine.residual_max,
            theirs.residual_max,
            Lag::min,
        );
        join(
            conflicts,
            "residual-after",
            &mut mine.residual_after,
            theirs.residual_after,
            Duration::max,
        );
        join(
            conflicts,
            "stuck-after",
            &mut mine.stuck_after,
            theirs.stuck_after,
            Duration::max,
        );
        join(
            conflicts,
            "stuck-counts",
            &mut mine.stuck_counts,
            theirs.stuck_counts,
            |a, b| a || b,
        );
        join(
            conflicts,
            "forget-after",
            &mut mine.forget_after,
            theirs.forget_after,
            Duration::max,
        );
    }
}

fn join<T: Copy + PartialEq>(
    conflicts: &mut BTreeSet<&'static str>,
    name: &'static str,
    mine: &mut Option<T>,
    theirs: Option<T>,
    safer: impl Fn(T, T) -> T,
) {
    *mine = match (*mine, theirs) {
        (Some(a), Some(b)) if a != b => {
            conflicts.insert(name);
            Some(safer(a, b))
        }
        (mine, theirs) => mine.or(theirs),
    };
}

/// How long there has to be no work, where an HPA does not say.
pub const COOLDOWN: Duration = Duration::from_secs(300);

/// What useful parallelism is counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// All partitions.
    #[default]
    Partitions,
    /// Only those with lag, at least one.
    Lagging,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_set_holds_over_what_lies_below() {
        let base = Settings {
            even: Some(true),
            threads: NonZeroU32::new(4),
            lag: LagRuleChanges {
                residual_max: Some(Lag(3)),
                ..LagRuleChanges::default()
            },
            ..Settings::default()
        };
        let above = Settings {
            even: Some(false),
            reset: Some(OffsetReset::Earliest),
            ..Settings::default()
        };
        let both = above.over(&base);
        assert_eq!((both.even(), both.threads().get()), (false, 4));
        assert_eq!(both.reset, Some(OffsetReset::Earliest));
        assert_eq!(both.lag.residual_max, Some(Lag(3)));
        assert_eq!(both.fallback(), None);
    }

    #[test]
    fn a_fallback_needs_its_replicas() {
        let after = |replicas, after| {
            let settings = Settings {
                fallback_replicas: NonZeroU32::new(replicas),
                fallback_after: after,
                ..Settings::default()
            };
            settings.fallback().map(|f| (f.replicas.get(), f.after))
        };
        let minute = Duration::from_secs(60);
        assert_eq!(after(0, Some(minute)), None);
        assert_eq!(after(3, Some(minute)), Some((3, minute)));
        assert_eq!(after(3, None), Some((3, FALLBACK_AFTER)));
    }

    #[test]
    fn where_targets_differ_the_safer_one_holds() {
        let one = Settings {
            reset: Some(OffsetReset::Latest),
            isolation: Some(Isolation::ReadCommitted),
            lag: LagRuleChanges {
                residual_max: Some(Lag(10)),
                residual_after: Some(Duration::from_secs(5)),
                stuck_after: Some(Duration::from_secs(5)),
                stuck_counts: Some(false),
                forget_after: Some(Duration::from_secs(5)),
            },
            ..Settings::default()
        };
        let other = Settings {
            reset: Some(OffsetReset::Earliest),
            isolation: Some(Isolation::ReadUncommitted),
            lag: LagRuleChanges {
                residual_max: Some(Lag(2)),
                residual_after: Some(Duration::from_secs(9)),
                stuck_after: Some(Duration::from_secs(9)),
                stuck_counts: Some(true),
                forget_after: Some(Duration::from_secs(9)),
            },
            ..Settings::default()
        };
        for pair in [[&one, &other], [&other, &one]] {
            let mut group = GroupSettings::default();
            group.add(&Settings::default());
            pair.iter().for_each(|settings| group.add(settings));
            assert_eq!(
                (group.reset, group.isolation),
                (other.reset, other.isolation)
            );
            assert_eq!(group.lag, other.lag);
            assert_eq!(group.conflicts.len(), 7);
        }
        // Who leaves it open disagrees with nobody.
        let mut group = GroupSettings::default();
        for settings in [&one, &Settings::default(), &one] {
            group.add(settings);
        }
        assert_eq!((group.reset, group.lag), (one.reset, one.lag));
        assert!(group.conflicts.is_empty());
    }

    proptest! {
        #[test]
        fn the_order_of_targets_makes_no_difference(
            set in proptest::collection::vec((proptest::option::of(0u64..4), proptest::option::of(any::<bool>())), 0..6),
        ) {
            let settings = |&(most, earliest): &(Option<u64>, Option<bool>)| Settings {
                reset: earliest.map(|e| if e { OffsetReset::Earliest } else { OffsetReset::Latest }),
                lag: LagRuleChanges { residual_max: most.map(Lag), ..LagRuleChanges::default() },
                ..Settings::default()
            };
            let (mut there, mut back) = (GroupSettings::default(), GroupSettings::default());
            set.iter().for_each(|s| there.add(&settings(s)));
            set.iter().rev().for_each(|s| back.add(&settings(s)));
            prop_assert_eq!(there, back);
        }
    }
}
