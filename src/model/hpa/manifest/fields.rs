//! The fields of an HPA in a manifest: their names and types.

use serde_json::Value;

use super::part::{ManifestPart, ManifestProblem};
use crate::model::findings::{FindingCode, suggestion};
use crate::model::units::spelling::did_you_mean;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum FieldType {
    Text,
    /// A whole number of 32 bits.
    Integer,
    /// A text or a number.
    Quantity,
    TextMap,
    TextList,
    Object(&'static [ManifestField]),
    List(&'static [ManifestField]),
    /// Not checked.
    Any,
}

use FieldType::{Any, Integer, List, Object, Quantity, Text, TextList, TextMap};

/// The name and type of a field.
type ManifestField = (&'static str, FieldType);

const HPA: &[ManifestField] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Object(METADATA)),
    ("spec", Object(SPEC)),
    ("status", Any),
];

const METADATA: &[ManifestField] = &[
    ("annotations", TextMap),
    ("creationTimestamp", Any),
    ("deletionGracePeriodSeconds", Any),
    ("deletionTimestamp", Any),
    ("finalizers", TextList),
    ("generateName", Text),
    ("generation", Any),
    ("labels", TextMap),
    ("managedFields", Any),
    ("name", Text),
    ("namespace", Text),
    ("ownerReferences", Any),
    ("resourceVersion", Any),
    ("selfLink", Any),
    ("uid", Text),
];

const SPEC: &[ManifestField] = &[
    ("behavior", Object(BEHAVIOR)),
    ("maxReplicas", Integer),
    ("metrics", List(METRIC)),
    ("minReplicas", Integer),
    ("scaleTargetRef", Object(REFERENCE)),
];

const REFERENCE: &[ManifestField] = &[("apiVersion", Text), ("kind", Text), ("name", Text)];

const METRIC: &[ManifestField] = &[
    ("containerResource", Object(CONTAINER_RESOURCE)),
    ("external", Object(NAMED_METRIC)),
    ("object", Object(OBJECT_METRIC)),
    ("pods", Object(NAMED_METRIC)),
    ("resource", Object(RESOURCE)),
    ("type", Text),
];

const NAMED_METRIC: &[ManifestField] =
    &[("metric", Object(IDENTIFIER)), ("target", Object(TARGET))];

const OBJECT_METRIC: &[ManifestField] = &[
    ("describedObject", Object(REFERENCE)),
    ("metric", Object(IDENTIFIER)),
    ("target", Object(TARGET)),
];

const RESOURCE: &[ManifestField] = &[("name", Text), ("target", Object(TARGET))];

const CONTAINER_RESOURCE: &[ManifestField] = &[
    ("container", Text),
    ("name", Text),
    ("target", Object(TARGET)),
];

const IDENTIFIER: &[ManifestField] = &[("name", Text), ("selector", Object(SELECTOR))];

const SELECTOR: &[ManifestField] = &[
    ("matchExpressions", List(REQUIREMENT)),
    ("matchLabels", TextMap),
];

const REQUIREMENT: &[ManifestField] = &[("key", Text), ("operator", Text), ("values", TextList)];

const TARGET: &[ManifestField] = &[
    ("averageUtilization", Integer),
    ("averageValue", Quantity),
    ("type", Text),
    ("value", Quantity),
];

const BEHAVIOR: &[ManifestField] = &[("scaleDown", Object(RULES)), ("scaleUp", Object(RULES))];

const RULES: &[ManifestField] = &[
    ("policies", List(POLICY)),
    ("selectPolicy", Text),
    ("stabilizationWindowSeconds", Integer),
    ("tolerance", Quantity),
];

const POLICY: &[ManifestField] = &[
    ("periodSeconds", Integer),
    ("type", Text),
    ("value", Integer),
];

/// Finds unknown keys, and values of another type than that of their field.
pub(super) fn find_in_fields(hpa: &ManifestPart<'_>, problems: &mut Vec<ManifestProblem>) {
    find_in_part(hpa, Object(HPA), problems);
}

fn find_in_part(part: &ManifestPart<'_>, expected: FieldType, problems: &mut Vec<ManifestProblem>) {
    let Some(value) = part.value else {
        return;
    };
    match (expected, value) {
        (Any, _) | (Text, Value::String(_)) | (Quantity, Value::String(_) | Value::Number(_)) => {}
        (Integer, Value::Number(_)) if part.number().is_some() => {}
        (TextMap, Value::Object(entries)) => {
            for key in entries.keys() {
                find_in_part(&part.entry(key), Text, problems);
            }
        }
        (TextList, Value::Array(_)) => {
            for item in part.items() {
                find_in_part(&item, Text, problems);
            }
        }
        (Object(fields), Value::Object(entries)) => {
            for key in entries.keys() {
                match fields.iter().find(|(name, _)| name == key) {
                    Some((_, expected)) => find_in_part(&part.field(key), *expected, problems),
                    None => problems.push(unknown_key(part, key, fields)),
                }
            }
        }
        (List(fields), Value::Array(_)) => {
            for item in part.items() {
                find_in_part(&item, Object(fields), problems);
            }
        }
        _ => {
            let message = format!(
                "{} is {}, but must be {}{}",
                part.path,
                kind(value),
                expected.label(),
                remedy(value, expected)
            );
            problems.push(ManifestProblem::refused(message));
        }
    }
}

fn unknown_key(part: &ManifestPart<'_>, key: &str, fields: &[ManifestField]) -> ManifestProblem {
    let meant = suggestion("", did_you_mean(key, fields.iter().map(|(name, _)| *name)));
    ManifestProblem {
        code: FindingCode::UnknownHpaKey,
        message: format!("unknown key {}{meant}", part.field(key).path),
    }
}

impl FieldType {
    /// What it is, with its article.
    fn label(self) -> &'static str {
        match self {
            Text => "a text",
            Integer => "a whole number of 32 bits",
            Quantity => "a quantity",
            TextMap | Object(_) => "a mapping",
            TextList | List(_) => "a list",
            Any => "anything",
        }
    }
}

/// What a value is, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// How to write the value instead, if that is only a matter of quotes.
fn remedy(value: &Value, expected: FieldType) -> String {
    match (expected, value) {
        (Text, Value::Number(_) | Value::Bool(_)) => format!("; quote it: \"{value}\""),
        (Integer, Value::String(text)) => match text.trim().parse::<i32>() {
            Ok(number) => format!("; write {number} without quotes"),
            Err(_) => String::new(),
        },
        _ => String::new(),
    }
}
