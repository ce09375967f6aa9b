//! The JSON Schema of the file, for editors and for `lagwise config schema`.

use std::time::Duration;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serializer;

use super::Config;

/// The JSON Schema (draft 2020-12) of the configuration file: every key with its description, default
/// and allowed values.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    let mut settings =
        SchemaSettings::draft2020_12().with_transform(RecursiveTransform(unwrap_lines));
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    schema.insert("title".into(), "lagwise configuration".into());
    schema.to_value()
}

/// The paths of all keys with this name, list items as `[]`.
pub(super) fn paths_of_key(key: &str) -> Vec<String> {
    let mut paths = Vec::new();
    collect_paths(&json_schema(), "", key, &mut paths);
    paths
}

fn collect_paths(schema: &serde_json::Value, path: &str, key: &str, paths: &mut Vec<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}").trim_start_matches('.').to_owned();
        if name == key {
            paths.push(path.clone());
        }
        collect_paths(inner, &path, key, paths);
    }
    if schema["items"].is_object() {
        collect_paths(&schema["items"], &format!("{path}[]"), key, paths);
    }
}

/// Joins the lines of descriptions, which come from doc comments.
fn unwrap_lines(schema: &mut Schema) {
    if let Some(serde_json::Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

/// A duration, as humantime reads it.
pub(super) fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": r"^\s*([0-9]+\s*[a-zA-Zµ]+\s*)+$",
        "examples": ["500ms", "5s", "1m 30s"],
    })
}

/// An address to listen on.
pub(super) fn address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$",
        "examples": ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080"],
    })
}

/// A duration as the file has it.
pub(super) fn serialize_duration<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// An address to listen on, or none.
pub(super) fn optional_address_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = address_schema(generator);
    schema.insert("type".into(), serde_json::json!(["string", "null"]));
    schema
}
