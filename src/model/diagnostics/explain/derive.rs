//! Derives the value served from Kafka's offsets, from the same evaluations that answer requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::hidden_facts::hidden_consumer_facts;
use super::listing::describe_listing;
use super::policy::explain_policy;
use super::unread_group::{NOT_READ_YET, unread_reason};
use super::{Cap, Derivation, Explanation, GroupPart, PartitionPart, TopicPart, UNKNOWN_RULE};
use crate::model::diagnostics::at_ceiling::AtCeiling;
use crate::model::evaluation::group_evaluation::{TopicReading, Unmeasured};
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{
    EvaluationsAt, GroupEvaluation, HpaMetric, MetricValue, ValueRule, hpa_ceilings,
    is_cap_observed, topic_selection,
};
use crate::model::findings::{Finding, FindingSubject};
use crate::model::hpa::facts::is_paused;
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::GroupDescription;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, TopicLag};
use crate::model::lag::group_figures::GroupFigures;
use crate::model::lag::lag_age::LagAge;
use crate::model::targets::lookup::GroupQuery;
use crate::model::targets::{HpaCap, WatchKey};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::model::units::partition_filter::PartitionFilter;

/// What to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Hpa(HpaKey),
    /// A consumer group, whether an HPA uses it or not.
    Group(WatchKey),
}

/// Derives the explanation of an HPA or a group; `None` for an HPA that has neither a metric of lagwise nor a finding.
#[must_use]
pub fn derive<'f>(
    subject: &Subject,
    evaluations: EvaluationsAt<'_>,
    findings: impl Iterator<Item = &'f Finding>,
) -> Option<Explanation> {
    let derivation = Deriver(evaluations);
    let explanation = match subject {
        Subject::Hpa(hpa) => derivation.hpa(hpa, findings)?,
        Subject::Group(key) => derivation.group(key, findings),
    };
    Some(explanation.with_verdict())
}

/// Note about a group if only some of its topics are read.
const OTHER_TOPICS: &str =
    "other topics of the group: lagwise reads only those that HPAs and configured targets name";

struct Deriver<'a>(EvaluationsAt<'a>);

impl Deriver<'_> {
    fn hpa<'f>(
        &self,
        hpa: &HpaKey,
        findings: impl Iterator<Item = &'f Finding>,
    ) -> Option<Explanation> {
        let metrics = self.0.metrics_of(hpa);
        let cap = self.0.targets().of_hpa(hpa).iter();
        let cap = cap.filter_map(|target| target.cap).next();
        let limit = hpa_ceilings(&metrics).into_values().next();
        let metrics: Vec<_> = metrics.iter().map(|metric| self.metric(metric)).collect();
        let groups = metrics.iter().flat_map(|metric| &metric.groups);
        let groups = groups.map(|g| (g.cluster.clone(), g.group.clone()));
        let groups: BTreeSet<_> = groups.collect();
        let findings = with_codes(findings.filter(|finding| is_about(finding, hpa, &groups)));
        // The findings say why lagwise serves none of its metrics.
        if metrics.is_empty() && findings.is_empty() {
            return None;
        }
        Some(Explanation {
            verdict: String::new(),
            of: format!("HPA {hpa}"),
            at: self.time(),
            ceiling: limit.and_then(Limit::bounded),
            cap: cap.map(|cap| self.cap(hpa, cap, limit)),
            outcome: None,
            findings,
            shadow: None,
            not_knowable: hidden_consumer_facts(&metrics),
            metrics,
        })
    }

    fn group<'f>(
        &self,
        key: &WatchKey,
        findings: impl Iterator<Item = &'f Finding>,
    ) -> Explanation {
        let (key, has_other_topics) = self.readable_key(key);
        let key = &key;
        let group = self.0.targets().group(&key.cluster, &key.group);
        let first = group.and_then(|group| group.targets().first());
        let settings = first.map(|target| Arc::clone(&target.settings));
        let query = Arc::new(GroupQuery {
            key: Arc::new(key.clone()),
            label: key.group.to_string(),
            settings: settings.unwrap_or_default(),
        });
        let group = GroupEvaluation::new(&Selector::default(), query, self.0.clusters());
        let mut part = self.part(&group);
        if group.group.is_none() {
            part.unknown = Some(unread_reason(self.0, key));
        }
        let metrics = vec![Derivation {
            metric: String::new(),
            selector: String::new(),
            lag: part.lag,
            ceiling: part.ceiling,
            groups: vec![part],
            lag_per_replica: None,
            desired_replicas: None,
            uncapped_replicas: None,
            at_ceiling: None,
            value: None,
            rule: None,
            because: None,
            policy: None,
            refusal: None,
        }];
        Explanation {
            verdict: String::new(),
            of: format!("group {} on cluster {}", key.group, key.cluster),
            at: self.time(),
            ceiling: metrics.iter().find_map(|metric| metric.ceiling),
            cap: None,
            outcome: None,
            findings: with_codes(findings.filter(|finding| match &finding.subject {
                FindingSubject::Group { cluster, group } => {
                    *cluster == key.cluster && *group == key.group
                }
                _ => false,
            })),
            shadow: None,
            not_knowable: hidden_consumer_facts(&metrics)
                .into_iter()
                .chain(has_other_topics.then(|| OTHER_TOPICS.to_owned()))
                .collect(),
            metrics,
        }
    }

    /// The key by which a group can be explained, and whether the group may have other topics. If HPAs or configured
    /// targets name the topics of a group, only these are read, and the key names them too.
    fn readable_key(&self, key: &WatchKey) -> (WatchKey, bool) {
        let cluster = self.0.clusters().get(&key.cluster);
        let read = cluster.and_then(|cluster| cluster.groups.get(&key.group));
        let is_partly_read = |read: &&Arc<GroupSnapshot>| {
            key.topics.is_empty()
                && !read.discovered
                && read.fault.is_none()
                && read.counted_topics().next().is_some()
        };
        match read.filter(is_partly_read) {
            None => (key.clone(), false),
            Some(read) => {
                let mut key = key.clone();
                key.topics = read
                    .counted_topics()
                    .map(|(topic, _)| topic.clone())
                    .collect();
                (key, true)
            }
        }
    }

    fn time(&self) -> String {
        humantime::format_rfc3339_seconds(self.0.now().wall).to_string()
    }

    fn cap(&self, hpa: &HpaKey, cap: HpaCap, ceiling: Option<Limit>) -> Cap {
        let default = self.0.policy().cap;
        let facts = self.0.targets().facts().get(hpa);
        Cap {
            mode: cap.mode.unwrap_or(default),
            observed: ceiling.is_some_and(|ceiling| is_cap_observed(&cap, default, ceiling)),
            max_replicas: cap.max_replicas,
            user_max_replicas: None,
            paused: facts.is_some_and(|facts| is_paused(facts)),
        }
    }

    fn metric(&self, metric: &HpaMetric<'_>) -> Derivation {
        let groups = metric.evaluation.groups.iter();
        let value = metric.outcome.as_ref().ok();
        Derivation {
            metric: metric.metric.name().to_owned(),
            selector: metric.selector.to_string(),
            groups: groups.map(|group| self.part(group)).collect(),
            lag: value.and_then(|value| Some(value.lag?.0)),
            lag_per_replica: value.and_then(|value| value.wanted),
            ceiling: value.and_then(|value| value.ceiling?.replicas.bounded()),
            desired_replicas: value.and_then(|value| value.desired),
            uncapped_replicas: value.and_then(|value| value.uncapped),
            at_ceiling: AtCeiling::of_metric(metric).map(|at_ceiling| at_ceiling.to_string()),
            value: value.map(|value| value.value),
            rule: value.map(|value| value.rule),
            because: value.map(because),
            policy: explain_policy(metric, self.0.now()),
            refusal: metric.outcome.as_ref().err().map(ToString::to_string),
        }
    }

    fn part(&self, group: &GroupEvaluation) -> GroupPart {
        let GroupQuery { key, settings, .. } = &*group.query;
        let mut part = GroupPart {
            cluster: key.cluster.clone(),
            group: key.group.clone(),
            members: None,
            omitted_members: None,
            assignor: None,
            topics: Vec::new(),
            listing: None,
            lag: None,
            useful_parallelism: None,
            parallelism_rule: None,
            because: None,
            threads: settings.threads_per_replica().get(),
            ceiling: None,
            unknown: None,
            figures: None,
        };
        let Some(read) = group.group.as_deref() else {
            part.unknown = Some(NOT_READ_YET.into());
            return part;
        };
        part.figures = Some(GroupFigures::new(read))
            .filter(GroupFigures::has_history)
            .map(Box::new);
        let description = read.description.as_deref();
        part.members = description.map(GroupDescription::member_count);
        let omitted = description.map(|described| described.omitted_members);
        part.omitted_members = omitted.filter(|omitted| *omitted > 0);
        let assignor = description.and_then(|described| described.assignor.as_deref());
        part.assignor = assignor
            .or(read.remembered.assignor.as_deref())
            .map(str::to_owned);
        let listing = read.listing.as_deref();
        part.listing = settings.pattern().and_then(|pattern| {
            let listed = listing?.topics_of(pattern)?;
            Some(describe_listing(pattern, listed, read))
        });
        if let Err(Unmeasured::NoTopics(reason)) = &group.measure {
            part.unknown = Some(reason.to_string());
            return part;
        }
        let topics = group.topics();
        part.topics = topics.map(|topic| self.topic(topic, group)).collect();
        let max_staleness = self.0.policy().max_staleness;
        let Some(measure) = group.fresh_measure(self.0.now(), max_staleness) else {
            part.unknown = Some("the lag of a partition is unknown".into());
            return part;
        };
        part.lag = Some(measure.lag.0);
        let useful = measure.ceiling.useful;
        part.useful_parallelism = useful.limit.bounded();
        part.parallelism_rule = Some(useful.rule);
        part.because = Some(useful.rule.to_string());
        part.ceiling = measure.ceiling.replicas.bounded();
        part
    }

    fn topic(&self, topic: TopicReading<'_>, group: &GroupEvaluation) -> TopicPart {
        let now = self.0.now();
        let filter = group.query.settings.partitions.as_ref();
        let max_staleness = self.0.policy().max_staleness;
        let fresh = topic.reading;
        let fresh = fresh.filter(|_| !topic.is_unusable(now, max_staleness));
        // A reading that is too old or too incomplete to be served is still shown.
        let shown = fresh
            .or_else(|| topic.read.latest.as_deref().ok())
            .or(topic.read.complete.as_deref());
        let total = fresh.and_then(|fresh| topic_selection::summary(fresh, filter).total.ok());
        let cluster = self.0.clusters().get(&group.query.key.cluster);
        let cause = |fault: Fault| match cluster {
            Some(cluster) => cluster.cause(fault),
            None => fault.to_string(),
        };
        let partitions = shown.map(|lag| partitions(lag, filter, &cause));
        let partitions: Vec<_> = partitions.unwrap_or_default();
        let age = shown.and_then(|lag| lag.age_of(filter));
        let fault = topic.read.fault();
        TopicPart {
            topic: topic.topic.clone(),
            read_seconds_ago: shown.map(|lag| now.since(&lag.read).as_secs()),
            lag: total.map(|lag| lag.0),
            lag_seconds: age.map(in_seconds),
            lag_seconds_is_lower_bound: age.is_some_and(LagAge::is_bound),
            incomplete: fault.map(cause),
            partitions,
            partitions_left_out: 0,
        }
    }
}

fn partitions(
    read: &TopicLag,
    filter: Option<&PartitionFilter>,
    cause: &impl Fn(Fault) -> String,
) -> Vec<PartitionPart> {
    read.counted(filter)
        .map(|partition| {
            let lag = read.lags.get(partition).copied();
            let lag = lag.unwrap_or(Err(Fault::NoAnswer));
            let committed = read.committed.get(partition);
            let end = read.offsets.ends.get(partition);
            let age = read.partition_age(partition);
            PartitionPart {
                partition,
                committed_offset: committed.and_then(|c| Some(c.ok()??.0)),
                log_end_offset: end.and_then(|end| Some(end.ok()?.0)),
                lag: lag.ok().map(|lag| lag.messages().0),
                counts: lag.ok().map(|lag| lag.for_scaling().0),
                lag_seconds: age.map(in_seconds),
                lag_seconds_is_lower_bound: age.is_some_and(LagAge::is_bound),
                rule: match lag {
                    Ok(lag) => lag.label().to_owned(),
                    Err(fault) => format!("{UNKNOWN_RULE}{}", cause(fault)),
                },
            }
        })
        .collect()
}

fn in_seconds(age: LagAge) -> f64 {
    age.duration().as_secs_f64()
}

/// Explains the rule that determined a value.
fn because(answer: &MetricValue) -> String {
    let per = answer.wanted.map(|wanted| wanted.to_string());
    let per = per.as_deref().unwrap_or("unknown");
    let ceiling = answer.ceiling.and_then(|c| c.replicas.bounded());
    let ceiling = ceiling.map_or_else(|| "no".to_owned(), |ceiling| ceiling.to_string());
    match answer.rule {
        ValueRule::AsMeasured => "the measured lag, unchanged".to_owned(),
        ValueRule::Clamped => {
            format!("limited to ceiling x lag per replica: {ceiling} x {per}")
        }
        ValueRule::Lifted => format!(
            "raised above the HPA's tolerance, so that it reaches the ceiling of {ceiling}; its maxReplicas keeps it from exceeding that"
        ),
        ValueRule::Even => {
            "raised to the next number of replicas that share the partitions evenly".to_owned()
        }
        ValueRule::NeverRan => {
            "the lag of one replica: the group has no committed offset, starts at the log end, and lagwise has not seen it run"
                .to_owned()
        }
        ValueRule::Cooldown => {
            "the lag of one replica: there is no lag, but the cooldown is not over yet".to_owned()
        }
        ValueRule::Fallback => {
            "fallback-replicas: the lag has been unknown for longer than fallback-after".to_owned()
        }
        ValueRule::Rate => "the replicas that the rate policy computed".to_owned(),
        ValueRule::Held => "the replicas that lagwise.dev/hold keeps".to_owned(),
    }
}

/// The texts of the findings, each with its code in front.
fn with_codes<'f>(findings: impl Iterator<Item = &'f Finding>) -> Vec<String> {
    let with_code = |finding: &Finding| format!("{} {finding}", finding.code.code());
    findings.map(with_code).collect()
}

/// Whether a finding is about the HPA or one of its groups.
fn is_about(finding: &Finding, hpa: &HpaKey, groups: &BTreeSet<(ClusterName, GroupId)>) -> bool {
    match &finding.subject {
        FindingSubject::Group { cluster, group } => {
            groups.contains(&(cluster.clone(), group.clone()))
        }
        FindingSubject::Hpa(of) => of == hpa,
        FindingSubject::Setting(_) | FindingSubject::Keda { .. } => false,
    }
}

#[cfg(test)]
mod tests;
