//! What an HPA makes of the values that it is served: the controller's own arithmetic
//! ([`hpa`](crate::model::hpa::controller)), in numbers and in words.

use super::live::{LiveHpa, LiveMetric};
use super::{Explanation, MetricProposal, Outcome};
use crate::model::decisions::cap::HpaFields;
use crate::model::hpa::controller::outlook::{Outlook, Range, UnknownHistory, outlook};
use crate::model::hpa::controller::stage::{Proposal, Verdict};
use crate::model::hpa::controller::{
    Behavior, Case, HpaSpec, MetricReading, MetricSource, ObservedScale, PolicyKind, ScalingRules,
    Select,
};
use crate::model::hpa::facts::MetricTarget;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::quantity::Milli;

/// Adds what the HPA itself comes to.
#[must_use]
pub fn outcome(mut explanation: Explanation, hpa: &LiveHpa) -> Explanation {
    let readings: Vec<MetricReading> = hpa
        .metrics
        .iter()
        .map(|metric| reading(&explanation, metric))
        .collect();
    if let Some(cap) = &mut explanation.cap {
        cap.max_replicas = hpa.facts.max_replicas;
        cap.user_max_replicas = Some(HpaFields::of(&hpa.facts).user_max(None));
        // The explanation may be a daemon's, and the maximum has changed since.
        if let Some(ceiling) = explanation.ceiling {
            cap.observed = cap.mode == CapMode::Enforce && cap.max_replicas <= ceiling;
        }
    }
    explanation.not_knowable.push(
        "what the HPA's controller remembers: its recommendations and scale events are in no status, and end with its process"
            .to_owned(),
    );
    explanation.not_knowable.push(
        "the controller's flags: a tolerance of 100m and a downscale stabilisation of 300 s are taken, their defaults"
            .to_owned(),
    );
    explanation.outcome = Some(derive_outcome(hpa, readings));
    explanation
}

/// What a metric of the HPA came to, if lagwise serves it.
fn reading(explanation: &Explanation, metric: &LiveMetric) -> MetricReading {
    let Some(external) = &metric.external else {
        return MetricReading::Elsewhere;
    };
    let selector = external.selector.to_string();
    let mut ours = explanation.metrics.iter();
    match ours.find(|d| d.metric == external.name && d.selector == selector) {
        None => MetricReading::Elsewhere,
        Some(found) => found
            .value
            .map_or(MetricReading::Failed, MetricReading::Value),
    }
}

fn derive_outcome(hpa: &LiveHpa, readings: Vec<MetricReading>) -> Outcome {
    let spec = &hpa.spec;
    let (down, up) = spec.tolerances();
    let tolerance = |thousandths| Milli::ONE.scaled(thousandths, 1000).to_string();
    let mut outcome = Outcome {
        spec_replicas: None,
        status_replicas: None,
        min_replicas: spec.min,
        max_replicas: spec.max,
        tolerances: (tolerance(down), tolerance(up)),
        behavior: behavior(spec.behavior.as_ref()),
        proposals: Vec::new(),
        metric_stage: None,
        metric_stage_replicas: None,
        next: None,
        because: Vec::new(),
        conditions: hpa.conditions.clone(),
    };
    let (spec_replicas, status_replicas) = match &hpa.scale {
        Ok(replicas) => *replicas,
        Err(error) => {
            let kind = &hpa.facts.scale_target.kind;
            let name = &hpa.facts.scale_target.name;
            outcome.because = vec![format!(
                "the scale of {kind} {name} cannot be read: {error}"
            )];
            return outcome;
        }
    };
    let is_asleep = |c: &super::live::Condition| c.kind == "ScaledToZero" && c.status == "True";
    let seen = ObservedScale {
        spec_replicas,
        status_replicas,
        pods: None,
        readings,
        scaled_to_zero: hpa.conditions.iter().any(is_asleep),
    };
    let looked = outlook(spec, &seen, &hpa.past);
    outcome.spec_replicas = Some(spec_replicas);
    outcome.status_replicas = Some(status_replicas);
    let sources = spec.metrics.iter().zip(&hpa.metrics).zip(&seen.readings);
    outcome.proposals = looked
        .proposals
        .iter()
        .zip(sources)
        .map(|(proposal, ((source, metric), reading))| MetricProposal {
            metric: metric.name.clone(),
            replicas: match proposal {
                Proposal::Replicas { replicas, .. } => Some(*replicas),
                Proposal::Failed | Proposal::Unknown => None,
            },
            because: proposed(*proposal, *source, *reading, metric, &seen),
        })
        .collect();
    outcome.metric_stage = looked.verdict.map(|verdict| stage(verdict, hpa));
    outcome.metric_stage_replicas = match looked.verdict {
        Some(Verdict::Wants { replicas, .. }) => Some(replicas),
        Some(Verdict::Frozen) | Some(Verdict::AtLeast { .. }) | None => None,
    };
    outcome.next = Some((looked.replicas.low, looked.replicas.high));
    outcome.because = because(&looked, spec);
    outcome
}

/// How a metric came to what it proposes.
fn proposed(
    proposal: Proposal,
    source: MetricSource,
    reading: MetricReading,
    metric: &LiveMetric,
    seen: &ObservedScale,
) -> String {
    let status = seen.status_replicas;
    match (proposal, source, reading) {
        (
            Proposal::Replicas {
                within_tolerance: true,
                ..
            },
            MetricSource::External(MetricTarget::AverageValue(target)),
            MetricReading::Value(value),
        ) => format!("{value} is within the tolerance of {status} x {target}"),
        (
            Proposal::Replicas { .. },
            MetricSource::External(MetricTarget::AverageValue(target)),
            MetricReading::Value(value),
        ) => format!("{value} / {target}, rounded up"),
        (Proposal::Replicas { .. }, MetricSource::External(MetricTarget::Value(target)), _) => {
            format!("within the tolerance of {target}")
        }
        (Proposal::Failed, ..) => "an error: lagwise refuses the value".to_owned(),
        (
            Proposal::Unknown,
            MetricSource::External(MetricTarget::Value(_)),
            MetricReading::Value(value),
        ) => {
            format!("{value} by the target, times the pods that are ready")
        }
        _ => match &metric.current {
            Some(current) => {
                format!("not known here: not lagwise's; the HPA last read {current}")
            }
            None => "not known here: not lagwise's".to_owned(),
        },
    }
}

fn stage(verdict: Verdict, hpa: &LiveHpa) -> String {
    match verdict {
        Verdict::Wants { replicas, metric } => {
            let name = hpa.metrics.get(metric).map_or("", |metric| &metric.name);
            format!("{replicas}, by {name}")
        }
        Verdict::Frozen => {
            "none: a metric is an error and no other scales up, so replicas stay".to_owned()
        }
        Verdict::AtLeast {
            replicas,
            may_freeze,
        } => {
            let frozen = match may_freeze {
                true => ", and an error of theirs would keep the replicas as they are",
                false => "",
            };
            format!("at least {replicas}: metrics that are not known here may want more{frozen}")
        }
    }
}

/// Why the next sync sets what it sets.
fn because(looked: &Outlook, spec: &HpaSpec) -> Vec<String> {
    let plain = |text: &str| vec![text.to_owned()];
    match looked.case {
        Case::Disabled => {
            return plain(
                "the target has no replicas, and not by the HPA's own doing: it does nothing",
            );
        }
        Case::AboveMax => {
            return plain("there are more replicas than maxReplicas: it cuts to that at once");
        }
        Case::BelowMin => {
            return plain("there are fewer replicas than minReplicas: it raises to that at once");
        }
        Case::Metrics => {}
    }
    let mut all = Vec::new();
    let Range { low, high } = looked.replicas;
    if let Some(Verdict::Wants { replicas, .. }) = looked.verdict {
        if replicas > high {
            all.push(if high == spec.max {
                format!("maxReplicas holds it at {high}")
            } else {
                format!("one sync adds no more than to {high}")
            });
        }
        if replicas < low {
            all.push(if low == spec.min {
                format!("minReplicas holds it at {low}")
            } else {
                format!("one sync removes no more than to {low}")
            });
        }
    }
    all.extend(looked.open.iter().map(|open| open_text(*open, spec)));
    all
}

fn open_text(open: UnknownHistory, spec: &HpaSpec) -> String {
    let window = |of: fn(&Behavior) -> &ScalingRules, default: &ScalingRules| {
        let rules = spec.behavior.as_ref().map_or(default, of);
        rules.window().as_secs()
    };
    match open {
        UnknownHistory::OtherMetrics => {
            "metrics that are not known here may want more, or be errors".to_owned()
        }
        UnknownHistory::LowestRecommendation => format!(
            "it scales up to the lowest recommendation of its last {} s, which only it remembers",
            window(|b| &b.up, &ScalingRules::up())
        ),
        UnknownHistory::HighestRecommendation => format!(
            "it scales down to the highest recommendation of its last {} s, which only it remembers",
            window(|b| &b.down, &ScalingRules::down())
        ),
        UnknownHistory::RecentChanges => {
            "its policies count what it added and removed within their periods, which only it remembers"
                .to_owned()
        }
    }
}

/// How far and how fast replicas may move.
fn behavior(behavior: Option<&Behavior>) -> Vec<String> {
    match behavior {
        None => vec![
            "up: to twice as many or to 4 in one sync, whichever is more".to_owned(),
            "down: at once, to the highest recommendation of the last 300 s".to_owned(),
        ],
        Some(behavior) => vec![
            side("up", '+', "lowest", &behavior.up),
            side("down", '-', "highest", &behavior.down),
        ],
    }
}

fn side(direction: &str, sign: char, which: &str, rules: &ScalingRules) -> String {
    let policy = |change: &PolicyKind, seconds: u32| match change {
        PolicyKind::Pods(pods) => format!("{sign}{pods} in {seconds} s"),
        PolicyKind::Percent(percent) => format!("{sign}{percent} % in {seconds} s"),
    };
    let policies: Vec<_> = rules
        .policies
        .iter()
        .map(|p| policy(&p.change, p.period_seconds))
        .collect();
    let choice = match (rules.select, policies.len()) {
        (Select::Disabled, _) => return format!("{direction}: never (selectPolicy Disabled)"),
        (_, 0 | 1) => "",
        (Select::Max, _) => ", whichever is more",
        (Select::Min, _) => ", whichever is less",
    };
    let window = match rules.window().as_secs() {
        0 => "at once".to_owned(),
        seconds => format!("to the {which} recommendation of the last {seconds} s"),
    };
    format!(
        "{direction}: {window}, at most {}{choice}",
        policies.join(" or ")
    )
}
