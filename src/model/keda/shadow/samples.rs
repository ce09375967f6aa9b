//! Samples of triggers: KEDA's and lagwise's values of each trigger at one time, and why they differ.

use super::objects::ComparedObject;
use super::report::ShadowRow;
use crate::model::evaluation::{EvaluationsAt, MetricValue};
use crate::model::kafka::group::GroupDescription;
use crate::model::keda::arithmetic::{
    self, KedaFailure, KedaOffsets, KedaReading, PreviousOffsets,
};
use crate::model::keda::authentications::Authentications;
use crate::model::keda::convert::observed::ObservedTrigger;
use crate::model::keda::difference::{Comparison, Difference};
use crate::model::keda::jobs::JobRules;
use crate::model::keda::version::KedaVersion;
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::GroupId;

/// Values of one trigger at one time.
pub(super) struct TriggerSample<'a> {
    pub(super) observed: &'a ObservedTrigger,
    pub(super) group: Option<&'a GroupSnapshot>,
    /// KEDA's reading; `None` if lagwise has not read what KEDA reads.
    pub(super) keda: Option<Result<KedaReading, KedaFailure>>,
    pub(super) lagwise: Result<MetricValue, String>,
}

/// Evaluates each trigger as KEDA and lagwise do.
pub(super) fn read_triggers<'a>(
    compared: &'a ComparedObject,
    hpa: &HpaKey,
    evaluations: EvaluationsAt<'a>,
    previous: &mut [PreviousOffsets],
) -> Vec<TriggerSample<'a>> {
    let triggers = compared.triggers.iter().zip(previous).enumerate();
    let samples = triggers.map(|(index, (observed, previous))| {
        let group_id = observed.trigger.group.as_deref().map(GroupId::from);
        let cluster = evaluations.clusters().get(&observed.cluster);
        let group = group_id.and_then(|id| cluster?.groups.get(&id).map(|group| &**group));
        let offsets = group.and_then(|group| {
            let description = group.description.as_deref();
            let has_members = description.is_some_and(GroupDescription::has_members);
            KedaOffsets::from_topics(&observed.trigger, &group.topics, has_members)
        });
        let keda = offsets.map(|offsets| {
            arithmetic::read(&observed.trigger, &offsets, previous, KedaVersion::NEWEST)
        });
        let mut targets = evaluations.targets_of(hpa);
        let evaluation = targets.find(|(target, _)| target.index == index);
        let lagwise = match evaluation {
            Some((_, evaluation)) => {
                let value = evaluations.value(&evaluation.metric);
                value.map_err(|reason| reason.to_string())
            }
            None => Err("lagwise does not read this group".to_owned()),
        };
        TriggerSample {
            observed,
            group,
            keda,
            lagwise,
        }
    });
    samples.collect()
}

/// Adds the reasons for which the two values differ, as texts and labels of [`Difference`].
pub(super) fn explain(
    samples: &[TriggerSample<'_>],
    current: u32,
    tolerances: (u64, u64),
    row: &mut ShadowRow,
) {
    for (index, sample) in samples.iter().enumerate() {
        let prefix = prefix(index, samples.len());
        if let Err(reason) = &sample.lagwise {
            row.why.push(format!("{prefix}lagwise: {reason}"));
        }
        let differences = match (&sample.keda, sample.group) {
            (Some(keda), Some(group)) => {
                let comparison = Comparison {
                    trigger: &sample.observed.trigger,
                    version: KedaVersion::NEWEST,
                    keda: keda.as_ref(),
                    lagwise: sample.lagwise.as_ref().ok(),
                    topics: &group.topics,
                    current,
                    tolerances,
                };
                comparison.differences()
            }
            (None, Some(_)) => {
                let text = match sample.observed.trigger.topics.is_empty() {
                    true => {
                        "the trigger names no topic: KEDA reads every topic of the Kafka cluster, lagwise only those of the group"
                    }
                    false => {
                        "what KEDA would read is unknown, because lagwise could not read all of it"
                    }
                };
                row.why.push(format!("{prefix}{text}"));
                Vec::new()
            }
            (_, None) => vec![Difference::LagwiseUnknown],
        };
        for difference in differences {
            if difference != Difference::LagwiseUnknown {
                row.why.push(format!("{prefix}{difference}"));
            }
            row.reasons.push(difference.label().to_owned());
        }
    }
    row.reasons.sort_unstable();
    row.reasons.dedup();
}

/// Computes how many Jobs KEDA and lagwise want. Running Jobs are not read, so there are no sums.
pub(super) fn compare_jobs(rules: &JobRules, samples: &[TriggerSample<'_>], row: &mut ShadowRow) {
    let readings = samples.iter().map(|sample| {
        let reading = sample.keda.as_ref()?;
        Some((&sample.observed.trigger, reading.as_ref().ok()))
    });
    let readings = readings.collect::<Option<Vec<_>>>();
    row.keda = readings.map(|readings| {
        // A trigger that fails is left out.
        let read = readings.iter();
        let read = read.filter_map(|(trigger, reading)| Some((*trigger, (*reading)?)));
        rules.jobs(rules.demand(&Vec::from_iter(read)))
    });
    let desired = samples
        .iter()
        .map(|sample| sample.lagwise.as_ref().ok()?.desired);
    let most = desired.collect::<Option<Vec<_>>>();
    let most = most.and_then(|desired| desired.into_iter().max());
    row.lagwise = most.map(|most| most.clamp(rules.min(), rules.max()));
    // KEDA rounds up, without any tolerance.
    explain(samples, 1, (0, 0), row);
    row.remarks.push(format!(
        "the numbers are Jobs: KEDA starts its number {rules}; lagwise does not read Jobs, and says how many of them can have work"
    ));
}

/// Describes how KEDA and lagwise log in to the Kafka cluster of each trigger.
pub(super) fn describe_logins(
    compared: &ComparedObject,
    authentications: &Authentications,
    row: &mut ShadowRow,
) {
    for (index, observed) in compared.triggers.iter().enumerate() {
        let prefix = prefix(index, compared.triggers.len());
        let (text, problem) = authentications.describe(&observed.login, observed.cluster.as_str());
        row.logins.push(format!("{prefix}{text}"));
        let problem = problem.map(|problem| format!("{prefix}{problem}"));
        row.remarks.extend(problem);
    }
}

/// Prefix of a sentence about one of several triggers.
fn prefix(index: usize, triggers: usize) -> String {
    match triggers {
        1 => String::new(),
        _ => format!("triggers[{index}]: "),
    }
}
