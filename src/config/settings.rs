//! The settings of the table in the configuration file: reading, serialized form and JSON Schema.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serializer;
use serde_json::{Map, Value, json};

use super::schema::duration_schema;
use super::section::{Field, Section};
use crate::model::settings::form::{Choice, Choices, Form};
use crate::model::settings::{FileSection, Setting, Settings};
use crate::model::units::names;

/// Reads the settings that a section has.
pub(super) fn read(section: &mut Section<'_>, kind: FileSection) -> Settings {
    let mut settings = Settings::default();
    for setting in Settings::of_section(kind) {
        let field = section.get(setting.file_key);
        let written =
            field.and_then(|field| Some((to_annotation_text(&field, &setting.form)?, field)));
        let Some((text, field)) = written else {
            continue;
        };
        if let Err(problem) = setting.parse(&text, &mut settings) {
            field.refuse(problem, setting.form.allowed());
        }
    }
    settings
}

/// A value of the file in the text form of an annotation, so that one parser reads both. `None` if it has a
/// problem, which is recorded, or is an empty list.
fn to_annotation_text(field: &Field<'_>, form: &Form) -> Option<String> {
    match form {
        Form::Flag => field.flag().map(|flag| flag.to_string()),
        Form::Number { min, max, .. } => field.whole_number(*min, *max).map(|n| n.to_string()),
        Form::Quantity => field.whole_number(1, u64::MAX).map(|n| n.to_string()),
        Form::Duration { min, max } => {
            let duration = field.duration((*min, ""), (*max, ""))?;
            Some(humantime::format_duration(duration).to_string())
        }
        Form::Choice(choices) => {
            let name = |choice: &Choice| (choice.name, choice.name);
            let names: Vec<_> = choices().iter().map(name).collect();
            field.one_of(&names).map(str::to_owned)
        }
        Form::Topics => {
            let topics = field.texts(names::TOPIC, |text| names::topic(text).map(str::to_owned));
            (!topics.is_empty()).then(|| topics.join(","))
        }
        Form::Text { allowed } => field.text(allowed).map(str::to_owned),
    }
}

/// The variant that the value names.
pub(super) fn variant<T: Choices>(field: &Field<'_>) -> Option<T> {
    let named = T::CHOICES
        .iter()
        .map(|(variant, choice)| (choice.name, *variant));
    field.one_of(&named.collect::<Vec<_>>())
}

/// Serializes the settings of a section: each value, or its default, or null.
pub(super) fn serialize<S: Serializer>(
    settings: &Settings,
    kind: FileSection,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let entry = |setting: &'static Setting| {
        let text = setting.print(settings);
        (setting.file_key, to_file_value(setting, text))
    };
    serializer.collect_map(Settings::of_section(kind).map(entry))
}

/// Converts a value from the text form of an annotation to the form of the file; without `text`, the default.
fn to_file_value(setting: &Setting, text: Option<String>) -> Value {
    let text = text.or_else(|| setting.default());
    match (&setting.form, text) {
        (Form::Topics, text) => {
            let topics = text.unwrap_or_default();
            let topics = topics.split(',').filter(|topic| !topic.is_empty());
            topics.collect()
        }
        (_, None) => Value::Null,
        (Form::Flag | Form::Number { .. } | Form::Quantity, Some(text)) => {
            text.parse().unwrap_or(Value::String(text))
        }
        (_, Some(text)) => Value::String(text),
    }
}

/// The schemas of the keys of a section.
pub(super) fn schemas(kind: FileSection) -> Map<String, Value> {
    Settings::of_section(kind)
        .map(|setting| (setting.file_key.to_owned(), Value::Object(schema(setting))))
        .collect()
}

fn schema(setting: &Setting) -> Map<String, Value> {
    let default = to_file_value(setting, None);
    let mut schema = match setting.form {
        Form::Flag => json!({"type": "boolean"}),
        Form::Number { min, max, format } => {
            let mut schema = json!({"type": "integer", "format": format, "minimum": min});
            if !setting.form.is_unbounded(max) {
                schema["maximum"] = max.into();
            }
            schema
        }
        Form::Quantity => json!({"type": "integer", "format": "uint64", "minimum": 1}),
        Form::Duration { .. } => duration_schema(&mut SchemaGenerator::default()).to_value(),
        Form::Choice(choices) => json!({"oneOf": one_of(&choices())}),
        Form::Topics => json!({"type": "array", "items": {"type": "string"}}),
        Form::Text { .. } => json!({"type": "string"}),
    };
    let mut description = setting.description().to_owned();
    if let Some(unset) = setting.unset {
        description = format!("{description} Default: {unset}.");
    }
    if default.is_null() {
        schema = or_null(schema);
    } else {
        schema["default"] = default;
    }
    schema["description"] = description.into();
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// The schema of the names of an enum.
pub(super) fn variants_schema<T: Choices>() -> Schema {
    let choices: Vec<_> = T::CHOICES.iter().map(|(_, choice)| *choice).collect();
    json_schema!({"oneOf": one_of(&choices)})
}

fn one_of(choices: &[Choice]) -> Value {
    let schema = |choice: &Choice| json!({"type": "string", "const": choice.name, "description": choice.meaning});
    choices.iter().map(schema).collect()
}

fn or_null(mut schema: Value) -> Value {
    match schema.get_mut("type") {
        Some(kind) => {
            *kind = json!([kind, "null"]);
            schema
        }
        None => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}
