use proptest::prelude::*;

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::model::settings::By;
use crate::model::units::newtypes::{Isolation, Lag, OffsetReset};
use crate::model::units::quantity::Milli;

fn hpa() -> HpaKey {
    HpaKey::new("shop", "a")
}

fn read(annotations: &[(&str, &str)]) -> (Annotations, Vec<String>) {
    let map = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let map: BTreeMap<_, _> = map;
    let (read, findings) = read_for(&["a", "b", "g"], &map);
    (read, findings.iter().map(ToString::to_string).collect())
}

/// Reads the annotations of an HPA that selects groups of these names.
fn read_for(names: &[&str], annotations: &BTreeMap<String, String>) -> (Annotations, Vec<Finding>) {
    let mut findings = BoundedFindings::default();
    let names = names.iter().copied().collect();
    let read = Annotations::read(&hpa(), annotations, &names, &mut findings);
    (read, findings.into_findings(&hpa()).collect())
}

#[test]
fn reads_every_key() {
    let (annotations, findings) = read(&[
        ("lagwise.dev/lag-per-replica", "5k"),
        ("lagwise.dev/threads-per-replica", "4"),
        ("lagwise.dev/even", "true"),
        ("lagwise.dev/by", "lagging"),
        ("lagwise.dev/topics", "orders, payments"),
        ("lagwise.dev/topic-regex.b", "orders-.*"),
        ("lagwise.dev/partitions", "0-5,9"),
        ("lagwise.dev/offset-reset", "earliest"),
        ("lagwise.dev/isolation", "read_committed"),
        ("lagwise.dev/residual-max", "0"),
        ("lagwise.dev/residual-after", "1m"),
        ("lagwise.dev/stuck-after", "2m"),
        ("lagwise.dev/stuck-counts", "false"),
        ("lagwise.dev/forget-after", "7d"),
        ("lagwise.dev/fallback-replicas", "3"),
        ("lagwise.dev/fallback-after", "15m"),
        ("lagwise.dev/scale-to-zero", "true"),
        ("lagwise.dev/cooldown", "90s"),
        ("lagwise.dev/cap", "enforce"),
        ("lagwise.dev/max-replicas", "30"),
        ("lagwise.dev/ceiling", "6"),
        ("lagwise.dev/user-max-replicas", "30"),
        ("lagwise.dev/consumer-group", "Orders Group/1"),
        ("lagwise.dev/zeroed-since", "2026-01-01T00:00:00Z"),
        ("other.dev/even", "maybe"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
    ]);
    assert!(findings.is_empty(), "{findings:?}");
    let settings = annotations.for_name(None);
    assert_eq!(settings.lag_per_replica, Some(Milli::from_units(5000)));
    assert_eq!(
        (settings.threads_per_replica().get(), settings.even()),
        (4, true)
    );
    assert_eq!(settings.by(), By::Lagging);
    assert_eq!(
        (settings.scale_to_zero(), settings.cooldown()),
        (true, Duration::from_secs(90))
    );
    assert_eq!(
        settings.named_topics(),
        ["orders".into(), "payments".into()].into()
    );
    assert_eq!(settings.partitions.unwrap().to_string(), "0-5,9");
    assert_eq!(settings.offset_reset, Some(OffsetReset::Earliest));
    assert_eq!(settings.isolation, Some(Isolation::ReadCommitted));
    assert_eq!(settings.residual_max, Some(Lag(0)));
    assert_eq!(settings.residual_after, Some(Duration::from_secs(60)));
    assert_eq!(settings.stuck_after, Some(Duration::from_secs(120)));
    assert_eq!(settings.stuck_counts, Some(false));
    assert_eq!(settings.forget_after, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(settings.fallback_replicas.map(NonZeroU32::get), Some(3));
    assert_eq!(settings.fallback_after, Some(Duration::from_secs(900)));
    assert_eq!(settings.consumer_group, Some("Orders Group/1".into()));
    let of_b = annotations.for_name(Some("b"));
    assert_eq!(of_b.pattern().unwrap().as_str(), "orders-.*");
}

#[test]
fn group_suffix_overrides_the_plain_key() {
    let pairs = [
        ("lagwise.dev/even", "true"),
        ("lagwise.dev/threads-per-replica", "2"),
        ("lagwise.dev/even.my.group_v2", "false"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (annotations, findings) = read_for(&["other", "my.group_v2"], &pairs.clone().into());
    assert!(findings.is_empty());
    let even = |name| {
        let settings = annotations.for_name(name);
        (settings.even(), settings.threads_per_replica().get())
    };
    assert_eq!(even(None), (true, 2));
    assert_eq!(even(Some("other")), (true, 2));
    assert_eq!(even(Some("my.group_v2")), (false, 2));
    let (annotations, findings) = read_for(&["other"], &pairs.into());
    assert_eq!(annotations.for_name(Some("my.group_v2")).even, Some(true));
    assert_eq!(
        findings[0].message,
        "annotation lagwise.dev/even.my.group_v2 has no effect: no metric of the HPA selects a group or target of that name"
    );
}

#[test]
fn a_value_for_a_name_that_the_hpa_does_not_select_is_not_parsed() {
    for key in ["topic-regex.other", "residual-after.other"] {
        let (annotations, findings) = read(&[(&format!("{PREFIX}{key}"), "(")]);
        let [finding] = findings.as_slice() else {
            panic!("{key}: {findings:?}");
        };
        assert!(finding.contains("has no effect"), "{finding}");
        assert_eq!(annotations.for_name(Some("other")), Settings::default());
    }
}

#[test]
fn unusable_value_is_a_finding_and_the_default_applies() {
    for (key, value) in [
        ("threads-per-replica", "0"),
        ("threads-per-replica", "-1"),
        ("threads-per-replica", "10001"),
        ("even", "yes"),
        ("by", "lag"),
        ("topics", ""),
        ("topics", "a,,b"),
        ("topics", "a/b"),
        ("topic-regex", "("),
        ("partitions", "5-2"),
        ("offset-reset", "smallest"),
        ("isolation", "committed"),
        ("residual-max", "many"),
        ("residual-after", "5"),
        ("stuck-after", "0s"),
        ("forget-after", "999y"),
        ("fallback-replicas", "0"),
        ("fallback-after", ""),
        ("consumer-group", ""),
        ("scale-to-zero", "1"),
        ("cap", "enforced"),
        ("max-replicas", "0"),
        ("cooldown", "300"),
    ] {
        let (annotations, findings) = read(&[(&format!("{PREFIX}{key}"), value)]);
        let [finding] = findings.as_slice() else {
            panic!("{key}: {findings:?}");
        };
        let named = format!("annotation lagwise.dev/{key}: {value:?}");
        assert!(finding.contains(&named), "{finding}");
        assert_eq!(annotations.for_name(None), Settings::default(), "{key}");
    }
    let (_, findings) = read(&[("lagwise.dev/even", &"x".repeat(100_000))]);
    assert!(findings[0].len() < 300);
}

#[test]
fn unknown_key_is_a_finding_with_a_suggestion() {
    for (key, meant) in [
        ("lagwise.dev/evenn", " (did you mean lagwise.dev/even?)"),
        (
            "lagwise.dev/threads_per_replica",
            " (did you mean lagwise.dev/threads-per-replica?)",
        ),
        ("lagwise.dev/evn.g", " (did you mean lagwise.dev/even?)"),
        ("lagwise.dev/", ""),
        ("lagwise.dev/colour", ""),
    ] {
        let (_, findings) = read(&[(key, "true")]);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].ends_with(&format!("{key}{meant}")),
            "{findings:?}"
        );
    }
}

#[test]
fn list_of_topics_overrides_a_pattern() {
    let (annotations, findings) = read(&[
        ("lagwise.dev/topics", "a"),
        ("lagwise.dev/topic-regex", "b.*"),
    ]);
    assert_eq!(findings.len(), 1);
    assert_eq!(
        annotations.for_name(None).named_topics(),
        ["a".into()].into()
    );
}

#[test]
fn topics_and_a_pattern_of_one_group_are_named_in_full() {
    let (_, findings) = read(&[
        ("lagwise.dev/topics.a", "orders"),
        ("lagwise.dev/topic-regex.a", "orders.*"),
        ("lagwise.dev/topics.b", "orders"),
        ("lagwise.dev/topic-regex.b", "orders.*"),
        ("lagwise.dev/topics", "payments"),
    ]);
    assert_eq!(findings.len(), 2, "{findings:?}");
    for (finding, name) in findings.iter().zip(["a", "b"]) {
        let both = format!("lagwise.dev/topics.{name} and lagwise.dev/topic-regex.{name} are");
        assert!(finding.contains(&both), "{finding}");
    }
}

/// Whether the value of an annotation pauses, and the code of the finding about it.
#[test]
fn unclear_paused_value_stops_writes() {
    for (key, value, is_paused, code) in [
        ("paused", "true", true, None),
        ("paused", " true ", true, None),
        ("paused", "True", true, Some("LW040")),
        ("paused", "TRUE", true, Some("LW040")),
        ("paused", "yes", true, Some("LW040")),
        ("paused", "1", true, Some("LW040")),
        ("paused", "on", true, Some("LW040")),
        ("paused", "", true, Some("LW040")),
        ("paused", "until monday", true, Some("LW040")),
        ("paused", "false", false, None),
        ("paused", "False", false, Some("LW010")),
        ("paused", "no", false, Some("LW010")),
        ("paused", "off", false, Some("LW010")),
        ("paused", "0", false, Some("LW010")),
        ("paused.g", "true", true, Some("LW039")),
        ("paused.g", "yes", true, Some("LW039")),
        ("paused.g", "false", false, Some("LW039")),
        ("Paused", "true", true, Some("LW040")),
        ("pause", "true", true, Some("LW040")),
        ("pause.g", "yes", true, Some("LW040")),
        ("pause", "false", false, Some("LW009")),
        ("pausing", "true", false, Some("LW009")),
    ] {
        let annotations = [(format!("{PREFIX}{key}"), value.to_owned())].into();
        let settings = whole_hpa_settings(&annotations);
        assert_eq!(settings.paused(), is_paused, "{key}: {value}");
        let (read, findings) = read_for(&["g"], &annotations);
        assert_eq!(
            read.for_name(Some("g")).paused(),
            is_paused,
            "{key}: {value}"
        );
        let codes: Vec<_> = findings.iter().map(|f| f.code.code()).collect();
        assert_eq!(
            codes,
            code.into_iter().collect::<Vec<_>>(),
            "{key}: {value}"
        );
    }
    // One that says no does not undo another that says yes.
    let both = [("paused", "false"), ("paused.g", "true")];
    let both = both.map(|(key, value)| (format!("{PREFIX}{key}"), value.to_owned()));
    assert!(whole_hpa_settings(&both.into()).paused());
}

proptest! {
    #[test]
    fn no_annotation_makes_it_panic(
        pairs in proptest::collection::btree_map("(lagwise\\.dev/)?[a-z.-]{0,24}", "\\PC{0,20}", 0..6),
        key in 0usize..SETTINGS.len(), value in "\\PC{0,20}|[0-9a-z,_ -]{0,12}",
    ) {
        let mut pairs = pairs;
        pairs.insert(format!("{PREFIX}{}", SETTINGS[key].key), value);
        let (read, findings) = read_for(&["g"], &pairs);
        let _ = read.for_name(Some("g"));
        prop_assert!(findings.iter().all(|f| !f.to_string().is_empty()));
    }
}
