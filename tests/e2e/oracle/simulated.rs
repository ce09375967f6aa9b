//! Series of simulations: inputs and results of the simulated HPA.

use std::time::Duration;

use lagwise::model::hpa::controller::memory::Recommendations;
use lagwise::model::hpa::controller::{
    HpaSpec, MetricReading, MetricSource, PolicyKind, ScalingRules,
};
use lagwise::model::hpa::facts::MetricTarget;
use lagwise::simulate::arrivals::Arrivals;
use lagwise::simulate::benchmark::compared_policies;
use lagwise::simulate::engine::run;
use lagwise::simulate::generated::generate_scenarios;
use lagwise::simulate::outcome::RunOptions;
use lagwise::simulate::scaler::SimulatedPolicy;
use lagwise::simulate::scenario::{Scenario, StartReplicas};
use serde_json::{Map, Value, json};

use super::series::{Dice, Expected, Series, read, spec};

/// Time between two syncs in simulations.
const PERIOD: Duration = Duration::from_secs(15);

/// Maximum number of replicas of an HPA, so that a run does not take minutes.
const MAX_REPLICAS: u32 = 64;

impl Series {
    /// The simulation of this seed.
    pub(super) fn simulated(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut policies = compared_policies();
        // It has no HPA.
        policies.retain(|policy| *policy != SimulatedPolicy::Static);
        let policy = policies[dice.below(u32::try_from(policies.len()).unwrap()) as usize];
        let hpa = (!dice.one_in(3)).then(|| {
            let mut hpa = read(&spec(&mut dice, 1, false));
            hpa.max = hpa.max.min(MAX_REPLICAS);
            hpa
        });
        // An outage makes lag that the rates alone may not.
        let scenario = Scenario {
            duration: 900,
            outage: dice.one_in(2).then_some((200, 400)),
            start_replicas: dice.pick(&[
                StartReplicas::One,
                StartReplicas::Half,
                StartReplicas::All,
            ]),
            ..generate_scenarios(seed, 1).remove(0)
        };
        let options = RunOptions {
            has_syncs: true,
            hpa,
            ..RunOptions::default()
        };
        let arrivals = Arrivals::draw(&scenario, seed);
        let syncs = run(&scenario, &policy, seed, &arrivals, &options)
            .records
            .syncs;
        let hpa = options.hpa_of(&policy, scenario.partitions);
        let (mut steps, mut expected) = (Vec::new(), Vec::new());
        let mut memory = Recommendations::default();
        for (simulated, number) in syncs.iter().zip(1..) {
            let seen = &simulated.seen;
            let items: Vec<String> = match seen.readings.as_slice() {
                [MetricReading::Value(value)] => vec![format!("{}m", value.thousandths())],
                _ => Vec::new(),
            };
            steps.push(json!({
                "statusReplicas": seen.status_replicas,
                "pods": seen.status_replicas,
                "ready": seen.status_replicas,
                "metrics": {"m0": items},
            }));
            let sync = memory.sync(&hpa, seen, PERIOD * number);
            // The simulation has this number from the same arithmetic, at its own times.
            assert_eq!(
                sync.replicas,
                Some(simulated.after),
                "sync {number} of seed {seed}"
            );
            expected.push(Expected {
                spec: hpa.clone(),
                seen: seen.clone(),
                sync,
                edited: false,
            });
        }
        let input = json!({
            "spec": manifest(&hpa),
            "replicas": syncs.first().map(|sync| sync.seen.spec_replicas),
            "syncSeconds": PERIOD.as_secs(),
            "scaleToZero": false,
            "steps": steps,
        });
        Self {
            input,
            period: PERIOD,
            expected,
        }
    }
}

/// The spec as a manifest has it.
fn manifest(hpa: &HpaSpec) -> Value {
    let [MetricSource::External(MetricTarget::AverageValue(target))] = hpa.metrics.as_slice()
    else {
        panic!("not the HPA of a simulation: {hpa:?}");
    };
    let target =
        json!({"type": "AverageValue", "averageValue": format!("{}m", target.thousandths())});
    let metric =
        json!({"type": "External", "external": {"metric": {"name": "m0"}, "target": target}});
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "h"},
        "minReplicas": hpa.min,
        "maxReplicas": hpa.max,
        "metrics": [metric],
    });
    if let Some(behavior) = &hpa.behavior {
        spec["behavior"] =
            json!({"scaleUp": rules(&behavior.up), "scaleDown": rules(&behavior.down)});
    }
    spec
}

fn rules(rules: &ScalingRules) -> Value {
    let mut all = Map::new();
    all.insert("selectPolicy".into(), json!(format!("{:?}", rules.select)));
    if let Some(seconds) = rules.window_seconds {
        all.insert("stabilizationWindowSeconds".into(), json!(seconds));
    }
    if let Some(tolerance) = rules.tolerance {
        all.insert(
            "tolerance".into(),
            json!(format!("{}m", tolerance.thousandths())),
        );
    }
    let policies = rules.policies.iter().map(|policy| {
        let (kind, value) = match policy.change {
            PolicyKind::Pods(value) => ("Pods", value),
            PolicyKind::Percent(value) => ("Percent", value),
        };
        json!({"type": kind, "value": value, "periodSeconds": policy.period_seconds})
    });
    all.insert("policies".into(), Value::Array(policies.collect()));
    Value::Object(all)
}
