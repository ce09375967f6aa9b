use proptest::prelude::*;

use super::*;
use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::newtypes::{Isolation, Lag, OffsetReset};

#[test]
fn set_values_override_the_base() {
    let base = Settings {
        even: Some(true),
        threads_per_replica: NonZeroU32::new(4),
        residual_max: Some(Lag(3)),
        ..Settings::default()
    };
    let above = Settings {
        even: Some(false),
        offset_reset: Some(OffsetReset::Earliest),
        ..Settings::default()
    };
    let both = above.over(&base);
    assert_eq!((both.even(), both.threads_per_replica().get()), (false, 4));
    assert_eq!(both.offset_reset, Some(OffsetReset::Earliest));
    assert_eq!(both.residual_max, Some(Lag(3)));
    assert_eq!(both.fallback(), None);
}

#[test]
fn fallback_after_needs_fallback_replicas() {
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
    assert_eq!(after(3, None), Some((3, 10 * minute)));
}

#[test]
fn safer_value_of_conflicting_targets_applies() {
    let one = Settings {
        offset_reset: Some(OffsetReset::Latest),
        isolation: Some(Isolation::ReadCommitted),
        residual_max: Some(Lag(10)),
        residual_after: Some(Duration::from_secs(5)),
        stuck_after: Some(Duration::from_secs(5)),
        stuck_counts: Some(false),
        forget_after: Some(Duration::from_secs(5)),
        ..Settings::default()
    };
    let other = Settings {
        offset_reset: Some(OffsetReset::Earliest),
        isolation: Some(Isolation::ReadUncommitted),
        residual_max: Some(Lag(2)),
        residual_after: Some(Duration::from_secs(9)),
        stuck_after: Some(Duration::from_secs(9)),
        stuck_counts: Some(true),
        forget_after: Some(Duration::from_secs(9)),
        ..Settings::default()
    };
    for pair in [[&one, &other], [&other, &one]] {
        let mut group = GroupSettings::default();
        pair.iter().for_each(|settings| group.add(settings, &other));
        assert_eq!(group.settings, other);
        assert_eq!(group.conflicts.len(), 7);
    }
    // Unset is the default, in any order.
    let unset = Settings::default();
    for targets in [[&one, &unset], [&unset, &one]] {
        let mut group = GroupSettings::default();
        targets
            .iter()
            .for_each(|settings| group.add(settings, &other));
        assert_eq!(group.settings, other);
        assert_eq!(group.conflicts.len(), 7);
        let mut group = GroupSettings::default();
        targets
            .iter()
            .for_each(|settings| group.add(settings, &one));
        assert_eq!(group.settings, one);
        assert!(group.conflicts.is_empty());
    }
}

proptest! {
    #[test]
    fn the_order_of_targets_makes_no_difference(
        set in proptest::collection::vec((proptest::option::of(0u64..4), proptest::option::of(any::<bool>())), 0..6),
    ) {
        let settings = |&(most, earliest): &(Option<u64>, Option<bool>)| Settings {
            offset_reset: earliest.map(|e| if e { OffsetReset::Earliest } else { OffsetReset::Latest }),
            residual_max: most.map(Lag),
            ..Settings::default()
        };
        let (mut there, mut back) = (GroupSettings::default(), GroupSettings::default());
        let defaults = Settings::group_defaults(LagThresholds::default());
        set.iter().for_each(|s| there.add(&settings(s), &defaults));
        set.iter().rev().for_each(|s| back.add(&settings(s), &defaults));
        prop_assert_eq!(there, back);
    }
}

#[test]
fn every_default_parses() {
    for setting in SETTINGS {
        let Some(default) = setting.default() else {
            assert!(setting.unset.is_some(), "{}", setting.key);
            continue;
        };
        let mut settings = Settings::default();
        assert_eq!(
            setting.parse(&default, &mut settings),
            Ok(()),
            "{}",
            setting.key
        );
        assert_eq!(setting.print(&settings), Some(default), "{}", setting.key);
    }
}

#[test]
fn every_setting_of_a_group_has_a_group_default() {
    let defaults = Settings::group_defaults(LagThresholds::default());
    for setting in SETTINGS {
        let example = setting.example.map(str::to_owned);
        let value = setting.default().or(example).unwrap_or_default();
        let mut settings = Settings::default();
        if setting.parse(&value, &mut settings).is_err() {
            continue;
        }
        // Only settings of a group are joined.
        let mut group = GroupSettings::default();
        group.add(&settings, &Settings::default());
        assert_eq!(
            setting.print(&group.settings).is_some(),
            setting.print(&defaults).is_some(),
            "{}",
            setting.key
        );
    }
}

#[test]
fn annotation_and_file_keys_have_one_spelling() {
    for setting in SETTINGS {
        assert_eq!(setting.key, setting.file_key.replace('_', "-"));
        assert!(
            !setting.key.contains('.'),
            "a dot begins the name of a group"
        );
        assert_eq!(
            setting.description(),
            setting.description().trim_end_matches(' ')
        );
        assert!(setting.description().ends_with('.'), "{}", setting.key);
    }
}

#[test]
fn topics_and_pattern_override_each_other() {
    let topics = Settings {
        topics: Some(["a".into()].into()),
        ..Settings::default()
    };
    let pattern = Settings {
        topic_regex: Some(TopicPattern::parse("b.*").unwrap()),
        ..Settings::default()
    };
    assert_eq!(topics.clone().over(&pattern), topics);
    assert_eq!(pattern.clone().over(&topics), pattern);
    assert_eq!(Settings::default().over(&pattern), pattern);
}
