//! Compares converted objects with the existing ones in the Kubernetes cluster.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::cli::kube_args::KubeArgs;
use crate::k8s::keda_manifests::get_object;
use crate::model::keda::convert::Conversion;
use crate::model::units::quantity::Milli;
use crate::model::units::untrusted_text::Printable;

/// Beginnings and ends of the paths of quantities, which the API server writes in canonical form: `1000` becomes `1k`.
const QUANTITY_PATHS: [(&str, &str); 3] = [
    ("spec.metrics[", ".target.value"),
    ("spec.metrics[", ".target.averageValue"),
    ("spec.behavior.", ".tolerance"),
];

/// Describes how each converted object differs from the existing object of the same kind and name.
///
/// # Errors
/// The cluster cannot be reached, or an object cannot be read.
pub(super) async fn diff(
    conversion: &Conversion,
    kube: &KubeArgs,
    timeout: Duration,
) -> anyhow::Result<String> {
    let client = kube.connect().await?;
    let mut text = String::new();
    for object in &conversion.objects {
        let Some(wanted) = object.result() else {
            let _ = writeln!(
                text,
                "{}: not converted",
                Printable::unbounded(&object.to_string())
            );
            continue;
        };
        let part = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str);
        let kind = part("/kind").unwrap_or_default();
        let name = part("/metadata/name").unwrap_or_default();
        let of_kind = (part("/apiVersion").unwrap_or_default(), kind);
        let place = (object.namespace.as_str(), name);
        let found = get_object(&client, of_kind, place, timeout).await?;
        let title = format!("{kind} {}/{name}", object.namespace);
        text += &render(
            &Printable::unbounded(&title).to_string(),
            wanted,
            found.as_ref(),
        );
    }
    Ok(text)
}

fn render(title: &str, wanted: &Value, found: Option<&Value>) -> String {
    let Some(found) = found else {
        return format!("{title}: it does not exist in the cluster yet\n");
    };
    let mut differences = Vec::new();
    compare(String::new(), wanted, Some(found), &mut differences);
    if differences.is_empty() {
        return format!("{title}: no difference\n");
    }
    let lines = differences.iter();
    let lines = lines.map(|line| format!("  {}\n", Printable::unbounded(line)));
    format!("{title}\n{}", String::from_iter(lines))
}

/// Compares a value of the converted object with that of the existing one. Fields that only the existing object has are
/// ignored: they are defaults of the API server or belong to other tools. Lists are compared element by element, and
/// elements that only the existing object has are differences.
fn compare(path: String, wanted: &Value, found: Option<&Value>, differences: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Some(Value::Object(found))) => {
            for (key, value) in wanted {
                let path = match path.as_str() {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                compare(path, value, found.get(key), differences);
            }
        }
        (Value::Array(wanted), Some(Value::Array(found))) => {
            for (index, value) in wanted.iter().enumerate() {
                compare(
                    format!("{path}[{index}]"),
                    value,
                    found.get(index),
                    differences,
                );
            }
            for (index, value) in found.iter().enumerate().skip(wanted.len()) {
                differences.push(format!("{path}[{index}]: {value} -> (none)"));
            }
        }
        (wanted, Some(found)) if wanted == found || is_same_quantity(&path, wanted, found) => {}
        (wanted, found) => {
            let found = found.map_or_else(|| "(none)".to_owned(), ToString::to_string);
            differences.push(format!("{path}: {found} -> {wanted}"));
        }
    }
}

fn is_same_quantity(path: &str, wanted: &Value, found: &Value) -> bool {
    let quantity = |value: &Value| value.as_str().and_then(Milli::parse);
    let mut paths = QUANTITY_PATHS.iter();
    paths.any(|(begin, end)| path.starts_with(begin) && path.ends_with(end))
        && quantity(wanted).is_some_and(|wanted| quantity(found) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_changes_without_defaults() {
        let wanted = json!({
            "metadata": {"name": "billing", "annotations": {"lagwise.dev/even": "true"}},
            "spec": {"maxReplicas": 24, "metrics": [{"type": "External", "value": 5}]},
        });
        let found = json!({
            "metadata": {"name": "billing", "uid": "7"},
            "spec": {
                "maxReplicas": 10, "minReplicas": 1,
                "metrics": [{"type": "External", "value": 5}, {"type": "Resource"}],
            },
        });
        assert_eq!(
            render("HPA shop/billing", &wanted, Some(&found)),
            "HPA shop/billing\n  \
             metadata.annotations: (none) -> {\"lagwise.dev/even\":\"true\"}\n  \
             spec.maxReplicas: 10 -> 24\n  \
             spec.metrics[1]: {\"type\":\"Resource\"} -> (none)\n"
        );
        assert_eq!(
            render("HPA a/b", &wanted, None),
            "HPA a/b: it does not exist in the cluster yet\n"
        );
        assert_eq!(
            render("HPA a/b", &wanted, Some(&wanted)),
            "HPA a/b: no difference\n"
        );
    }

    #[test]
    fn compares_quantities_by_value() {
        let hpa = |value: &str, average: &str, tolerance: &str| {
            let target =
                |key: &str, quantity: &str| json!({"external": {"target": {key: quantity}}});
            json!({"spec": {
                "metrics": [target("value", value), target("averageValue", average)],
                "behavior": {"scaleUp": {"tolerance": tolerance}},
            }})
        };
        let difference = |wanted: &Value, found: &Value| render("HPA a/b", wanted, Some(found));
        for (wanted, found) in [
            (hpa("1000", "1000m", "0.05"), hpa("1k", "1", "50m")),
            (hpa("0.5", "1024Mi", "0.0"), hpa("500m", "1Gi", "0")),
        ] {
            assert_eq!(difference(&wanted, &found), "HPA a/b: no difference\n");
        }
        assert_eq!(
            difference(&hpa("1000", "1", "0"), &hpa("1k", "1k", "0")),
            "HPA a/b\n  spec.metrics[1].external.target.averageValue: \"1k\" -> \"1\"\n"
        );
        // Any other text is compared as text, also where it looks like a quantity.
        let annotated = |value: &str| json!({"metadata": {"annotations": {"value": value}}});
        assert_eq!(
            difference(&annotated("1000"), &annotated("1k")),
            "HPA a/b\n  metadata.annotations.value: \"1k\" -> \"1000\"\n"
        );
        let unparsable = (hpa("many", "1", "0"), hpa("much", "1", "0"));
        assert_eq!(
            difference(&unparsable.0, &unparsable.1),
            "HPA a/b\n  spec.metrics[0].external.target.value: \"much\" -> \"many\"\n"
        );
    }
}
