use serde_json::{Value, json};

use super::*;
use crate::model::hpa::facts::MetricTarget;

fn hpa(spec: &Value, status: &Value) -> HorizontalPodAutoscaler {
    let mut all = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": "shop", "name": "orders"},
        "spec": {"maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": "d"}},
        "status": status,
    });
    let fields = spec.as_object().unwrap().clone();
    all["spec"].as_object_mut().unwrap().extend(fields);
    serde_json::from_value(all).unwrap()
}

#[test]
fn absent_fields_have_the_api_servers_defaults() {
    let bare = spec_of(&hpa(&json!({}), &json!({})));
    assert_eq!((bare.min, bare.max, bare.behavior), (1, 9, None));
    let given = json!({"minReplicas": 0, "behavior": {"scaleUp": {
        "tolerance": "50m", "selectPolicy": "Min", "stabilizationWindowSeconds": 7,
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 3}]}}});
    let spec = spec_of(&hpa(&given, &json!({})));
    let behavior = spec.behavior.unwrap();
    assert_eq!((spec.min, behavior.down), (0, ScalingRules::down()));
    let policies = vec![Policy {
        change: PolicyKind::Percent(50),
        period_seconds: 3,
    }];
    let up = ScalingRules {
        window_seconds: Some(7),
        select: Select::Min,
        policies,
        tolerance: Milli::parse("0.05"),
    };
    assert_eq!(behavior.up, up);
    let disabled = json!({"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}});
    let down = spec_of(&hpa(&disabled, &json!({}))).behavior.unwrap().down;
    let expected = ScalingRules {
        select: Select::Disabled,
        ..ScalingRules::down()
    };
    assert_eq!(down, expected);
}

#[test]
fn reads_metrics_of_every_kind() {
    let external = |target: Value| json!({"type": "External", "external": {"metric": {"name": "kafka_lag"}, "target": target}});
    let cpu = json!({"type": "Utilization", "averageUtilization": 80});
    let metrics = json!({"metrics": [
        external(json!({"type": "AverageValue", "averageValue": "1k"})),
        external(json!({"type": "Value", "value": "5"})),
        {"type": "Resource", "resource": {"name": "cpu", "target": cpu}},
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "hits"}, "target": {"type": "Value", "value": "5"}}},
    ]});
    let hpa = hpa(&metrics, &json!({}));
    let expected = [
        MetricSource::External(MetricTarget::AverageValue(Milli::from_units(1000))),
        MetricSource::External(MetricTarget::Value(Milli::from_units(5))),
        MetricSource::Pods,
        MetricSource::Object,
    ];
    assert_eq!(spec_of(&hpa).metrics, expected);
    let names: Vec<_> = hpa.spec.metrics.iter().flatten().map(metric_of).collect();
    let names: Vec<_> = names.iter().map(|metric| &*metric.name).collect();
    assert_eq!(
        names,
        [
            "External kafka_lag",
            "External kafka_lag",
            "Resource cpu",
            "Object hits"
        ]
    );
}

#[test]
fn only_a_settled_sync_bounds_the_highest_recommendation() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289);
    for (able, limited, highest) in [
        ("ReadyForNewScale", ("False", "DesiredWithinRange"), Some(6)),
        (
            "ScaleDownStabilized",
            ("False", "DesiredWithinRange"),
            Some(6),
        ),
        ("SucceededRescale", ("False", "DesiredWithinRange"), None),
        ("SucceededGetScale", ("False", "DesiredWithinRange"), None),
        ("ReadyForNewScale", ("True", "ScaleUpLimit"), None),
    ] {
        let status = json!({
            "desiredReplicas": 6, "currentReplicas": 6, "lastScaleTime": "2024-05-06T07:08:09Z",
            "conditions": [
                {"type": "AbleToScale", "status": "True", "reason": able},
                {"type": "ScalingLimited", "status": limited.0, "reason": limited.1},
            ],
        });
        let past = past_of(&hpa(&json!({}), &status), at + Duration::from_secs(11));
        assert_eq!(past.since_scaled, Some(Duration::from_secs(11)));
        assert_eq!(past.highest, highest, "{able} {limited:?}");
    }
    let none = past_of(&hpa(&json!({}), &json!({})), at);
    assert_eq!(none, KnownHistory::default());
}
