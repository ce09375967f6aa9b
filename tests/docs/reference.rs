//! Generates the parts of the reference pages between two marks.

use std::fmt::Write as _;

use clap::CommandFactory;
use lagwise::cli::Cli;
use lagwise::config::json_schema;
use lagwise::model::findings::FindingCode;
use lagwise::model::settings::annotation_keys::{PREFIX, WRITTEN};
use lagwise::model::settings::form::Form;
use lagwise::model::settings::{FileSection, SETTINGS, Setting, SettingScope, Settings};
use lagwise::model::units::lag_thresholds::LagThresholds;
use lagwise::serve::endpoints::{ADMIN, EXTERNAL_METRICS, Endpoint, METRICS_PATHS, PROBES};
use serde_json::Value;

/// Mark at the beginning of the generated part of a page.
pub(crate) const BEGIN: &str =
    "<!-- generated: change the code, then run LAGWISE_UPDATE_DOCS=1 cargo test --test docs -->";

/// Mark at its end.
pub(crate) const END: &str = "<!-- end of the generated part -->";

/// Pages under `docs/src/reference`, each with the function that generates its part.
pub(crate) type Generated = (&'static str, fn() -> String);

pub(crate) const PAGES: &[Generated] = &[
    ("findings.md", findings),
    ("cli.md", command_line),
    ("configuration.md", configuration),
    ("metrics.md", metrics),
    ("opentelemetry.md", open_telemetry),
    ("http.md", endpoints),
    ("annotations.md", annotations),
];

/// A text as the cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn findings() -> String {
    let mut page = String::from("| code | severity | kind | what |\n|---|---|---|---|\n");
    for finding in FindingCode::ALL {
        let (code, anchor) = (finding.code(), finding.code().to_lowercase());
        let (severity, label, what) = (finding.severity(), finding.label(), cell(finding.what()));
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| [{code}](#{anchor}) | {severity} | `{label}` | {what} |"
        );
    }
    for finding in FindingCode::ALL {
        let _ = write!(
            page,
            "\n### {}\n\n{}\n\n`{}`, {}. Reason of its events: `{}`.\n\n- **Why:** {}\n- **Fix:** {}\n",
            finding.code(),
            finding.what(),
            finding.label(),
            finding.severity(),
            finding.event_reason(),
            finding.why(),
            finding.fix()
        );
    }
    page
}

fn metrics() -> String {
    let mut page = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for family in lagwise::serve::metric_families() {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind,
            family.labels.join(", "),
            cell(family.help)
        );
    }
    page
}

fn open_telemetry() -> String {
    let mut page = String::from("| OpenTelemetry | `/metrics` |\n|---|---|\n");
    for family in lagwise::serve::metric_families() {
        let name = lagwise::serve::open_telemetry_name(family.name);
        if name != family.name {
            let _ = writeln!(page, "| `{name}` | `{}` |", family.name);
        }
    }
    page
}

fn annotations() -> String {
    let mut page = String::new();
    for (heading, note, scope) in [
        (
            "Settings of a metric",
            "`.NAME` may follow the key.",
            SettingScope::Metric,
        ),
        (
            "Settings of the whole HPA",
            "`.NAME` must not follow the key: that is an error, and `lagwise lint` reports it.",
            SettingScope::Hpa,
        ),
    ] {
        let _ = write!(
            page,
            "### {heading}\n\n{note}\n\n| `{PREFIX}...` | value | default | meaning |\n|---|---|---|---|\n"
        );
        for setting in SETTINGS.iter().filter(|setting| setting.scope == scope) {
            let (value, meaning) = values(setting);
            let default = match (setting.file, setting.default()) {
                (Some(FileSection::Lag), _) => format!("`lag.{}`", setting.file_key),
                (_, Some(default)) => format!("`{default}`"),
                (_, None) => setting.unset.unwrap_or_default().to_owned(),
            };
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                setting.key,
                cell(&value),
                cell(&default),
                cell(&meaning)
            );
        }
        page.push('\n');
    }
    let defaults = Settings::group_defaults(LagThresholds::default());
    let of_group: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| setting.print(&defaults).is_some())
        .map(|setting| format!("`{}`", setting.key))
        .collect();
    let (last, others) = of_group.split_last().unwrap();
    let _ = write!(
        page,
        "### One value for a group\n\n{} and {last} are settings of the consumer group. If two HPAs or configured \
         targets of one group set different values, the value that counts more lag applies to both, and a finding \
         reports it.\n\n",
        others.join(", ")
    );
    let _ = write!(
        page,
        "### Annotations that lagwise writes\n\nDo not set these.\n\n| annotation | meaning |\n|---|---|\n"
    );
    for (key, description) in WRITTEN {
        let _ = writeln!(page, "| `{key}` | {description} |");
    }
    page
}

/// The allowed values of a setting, and its meaning with that of each named value.
fn values(setting: &Setting) -> (String, String) {
    let mut meaning = setting.description().to_owned();
    let value = match setting.form {
        Form::Flag => "`true`, `false`".to_owned(),
        Form::Choice(choices) => {
            for choice in choices() {
                let _ = write!(meaning, "<br>`{}`: {}", choice.name, choice.meaning);
            }
            let names: Vec<_> = choices().iter().map(|c| format!("`{}`", c.name)).collect();
            names.join(", ")
        }
        form => form.allowed(),
    };
    (value, meaning)
}

/// Width of the comments in the example file.
const COMMENT_WIDTH: usize = 110;

/// The settings of a section of the example file, each with its comment: those that have a default are in
/// force, those of a target are commented out.
pub(crate) fn example(section: FileSection) -> String {
    let (indent, mark) = match section {
        FileSection::Lag => ("  ", ""),
        FileSection::Targets => ("    ", "#"),
    };
    let mut text = String::new();
    for setting in Settings::of_section(section) {
        let mut comment = setting.description().to_owned();
        let allowed = match setting.form {
            Form::Flag | Form::Topics => None,
            Form::Quantity => Some("a whole number from 1".to_owned()),
            form => Some(form.allowed()),
        };
        if let Some(allowed) = allowed {
            // The value below the comment is an example.
            let allowed = allowed.split(", such as").next().unwrap_or_default();
            let _ = write!(comment, " Allowed: {allowed}.");
        }
        if let Some(unset) = setting.unset {
            let _ = write!(comment, " Default: {unset}.");
        }
        for line in wrapped(&comment, COMMENT_WIDTH - indent.len() - 2) {
            let _ = writeln!(text, "{indent}# {line}");
        }
        let example = setting.example.map(str::to_owned);
        let value = setting.default().or(example).unwrap_or_default();
        let _ = writeln!(text, "{indent}{mark}{}: {value}", setting.file_key);
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn endpoints() -> String {
    let mut page = String::new();
    for (heading, listed) in [
        ("External metrics API", EXTERNAL_METRICS),
        ("Metrics listener", METRICS_PATHS),
        ("Probe listener", PROBES),
        ("Admin listener", ADMIN),
    ] {
        let blank = if page.is_empty() { "" } else { "\n" };
        let _ = write!(
            page,
            "{blank}### {heading}\n\n| path | answer |\n|---|---|\n"
        );
        for Endpoint { path, answer } in listed {
            let _ = writeln!(page, "| `{path}` | {} |", cell(answer));
        }
    }
    page
}

fn command_line() -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut page = String::new();
    help(&mut command, "lagwise", &mut page);
    page
}

fn help(command: &mut clap::Command, name: &str, page: &mut String) {
    // Some of these variables may be set in the environment that generates the page.
    *command = std::mem::take(command).mut_args(|argument| argument.hide_env_values(true));
    let text = command.render_long_help().to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let heading = if page.is_empty() { "" } else { "\n" };
    let _ = writeln!(
        page,
        "{heading}### {name}\n\n```text\n{}\n```",
        lines.join("\n").trim_end()
    );
    for sub in command.get_subcommands_mut() {
        if sub.get_name() != "help" {
            let name = format!("{name} {}", sub.get_name());
            help(sub, &name, page);
        }
    }
}

fn configuration() -> String {
    let schema = json_schema();
    let mut page = String::new();
    for (key, section) in entries(&schema) {
        let heading = if page.is_empty() { "" } else { "\n" };
        let _ = write!(page, "{heading}### {key}\n\n{}\n", description(section));
        page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
        rows(section, &key, &mut page);
    }
    page
}

/// The keys of a mapping, with their schemas.
fn entries(schema: &Value) -> Vec<(String, &Value)> {
    let properties = schema["properties"].as_object();
    let entries = properties.into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value)).collect()
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// The rows of everything under `path`.
fn rows(schema: &Value, path: &str, page: &mut String) {
    let path = match schema["items"].is_object() {
        true => format!("{path}[]"),
        false => path.to_owned(),
    };
    let schema = match &schema["items"] {
        items @ Value::Object(_) => items,
        _ => schema,
    };
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (key, value) in entries(schema) {
        let default = match (&value["default"], required.contains(&&*key)) {
            (_, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            (Value::String(text), false) => format!("`{text}`"),
            (Value::Object(_), false) if !entries(value).is_empty() => String::new(),
            (other, false) => format!("`{other}`"),
        };
        let path = format!("{path}.{key}");
        let _ = writeln!(
            page,
            "| `{path}` | {} | {} | {} |",
            cell(&kind(value)),
            cell(&default),
            cell(&meaning(value))
        );
        rows(value, &path, page);
        for variant in value["oneOf"].as_array().into_iter().flatten() {
            for (_, inner) in entries(variant) {
                rows(inner, &format!("{path}.{}", only_key(variant)), page);
            }
        }
    }
}

fn only_key(schema: &Value) -> String {
    let mut entries = entries(schema).into_iter();
    entries.next().map(|(key, _)| key).unwrap_or_default()
}

/// Allowed values.
fn kind(schema: &Value) -> String {
    if let Some(variants) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let names: Vec<String> = variants
            .iter()
            .filter(|variant| variant["type"] != "null")
            .map(|variant| match &variant["const"] {
                Value::String(text) => format!("`{text}`"),
                _ if variant["oneOf"].is_array() || variant["anyOf"].is_array() => kind(variant),
                _ if only_key(variant).is_empty() || entries(variant).len() > 1 => kind(variant),
                _ => format!("`{}:`", only_key(variant)),
            })
            .collect();
        return names.join(", ");
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let types: Vec<&str> = types.into_iter().filter(|one| *one != "null").collect();
    let is_duration = schema["examples"][0] == "500ms";
    let named = match types.as_slice() {
        ["string"] if is_duration => "duration",
        ["array"] => return format!("list of {}", kind(&schema["items"])),
        ["object"] => "mapping",
        ["boolean"] => "`true`, `false`",
        ["integer"] => "number",
        [one] => one,
        _ => "string, number or boolean",
    };
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Number(least), Value::Number(most)) => format!("{named}, {least} to {most}"),
        (Value::Number(least), _) if least.as_u64() != Some(0) => format!("{named} from {least}"),
        _ => named.to_owned(),
    }
}

/// Meaning of a value, and of each of its variants.
fn meaning(schema: &Value) -> String {
    let mut text = description(schema).to_owned();
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        let name = match &variant["const"] {
            Value::String(text) => format!("`{text}`"),
            _ => format!("`{}`", only_key(variant)),
        };
        let _ = write!(text, "<br>{name}: {}", description(variant));
    }
    text
}
