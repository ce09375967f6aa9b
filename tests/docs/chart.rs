//! Checks the chart against the code: its schema of `config` is the daemon's, its README has every value, its admission
//! policies know every annotation, and alerts and dashboard use existing metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use lagwise::config::json_schema;
use lagwise::model::settings::annotation_keys::{PREFIX, WRITTEN};
use lagwise::model::settings::form::Form;
use lagwise::model::settings::{SETTINGS, Setting, SettingScope};
use regex::Regex;
use serde_json::{Value, json};

use crate::markdown::Page;
use crate::repository::folder;
use crate::{UPDATE, is_update, reference};

const SCHEMA: &str = "charts/lagwise/values.schema.json";
const VALUES: &str = "charts/lagwise/values.yaml";
const README: &str = "charts/lagwise/README.md";
const ALERTS: &str = "charts/lagwise/files/alerts.yaml";
const KMINION_NAMES: &str = "charts/lagwise/files/kminion-names.yaml";
const ANNOTATIONS: &str = "charts/lagwise/files/annotations.yaml";
const DASHBOARD: &str = "charts/lagwise/files/dashboard.json";

/// Metrics of the API server, and of the process on Linux only.
const FOREIGN_METRICS: &[&str] = &[
    "aggregator_unavailable_apiservice",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
];

fn read(path: &str) -> String {
    fs::read_to_string(folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_chart_validates_the_configuration_by_the_daemons_schema() {
    let text = read(SCHEMA);
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    schema["properties"]["config"] = schema_of_config();
    let mut made = serde_json::to_string_pretty(&schema).unwrap();
    made.push('\n');
    if is_update() {
        fs::write(folder().join(SCHEMA), &made).unwrap();
    } else {
        assert!(text == made, "{SCHEMA}: {UPDATE}=1 rewrites it");
    }
}

/// The daemon's schema as that of the value `config`: a template has the message for the required keys, Helm 3 knows
/// draft 7 only, and a section without a value is as if left out.
fn schema_of_config() -> Value {
    let mut schema = json_schema();
    let root = schema.as_object_mut().unwrap();
    root.remove("$schema");
    root.remove("title");
    root.remove("required");
    let properties = &mut root["properties"];
    properties["clusters"]
        .as_object_mut()
        .unwrap()
        .remove("minItems");
    let mut former = properties["server"]["properties"]["metrics"].clone();
    former["description"] = json!("The former name of metrics.");
    properties["server"]["properties"]["http"] = former;
    // Helm names the wrong place if propertyNames does not match.
    let properties = &mut schema["properties"]["clusters"]["items"]["properties"]["properties"];
    let pattern = properties["propertyNames"]["pattern"].take();
    let values = properties["additionalProperties"].take();
    properties["patternProperties"][pattern.as_str().unwrap()] = values;
    // The name of draft 7.
    properties["dependencies"] = properties["dependentRequired"].take();
    let properties = properties.as_object_mut().unwrap();
    properties.remove("propertyNames");
    properties.remove("dependentRequired");
    properties.insert("additionalProperties".into(), json!(false));
    allow_empty_sections(&mut schema);
    schema["type"] = json!("object");
    schema
}

fn allow_empty_sections(schema: &mut Value) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for inner in properties.values_mut() {
            allow_empty_sections(inner);
            if inner["type"] == "object" && inner["properties"].is_object() {
                inner["type"] = json!(["object", "null"]);
            }
        }
    }
}

/// Admission policies of the chart know every annotation, the form of its values, and whether `.NAME` may follow.
#[test]
fn the_chart_knows_every_annotation() {
    let written = WRITTEN.iter();
    let written = written.map(|(key, _)| (key.strip_prefix(PREFIX).unwrap(), None));
    let settings = SETTINGS.iter();
    let settings = settings.map(|setting| (setting.key, Some(setting)));
    let known: BTreeMap<&str, Option<&Setting>> = settings.chain(written).collect();
    let mut made = String::new();
    for (key, setting) in known {
        let mut value = json!({});
        if let Some(setting) = setting {
            if let Some(pattern) = pattern(&setting.form) {
                value = json!({"allowed": setting.form.allowed(), "pattern": pattern});
            }
            if setting.scope == SettingScope::Metric {
                value["takesName"] = json!(true);
            }
        }
        // Writing to a String cannot fail.
        let _ = writeln!(made, "{key}: {value}");
    }
    if is_update() {
        fs::write(folder().join(ANNOTATIONS), &made).unwrap();
    } else {
        assert!(
            read(ANNOTATIONS) == made,
            "{ANNOTATIONS}: {UPDATE}=1 rewrites it"
        );
    }
}

/// A regular expression that accepts every valid value of this form, and rejects values of an obviously different form.
fn pattern(form: &Form) -> Option<String> {
    Some(match form {
        Form::Flag => "true|false".to_owned(),
        Form::Number { .. } => r"\+?[0-9]+".to_owned(),
        Form::Duration { .. } => r" *([0-9][0-9. ]*[^0-9. ]+ *)+|0".to_owned(),
        Form::Choice(choices) => {
            let names: Vec<_> = choices().iter().map(|choice| choice.name).collect();
            names.join("|")
        }
        Form::Quantity | Form::Topics | Form::Text { .. } => return None,
    })
}

#[test]
fn the_readme_of_the_chart_has_every_value() {
    let made = table_of_values(&read(VALUES));
    let mut page = Page::read(README);
    let is_same = page.between(reference::BEGIN, reference::END) == made;
    if !is_same && is_update() {
        page.replace_between(reference::BEGIN, reference::END, &made);
        page.write();
    } else {
        assert!(is_same, "{README}: {UPDATE}=1 rewrites it");
    }
}

/// A row for each value of the file, with its default and the comment above it.
fn table_of_values(text: &str) -> String {
    let values: Value = serde_saphyr::from_str(text).unwrap();
    let key = Regex::new(r"^( *)([A-Za-z]+):( |$)").unwrap();
    let mut table = String::from("| value | default | meaning |\n|---|---|---|\n");
    let mut path: Vec<&str> = Vec::new();
    let mut comment = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(found) = key.captures(line) {
            path.truncate(found[1].len() / 2);
            path.push(found.get(2).unwrap().as_str());
            let Some(value) = values.pointer(&format!("/{}", path.join("/"))) else {
                // A key of an item of a list.
                continue;
            };
            let has_rows = value.as_object().is_some_and(|inner| !inner.is_empty())
                && line.ends_with(':')
                && !matches!(path[..], ["config"]);
            let default = if has_rows {
                String::new()
            } else {
                format!("`{value}`")
            };
            if !has_rows || !comment.is_empty() {
                // Writing to a String cannot fail.
                let _ = writeln!(table, "| `{}` | {default} | {comment} |", path.join("."));
            }
            comment.clear();
        } else if let Some(more) = trimmed.strip_prefix("# ") {
            let blank = if comment.is_empty() { "" } else { " " };
            let _ = write!(comment, "{blank}{}", more.replace('|', "\\|"));
        } else {
            // Of an item, or an example.
            comment.clear();
        }
    }
    table
}

#[test]
fn the_chart_has_the_version_of_the_crate() {
    let chart = read_yaml("charts/lagwise/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], version, "{key} of Chart.yaml");
    }
    let images = chart["annotations"]["artifacthub.io/images"].as_str();
    let images: Value = serde_saphyr::from_str(images.unwrap()).unwrap();
    let image = format!("lagwise:{version}");
    assert_eq!(images[0]["image"], image);
}

#[test]
fn versions_in_the_documentation_are_that_of_the_crate() {
    let version = Regex::new(r"(?:lagwise:|targetRevision: |tag: )(\d+\.\d+\.\d+)").unwrap();
    let mut paths = crate::repository::markdown_files();
    paths.extend(
        ["argo-cd/application.yaml", "flux/kustomization.yaml"]
            .map(|path| format!("docs/examples/gitops/{path}")),
    );
    // It is about all versions.
    paths.retain(|path| path != "CHANGELOG.md");
    let mut found = 0;
    for path in paths {
        for named in version.captures_iter(&read(&path)) {
            assert_eq!(&named[1], env!("CARGO_PKG_VERSION"), "{path}");
            found += 1;
        }
    }
    assert!(found >= 7, "only {found} versions");
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let alerts = read_yaml(ALERTS);
    let mut queries: Vec<(String, String)> = rules(&alerts)
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect();
    let kminion = read_yaml(KMINION_NAMES);
    queries.extend(rules(&kminion).map(|rule| (text(&rule["record"]), text(&rule["expr"]))));
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            queries.push((text(&variable["name"]), text(&variable["query"]["query"])));
        }
    }
    assert!(queries.len() > 30, "only {} queries", queries.len());
    let families = lagwise::serve::metric_families();
    let mut exist: BTreeSet<String> = FOREIGN_METRICS.iter().map(|&name| name.into()).collect();
    for family in families {
        if family.kind == "histogram" {
            exist.extend(["bucket", "sum", "count"].map(|part| format!("{}_{part}", family.name)));
        } else {
            exist.insert(family.name.to_string());
        }
    }
    let quoted = Regex::new(r#""[^"]*""#).unwrap();
    let name = Regex::new(r"\b[a-z]+(?:_[a-z0-9]+)+\b").unwrap();
    // Words of PromQL and Grafana, and labels of kminion.
    let words = [
        "label_values",
        "label_replace",
        "count_values",
        "max_over_time",
        "group_left",
        "histogram_quantile",
        "group_id",
        "topic_name",
        "partition_id",
        "partition_count",
    ];
    let mut problems = Vec::new();
    for (place, query) in &queries {
        let bare = quoted.replace_all(query, "");
        let names = name.find_iter(&bare).map(|found| found.as_str());
        let used: Vec<&str> = names.filter(|name| !words.contains(name)).collect();
        if used.is_empty() {
            problems.push(format!("{place}: no metric in {query}"));
        }
        let unknown = used.iter().filter(|&&name| !exist.contains(name));
        problems.extend(unknown.map(|name| format!("{place}: there is no metric {name}")));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn rules(alerts: &Value) -> impl Iterator<Item = &Value> {
    let groups = alerts["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
}

#[test]
fn every_alert_has_a_runbook_and_is_tested() {
    let page = Page::read("docs/src/runbooks.md");
    let tests = read("tests/alerts/test.yaml");
    let alerts = read_yaml(ALERTS);
    let names: Vec<String> = rules(&alerts).map(|rule| text(&rule["alert"])).collect();
    for rule in rules(&alerts) {
        let name = text(&rule["alert"]);
        let anchor = name.to_lowercase();
        let url = format!("runbooks.html#{anchor}");
        assert_eq!(rule["annotations"]["runbook_url"], url, "{name}");
        assert!(page.anchors().contains(&anchor), "no heading for {name}");
        assert!(
            tests.contains(&format!("alertname: {name}\n")),
            "no test of {name}"
        );
    }
    for anchor in page.anchors() {
        if anchor.starts_with("lagwise") {
            assert!(
                names.iter().any(|name| name.to_lowercase() == anchor),
                "docs/src/runbooks.md: there is no alert {anchor}"
            );
        }
    }
}

#[test]
fn every_example_of_values_is_on_a_page() {
    let mut pages = String::new();
    for path in crate::repository::markdown_files() {
        if path.starts_with("docs/src/recipes/") || path.starts_with("docs/src/guides/") {
            pages.push_str(&read(&path));
        }
    }
    for entry in fs::read_dir(folder().join("charts/lagwise/examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let include = format!("{{{{#include ../../../charts/lagwise/examples/{name}}}}}");
        assert!(
            pages.contains(&include),
            "no page in docs/src/recipes or docs/src/guides has {include}"
        );
    }
}

#[test]
fn partitions_and_replicas_of_the_examples_are_one_number() {
    let hpa = folder().join("docs/examples/gitops/app/hpa.yaml");
    let command = format!("lagwise lint -f {}", hpa.display());
    let (code, printed) = crate::run(&command, &folder());
    assert!(
        code == "0" && printed.contains("nothing found"),
        "{printed}"
    );
    for (path, partitions, replicas) in [
        (
            "terraform/aws/main.tf",
            "partitions         = var.replicas",
            "max_replicas = var.replicas",
        ),
        (
            "terraform/azure/main.tf",
            "partition_count   = var.replicas",
            "max_replicas = var.replicas",
        ),
        (
            "terraform/gcp/main.tf",
            "partition_count    = var.replicas",
            "max_replicas = var.replicas",
        ),
        (
            "cloudformation/streaming.yaml",
            "PartitionCount: !Ref Replicas",
            "Value: !Ref Replicas",
        ),
        (
            "ansible/playbook.yaml",
            "partitions: \"{{ replicas | int }}\"",
            "maxReplicas: \"{{ replicas | int }}\"",
        ),
        (
            "gitops/app/kustomization.yaml",
            "[spec.partitions]",
            "[spec.maxReplicas]",
        ),
    ] {
        let text = read(&format!("docs/examples/{path}"));
        for wanted in [partitions, replicas] {
            assert!(text.contains(wanted), "docs/examples/{path}: no {wanted}");
        }
    }
}

/// Terraform leaves the annotations that lagwise writes alone, and nothing else: a new number must reach the HPA.
#[test]
fn terraform_ignores_what_lagwise_writes_and_nothing_else() {
    let pattern = Regex::new(r#"ignore_annotations = \["(.*)"\]"#).unwrap();
    for cloud in ["aws", "azure", "gcp"] {
        let path = format!("docs/examples/terraform/{cloud}/main.tf");
        let text = read(&path);
        let ignored: Vec<_> = pattern.captures_iter(&text).collect();
        assert!(ignored.len() == 1, "{path}: {} patterns", ignored.len());
        let ignored = Regex::new(&ignored[0][1].replace(r"\\", r"\")).unwrap();
        for (key, _) in WRITTEN {
            assert!(ignored.is_match(key), "{path}: {key} is not ignored");
        }
        for setting in SETTINGS {
            let key = format!("{PREFIX}{}", setting.key);
            assert!(!ignored.is_match(&key), "{path}: {key} is ignored");
        }
        assert!(!text.contains("ignore_changes"), "{path}: ignore_changes");
    }
}
