use std::collections::BTreeSet;
use std::time::Duration;

use super::cap::HpaFields;
use super::fencing::is_managed;
use crate::model::evaluation::ServingPolicy;
use crate::model::hpa::facts::{
    ExternalMetric, HpaFacts, MetricTarget, annotated_cap_mode, is_paused,
};
use crate::model::hpa::selector::Selector;
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::settings::cap_mode::CapMode;
use crate::model::settings::{SETTINGS, SettingScope};
use crate::model::targets::Targets;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::quantity::Milli;

/// The effects of an annotation in all code that acts on settings: the metric, the cap, the pause, the user's
/// maximum, scale to zero, and the findings.
fn effects(annotation: &str, value: &str) -> Vec<String> {
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "a".into(),
        max_replicas: 10,
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse("group=g").unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::ONE)),
        }],
        annotations: [(annotation.to_owned(), value.to_owned())].into(),
        ..HpaFacts::default()
    };
    let targets = Targets::merge(&["main".into()], &[], &[&hpa], BTreeSet::new());
    let target = targets.of_hpas().next().unwrap();
    let settings = &target.settings;
    let mut effects = Vec::new();
    let of_metric = SETTINGS
        .iter()
        .filter(|setting| setting.scope == SettingScope::Metric);
    effects.extend(of_metric.filter_map(|setting| {
        let value = setting.print(settings)?;
        Some(format!("metric has {}={value}", setting.key))
    }));
    let mut note = |is_so: bool, effect: &str| effects.extend(is_so.then(|| effect.to_owned()));
    note(target.key.group == "other".into(), "reads another group");
    note(
        annotated_cap_mode(&hpa) == Some(CapMode::Enforce),
        "cap is enforced",
    );
    note(is_paused(&hpa), "writes are paused");
    note(
        HpaFields::of(&hpa).user_max(None) == 5,
        "user's maximum is 5",
    );
    note(settings.scale_to_zero(), "scales to zero");
    note(
        settings.cooldown() == Duration::from_secs(90),
        "cooldown is 90s",
    );
    note(
        is_managed(&hpa, &ServingPolicy::default(), false),
        "may be written to",
    );
    effects.extend(
        targets
            .findings()
            .map(|finding| finding.code.code().to_owned()),
    );
    effects
}

#[test]
fn every_setting_has_the_same_effect_with_and_without_suffix() {
    let of_metric = [
        ("topics", "a,b"),
        ("topic-regex", "a.*"),
        ("partitions", "0-5,9"),
        ("offset-reset", "earliest"),
        ("isolation", "read_committed"),
        ("residual-max", "3"),
        ("residual-after", "1m"),
        ("stuck-after", "1m"),
        ("stuck-counts", "false"),
        ("forget-after", "1h"),
        ("lag-per-replica", "100"),
        ("policy", "recommend"),
        ("slo", "2m"),
        ("hold", "down until 2026-12-02T10:00:00Z"),
        ("threads-per-replica", "4"),
        ("even", "true"),
        ("by", "lagging"),
        ("fallback-replicas", "3"),
        ("fallback-after", "15m"),
    ];
    let mut tested: BTreeSet<&str> = BTreeSet::new();
    for (key, value) in of_metric {
        let mut expected = vec![format!("metric has {key}={value}")];
        // fallback-after has no effect without fallback-replicas.
        expected.extend((key == "fallback-after").then(|| "LW014".to_owned()));
        assert_eq!(effects(&format!("{PREFIX}{key}"), value), expected);
        assert_eq!(effects(&format!("{PREFIX}{key}.g"), value), expected);
        tested.insert(key);
    }
    for (key, value, without_name, with_name) in [
        (
            "consumer-group",
            "other",
            &["reads another group"][..],
            &["reads another group"][..],
        ),
        (
            "cap",
            "enforce",
            &["cap is enforced", "may be written to"],
            &["LW039"],
        ),
        ("max-replicas", "5", &["user's maximum is 5"], &["LW039"]),
        (
            "scale-to-zero",
            "true",
            &["scales to zero", "may be written to"],
            &["LW039"],
        ),
        ("cooldown", "90s", &["cooldown is 90s"], &["LW039"]),
        (
            "paused",
            "true",
            &["writes are paused"],
            &["writes are paused", "LW039"],
        ),
    ] {
        assert_eq!(effects(&format!("{PREFIX}{key}"), value), without_name);
        assert_eq!(effects(&format!("{PREFIX}{key}.g"), value), with_name);
        tested.insert(key);
    }
    let keys: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(tested, keys, "every setting is tested");
}
