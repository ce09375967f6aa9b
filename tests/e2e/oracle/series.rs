//! A random series of an HPA and its inputs, as JSON for the real controller and as types for the model.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use lagwise::k8s::live_hpa::spec_of;
use lagwise::model::hpa::controller::memory::{Recommendations, Sync};
use lagwise::model::hpa::controller::{
    HpaSpec, MetricReading, MetricSource, ObservedScale, PodCount,
};
use lagwise::model::hpa::facts::MetricTarget;
use lagwise::model::units::quantity::Milli;
use serde_json::{Map, Value, json};

/// Inputs and result of the model for one sync.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) spec: HpaSpec,
    pub(super) seen: ObservedScale,
    pub(super) sync: Sync,
    /// Whether the spec has changed since the previous sync.
    pub(super) edited: bool,
}

pub(super) struct Series {
    /// For the oracle.
    pub(super) input: Value,
    /// The time between two syncs.
    pub(super) period: Duration,
    pub(super) expected: Vec<Expected>,
}

impl Series {
    /// The series of this seed.
    pub(super) fn random(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let dice = &mut dice;
        let to_zero = dice.one_in(3);
        let seconds = dice.pick(&[1u64, 2, 5, 15, 15, 30, 60]);
        let period = Duration::from_secs(seconds);
        let metrics = dice.below(3) + 1;
        let first = spec(dice, metrics, to_zero);
        let start = dice.below(12);
        let mut given = read(&first);
        let (mut memory, mut current, mut asleep) = (Recommendations::default(), start, false);
        let (mut steps, mut expected) = (Vec::new(), Vec::new());
        for number in 1..=dice.below(30) + 15 {
            let mut step = Map::new();
            let edited = dice.one_in(15);
            if edited {
                let edit = spec(dice, metrics, to_zero);
                given = read(&edit);
                step.insert("spec".into(), edit);
            }
            if dice.one_in(15) {
                current = dice.pick(&[0, 1, 2, 5, 20, 70]);
                step.insert("replicas".into(), json!(current));
            }
            let status = match dice.below(6) {
                0 => current + dice.below(4),
                1 => current.saturating_sub(dice.below(4)),
                _ => current,
            };
            if status != current {
                step.insert("statusReplicas".into(), json!(status));
            }
            let all = dice.pick(&[0, current, current, current, current + 1]);
            let ready = dice.below(all + 1);
            step.insert("pods".into(), json!(all));
            step.insert("ready".into(), json!(ready));
            let mut answers = Map::new();
            let readings = given.metrics.iter().zip(0..).map(|(source, place)| {
                let items = items(dice, source, status, given.tolerances());
                let reading = match items.as_slice() {
                    [] => MetricReading::Failed,
                    items => MetricReading::Value(
                        items.iter().copied().fold(Milli::default(), Milli::plus),
                    ),
                };
                // Nothing at all is an error, and so is an answer without items.
                if !items.is_empty() || dice.one_in(2) {
                    let items: Vec<_> = items
                        .iter()
                        .map(|i| format!("{}m", i.thousandths()))
                        .collect();
                    answers.insert(format!("m{place}"), json!(items));
                }
                reading
            });
            let seen = ObservedScale {
                spec_replicas: current,
                status_replicas: status,
                pods: Some(PodCount { all, ready }),
                readings: readings.collect(),
                scaled_to_zero: asleep,
            };
            step.insert("metrics".into(), Value::Object(answers));
            steps.push(Value::Object(step));
            let sync = memory.sync(&given, &seen, period * number);
            let after = sync.replicas.unwrap();
            if after != current {
                asleep = to_zero && after == 0 && given.min == 0;
            }
            current = after;
            expected.push(Expected {
                spec: given.clone(),
                seen,
                sync,
                edited,
            });
        }
        let input = json!({
            "spec": first,
            "replicas": start,
            "syncSeconds": seconds,
            "scaleToZero": to_zero,
            "steps": steps,
        });
        Self {
            input,
            period,
            expected,
        }
    }
}

/// A spec as lagwise reads it of the cluster.
pub(super) fn read(spec: &Value) -> HpaSpec {
    let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {}, "spec": spec});
    let hpa: HorizontalPodAutoscaler = serde_json::from_value(hpa).unwrap();
    spec_of(&hpa)
}

/// A random spec that the API server accepts, with this number of metrics.
pub(super) fn spec(dice: &mut Dice, metrics: u32, to_zero: bool) -> Value {
    let min = match to_zero && dice.one_in(2) {
        true => 0,
        false => dice.below(5) + 1,
    };
    let max = min.max(1) + dice.pick(&[0, 3, 10, 50, 2000]);
    let metrics: Vec<_> = (0..metrics)
        .map(|place| {
            let amount = dice.pick(&["1m", "7m", "1", "3", "10", "100", "333", "1k", "1500m", "1M"]);
            let target = match dice.one_in(4) {
                true => json!({"type": "Value", "value": amount}),
                false => json!({"type": "AverageValue", "averageValue": amount}),
            };
            json!({"type": "External", "external": {"metric": {"name": format!("m{place}")}, "target": target}})
        })
        .collect();
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "h"},
        "minReplicas": min,
        "maxReplicas": max,
        "metrics": metrics,
    });
    if !dice.one_in(3) {
        let mut behavior = Map::new();
        for side in ["scaleUp", "scaleDown"] {
            if !dice.one_in(4) {
                behavior.insert(side.into(), rules(dice));
            }
        }
        spec["behavior"] = Value::Object(behavior);
    }
    spec
}

fn rules(dice: &mut Dice) -> Value {
    let mut rules = Map::new();
    if dice.one_in(2) {
        let tolerance = dice.pick(&["0", "0", "100m", "50m", "137m", "1m", "999m", "1", "1500m"]);
        rules.insert("tolerance".into(), json!(tolerance));
    }
    if dice.one_in(2) {
        let window = dice.pick(&[0, 1, 15, 30, 60, 300, 3600]);
        rules.insert("stabilizationWindowSeconds".into(), json!(window));
    }
    if dice.one_in(2) {
        let select = dice.pick(&["Max", "Min", "Min", "Disabled"]);
        rules.insert("selectPolicy".into(), json!(select));
    }
    if !dice.one_in(3) {
        let policies: Vec<_> = (0..=dice.below(3))
            .map(|_| {
                let (kind, value) = match dice.one_in(2) {
                    true => ("Pods", dice.pick(&[1, 2, 4, 10])),
                    false => ("Percent", dice.pick(&[1, 10, 33, 50, 100, 130, 900])),
                };
                let period = dice.pick(&[1, 5, 15, 30, 60, 90, 600]);
                json!({"type": kind, "value": value, "periodSeconds": period})
            })
            .collect();
        rules.insert("policies".into(), json!(policies));
    }
    Value::Object(rules)
}

/// The items of an answer; none is an error.
fn items(
    dice: &mut Dice,
    source: &MetricSource,
    status: u32,
    (down, up): (u64, u64),
) -> Vec<Milli> {
    let MetricSource::External(target) = source else {
        return Vec::new();
    };
    let (target, per_replica) = match target {
        MetricTarget::AverageValue(target) => (*target, true),
        MetricTarget::Value(target) => (*target, false),
    };
    let now = if per_replica {
        target.times(status)
    } else {
        target
    };
    let value = match dice.below(12) {
        0 => return Vec::new(),
        1 => Milli::default(),
        // The edges of the tolerance, and a thousandth beyond.
        2 => now.scaled(1000 + up, 1000),
        3 => now.scaled(1000 + up, 1000).plus(Milli::MIN_POSITIVE),
        4 => now.scaled(1000u64.saturating_sub(down), 1000),
        5 => now,
        6 => target.times(dice.below(80)).plus(Milli::MIN_POSITIVE),
        // Without replicas the controller converts the ratio unbounded; with them this saturates.
        7 if per_replica => Milli::from_units(u64::MAX),
        8 => target.scaled(u64::from(dice.below(100_000)), 1000),
        _ => target.times(dice.below(60)),
    };
    let mut items = vec![value];
    for _ in 0..dice.below(3) {
        let last = items.pop().unwrap_or_default();
        let part = last.scaled(u64::from(dice.below(1000)), 1000);
        let rest = last.thousandths() - part.thousandths();
        items.push(part);
        items.push(Milli::MIN_POSITIVE.scaled(rest, 1));
    }
    if per_replica && dice.one_in(20) {
        // More than the controller can sum.
        items.extend([Milli::from_units(u64::MAX), Milli::from_units(u64::MAX)]);
    }
    items
}

/// Random numbers of a seed (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound.max(1))).unwrap()
    }

    pub(super) fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(u32::try_from(all.len()).unwrap()) as usize]
    }
}
