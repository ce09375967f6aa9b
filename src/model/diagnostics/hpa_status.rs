//! The status of each HPA in one row: lag, desired replicas, ceiling, cap and findings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::diagnostics::explain::policy::summarize_policy;
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{
    EvaluationsAt, GroupEvaluation, HpaMetric, ValueRule, hpa_ceiling, hpa_ceilings,
    is_cap_observed,
};
use crate::model::findings::{Finding, FindingCode, FindingSubject};
use crate::model::hpa::facts::{is_paused, zeroed_since};
use crate::model::lag::cluster_snapshot::GroupTopic;
use crate::model::lag::group_figures::{NamedFigures, unread_of};
use crate::model::lag::lag_age::LagAge;
use crate::model::lag::rates::MessageRates;
use crate::model::settings::cap_mode::CapMode;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::Target;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{Lag, Moment};
use crate::model::units::partition_filter::PartitionFilter;

/// The status of one HPA. Unknown values are `None`, never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HpaStatus {
    pub namespace: String,
    /// The name of the HPA.
    pub hpa: String,
    /// Lag that counts for scaling, over all its groups and topics.
    pub lag: Option<u64>,
    /// Age of the oldest unread message.
    pub lag_millis: Option<u64>,
    pub lag_millis_is_lower_bound: bool,
    /// Messages per second that are written to its topics and that its groups consume, averaged over a minute. A topic
    /// counts whole, also where the HPA scales on some of its partitions only.
    #[serde(default)]
    pub produced_per_second: Option<f64>,
    #[serde(default)]
    pub consumed_per_second: Option<f64>,
    /// Time until these topics have no lag at these rates; `None` also while their lag does not shrink.
    #[serde(default)]
    pub seconds_to_drain: Option<u64>,
    /// The age that messages may reach before they are processed, in seconds: the shortest of its metrics that set one
    /// or use the rate policy. `None` if none does.
    #[serde(default)]
    pub slo_seconds: Option<u64>,
    /// Current replicas from the HPA's status.
    pub replicas: Option<u32>,
    /// Time since which the workload sleeps, in RFC 3339; `None` if it does not, or that is not known.
    #[serde(default)]
    pub asleep_since: Option<String>,
    /// Desired replicas: the largest over its metrics.
    pub desired: Option<u32>,
    /// Replicas that the lag is worth without the ceiling, by the metric that desires the most.
    pub uncapped: Option<u32>,
    /// Replica ceiling.
    pub ceiling: Option<Limit>,
    /// `spec.maxReplicas`; `None` if the HPA has no target.
    #[serde(default)]
    pub max_replicas: Option<u32>,
    /// Partitions that count, over all its groups and topics.
    pub partitions: Option<u32>,
    /// Partitions of these on which the group makes no progress.
    #[serde(default)]
    pub stuck_partitions: Option<u32>,
    pub cap: CapMode,
    /// Whether `maxReplicas` is at most the ceiling under `enforce`.
    pub cap_observed: bool,
    /// Whether the user has stopped the writes of lagwise. The HPA scales nevertheless.
    #[serde(default)]
    pub paused: bool,
    /// The rule that made the value served, or why there is none.
    pub reason: String,
    /// That rule; `None` while a metric has no value.
    #[serde(default)]
    pub rule: Option<ValueRule>,
    /// Age of the oldest reading in the values.
    pub age_millis: Option<u64>,
    /// Codes of the findings about the HPA and its groups.
    pub findings: Vec<String>,
    /// Figures of its consumer groups; `None` where they are not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Vec<NamedFigures>>,
}

/// The status of every HPA with a metric of lagwise, sorted by namespace and name.
#[must_use]
pub fn statuses<'f>(
    evaluations: EvaluationsAt<'_>,
    findings: impl Iterator<Item = &'f Finding>,
) -> Vec<HpaStatus> {
    let metrics = evaluations.hpa_metrics();
    let ceilings = hpa_ceilings(&metrics);
    let mut all: BTreeMap<(&str, &str), HpaParts<'_>> = BTreeMap::new();
    for metric in &metrics {
        let key = (metric.namespace, metric.hpa);
        all.entry(key).or_default().metrics.push(metric);
    }
    for (target, evaluation) in evaluations.hpa_targets() {
        if let Some(hpa) = target.hpa() {
            let parts = all.entry((&hpa.namespace, &hpa.name)).or_default();
            parts.targets.push((target, &evaluation.group));
        }
    }
    for finding in findings {
        match &finding.subject {
            // An HPA that may not be meant for lagwise has no status.
            FindingSubject::Hpa(_) if finding.code == FindingCode::MetricNotServed => {}
            // An HPA whose metrics are all invalid has no target. Its finding still lists it.
            FindingSubject::Hpa(hpa) => {
                let key = (&*hpa.namespace, &*hpa.name);
                all.entry(key).or_default().findings.push(finding);
            }
            FindingSubject::Group { cluster, group } => {
                let group = evaluations.targets().group(cluster, group);
                let targets = group.map_or(&[][..], |group| group.targets());
                // An HPA may have several targets of one group.
                let hpas: BTreeSet<_> = targets.iter().filter_map(|target| target.hpa()).collect();
                for hpa in hpas {
                    if let Some(parts) = all.get_mut(&(&*hpa.namespace, &*hpa.name)) {
                        parts.findings.push(finding);
                    }
                }
            }
            FindingSubject::Setting(_) | FindingSubject::Keda { .. } => {}
        }
    }
    let status = |(key, parts): ((&str, &str), HpaParts<'_>)| {
        let ceiling = ceilings.get(&key).copied();
        parts.status(key, ceiling, evaluations)
    };
    all.into_iter().map(status).collect()
}

/// The status of one HPA, the same as in [`statuses`]; `None` if it is not among these. Only this HPA is evaluated.
#[must_use]
pub fn hpa_status<'f>(
    hpa: &HpaKey,
    evaluations: EvaluationsAt<'_>,
    findings: impl Iterator<Item = &'f Finding>,
) -> Option<HpaStatus> {
    let metrics = evaluations.metrics_of(hpa);
    let targets = evaluations.targets_of(hpa);
    let targets: Vec<_> = targets.map(|(target, of)| (target, &of.group)).collect();
    let is_own = |finding: &&Finding| match &finding.subject {
        FindingSubject::Hpa(_) if finding.code == FindingCode::MetricNotServed => false,
        FindingSubject::Hpa(of) => of == hpa,
        FindingSubject::Group { cluster, group } => targets
            .iter()
            .any(|(target, _)| target.key.cluster == *cluster && target.key.group == *group),
        FindingSubject::Setting(_) | FindingSubject::Keda { .. } => false,
    };
    let findings: Vec<_> = findings.filter(is_own).collect();
    if metrics.is_empty() && targets.is_empty() && findings.is_empty() {
        return None;
    }
    let parts = HpaParts {
        metrics: metrics.iter().collect(),
        targets,
        findings,
    };
    let key = (&*hpa.namespace, &*hpa.name);
    Some(parts.status(key, hpa_ceiling(&metrics), evaluations))
}

/// The inputs of one HPA's status.
#[derive(Default)]
struct HpaParts<'a> {
    metrics: Vec<&'a HpaMetric<'a>>,
    targets: Vec<(&'a Target, &'a Arc<GroupEvaluation>)>,
    findings: Vec<&'a Finding>,
}

impl HpaParts<'_> {
    fn status(
        &self,
        (namespace, hpa): (&str, &str),
        ceiling: Option<Limit>,
        evaluations: EvaluationsAt<'_>,
    ) -> HpaStatus {
        let measured = self.measure(evaluations);
        let values: Option<Vec<_>> = self
            .metrics
            .iter()
            .map(|metric| metric.outcome.as_ref().ok())
            .collect();
        let values = values.filter(|values| !values.is_empty());
        // The HPA follows the metric that desires the most replicas.
        let followed = values.as_ref().and_then(|values| {
            let all = values
                .iter()
                .map(|value| Some((value.desired?, value.uncapped)));
            all.collect::<Option<Vec<_>>>()?.into_iter().max()
        });
        let desired = followed.map(|(desired, _)| desired);
        let uncapped = followed.and_then(|(_, uncapped)| uncapped);
        let oldest = values
            .iter()
            .flatten()
            .map(|value| evaluations.now().since(&value.read))
            .max();
        let cap = self.targets.iter().find_map(|(target, _)| target.cap);
        let key = HpaKey::new(namespace, hpa);
        let facts = evaluations.targets().facts().get(&key);
        let replicas = facts.and_then(|facts| facts.replicas);
        let asleep = facts.filter(|_| replicas == Some(0));
        let asleep_since = asleep.and_then(|facts| zeroed_since(&facts.annotations));
        let default = evaluations.policy().cap;
        let age = measured.as_ref().and_then(|m| m.age);
        let (rates, drain) = measured.as_ref().and_then(|_| self.rates()).unzip();
        let mut findings: Vec<_> = self
            .findings
            .iter()
            .map(|f| f.code.code().to_owned())
            .collect();
        findings.sort_unstable();
        findings.dedup();
        HpaStatus {
            namespace: namespace.to_owned(),
            hpa: hpa.to_owned(),
            lag: measured.as_ref().map(|m| m.lag.0),
            lag_millis: age.map(|age| millis(age.duration())),
            lag_millis_is_lower_bound: age.is_some_and(LagAge::is_bound),
            produced_per_second: rates.map(|rates| rates.produced),
            consumed_per_second: rates.map(|rates| rates.consumed),
            seconds_to_drain: drain.flatten().map(|drain| drain.as_secs()),
            slo_seconds: self.slo(evaluations).map(|slo| slo.as_secs()),
            replicas,
            asleep_since,
            desired,
            uncapped,
            ceiling,
            max_replicas: cap.map(|cap| cap.max_replicas),
            partitions: measured.as_ref().map(|m| m.partitions),
            stuck_partitions: measured.as_ref().map(|m| m.stuck),
            cap: cap.and_then(|cap| cap.mode).unwrap_or(default),
            cap_observed: cap
                .zip(ceiling)
                .is_some_and(|(cap, ceiling)| is_cap_observed(&cap, default, ceiling)),
            paused: facts.is_some_and(|facts| is_paused(facts)),
            reason: self.reason(evaluations.now()),
            rule: self.rule(),
            age_millis: oldest.map(millis),
            findings,
            figures: None,
        }
    }

    /// The first reason why a metric has no value; if all have one, the rule of the metric with the most
    /// desired replicas.
    fn reason(&self, now: &Moment) -> String {
        let outcomes = || self.metrics.iter().map(|metric| metric.outcome.as_ref());
        if let Some(reason) = outcomes().find_map(Result::err) {
            return reason.to_string();
        }
        let valued = self.metrics.iter();
        let valued = valued.filter_map(|metric| Some((metric, metric.outcome.as_ref().ok()?)));
        if let Some((metric, most)) = valued.max_by_key(|(_, value)| value.desired) {
            let policy = metric.evaluation.policy.as_deref();
            return match policy.and_then(|policy| summarize_policy(policy, now)) {
                Some(summary) => format!("{} ({summary})", most.rule.label()),
                None => most.rule.label().to_owned(),
            };
        }
        let worst = self.findings.iter().max_by_key(|f| f.code.severity());
        worst.map(ToString::to_string).unwrap_or_default()
    }

    /// The rule of the metric with the most desired replicas; `None` if one has no value.
    fn rule(&self) -> Option<ValueRule> {
        let outcomes = self.metrics.iter().map(|metric| metric.outcome.as_ref());
        let values: Vec<_> = outcomes.collect::<Result<_, _>>().ok()?;
        let most = values.into_iter().max_by_key(|value| value.desired);
        most.map(|value| value.rule)
    }

    /// The shortest objective of its metrics that is set, or that the rate policy follows.
    fn slo(&self, evaluations: EvaluationsAt<'_>) -> Option<Duration> {
        let default = evaluations.policy().scaling;
        let settings = self.targets.iter().map(|(target, _)| &target.settings);
        let objectives = settings.filter_map(|settings| {
            let is_followed = settings.policy.unwrap_or(default) == ScalingPolicy::Rate;
            settings.slo.or_else(|| is_followed.then(|| settings.slo()))
        });
        objectives.min()
    }

    /// Adds up the groups and topics of the HPA, each once even if several metrics use it; `None` while any
    /// is unknown.
    fn measure(&self, evaluations: EvaluationsAt<'_>) -> Option<HpaMeasure> {
        let mut seen: Vec<(&Arc<_>, Option<&PartitionFilter>)> = Vec::new();
        let mut all: Option<HpaMeasure> = None;
        for (target, group) in &self.targets {
            let filter = target.settings.partitions.as_ref();
            if seen.contains(&(&target.key, filter)) {
                continue;
            }
            seen.push((&target.key, filter));
            let own = HpaMeasure::new(group, evaluations)?;
            all = Some(match all {
                Some(all) => all.and(&own),
                None => own,
            });
        }
        all
    }

    /// Messages per second over the topics of the HPA, and the time until they have no lag; `None` if the rates of one
    /// are unknown. Each topic counts once, even if several metrics use it or its partitions.
    fn rates(&self) -> Option<(MessageRates, Option<Duration>)> {
        let mut seen = BTreeSet::new();
        let mut topics: Vec<&GroupTopic> = Vec::new();
        for (target, group) in &self.targets {
            let key = &target.key;
            for topic in group.topics() {
                if seen.insert((&key.cluster, &key.group, topic.topic)) {
                    topics.push(topic.read);
                }
            }
        }
        let rates = MessageRates::sum(topics.iter().map(|topic| topic.rates()))?;
        let unread = unread_of(topics.into_iter());
        Some((rates, unread.and_then(|lag| rates.time_to_drain(lag))))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Lag and partitions of an HPA, over its groups and topics.
struct HpaMeasure {
    lag: Lag,
    /// `None` if it is unknown for a partition.
    age: Option<LagAge>,
    partitions: u32,
    /// Partitions on which the group makes no progress.
    stuck: u32,
}

impl HpaMeasure {
    fn new(group: &GroupEvaluation, evaluations: EvaluationsAt<'_>) -> Option<Self> {
        let max_staleness = evaluations.policy().max_staleness;
        let measure = group.fresh_measure(evaluations.now(), max_staleness)?;
        let filter = group.query.settings.partitions.as_ref();
        let mut readings = group.topics().map(|topic| topic.reading);
        let age = readings.try_fold(LagAge::exactly(0), |oldest, reading| {
            Some(oldest.or_older(reading?.age_of(filter)?))
        });
        let readings = group.topics().filter_map(|topic| topic.reading);
        let stuck = readings.map(|reading| reading.stuck(filter));
        Some(Self {
            lag: measure.lag,
            age,
            partitions: measure.partitions,
            stuck: stuck.fold(0, u32::saturating_add),
        })
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            lag: self.lag.plus(other.lag),
            age: self.age.zip(other.age).map(|(a, b)| a.or_older(b)),
            partitions: self.partitions.saturating_add(other.partitions),
            stuck: self.stuck.saturating_add(other.stuck),
        }
    }
}

#[cfg(test)]
mod tests;
