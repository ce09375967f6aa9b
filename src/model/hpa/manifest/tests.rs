//! What Kubernetes refuses, field by field.

use serde_json::json;

use super::*;

/// An HPA that Kubernetes accepts, after `change` has changed it.
fn messages(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut hpa = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "billing", "annotations": {"lagwise.dev/even": "true"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "billing"},
            "minReplicas": 1,
            "maxReplicas": 20,
            "metrics": [{
                "type": "External",
                "external": {
                    "metric": {"name": "kafka_lag", "selector": {"matchLabels": {"group": "billing"}}},
                    "target": {"type": "AverageValue", "averageValue": "100"},
                },
            }],
            "behavior": {
                "scaleUp": {
                    "tolerance": "0",
                    "stabilizationWindowSeconds": 0,
                    "selectPolicy": "Max",
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
                },
                "scaleDown": null,
            },
        },
    });
    change(&mut hpa);
    let problems = find_in_manifest(&hpa).into_iter();
    problems.map(|problem| problem.message).collect()
}

/// The problems if the value at a pointer is this; `null` removes it.
fn with(pointer: &str, value: Value) -> Vec<String> {
    messages(|hpa| *hpa.pointer_mut(pointer).unwrap() = value)
}

/// The problems if the mapping at a pointer also has this key.
fn with_key(pointer: &str, key: &str, value: Value) -> Vec<String> {
    messages(|hpa| {
        let mapping = hpa.pointer_mut(pointer).and_then(Value::as_object_mut);
        mapping.unwrap().insert(key.to_owned(), value);
    })
}

#[test]
fn accepts_what_kubernetes_accepts() {
    let none: [&str; 0] = [];
    assert_eq!(messages(|_| ()), none);
    let target = "/spec/metrics/0/external/target/averageValue";
    for value in [json!(1000), json!("1k"), json!("500m"), json!(0.5)] {
        assert_eq!(with(target, value), none);
    }
    assert_eq!(with("/spec/minReplicas", json!(0)), none);
    assert_eq!(with("/spec/minReplicas", json!(20)), none);
    assert_eq!(with("/spec/metrics", json!(null)), none);
    assert_eq!(with("/metadata", json!({"generateName": "a-"})), none);
    let resource = |name: &str, key: &str, target: Value| json!([{"type": name, key: {"name": "cpu", "container": "a", "target": target}}]);
    let percent = json!({"type": "Utilization", "averageUtilization": 80});
    let container = resource("ContainerResource", "containerResource", percent);
    assert_eq!(with("/spec/metrics", container), none);
    let pods = json!([
        {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
        {"type": "Object", "object": {
            "describedObject": {"kind": "Service", "name": "a"},
            "metric": {"name": "m"},
            "target": {"type": "Value", "value": "1"},
        }},
    ]);
    assert_eq!(with("/spec/metrics", pods), none);
}

#[test]
fn refuses_replicas_out_of_range() {
    for (key, value, expected) in [
        (
            "maxReplicas",
            json!(0),
            "spec.maxReplicas: 0 is less than 1",
        ),
        ("maxReplicas", json!(null), "spec.maxReplicas is missing"),
        (
            "maxReplicas",
            json!("3"),
            "spec.maxReplicas is a text, but must be a whole number of 32 bits; write 3 without quotes",
        ),
        (
            "maxReplicas",
            json!(3_000_000_000_u32),
            "spec.maxReplicas is a number, but must be a whole number of 32 bits",
        ),
        (
            "minReplicas",
            json!(-1),
            "spec.minReplicas: -1 is less than 0",
        ),
        (
            "minReplicas",
            json!(50),
            "spec.minReplicas: 50 is greater than maxReplicas 20",
        ),
    ] {
        assert_eq!(with(&format!("/spec/{key}"), value), [expected]);
    }
    let zero = messages(|hpa| {
        hpa["spec"]["minReplicas"] = json!(0);
        hpa["spec"]["metrics"] = json!(null);
    });
    assert_eq!(
        zero,
        ["spec.minReplicas: 0 needs a metric of type External or Object"]
    );
}

#[test]
fn refuses_targets_that_are_no_amount() {
    let path = "spec.metrics[0].external.target.averageValue";
    for value in ["abc", "0", "-5", "1000 "] {
        let expected =
            format!("{path}: {value:?} is not a quantity above zero, such as \"1000\" or \"500m\"");
        let target = "/spec/metrics/0/external/target/averageValue";
        assert_eq!(with(target, json!(value)), [expected]);
    }
    let target = "/spec/metrics/0/external/target";
    assert_eq!(
        with(&format!("{target}/averageValue"), json!(null)),
        [format!("{path} is missing; set it, or value")]
    );
    assert_eq!(
        with_key(target, "value", json!("5")),
        ["spec.metrics[0].external.target has both averageValue and value; remove one of them"]
    );
    assert_eq!(
        with(&format!("{target}/type"), json!("Averagevalue")),
        [
            "spec.metrics[0].external.target.type: \"Averagevalue\" is not one of AverageValue, Utilization, Value (did you mean AverageValue?)"
        ]
    );
    assert_eq!(
        with(target, json!(null)),
        ["spec.metrics[0].external.target is missing"]
    );
}

#[test]
fn refuses_metrics_of_the_wrong_type() {
    let kind = "/spec/metrics/0/type";
    assert_eq!(
        with(kind, json!("Externl")),
        [
            "spec.metrics[0].type: \"Externl\" is not one of ContainerResource, External, Object, Pods, Resource (did you mean External?)"
        ]
    );
    assert_eq!(
        with(kind, json!("Object")),
        [
            "spec.metrics[0].type: \"Object\" is not the type of spec.metrics[0].external, which is External"
        ]
    );
    assert_eq!(with(kind, json!(null)), ["spec.metrics[0].type is missing"]);
    let resource =
        json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}});
    assert_eq!(
        with_key("/spec/metrics/0", "resource", resource),
        [
            "spec.metrics[0].resource is not allowed in a metric of type External",
            "spec.metrics[0].resource.target.averageUtilization: 0 is less than 1",
        ]
    );
    let pods = json!([{"type": "Pods", "pods": {"metric": {}, "target": {"type": "Value", "value": "1"}}}]);
    assert_eq!(
        with("/spec/metrics", pods),
        [
            "spec.metrics[0].pods.metric.name is missing",
            "spec.metrics[0].pods.target.averageValue is missing",
        ]
    );
}

#[test]
fn refuses_a_behavior_out_of_range() {
    let rules = "spec.behavior.scaleUp";
    for (key, value, expected) in [
        (
            "stabilizationWindowSeconds",
            json!(3601),
            "stabilizationWindowSeconds: 3601 is greater than 3600",
        ),
        (
            "tolerance",
            json!("-1"),
            "tolerance: \"-1\" is not a quantity from zero, such as \"0\" or \"50m\"",
        ),
        (
            "selectPolicy",
            json!("max"),
            "selectPolicy: \"max\" is not one of Disabled, Max, Min (did you mean Max?)",
        ),
        (
            "policies",
            json!([]),
            "policies is empty; add a policy, or remove it",
        ),
        (
            "policies",
            json!([{"type": "Pods", "value": 1, "periodSeconds": 1801}]),
            "policies[0].periodSeconds: 1801 is greater than 1800",
        ),
        (
            "policies",
            json!([{"type": "Pods", "periodSeconds": 15}]),
            "policies[0].value is missing",
        ),
    ] {
        let found = with(&format!("/spec/behavior/scaleUp/{key}"), value);
        assert_eq!(found, [format!("{rules}.{expected}")]);
    }
}

#[test]
fn unknown_keys_get_a_suggestion() {
    for (pointer, key, expected) in [
        (
            "/spec",
            "maxReplica",
            "spec.maxReplica (did you mean maxReplicas?)",
        ),
        (
            "/spec",
            "behaviour",
            "spec.behaviour (did you mean behavior?)",
        ),
        ("/spec", "colour", "spec.colour"),
        (
            "/spec/behavior/scaleUp",
            "tolerence",
            "spec.behavior.scaleUp.tolerence (did you mean tolerance?)",
        ),
        (
            "/metadata",
            "annotation",
            "metadata.annotation (did you mean annotations?)",
        ),
    ] {
        let found = with_key(pointer, key, json!("0"));
        assert_eq!(found, [format!("unknown key {expected}")]);
    }
    let misspelled = messages(|hpa| {
        let spec = hpa["spec"].as_object_mut().unwrap();
        let target = spec.remove("scaleTargetRef").unwrap();
        spec.insert("scaleTargetref".to_owned(), target);
    });
    assert_eq!(
        misspelled,
        [
            "unknown key spec.scaleTargetref (did you mean scaleTargetRef?)",
            "spec.scaleTargetRef is missing",
        ]
    );
}

#[test]
fn values_of_a_wrong_type_are_named_with_their_key() {
    assert_eq!(
        with_key(
            "/metadata/annotations",
            "lagwise.dev/threads-per-replica",
            json!(2)
        ),
        [
            "metadata.annotations[lagwise.dev/threads-per-replica] is a number, but must be a text; quote it: \"2\""
        ]
    );
    let group = "/spec/metrics/0/external/metric/selector/matchLabels/group";
    let path = "spec.metrics[0].external.metric.selector.matchLabels[group]";
    assert_eq!(
        with(group, json!(123)),
        [format!(
            "{path} is a number, but must be a text; quote it: \"123\""
        )]
    );
    assert_eq!(
        with(group, json!(true)),
        [format!(
            "{path} is true or false, but must be a text; quote it: \"true\""
        )]
    );
    assert_eq!(
        with("/spec/metrics", json!({"type": "External"})),
        ["spec.metrics is a mapping, but must be a list"]
    );
}

#[test]
fn annotations_of_lagwise_do_not_belong_into_manifests() {
    let found = |metadata: Value| {
        let problems = find_reserved_annotations(&json!({"metadata": metadata})).into_iter();
        problems.map(|problem| problem.message).collect::<Vec<_>>()
    };
    for key in ["ceiling", "user-max-replicas", "zeroed-since", "epoch"] {
        let key = format!("lagwise.dev/{key}");
        let annotations = json!({"lagwise.dev/cap": "enforce", key.as_str(): "5"});
        assert_eq!(
            found(json!({"annotations": annotations})),
            [format!(
                "only lagwise writes annotation {key}; remove it from the manifest"
            )]
        );
        // It was read from a cluster, where lagwise has written it.
        let read = found(json!({"annotations": annotations, "uid": "u"}));
        assert!(read.is_empty(), "{read:?}");
    }
    assert!(found(json!({"annotations": {"lagwise.dev/max-replicas": "5"}})).is_empty());
}
