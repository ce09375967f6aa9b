//! A setting of a Kafka cluster that no client can use.

use std::fmt;

/// A setting that cannot be used, and why. Never shows the value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    setting: SettingPlace,
    /// The problem, without the name of the setting.
    pub problem: String,
}

/// The setting at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SettingPlace {
    /// The cluster as a whole.
    Cluster,
    /// A key next to `properties`.
    Key(&'static str),
    /// A property of librdkafka.
    Property(String),
}

impl SettingError {
    /// The setting `key` next to `properties` cannot be used.
    pub(super) fn key(key: &'static str, problem: impl Into<String>) -> Self {
        Self {
            setting: SettingPlace::Key(key),
            problem: problem.into(),
        }
    }

    /// The property `name` cannot be used.
    pub(super) fn property(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            setting: SettingPlace::Property(name.into()),
            problem: problem.into(),
        }
    }

    /// The key below the cluster, such as `token` or `properties.sasl.mechanism`; `None` for the cluster as a whole.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        match &self.setting {
            SettingPlace::Cluster => None,
            SettingPlace::Key(key) => Some((*key).to_owned()),
            SettingPlace::Property(name) => Some(format!("properties.{name}")),
        }
    }
}

impl From<String> for SettingError {
    fn from(problem: String) -> Self {
        Self {
            setting: SettingPlace::Cluster,
            problem,
        }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.setting {
            SettingPlace::Cluster => {}
            SettingPlace::Key(key) => write!(f, "{key}: ")?,
            SettingPlace::Property(name) => write!(f, "property {name}: ")?,
        }
        f.write_str(&self.problem)
    }
}
