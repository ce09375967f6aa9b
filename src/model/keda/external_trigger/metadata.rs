//! Reads the metadata of a trigger, key by key.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::model::settings::{SETTINGS, Setting, SettingScope, Settings};
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Lag;
use crate::model::units::spelling::did_you_mean;
use crate::model::units::untrusted_text::Printable;

/// Maximum bytes of the metadata of one trigger.
pub const MAX_METADATA_BYTES: usize = 8 * 1024;

/// Keys that KEDA reads itself and passes on: how to connect to the scaler.
const KEYS_OF_KEDA: [&str; 9] = [
    "scalerAddress",
    "enableTLS",
    "unsafeSsl",
    "insecureSkipVerify",
    "caCert",
    "tlsCertFile",
    "tlsClientCert",
    "tlsClientKey",
    "metricType",
];

/// Keys besides those of the table of settings.
pub const OWN_KEYS: [&str; 7] = [
    "group",
    "topic",
    "cluster",
    "target",
    "metric",
    "lagThreshold",
    "activationLag",
];

/// Other spellings of a key: those of KEDA's own Kafka triggers.
const ALIASES: [(&str, &str); 3] = [
    ("consumerGroup", "group"),
    ("lagPerReplica", "lagThreshold"),
    ("activationLagThreshold", "activationLag"),
];

/// Suffix of keys whose value KEDA takes from an environment variable of the workload.
const FROM_ENV: &str = "FromEnv";

/// Settings of annotations that have other keys here.
const RENAMED_SETTINGS: [&str; 2] = ["consumer-group", "lag-per-replica"];

/// An error in the metadata of a trigger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("the metadata of the trigger has {0} bytes: at most {MAX_METADATA_BYTES}")]
    TooLarge(usize),
    #[error("the {what} {value:?} is no name of Kubernetes: {problem}")]
    Name {
        what: &'static str,
        value: String,
        problem: String,
    },
    #[error("metadata {key}: {value:?} is invalid ({problem}); allowed: {allowed}")]
    Value {
        key: String,
        value: String,
        problem: String,
        allowed: String,
    },
    #[error("metadata {key}: unknown key{}; remove it, or use one of {allowed}", suggestion.as_deref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    Unknown {
        key: String,
        suggestion: Option<String>,
        allowed: String,
    },
    #[error("metadata {key}: a setting of HPAs, which KEDA has in its own fields; remove it")]
    OfHpa { key: String },
    #[error("metadata {one} and {other} exclude each other; remove one of them")]
    Both {
        one: &'static str,
        other: &'static str,
    },
    #[error("metadata {key} is missing; {remedy}")]
    Missing {
        key: &'static str,
        remedy: &'static str,
    },
}

/// The metadata by key, without the keys of KEDA.
pub(super) struct TriggerMetadata<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> TriggerMetadata<'a> {
    pub(super) fn read(
        all: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, MetadataError> {
        let all: Vec<_> = all.into_iter().collect();
        let bytes = all
            .iter()
            .map(|(key, value)| key.len().saturating_add(value.len()));
        let bytes = bytes.fold(0, usize::saturating_add);
        if bytes > MAX_METADATA_BYTES {
            return Err(MetadataError::TooLarge(bytes));
        }
        let mut given: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in all {
            let key = key.strip_suffix(FROM_ENV).unwrap_or(key);
            let renamed = ALIASES.iter().find(|(alias, _)| *alias == key);
            let name = renamed.map_or(key, |(_, name)| name);
            if KEYS_OF_KEDA.contains(&name) {
                continue;
            }
            if given.insert(name, value.trim()).is_some() {
                return Err(MetadataError::Value {
                    key: shown(key),
                    value: shown(value),
                    problem: "it is set twice".to_owned(),
                    allowed: format!("one of {name}, its other names, and {name}{FROM_ENV}"),
                });
            }
        }
        Ok(Self(given))
    }

    pub(super) fn to_owned(&self) -> BTreeMap<String, String> {
        let owned = |(key, value): (&&str, &&str)| ((*key).to_owned(), (*value).to_owned());
        self.0.iter().map(owned).collect()
    }

    pub(super) fn take(&mut self, key: &str) -> Option<&'a str> {
        self.0.remove(key)
    }

    pub(super) fn metric(&mut self) -> Result<Metric, MetadataError> {
        match self.take("metric") {
            None | Some("lag") => Ok(Metric::Lag),
            Some("desired") => Ok(Metric::DesiredReplicas),
            Some(other) => Err(invalid("metric", other, "unknown", "lag, desired")),
        }
    }

    /// Reads the remaining keys by the table of settings. Returns the values by the key of the table.
    pub(super) fn settings(
        self,
        settings: &mut Settings,
    ) -> Result<BTreeMap<String, String>, MetadataError> {
        let mut values = BTreeMap::new();
        for (key, value) in self.0 {
            let setting = find_setting(key).ok_or_else(|| unknown(key))?;
            if setting.scope == SettingScope::Hpa {
                return Err(MetadataError::OfHpa { key: shown(key) });
            }
            let parsed = setting.parse(value, settings);
            parsed.map_err(|problem| invalid(key, value, problem, setting.form.allowed()))?;
            values.insert(setting.key.to_owned(), value.to_owned());
        }
        Ok(values)
    }
}

/// The setting of a key of metadata, or of its annotation.
fn find_setting(key: &str) -> Option<&'static Setting> {
    let mut settings = SETTINGS.iter();
    settings.find(|setting| {
        let is_renamed = RENAMED_SETTINGS.contains(&setting.key);
        !is_renamed && (setting.key == key || metadata_key(setting) == key)
    })
}

/// The key of a setting, as KEDA spells keys: `threadsPerReplica`.
#[must_use]
pub fn metadata_key(setting: &Setting) -> String {
    let mut words = setting.key.split('-');
    let mut key = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        key.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        key.push_str(letters.as_str());
    }
    key
}

/// The keys of metadata that are settings of the table.
pub fn setting_keys() -> impl Iterator<Item = (String, &'static Setting)> {
    let settings = SETTINGS.iter().filter(|setting| {
        setting.scope == SettingScope::Metric && !RENAMED_SETTINGS.contains(&setting.key)
    });
    settings.map(|setting| (metadata_key(setting), setting))
}

fn unknown(key: &str) -> MetadataError {
    let settings: Vec<_> = setting_keys().map(|(key, _)| key).collect();
    let known = || {
        OWN_KEYS
            .into_iter()
            .chain(settings.iter().map(String::as_str))
    };
    MetadataError::Unknown {
        key: shown(key),
        suggestion: did_you_mean(key, known()).map(str::to_owned),
        allowed: known().collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn parse_setting(key: &str, name: &str, text: &str) -> Result<Settings, MetadataError> {
    let mut settings = Settings::default();
    let setting = SETTINGS.iter().find(|setting| setting.key == name);
    let setting = setting.ok_or_else(|| unknown(key))?;
    match setting.parse(text, &mut settings) {
        Ok(()) => Ok(settings),
        Err(problem) => Err(invalid(key, text, problem, setting.form.allowed())),
    }
}

/// KEDA's activation: the trigger is active while the lag is above this.
pub(super) fn parse_activation(text: Option<&str>) -> Result<Lag, MetadataError> {
    match text.map(|text| (text, text.parse())) {
        None => Ok(Lag(0)),
        Some((_, Ok(lag))) => Ok(Lag(lag)),
        Some((text, Err(_))) => {
            let problem = "not a whole number";
            Err(invalid(
                "activationLag",
                text,
                problem,
                "a number of messages, such as 0 or 100",
            ))
        }
    }
}

pub(super) fn checked<'a>(
    key: &str,
    value: &'a str,
    allowed: &str,
    check: fn(&str) -> Result<&str, String>,
) -> Result<&'a str, MetadataError> {
    let problem = match value {
        "" => "empty".to_owned(),
        _ => match check(value) {
            Ok(_) => return Ok(value),
            Err(problem) => problem,
        },
    };
    Err(invalid(key, value, problem, allowed))
}

pub(super) fn check_name(
    what: &'static str,
    name: &str,
    check: fn(&str) -> Result<&str, String>,
) -> Result<(), MetadataError> {
    let checked = match name {
        "" => Err("empty".to_owned()),
        name => check(name).map(|_| ()),
    };
    checked.map_err(|problem| MetadataError::Name {
        what,
        value: shown(name),
        problem,
    })
}

fn invalid(key: &str, value: &str, problem: impl Display, allowed: impl Display) -> MetadataError {
    MetadataError::Value {
        key: shown(key),
        value: shown(value),
        problem: problem.to_string(),
        allowed: allowed.to_string(),
    }
}

/// Text of others, short enough for a message.
fn shown(text: &str) -> String {
    Printable::name(text).to_string()
}
