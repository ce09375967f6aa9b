//! The admission policy that checks annotations of HPAs when somebody writes them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lagwise::model::settings::{SETTINGS, SettingScope};
use serde_json::{Value, json};

use super::WAIT_TIMEOUT;
use crate::scale::workload;
use crate::testbed::Testbed;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;

/// Mistakes: the key after the prefix, the value, and a part of the message.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "cpa",
        "enforce",
        "lagwise.dev/cpa: lagwise has no annotation of this name",
    ),
    ("capp.billing", "enforce", "lagwise.dev/capp.billing"),
    (
        "cap",
        "enforced",
        "lagwise.dev/cap: invalid value; allowed: advise, enforce",
    ),
    (
        "cap.billing",
        "enforce",
        "lagwise.dev/cap.billing: cap applies to the whole HPA and takes no .NAME",
    ),
    ("paused.billing", "true", "paused applies to the whole HPA"),
    ("stuck-after", "5", "allowed: a duration from 1s"),
    ("stuck-after.billing", "PT5M", "allowed: a duration from 1s"),
    ("even", "yes", "allowed: true, false"),
    (
        "threads-per-replica.billing",
        "many",
        "allowed: a whole number",
    ),
    ("fallback-replicas", "2.5", "allowed: a whole number"),
];

/// Values that lagwise accepts, besides the examples and defaults of the documentation.
const CORRECT: &[(&str, &str)] = &[
    ("stuck-after", "1h 30m"),
    ("forget-after", "0s"),
    ("even", " true\n"),
    ("topics", "orders, payments"),
    ("consumer-group", "billing (old)"),
    ("ceiling", "6"),
    ("zeroed-since", "2026-12-02T10:00:00Z"),
];

/// The rendered policy, as long as this lives.
struct AnnotationPolicy<'a> {
    plane: &'a ControlPlane,
    documents: String,
}

impl<'a> AnnotationPolicy<'a> {
    /// For the HPAs of this namespace.
    fn install(plane: &'a ControlPlane, namespace: &str, action: &str) -> Result<Self> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/lagwise");
        let set = format!(
            "config.clusters[0].name=main,config.clusters[0].properties.bootstrap\\.servers=kafka:9092,\
             config.kubernetes.namespaces={{{namespace}}},annotationPolicy.action={action}"
        );
        let documents = plane.helm(&[
            "template",
            "lagwise",
            &chart.to_string_lossy(),
            "--namespace",
            namespace,
            "--show-only",
            "templates/annotation-policy.yaml",
            "--set",
            &set,
        ])?;
        let policy = Self { plane, documents };
        plane.kubectl_with_input(&["apply", "-f", "-"], &policy.documents)?;
        Ok(policy)
    }
}

impl Drop for AnnotationPolicy<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "-f", "-"];
        let _ = self.plane.kubectl_with_input(&delete, &self.documents);
    }
}

/// A mistake is a rejection or a warning. What lagwise accepts is neither, nor is a mistake that was there before.
pub(crate) fn annotations_are_checked_when_written(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("checked")?;
    let mut list: Value = serde_json::from_str(&workload("billing", &[("group", "billing")]))?;
    list["items"][1]["metadata"]["annotations"] = json!({"lagwise.dev/evn": "true"});
    plane.apply(&namespace, &list["items"][1].to_string())?;
    for (action, option) in [("Deny", None), ("Warn", Some("--warnings-as-errors"))] {
        let _policy = AnnotationPolicy::install(plane, &namespace, action)?;
        // A dry run: nothing is stored, but admission runs.
        let annotate = |key: &str, value: &str| {
            let annotation = format!("lagwise.dev/{key}={value}");
            let mut args = vec!["annotate", "hpa", "billing", &*annotation];
            args.extend(["--overwrite", "--dry-run=server", "-n", &*namespace]);
            args.extend(option);
            plane.kubectl(&args)
        };
        poll_until(WAIT_TIMEOUT, "the policy to act", || {
            ensure!(annotate("cpa", "enforce").is_err(), "accepted");
            Ok(())
        })?;
        for (key, value, words) in MISTAKES {
            let error = annotate(key, value).err();
            let error = error.with_context(|| format!("{action}: {key}={value} was accepted"))?;
            ensure!(error.to_string().contains(words), "{action}: {error}");
        }
        let documented = SETTINGS.iter().flat_map(|setting| {
            let values = setting.example.map(str::to_owned).into_iter();
            let values = values.chain(setting.default());
            values.map(move |value| (setting, value))
        });
        for (setting, value) in documented {
            // The form of the configuration file: a list.
            let value = if setting.key == "topics" {
                "orders"
            } else {
                &*value
            };
            annotate(setting.key, value).with_context(|| format!("{action}: {}", setting.key))?;
            if setting.scope == SettingScope::Metric {
                let key = format!("{}.billing", setting.key);
                annotate(&key, value).with_context(|| format!("{action}: {key}"))?;
            }
        }
        for (key, value) in CORRECT {
            annotate(key, value).with_context(|| format!("{action}: {key}={value}"))?;
        }
    }
    Ok(())
}
