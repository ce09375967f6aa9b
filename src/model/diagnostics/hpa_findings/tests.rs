use std::collections::BTreeSet;

use super::*;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget, OtherMetric, ScaleTarget};
use crate::model::hpa::selector::Selector;
use crate::model::hpa::write_scopes::WriteScopes;
use crate::model::settings::annotation_keys::PREFIX;
use crate::model::settings::cap_mode::CapMode;
use crate::model::targets::Targets;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::ClusterName;
use crate::model::units::quantity::Milli;

fn hpa(metrics: &[&str]) -> HpaFacts {
    let external = |name: &&str| ExternalMetric {
        name: (*name).into(),
        selector: Selector::parse("group=g").unwrap(),
        target: Some(MetricTarget::AverageValue(Milli::ONE)),
    };
    HpaFacts {
        namespace: "shop".into(),
        name: "h".into(),
        max_replicas: 6,
        metrics: metrics.iter().map(external).collect(),
        scale_target: ScaleTarget {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "billing".into(),
        },
        ..HpaFacts::default()
    }
}

fn with(mut hpa: HpaFacts, annotations: &[(&str, &str)]) -> HpaFacts {
    let pairs = annotations
        .iter()
        .map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned()));
    hpa.annotations = pairs.collect();
    hpa
}

fn labels(found: impl IntoIterator<Item = Finding>) -> Vec<&'static str> {
    found
        .into_iter()
        .map(|finding| finding.code.label())
        .collect()
}

#[test]
fn compares_replica_bounds_with_the_ceiling() {
    let bounds = |min, max| HpaFacts {
        min_replicas: Some(min),
        max_replicas: max,
        ..hpa(&[LAG_METRIC])
    };
    let (cpu, other) = (
        HpaFacts {
            other_metrics: vec![OtherMetric {
                type_name: "Resource".into(),
                name: "cpu".into(),
            }],
            ..bounds(1, 20)
        },
        HpaFacts {
            max_replicas: 20,
            ..hpa(&[LAG_METRIC, "queue_length"])
        },
    );
    let enforced = |hpa: HpaFacts| with(hpa, &[("cap", "enforce")]);
    let paused = with(bounds(1, 20), &[("cap", "enforce"), ("paused", "true")]);
    for (hpa, even, expected) in [
        (bounds(1, 12), false, &[][..]),
        (bounds(1, 13), false, &["max_above_ceiling"]),
        (cpu.clone(), false, &["others_above"]),
        (other, false, &["others_above"]),
        // A capped maxReplicas limits every metric.
        (enforced(cpu), false, &[]),
        (enforced(bounds(1, 20)), false, &[]),
        (paused, false, &["max_above_ceiling"]),
        (bounds(12, 12), false, &[]),
        (
            bounds(13, 20),
            false,
            &["max_above_ceiling", "min_above_ceiling"],
        ),
        (bounds(0, 6), false, &[]),
        (bounds(1, 1), false, &[]),
        (bounds(1, 5), false, &["uneven_partitions"]),
        (bounds(1, 5), true, &[]),
        (bounds(1, 8), false, &["uneven_partitions"]),
        (bounds(1, 0), false, &[]),
    ] {
        let mode = WriteScopes::ALL.cap_mode(&hpa, CapMode::Advise);
        let found = find_against_ceiling(&hpa, Replicas(12), mode, even);
        assert_eq!(labels(found), expected, "{hpa:?}");
    }
    // With `cap.default: enforce`, also if the ceiling is 0.
    assert_eq!(
        find_against_ceiling(&bounds(1, 20), Replicas(12), CapMode::Enforce, false),
        []
    );
    let none = find_against_ceiling(&bounds(1, 20), Replicas(0), CapMode::Enforce, false);
    assert_eq!(none, []);
}

#[test]
fn finds_workloads_that_others_have_scaled_to_zero() {
    let off = |is_scaling_disabled, annotations: &[(&str, &str)]| HpaFacts {
        is_scaling_disabled,
        ..with(hpa(&[LAG_METRIC]), annotations)
    };
    let zero = ("scale-to-zero", "true");
    let mark = ("zeroed-since", "2026-01-01T00:00:00Z");
    let others = HpaFacts {
        metrics: hpa(&["queue_length"]).metrics,
        ..off(true, &[])
    };
    for (hpa, expected) in [
        (off(true, &[]), &["switched_off"][..]),
        (off(true, &[zero]), &["switched_off"]),
        (off(true, &[zero, ("paused", "true")]), &["switched_off"]),
        (off(false, &[zero]), &[]),
        // Asleep by lagwise, or said to be: the ledger knows.
        (off(true, &[zero, mark]), &[]),
        (others, &[]),
    ] {
        assert_eq!(labels(find_in_hpa(&hpa)), expected, "{hpa:?}");
    }
    let found = find_in_hpa(&off(true, &[]));
    let command = "`kubectl scale --namespace shop deployment.apps/billing --replicas=1`";
    assert!(found[0].message.ends_with(command), "{}", found[0]);
}

#[test]
fn finds_stabilization_windows_that_delay_decisions() {
    let windows = |metric, up, down| HpaFacts {
        window_up: up,
        window_down: down,
        ..hpa(&[metric])
    };
    let native = |down, annotations: &[(&str, &str)]| HpaFacts {
        min_replicas: Some(0),
        window_down: down,
        ..with(hpa(&[LAG_METRIC]), annotations)
    };
    let zero = ("scale-to-zero", "true");
    for (hpa, expected) in [
        (windows(LAG_METRIC, None, None), &[][..]),
        (windows(LAG_METRIC, Some(0), Some(0)), &[]),
        (
            windows(LAG_METRIC, Some(60), None),
            &["behavior.scaleUp.stabilizationWindowSeconds is 60"],
        ),
        (windows(LAG_METRIC, None, Some(300)), &[]),
        (
            windows(DESIRED_METRIC, None, Some(300)),
            &["behavior.scaleDown.stabilizationWindowSeconds is 300"],
        ),
        // The controller's default window.
        (windows(DESIRED_METRIC, None, None), &[]),
        (windows("queue_length", Some(60), Some(60)), &[]),
        (native(None, &[zero]), &[]),
        (
            native(None, &[zero, ("cooldown", "2m")]),
            &["scale-down stabilization window of 300 s is longer than lagwise.dev/cooldown"],
        ),
        (native(Some(60), &[zero, ("cooldown", "2m")]), &[]),
        (native(Some(600), &[]), &[]),
        // A cooldown that cannot be read is the default of five minutes.
        (
            native(Some(600), &[zero, ("cooldown", "soon")]),
            &["scale-down stabilization window of 600 s is longer than lagwise.dev/cooldown"],
        ),
    ] {
        let found: Vec<_> = find_in_hpas(std::slice::from_ref(&hpa)).collect();
        assert_eq!(found.len(), expected.len(), "{found:?} {hpa:?}");
        for (finding, part) in found.iter().zip(expected) {
            assert_eq!(finding.code, FindingCode::Stabilised);
            assert!(finding.message.contains(part), "{finding} {hpa:?}");
        }
    }
    // If lagwise scales to zero itself, the window does not matter.
    let zeroed_by_lagwise = HpaFacts {
        window_down: Some(600),
        ..with(hpa(&[LAG_METRIC]), &[zero])
    };
    assert_eq!(find_in_hpas(&[zeroed_by_lagwise]).count(), 0);
}

#[test]
fn finds_limits_that_split_the_steps_of_the_rate_policy() {
    let limited = |metric, annotations: &[(&str, &str)], limit| HpaFacts {
        raise_limit: limit,
        max_replicas: 24,
        ..with(hpa(&[metric]), annotations)
    };
    let (rate, lag) = (ScalingPolicy::Rate, ScalingPolicy::Lag);
    let by_rate = [("policy", "rate")];
    for (metric, annotations, limit, default, expected) in [
        (DESIRED_METRIC, &by_rate[..], Some(5), lag, true),
        (DESIRED_METRIC, &by_rate, Some(23), lag, true),
        (DESIRED_METRIC, &by_rate, Some(24), lag, false),
        (DESIRED_METRIC, &by_rate, Some(101), lag, false),
        (DESIRED_METRIC, &by_rate, None, lag, false),
        // It never scales up.
        (DESIRED_METRIC, &by_rate, Some(1), lag, false),
        (DESIRED_METRIC, &[], Some(5), rate, true),
        (DESIRED_METRIC, &[("policy", "lag")], Some(5), rate, false),
        (
            DESIRED_METRIC,
            &[("policy", "recommend")],
            Some(5),
            rate,
            false,
        ),
        (
            DESIRED_METRIC,
            &[("policy.other", "rate")],
            Some(5),
            lag,
            false,
        ),
        (LAG_METRIC, &by_rate, Some(5), rate, false),
    ] {
        let hpa = limited(metric, annotations, limit);
        let targets = Targets::merge(
            &[ClusterName::from("main")],
            &[],
            std::slice::from_ref(&hpa),
            BTreeSet::new(),
        );
        let found = find_limited_scale_up(&hpa, targets.of_hpa(&hpa.key()), default);
        assert_eq!(found.is_some(), expected, "{annotations:?} {limit:?}");
    }
}

#[test]
fn finds_scale_targets_that_no_object_can_be() {
    let found = |api_version: &str, kind: &str, name: &str| {
        let mut hpa = hpa(&[LAG_METRIC]);
        hpa.scale_target = ScaleTarget {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
        };
        Vec::from_iter(find_in_hpas(&[hpa]))
    };
    for (api_version, kind, name, part) in [
        ("apps/v1", "Deployment", "own?dryRun=All&x=", "name"),
        ("apps/v1", "Deployment", "a..b", "name"),
        ("apps/v1", "Deploy?ment", "billing", "kind"),
        ("apps?x=/v1", "Deployment", "billing", "apiVersion"),
    ] {
        let found = found(api_version, kind, name);
        let [finding] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(finding.code, FindingCode::InvalidScaleTarget);
        let start = format!("scaleTargetRef.{part} ");
        assert!(finding.message.starts_with(&start), "{finding}");
    }
    assert_eq!(found("apps/v1", "Deployment", "billing"), []);
    assert_eq!(found("argoproj.io/v1alpha1", "Rollout", "billing.v2"), []);
    assert_eq!(found("", "", ""), []);
}

#[test]
fn finds_scale_targets_of_kinds_that_cannot_be_scaled() {
    for (api_version, kind, expected) in [
        (
            "apps/v1",
            "Deploymnt",
            Some(
                "\"Deploymnt\" of apps/v1 does not exist or cannot be scaled (did you mean Deployment?)",
            ),
        ),
        (
            "apps/v1",
            "DaemonSet",
            Some("\"DaemonSet\" of apps/v1 does not exist or cannot be scaled"),
        ),
        (
            "v1",
            "StatefulSet",
            Some(
                "\"StatefulSet\" of v1 does not exist or cannot be scaled (did you mean apiVersion: apps/v1?)",
            ),
        ),
        ("v1", "ReplicationController", None),
        ("apps/v1", "StatefulSet", None),
        ("argoproj.io/v1alpha1", "Deploymnt", None),
    ] {
        let mut hpa = hpa(&[LAG_METRIC]);
        hpa.scale_target = ScaleTarget {
            api_version: api_version.into(),
            kind: kind.into(),
            name: "billing".into(),
        };
        let found = find_in_hpa(&hpa).into_iter();
        let messages: Vec<_> = found.map(|finding| finding.message).collect();
        let expected = expected.map(|expected| format!("scaleTargetRef.kind {expected}"));
        assert_eq!(messages, Vec::from_iter(expected));
    }
}

#[test]
fn finds_owned_hpas_and_shared_scale_targets() {
    let owned = |annotations: &[(&str, &str)]| HpaFacts {
        controller: Some("ScaledObject/billing".into()),
        ..with(hpa(&[LAG_METRIC]), annotations)
    };
    for (annotations, expected) in [
        (&[][..], &[][..]),
        (&[("cap", "advise")], &[]),
        (&[("cap", "enforce")], &["controller_owned"]),
        (&[("scale-to-zero", "true")], &["controller_owned"]),
    ] {
        assert_eq!(labels(find_in_hpas(&[owned(annotations)])), expected);
    }
    let other = |name: &str, kind: &str, metric: &str| {
        let mut other = hpa(&[metric]);
        other.name = name.into();
        other.scale_target.kind = kind.into();
        other
    };
    let found = |second: HpaFacts| labels(find_in_hpas(&[hpa(&[LAG_METRIC]), second]));
    let both = ["shared_scale_target"; 2];
    assert_eq!(found(other("i", "Deployment", LAG_METRIC)), both);
    assert_eq!(found(other("i", "Deployment", "queue_length")), both);
    assert_eq!(found(other("i", "StatefulSet", LAG_METRIC)), [""; 0]);
    let elsewhere = HpaFacts {
        namespace: "mall".into(),
        ..other("i", "Deployment", LAG_METRIC)
    };
    assert_eq!(found(elsewhere), [""; 0]);
    // Neither uses a metric of lagwise.
    let unrelated = ["a", "b"].map(|name| other(name, "Deployment", "queue_length"));
    assert_eq!(find_in_hpas(&unrelated).count(), 0);
}

#[test]
fn finds_holds_that_are_over() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_205_600);
    for (key, value, expected) in [
        ("hold", "down until 2026-12-02T09:59:59Z", true),
        ("hold.billing.v2", "both until 2020-12-02T10:00:00Z", true),
        ("hold", "down until 2026-12-02T10:00:01Z", false),
        ("hold", "up", false),
        // Other findings are about these.
        ("hold", "down until yesterday", false),
        ("holds", "up until 2020-12-02T10:00:00Z", false),
    ] {
        let found = find_ended_holds(&with(hpa(&[LAG_METRIC]), &[(key, value)]), now);
        let messages: Vec<_> = found.into_iter().map(|finding| finding.message).collect();
        let message = format!(
            "annotation lagwise.dev/{key}: {value:?} has no effect any more, because its end has passed"
        );
        assert_eq!(
            messages,
            Vec::from_iter(expected.then_some(message)),
            "{key} {value}"
        );
    }
}
