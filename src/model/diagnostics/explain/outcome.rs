//! Explains what the HPA controller computes from the values served, with the controller's arithmetic
//! ([`hpa::controller`](crate::model::hpa::controller)).

use super::hidden_facts::HIDDEN_CONTROLLER_FACTS;
use super::live::{LiveHpa, LiveMetric};
use super::{Explanation, MetricProposal, Outcome};
use crate::model::decisions::cap::HpaFields;
use crate::model::diagnostics::hpa_findings::describe_switched_off;
use crate::model::findings::FindingCode;
use crate::model::hpa::controller::outlook::{Outlook, Range, UnknownHistory, predict_sync};
use crate::model::hpa::controller::stage::{Proposal, Verdict};
use crate::model::hpa::controller::{
    Behavior, HpaSpec, MetricReading, MetricSource, ObservedScale, PolicyKind, ScalingRules,
    Select, SyncCase,
};
use crate::model::hpa::facts::{
    HpaFacts, MetricTarget, has_zeroed_annotation, is_paused, zeroed_since,
};
use crate::model::settings::annotation_keys::ZEROED_SINCE;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::quantity::Milli;

/// Adds the outcome of the HPA controller to an explanation.
#[must_use]
pub fn outcome(mut explanation: Explanation, hpa: &LiveHpa) -> Explanation {
    let readings: Vec<MetricReading> = hpa
        .metrics
        .iter()
        .map(|metric| metric_reading(&explanation, metric))
        .collect();
    if let Some(cap) = &mut explanation.cap {
        cap.max_replicas = hpa.facts.max_replicas;
        cap.user_max_replicas = Some(HpaFields::of(&hpa.facts).user_max(None));
        cap.paused = is_paused(&hpa.facts);
        // The explanation may come from a daemon that had not seen the current `maxReplicas` yet.
        if let Some(ceiling) = explanation.ceiling {
            cap.observed = cap.mode == CapMode::Enforce && cap.max_replicas <= ceiling;
        }
    }
    let hidden = HIDDEN_CONTROLLER_FACTS.map(str::to_owned);
    explanation.not_knowable.extend(hidden);
    explanation.outcome = Some(derive_outcome(hpa, readings));
    explanation.with_verdict()
}

/// What the HPA controller reads for a metric; [`MetricReading::Elsewhere`] if lagwise does not serve it.
fn metric_reading(explanation: &Explanation, metric: &LiveMetric) -> MetricReading {
    let Some(external) = &metric.external else {
        return MetricReading::Elsewhere;
    };
    let selector = external.selector.to_string();
    let mut served = explanation.metrics.iter();
    match served.find(|d| d.metric == external.name && d.selector == selector) {
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
        behavior: describe_behavior(spec.behavior.as_ref()),
        proposals: Vec::new(),
        metric_stage: None,
        metric_stage_replicas: None,
        next: None,
        because: Vec::new(),
        conditions: hpa.conditions.clone(),
        asleep_since: None,
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
    outcome.asleep_since = zeroed_since(&hpa.facts.annotations).filter(|_| spec_replicas == 0);
    let is_at_zero = |c: &super::live::Condition| c.kind == "ScaledToZero" && c.status == "True";
    let seen = ObservedScale {
        spec_replicas,
        status_replicas,
        pods: None,
        readings,
        scaled_to_zero: hpa.conditions.iter().any(is_at_zero),
    };
    let outlook = predict_sync(spec, &seen, &hpa.past);
    outcome.spec_replicas = Some(spec_replicas);
    outcome.status_replicas = Some(status_replicas);
    let sources = spec.metrics.iter().zip(&hpa.metrics).zip(&seen.readings);
    outcome.proposals = outlook
        .proposals
        .iter()
        .zip(sources)
        .map(|(proposal, ((source, metric), reading))| MetricProposal {
            metric: metric.name.clone(),
            replicas: match proposal {
                Proposal::Replicas { replicas, .. } => Some(*replicas),
                Proposal::Failed | Proposal::Unknown => None,
            },
            because: explain_proposal(*proposal, *source, *reading, metric, &seen),
        })
        .collect();
    outcome.metric_stage = outlook.verdict.map(|verdict| explain_stage(verdict, hpa));
    outcome.metric_stage_replicas = match outlook.verdict {
        Some(Verdict::Wants { replicas, .. }) => Some(replicas),
        Some(Verdict::Frozen) | Some(Verdict::AtLeast { .. }) | None => None,
    };
    outcome.next = Some((outlook.replicas.low, outlook.replicas.high));
    outcome.because = explain_next(&outlook, hpa);
    outcome
}

fn explain_proposal(
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
            Proposal::Replicas {
                within_tolerance: true,
                ..
            },
            MetricSource::External(MetricTarget::Value(target)),
            MetricReading::Value(value),
        ) => format!("{value} is within the tolerance of {target}"),
        // With a Value target only at zero replicas: otherwise the number depends on the ready pods, which are not
        // counted.
        (
            Proposal::Replicas { .. },
            MetricSource::External(
                MetricTarget::AverageValue(target) | MetricTarget::Value(target),
            ),
            MetricReading::Value(value),
        ) => format!("{value} / {target}, rounded up"),
        (Proposal::Failed, ..) => "lagwise answers with an error".to_owned(),
        (
            Proposal::Unknown,
            MetricSource::External(MetricTarget::Value(_)),
            MetricReading::Value(value),
        ) => {
            format!("{value} divided by the target, times the ready pods")
        }
        _ => match &metric.current {
            Some(current) => {
                format!(
                    "unknown, since lagwise does not serve this metric; the HPA last read {current}"
                )
            }
            None => "unknown, since lagwise does not serve this metric".to_owned(),
        },
    }
}

fn explain_stage(verdict: Verdict, hpa: &LiveHpa) -> String {
    match verdict {
        Verdict::Wants { replicas, metric } => {
            let name = hpa.metrics.get(metric).map_or("", |metric| &metric.name);
            format!("{replicas}, by {name}")
        }
        Verdict::Frozen => {
            "none: a metric fails, and no other metric proposes more replicas, so the number of replicas stays".to_owned()
        }
        Verdict::AtLeast {
            replicas,
            may_freeze,
        } => {
            let frozen = match may_freeze {
                true => "; if one of them fails, the number of replicas stays",
                false => "",
            };
            format!(
                "at least {replicas}: metrics that lagwise does not serve may propose more{frozen}"
            )
        }
    }
}

/// Explains the replicas, or the range of replicas, that the next sync may set.
fn explain_next(outlook: &Outlook, hpa: &LiveHpa) -> Vec<String> {
    let spec = &hpa.spec;
    let plain = |text: &str| vec![text.to_owned()];
    match outlook.case {
        SyncCase::Disabled => return explain_zero(&hpa.facts),
        SyncCase::AboveMax => {
            return plain(
                "there are more replicas than maxReplicas, so the HPA lowers them at once",
            );
        }
        SyncCase::BelowMin => {
            return plain(
                "there are fewer replicas than minReplicas, so the HPA raises them at once",
            );
        }
        SyncCase::Metrics => {}
    }
    let mut all = Vec::new();
    let Range { low, high } = outlook.replicas;
    let is_disabled = |of: fn(&Behavior) -> &ScalingRules| {
        let behavior = spec.behavior.as_ref();
        behavior.is_some_and(|behavior| of(behavior).select == Select::Disabled)
    };
    if let Some(Verdict::Wants { replicas, .. }) = outlook.verdict {
        if replicas > high {
            all.push(if high == spec.max {
                format!("maxReplicas limits the replicas to {high}")
            } else if is_disabled(|behavior| &behavior.up) {
                "scaling up is disabled (selectPolicy Disabled)".to_owned()
            } else {
                format!("the scale-up policies allow no more than {high} in this sync")
            });
        }
        if replicas < low {
            all.push(if low == spec.min {
                format!("minReplicas keeps the replicas at {low}")
            } else if is_disabled(|behavior| &behavior.down) {
                "scaling down is disabled (selectPolicy Disabled)".to_owned()
            } else {
                format!("the scale-down policies allow no fewer than {low} in this sync")
            });
        }
    }
    all.extend(
        outlook
            .open
            .iter()
            .map(|open| describe_unknown(*open, spec)),
    );
    all
}

/// Explains why the HPA does nothing at zero replicas, and who starts the workload.
fn explain_zero(hpa: &HpaFacts) -> Vec<String> {
    if !has_zeroed_annotation(hpa) {
        return vec![describe_switched_off(hpa)];
    }
    let disabled =
        "the scale target has 0 replicas, which the HPA did not set, so the HPA does nothing";
    let says = match zeroed_since(&hpa.annotations) {
        Some(since) => format!("says that lagwise scaled the workload to zero at {since}"),
        None => "has no valid time".to_owned(),
    };
    // Everybody who may write the HPA can set the annotation, so lagwise trusts only its ledger.
    let annotation = format!(
        "its annotation {ZEROED_SINCE} {says}; if the ledger of lagwise confirms that, lagwise starts the workload when there is lag; otherwise lagwise reports {}",
        FindingCode::ZeroNotRecorded.code()
    );
    vec![disabled.to_owned(), annotation]
}

/// Describes what is not known about earlier syncs or other metrics.
fn describe_unknown(unknown: UnknownHistory, spec: &HpaSpec) -> String {
    let window = |of: fn(&Behavior) -> &ScalingRules, default: &ScalingRules| {
        let rules = spec.behavior.as_ref().map_or(default, of);
        rules.window().as_secs()
    };
    match unknown {
        UnknownHistory::OtherMetrics => {
            "metrics that lagwise does not serve may propose more, or fail".to_owned()
        }
        UnknownHistory::LowestRecommendation => format!(
            "the HPA does not go above the lowest recommendation of the last {} s, which only the controller knows",
            window(|b| &b.up, &ScalingRules::up())
        ),
        UnknownHistory::HighestRecommendation => format!(
            "the HPA does not go below the highest recommendation of the last {} s, which only the controller knows",
            window(|b| &b.down, &ScalingRules::down())
        ),
        UnknownHistory::RecentChanges => {
            "its policies count the replicas added and removed in their periods, which only the controller knows"
                .to_owned()
        }
    }
}

/// Describes the limits of scaling up and down.
fn describe_behavior(behavior: Option<&Behavior>) -> Vec<String> {
    match behavior {
        None => vec![
            "up: to twice as many or to 4 in one sync, whichever is more".to_owned(),
            "down: at once, to the highest recommendation of the last 300 s".to_owned(),
        ],
        Some(behavior) => vec![
            describe_direction("up", '+', "lowest", &behavior.up),
            describe_direction("down", '-', "highest", &behavior.down),
        ],
    }
}

fn describe_direction(direction: &str, sign: char, which: &str, rules: &ScalingRules) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hpa::controller::Policy;
    use crate::model::hpa::controller::outlook::KnownHistory;

    #[test]
    fn a_proposal_says_how_it_is_computed() {
        let (of_average, of_value) = (
            MetricTarget::AverageValue(Milli::from_units(100)),
            MetricTarget::Value(Milli::from_units(100)),
        );
        for (target, spec_replicas, value, expected) in [
            (of_average, 4, 500, "500 / 100, rounded up"),
            (of_average, 4, 400, "400 is within the tolerance of 4 x 100"),
            (of_average, 0, 500, "500 / 100, rounded up"),
            (of_value, 0, 500, "500 / 100, rounded up"),
            (of_value, 0, 100, "100 / 100, rounded up"),
            (of_value, 4, 100, "100 is within the tolerance of 100"),
            (
                of_value,
                4,
                500,
                "500 divided by the target, times the ready pods",
            ),
        ] {
            let metric = LiveMetric {
                name: "External kafka_lag".into(),
                external: None,
                current: None,
            };
            let source = MetricSource::External(target);
            let spec = HpaSpec {
                min: 0,
                max: 20,
                metrics: vec![source],
                behavior: None,
            };
            let reading = MetricReading::Value(Milli::from_units(value));
            let seen = ObservedScale {
                spec_replicas,
                status_replicas: spec_replicas,
                pods: None,
                readings: vec![reading],
                scaled_to_zero: spec_replicas == 0,
            };
            let outlook = predict_sync(&spec, &seen, &KnownHistory::default());
            let proposal = outlook.proposals[0];
            assert_eq!(
                explain_proposal(proposal, source, reading, &metric, &seen),
                expected
            );
        }
    }

    /// Explains the next sync of an HPA of up to 20 replicas, with one average of 100 that wants `wanted` replicas.
    fn next(min: u32, current: u32, wanted: u64, behavior: Option<Behavior>) -> Vec<String> {
        let target = MetricTarget::AverageValue(Milli::from_units(100));
        let spec = HpaSpec {
            min,
            max: 20,
            metrics: vec![MetricSource::External(target)],
            behavior,
        };
        let seen = ObservedScale {
            spec_replicas: current,
            status_replicas: current,
            pods: None,
            readings: vec![MetricReading::Value(Milli::from_units(100 * wanted))],
            scaled_to_zero: false,
        };
        let hpa = LiveHpa {
            facts: HpaFacts::default(),
            metrics: Vec::new(),
            past: KnownHistory::default(),
            conditions: Vec::new(),
            scale: Ok((current, current)),
            spec,
        };
        explain_next(&predict_sync(&hpa.spec, &seen, &hpa.past), &hpa)
    }

    /// A behavior with these changes per sync and windows; [`Select::Disabled`] in a direction without a change.
    fn behavior(up: (Option<u32>, u32), down: (Option<u32>, u32)) -> Behavior {
        let rules = |(pods, window): (Option<u32>, u32), default: ScalingRules| ScalingRules {
            window_seconds: Some(window),
            select: pods.map_or(Select::Disabled, |_| Select::Max),
            policies: vec![Policy {
                change: PolicyKind::Pods(pods.unwrap_or(4)),
                period_seconds: 15,
            }],
            ..default
        };
        Behavior {
            up: rules(up, ScalingRules::up()),
            down: rules(down, ScalingRules::down()),
        }
    }

    #[test]
    fn an_unknown_recommendation_is_a_bound_in_either_direction() {
        let highest = |seconds: u32| {
            format!(
                "the HPA does not go below the highest recommendation of the last {seconds} s, which only the controller knows"
            )
        };
        let lowest = "the HPA does not go above the lowest recommendation of the last 60 s, which only the controller knows";
        assert_eq!(next(1, 4, 6, None), [highest(300)]);
        assert_eq!(next(1, 6, 4, None), [highest(300)]);
        let slow = || Some(behavior((Some(10), 60), (Some(10), 120)));
        assert_eq!(next(1, 6, 4, slow()), [highest(120)]);
        assert_eq!(next(1, 4, 6, slow()), [lowest]);
    }

    #[test]
    fn limits_of_a_sync_say_which_way_they_limit() {
        let steps = || Some(behavior((Some(2), 0), (Some(3), 0)));
        let disabled = || Some(behavior((None, 0), (None, 0)));
        let few = "the scale-down policies allow no fewer than 7 in this sync";
        let many = "the scale-up policies allow no more than 12 in this sync";
        for (min, current, wanted, behavior, expected) in [
            (1, 10, 2, steps(), few),
            (1, 10, 19, steps(), many),
            (1, 6, 19, None, many),
            (
                1,
                10,
                2,
                disabled(),
                "scaling down is disabled (selectPolicy Disabled)",
            ),
            (
                1,
                10,
                12,
                disabled(),
                "scaling up is disabled (selectPolicy Disabled)",
            ),
            (1, 19, 30, steps(), "maxReplicas limits the replicas to 20"),
            (
                1,
                20,
                30,
                disabled(),
                "maxReplicas limits the replicas to 20",
            ),
            (4, 5, 2, steps(), "minReplicas keeps the replicas at 4"),
            (4, 4, 2, disabled(), "minReplicas keeps the replicas at 4"),
        ] {
            assert_eq!(next(min, current, wanted, behavior), [expected]);
        }
    }
}
