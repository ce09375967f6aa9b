//! Checks the manifest of an HPA before it is applied, as the API server does when it is.
//!
//! Source: `pkg/apis/autoscaling/validation/validation.go` of Kubernetes, for autoscaling/v2. Scale targets and
//! selectors are not checked here: other findings are about them.

mod fields;
mod part;

use std::ops::RangeInclusive;

use serde_json::Value;

use self::fields::find_in_fields;
use self::part::ManifestPart;
use crate::model::findings::{FindingCode, suggestion};
use crate::model::settings::annotation_keys::WRITTEN;
use crate::model::units::quantity::Milli;
use crate::model::units::spelling::did_you_mean;

pub use self::part::ManifestProblem;

/// Maximum of `stabilizationWindowSeconds`.
const MAX_WINDOW_SECONDS: i64 = 3600;

/// Maximum of `periodSeconds` of a scaling policy.
const MAX_PERIOD_SECONDS: i64 = 1800;

/// The types of metrics, each with the field that describes it.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// Finds what the API server refuses in the manifest of an HPA of autoscaling/v2, and keys that it does not know.
#[must_use]
pub fn find_in_manifest(document: &Value) -> Vec<ManifestProblem> {
    let hpa = ManifestPart {
        path: String::new(),
        value: Some(document),
    };
    let mut check = ManifestCheck::default();
    find_in_fields(&hpa, &mut check.problems);
    check.metadata(&hpa.field("metadata"));
    if let Some(spec) = check.required(&hpa, "spec") {
        check.spec(&spec);
    }
    check.problems
}

/// Finds annotations that only lagwise writes. An object that was read from a cluster has a UID, and may have them.
#[must_use]
pub fn find_reserved_annotations(document: &Value) -> Vec<ManifestProblem> {
    let annotations = document.pointer("/metadata/annotations");
    let is_set = |key: &str| annotations.is_some_and(|all| all.get(key).is_some());
    let is_new = document.pointer("/metadata/uid").is_none();
    let written = WRITTEN.iter().filter(|(key, _)| is_new && is_set(key));
    written
        .map(|(key, _)| ManifestProblem {
            code: FindingCode::ReservedAnnotation,
            message: format!("only lagwise writes annotation {key}; remove it from the manifest"),
        })
        .collect()
}

/// Collects problems. A value of a wrong type is no problem here, since [`find_in_fields`] reports it.
#[derive(Debug, Default)]
struct ManifestCheck {
    problems: Vec<ManifestProblem>,
}

impl ManifestCheck {
    fn refuse(&mut self, message: String) {
        self.problems.push(ManifestProblem::refused(message));
    }

    /// The field, or `None` with a problem if it is missing or an empty text.
    fn required<'a>(&mut self, of: &ManifestPart<'a>, key: &str) -> Option<ManifestPart<'a>> {
        let part = of.field(key);
        if part.is_present() && part.text() != Some("") {
            return Some(part);
        }
        self.refuse(format!("{} is missing", part.path));
        None
    }

    fn metadata(&mut self, metadata: &ManifestPart<'_>) {
        if !metadata.field("generateName").is_present() {
            self.required(metadata, "name");
        }
    }

    fn spec(&mut self, spec: &ManifestPart<'_>) {
        let most = i64::from(i32::MAX);
        let min = spec.field("minReplicas");
        self.range(&min, 0..=most);
        if let Some(max) = self.required(spec, "maxReplicas") {
            self.range(&max, 1..=most);
            if let (Some(least), Some(most @ 1..)) = (min.number(), max.number())
                && least > most
            {
                let path = &min.path;
                self.refuse(format!(
                    "{path}: {least} is greater than maxReplicas {most}"
                ));
            }
        }
        if let Some(target) = self.required(spec, "scaleTargetRef") {
            self.reference(&target);
        }
        let metrics = spec.field("metrics").items();
        for metric in &metrics {
            self.metric(metric);
        }
        let is_known_at_zero = |metric: &ManifestPart<'_>| {
            matches!(metric.field("type").text(), Some("External" | "Object"))
        };
        if min.number() == Some(0) && !metrics.iter().any(is_known_at_zero) {
            self.refuse(format!(
                "{}: 0 needs a metric of type External or Object",
                min.path
            ));
        }
        for direction in ["scaleUp", "scaleDown"] {
            self.rules(&spec.field("behavior").field(direction));
        }
    }

    fn reference(&mut self, reference: &ManifestPart<'_>) {
        self.required(reference, "kind");
        self.required(reference, "name");
    }

    fn metric(&mut self, metric: &ManifestPart<'_>) {
        let present = SOURCES.iter().map(|(name, key)| (*name, metric.field(key)));
        let present = Vec::from_iter(present.filter(|(_, source)| source.is_present()));
        if let Some(kind) = self.required(metric, "type")
            && self.one_of(&kind, &SOURCES.map(|(name, _)| name))
            && let Some((name, key)) = SOURCES.iter().find(|(name, _)| Some(*name) == kind.text())
        {
            let others = Vec::from_iter(present.iter().filter(|(other, _)| other != name));
            match (metric.field(key).is_present(), others.as_slice()) {
                (false, [(other, source)]) => self.refuse(format!(
                    "{}: {name:?} is not the type of {}, which is {other}",
                    kind.path, source.path
                )),
                (false, _) => {
                    self.required(metric, key);
                }
                (true, others) => {
                    for (_, source) in others {
                        self.refuse(format!(
                            "{} is not allowed in a metric of type {name}",
                            source.path
                        ));
                    }
                }
            }
        }
        for (name, source) in present {
            self.source(name, &source);
        }
    }

    fn source(&mut self, name: &str, source: &ManifestPart<'_>) {
        match name {
            "Resource" | "ContainerResource" => {
                self.required(source, "name");
                if name == "ContainerResource" {
                    self.required(source, "container");
                }
            }
            _ => {
                if let Some(metric) = self.required(source, "metric") {
                    self.required(&metric, "name");
                }
            }
        }
        if name == "Object"
            && let Some(object) = self.required(source, "describedObject")
        {
            self.reference(&object);
        }
        if let Some(target) = self.required(source, "target") {
            self.target(name, &target);
        }
    }

    fn target(&mut self, source: &str, target: &ManifestPart<'_>) {
        if let Some(kind) = self.required(target, "type") {
            self.one_of(&kind, &["AverageValue", "Utilization", "Value"]);
        }
        self.quantity(&target.field("value"), Milli::MIN_POSITIVE);
        self.quantity(&target.field("averageValue"), Milli::MIN_POSITIVE);
        self.range(&target.field("averageUtilization"), 1..=i64::from(i32::MAX));
        // The API server allows both for Object only. Pods uses averageValue alone.
        let (other, may_have_both) = match source {
            "Pods" => ("averageValue", true),
            "Resource" | "ContainerResource" => ("averageUtilization", false),
            "Object" => ("value", true),
            _ => ("value", false),
        };
        let average = target.field("averageValue");
        let other_part = target.field(other);
        match (average.is_present(), other_part.is_present()) {
            (false, false) if other == "averageValue" => {
                self.required(target, "averageValue");
            }
            (false, false) => {
                self.refuse(format!("{} is missing; set it, or {other}", average.path))
            }
            (true, true) if !may_have_both => self.refuse(format!(
                "{} has both averageValue and {other}; remove one of them",
                target.path
            )),
            _ => {}
        }
    }

    fn rules(&mut self, rules: &ManifestPart<'_>) {
        let window = rules.field("stabilizationWindowSeconds");
        self.range(&window, 0..=MAX_WINDOW_SECONDS);
        self.one_of(&rules.field("selectPolicy"), &["Disabled", "Max", "Min"]);
        self.quantity(&rules.field("tolerance"), Milli::default());
        let policies = rules.field("policies");
        if policies
            .value
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty)
        {
            self.refuse(format!(
                "{} is empty; add a policy, or remove it",
                policies.path
            ));
        }
        for policy in policies.items() {
            if let Some(kind) = self.required(&policy, "type") {
                self.one_of(&kind, &["Percent", "Pods"]);
            }
            for (key, most) in [
                ("value", i64::from(i32::MAX)),
                ("periodSeconds", MAX_PERIOD_SECONDS),
            ] {
                if let Some(number) = self.required(&policy, key) {
                    self.range(&number, 1..=most);
                }
            }
        }
    }

    /// Checks that a text is one of these. Returns whether it is.
    fn one_of(&mut self, part: &ManifestPart<'_>, allowed: &[&str]) -> bool {
        let Some(text) = part.text() else {
            return false;
        };
        let is_allowed = allowed.contains(&text);
        if !is_allowed {
            let meant = suggestion("", did_you_mean(text, allowed.iter().copied()));
            let allowed = allowed.join(", ");
            self.refuse(format!(
                "{}: {text:?} is not one of {allowed}{meant}",
                part.path
            ));
        }
        is_allowed
    }

    fn range(&mut self, part: &ManifestPart<'_>, range: RangeInclusive<i64>) {
        if let Some(number) = part.number().filter(|number| !range.contains(number)) {
            let (least, most) = range.into_inner();
            self.refuse(match number < least {
                true => format!("{}: {number} is less than {least}", part.path),
                false => format!("{}: {number} is greater than {most}", part.path),
            });
        }
    }

    fn quantity(&mut self, part: &ManifestPart<'_>, least: Milli) {
        let text = match part.value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return,
        };
        if Milli::parse(&text).is_none_or(|quantity| quantity < least) {
            let (range, example) = match least == Milli::default() {
                true => ("from zero", "\"0\" or \"50m\""),
                false => ("above zero", "\"1000\" or \"500m\""),
            };
            self.refuse(format!(
                "{}: {text:?} is not a quantity {range}, such as {example}",
                part.path
            ));
        }
    }
}

#[cfg(test)]
mod tests;
