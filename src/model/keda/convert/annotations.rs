//! The settings of converted metrics as annotations of the HPA.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::metric::KafkaMetric;
use super::note::Notes;
use crate::model::keda::scaled_object::ScaledObjectSpec;
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::settings::{SETTINGS, SettingScope, Settings};

/// `pollingInterval` of a ScaledObject that sets none.
const DEFAULT_POLLING_SECONDS: u32 = 30;

/// Maximum characters of an annotation's key after the slash.
const MAX_KEY_CHARS: usize = 63;

/// The annotations of the metrics of an HPA: without `.NAME` if all have the same settings.
pub(super) fn print_metrics(
    metrics: &[&KafkaMetric],
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let Some(first) = metrics.first() else {
        return annotations;
    };
    if metrics.iter().all(|other| other.settings == first.settings) {
        return print_settings(&first.settings, SettingScope::Metric, None);
    }
    let mut by_group: BTreeMap<&str, &Settings> = BTreeMap::new();
    for metric in metrics {
        let (group, own) = (metric.group_label.as_str(), &metric.settings);
        if *by_group.entry(group).or_insert(own) != own {
            notes.lost(format!("{}.metadata", metric.path), format!("annotations apply to all metrics of a group, so that the options of the first trigger for {group} apply to this one, too. Give them targets of the configuration, and select these by the label target"));
        }
    }
    for (group, own) in by_group {
        for (key, value) in print_settings(own, SettingScope::Metric, Some(group)) {
            if key.len().saturating_sub(PREFIX.len()) > MAX_KEY_CHARS {
                notes.lost("triggers", format!("the annotation {key} is longer than Kubernetes allows: configure a target with a short name for {group}"));
            } else {
                annotations.insert(key, value);
            }
        }
    }
    annotations
}

/// Replicas while the lag is unknown, and after which time.
pub(super) fn fallback(
    spec: &ScaledObjectSpec,
    notes: &mut Notes,
) -> Option<(NonZeroU32, Duration)> {
    let fallback = spec.fallback.as_ref()?;
    let interval = spec.polling_interval.unwrap_or(DEFAULT_POLLING_SECONDS);
    match fallback.behavior.as_deref().unwrap_or("static") {
        "static" => {
            let Some(replicas) = NonZeroU32::new(fallback.replicas) else {
                notes.lost(
                    "fallback.replicas",
                    "lagwise never falls back to zero replicas: the HPA keeps its replicas",
                );
                return None;
            };
            let seconds =
                u64::from(interval).saturating_mul(fallback.failure_threshold.max(1).into());
            let after = Duration::from_secs(seconds.max(1));
            notes.differs("fallback", format!("KEDA counts {} failures, lagwise the time of as many polls: {}. Until then the HPA keeps its replicas", fallback.failure_threshold, humantime::format_duration(after)));
            Some((replicas, after))
        }
        "currentReplicas" => {
            notes.differs("fallback", "without a fallback the HPA keeps its replicas while the lag is unknown, which is what currentReplicas does");
            None
        }
        other => {
            notes.lost("fallback.behavior", format!("{other}: lagwise falls back to a number of replicas or keeps the present ones, and here it keeps them"));
            None
        }
    }
}

/// The annotations of these settings, of a scope, for all metrics or for those of one name.
pub(super) fn print_settings(
    settings: &Settings,
    scope: SettingScope,
    name: Option<&str>,
) -> BTreeMap<String, String> {
    let of_scope = SETTINGS.iter().filter(|setting| setting.scope == scope);
    let printed = of_scope.filter_map(|setting| {
        let value = setting.print(settings)?;
        let key = setting.key;
        Some(match name {
            Some(name) => (format!("{PREFIX}{key}.{name}"), value),
            None => (format!("{PREFIX}{key}"), value),
        })
    });
    printed.collect()
}
