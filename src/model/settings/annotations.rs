//! Reads the annotations `lagwise.dev/...` of an HPA as settings, and reports mistakes in them as findings.
//!
//! `lagwise.dev/KEY` applies to every lagwise metric of the HPA. `lagwise.dev/KEY.NAME` applies to the
//! metrics whose selector names the group or configured target `NAME`, and takes precedence. A setting
//! of the whole HPA has no `.NAME`. Kubernetes allows 63 characters after the slash: a group with a
//! longer name needs a configured target with a short name.

use std::collections::{BTreeMap, BTreeSet};

use super::{SETTINGS, Setting, SettingScope, Settings};
use crate::model::findings::{BoundedFindings, Finding, FindingCode, suggestion};
use crate::model::settings::annotation_keys::{PREFIX, WRITTEN};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::short_list::short_list;
use crate::model::units::spelling::did_you_mean;

/// Key of the setting that stops all writes to an HPA.
const PAUSED: &str = "paused";

/// Reads the settings of the whole HPA. A setting with an invalid value stays unset; [`Annotations::read`] reports it.
#[must_use]
pub fn whole_hpa_settings(annotations: &BTreeMap<String, String>) -> Settings {
    let mut settings = Settings::default();
    for (full, value) in annotations {
        let key = AnnotationKey::parse(full).filter(|key| key.suffix.is_none());
        let setting = key.and_then(|key| key.setting());
        if let Some(setting) = setting.filter(|setting| setting.scope == SettingScope::Hpa) {
            // An error leaves the setting as it was.
            let _ = setting.parse(value.trim(), &mut settings);
        }
    }
    if is_paused(annotations) {
        settings.paused = Some(true);
    }
    settings
}

/// The key and value of the annotation that stops all writes, if one of these annotations is, or may be, meant as it.
#[must_use]
pub fn paused_in(annotations: &BTreeMap<String, String>) -> Option<(String, String)> {
    is_paused(annotations).then(|| (format!("{PREFIX}{PAUSED}"), "true".to_owned()))
}

/// Whether a person has stopped the writes. In doubt they are stopped, because an unwanted write does harm and a
/// missing one does not. So any value except a clear no counts, and so does a key with `.NAME` or with a spelling
/// mistake.
fn is_paused(annotations: &BTreeMap<String, String>) -> bool {
    let pauses = |(key, value): (&String, &String)| {
        let key = AnnotationKey::parse(key);
        key.is_some_and(|key| key.is_meant_as_paused()) && stops_writes(value)
    };
    annotations.iter().any(pauses)
}

/// Whether the value of `paused` stops the writes.
fn stops_writes(value: &str) -> bool {
    let value = value.trim();
    !["false", "no", "off", "0"]
        .iter()
        .any(|no| value.eq_ignore_ascii_case(no))
}

/// The annotations of one setting, with or without `.NAME`.
pub fn annotations_of<'a>(
    annotations: &'a BTreeMap<String, String>,
    setting: &'static str,
) -> impl Iterator<Item = (&'a String, &'a String)> {
    annotations.iter().filter(move |(full, _)| {
        let key = AnnotationKey::parse(full);
        key.is_some_and(|key| key.name == setting)
    })
}

/// The key of an annotation of lagwise that a person writes.
#[derive(Clone, Copy)]
struct AnnotationKey<'a> {
    full: &'a str,
    name: &'a str,
    suffix: Option<&'a str>,
}

impl<'a> AnnotationKey<'a> {
    /// `None` for annotations that are not lagwise's, and for those that lagwise writes.
    fn parse(full: &'a str) -> Option<Self> {
        let rest = full.strip_prefix(PREFIX)?;
        if WRITTEN.iter().any(|(written, _)| *written == full) {
            return None;
        }
        // No key of a setting contains a dot, but the name of a group may.
        let (name, suffix) = match rest.split_once('.') {
            Some((name, suffix)) => (name, Some(suffix)),
            None => (rest, None),
        };
        Some(Self { full, name, suffix })
    }

    fn setting(&self) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == self.name)
    }

    /// The key that was probably meant, if no setting has this one.
    fn suggestion(&self) -> Option<&'static str> {
        did_you_mean(self.name, SETTINGS.iter().map(|setting| setting.key))
    }

    fn is_meant_as_paused(&self) -> bool {
        match self.setting() {
            Some(setting) => setting.key == PAUSED,
            // Compare with `paused` first: that is cheap, and rules out most keys.
            None => {
                did_you_mean(self.name, [PAUSED]).is_some() && self.suggestion() == Some(PAUSED)
            }
        }
    }
}

/// The settings in the annotations of an HPA.
#[derive(Debug, Default)]
pub struct Annotations {
    /// Settings without `.NAME`.
    every: Settings,
    /// Settings with `.NAME`, by that name.
    named: BTreeMap<String, Settings>,
    /// The annotations with a `.NAME` that no metric of the HPA selects.
    unmatched: Vec<String>,
}

impl Annotations {
    /// Reads the annotations of the HPA `hpa`, whose metrics select the groups and configured targets `names`. An
    /// annotation for another name has no effect, so its value is not even parsed: a regular expression, for example,
    /// costs much more than its text. A value that cannot be read is reported, and the default applies.
    #[must_use]
    pub fn read(
        hpa: &HpaKey,
        annotations: &BTreeMap<String, String>,
        names: &BTreeSet<&str>,
        findings: &mut BoundedFindings,
    ) -> Self {
        let mut read = Self {
            every: whole_hpa_settings(annotations),
            ..Self::default()
        };
        for (full, value) in annotations {
            let Some(key) = AnnotationKey::parse(full) else {
                continue;
            };
            if let Some((code, message)) = read.add(key, value, names) {
                findings.insert(Finding::new(code, hpa, message));
            }
        }
        if !read.unmatched.is_empty() {
            let message = format!(
                "{} no effect: no metric of the HPA selects a group or target of that name",
                match read.unmatched.as_slice() {
                    [key] => format!("annotation {key} has"),
                    keys => format!("annotations {} have", short_list(keys.iter().cloned())),
                }
            );
            findings.insert(Finding::new(FindingCode::StrayAnnotation, hpa, message));
        }
        let named = read.named.iter_mut();
        let named = named.map(|(name, settings)| (Some(name), settings));
        for (name, settings) in named.chain([(None, &mut read.every)]) {
            if settings.topics.is_some() && settings.topic_regex.take().is_some() {
                let suffix = name.map_or_else(String::new, |name| format!(".{name}"));
                let message = format!(
                    "annotations {PREFIX}topics{suffix} and {PREFIX}topic-regex{suffix} are both set; \
                     only the list of topics applies"
                );
                findings.insert(Finding::new(FindingCode::TopicsTwice, hpa, message));
            }
        }
        read
    }

    /// Adds one annotation. Returns the problem with it, if there is one.
    fn add(
        &mut self,
        key: AnnotationKey<'_>,
        value: &str,
        names: &BTreeSet<&str>,
    ) -> Option<(FindingCode, String)> {
        let annotation = key.full;
        let pauses = key.is_meant_as_paused() && stops_writes(value);
        let unclear_pause = || {
            let value = shortened(value);
            let message = format!(
                "annotation {annotation}: {value:?} may mean {PREFIX}{PAUSED}: \"true\", so all writes to the HPA are stopped"
            );
            Some((FindingCode::UnclearPause, message))
        };
        let Some(setting) = key.setting() else {
            if pauses {
                return unclear_pause();
            }
            let meant = suggestion(PREFIX, key.suggestion());
            let message = format!("unknown annotation {annotation}{meant}");
            return Some((FindingCode::UnknownAnnotation, message));
        };
        let settings = match (setting.scope, key.suffix) {
            (SettingScope::Hpa, Some(_)) => {
                let effect = match pauses {
                    true => "all writes to the HPA are stopped",
                    false => "it is ignored",
                };
                let message = format!(
                    "annotation {annotation}: {} applies to the whole HPA and takes no .NAME, so {effect}",
                    setting.key
                );
                return Some((FindingCode::SuffixOnHpaSetting, message));
            }
            // `whole_hpa_settings` has read the value already; parse it again to report an error in it.
            (SettingScope::Hpa, None) => &mut Settings::default(),
            (SettingScope::Metric, None) => &mut self.every,
            (SettingScope::Metric, Some(suffix)) if !names.contains(suffix) => {
                self.unmatched.push(annotation.to_owned());
                return None;
            }
            (SettingScope::Metric, Some(suffix)) => {
                self.named.entry(suffix.to_owned()).or_default()
            }
        };
        match setting.parse(value.trim(), settings) {
            Ok(()) => None,
            Err(_) if pauses => unclear_pause(),
            Err(_) => {
                let (value, allowed) = (shortened(value), setting.form.allowed());
                let message = format!(
                    "annotation {annotation}: {value:?} is invalid, so the default applies; allowed: {allowed}"
                );
                Some((FindingCode::BadAnnotation, message))
            }
        }
    }

    /// The settings of a metric whose selector names the group or configured target `name`.
    #[must_use]
    pub fn for_name(&self, name: Option<&str>) -> Settings {
        match name.and_then(|name| self.named.get(name)) {
            Some(named) => named.clone().over(&self.every),
            None => self.every.clone(),
        }
    }

    /// Whether lagwise should scale the workload to zero.
    #[must_use]
    pub fn scale_to_zero(&self) -> bool {
        self.every.scale_to_zero()
    }

    /// Ignores the annotation for scale to zero.
    pub fn disable_scale_to_zero(&mut self) {
        self.every.scale_to_zero = None;
    }

    /// Whether the metrics of `name` have the setting `fallback-after`, but not `fallback-replicas`.
    #[must_use]
    pub fn lacks_fallback_replicas(&self, name: Option<&str>) -> bool {
        let settings = self.for_name(name);
        settings.fallback_after.is_some() && settings.fallback_replicas.is_none()
    }
}

/// The start of a value, so that a finding has a bounded length.
fn shortened(value: &str) -> String {
    let mut short: String = value.chars().take(60).collect();
    if short.len() < value.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests;
