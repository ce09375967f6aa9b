//! Parts of a manifest, and problems with them.

use serde_json::Value;

use crate::model::findings::FindingCode;

/// Why an HPA cannot be applied, or does not do what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestProblem {
    pub code: FindingCode,
    /// Names the field; without a full stop.
    pub message: String,
}

impl ManifestProblem {
    pub(super) fn refused(message: String) -> Self {
        Self {
            code: FindingCode::RefusedHpa,
            message,
        }
    }
}

/// A part of a manifest.
#[derive(Clone, Debug)]
pub(super) struct ManifestPart<'a> {
    /// For messages, such as `spec.metrics[0].type`.
    pub(super) path: String,
    /// `None` if it is missing or null.
    pub(super) value: Option<&'a Value>,
}

impl<'a> ManifestPart<'a> {
    pub(super) fn field(&self, key: &str) -> Self {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        self.part(path, self.value.and_then(|value| value.get(key)))
    }

    /// A value of a map, whose keys may contain dots.
    pub(super) fn entry(&self, key: &str) -> Self {
        let path = format!("{}[{key}]", self.path);
        self.part(path, self.value.and_then(|value| value.get(key)))
    }

    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.value.and_then(Value::as_array).into_iter().flatten();
        let items = items.enumerate();
        items
            .map(|(index, item)| self.part(format!("{}[{index}]", self.path), Some(item)))
            .collect()
    }

    fn part(&self, path: String, value: Option<&'a Value>) -> Self {
        Self {
            path,
            value: value.filter(|value| !value.is_null()),
        }
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.and_then(Value::as_str)
    }

    /// A whole number of 32 bits.
    pub(super) fn number(&self) -> Option<i64> {
        let number = self.value.and_then(Value::as_i64);
        number.filter(|number| i32::try_from(*number).is_ok())
    }

    pub(super) fn is_present(&self) -> bool {
        self.value.is_some()
    }
}
