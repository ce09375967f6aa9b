//! What lagwise makes of Kafka, from offsets to the value served: by the very functions that answer
//! requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Cap, Derivation, Explanation, GroupPart, PartitionPart, TopicPart};
use crate::model::evaluation::metric_evaluation::{MetricEvaluation, hpa_ceilings, standings_of};
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::series_match::{group_of, series};
use crate::model::evaluation::{self, MetricValue, ServingPolicy, ValueRule, topic_selection};
use crate::model::findings::{Finding, FindingSubject};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic, TopicLag};
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::lookup::{GroupQuery, resolve};
use crate::model::targets::metric_query::MetricQuery;
use crate::model::targets::{HpaCap, Origin, WatchKey};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{Moment, TopicName};
use crate::model::units::partition_filter::PartitionFilter;

/// What numbers are to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An HPA's.
    Hpa(HpaKey),
    /// A group's, without any HPA.
    Group(WatchKey),
}

/// Derives the numbers of an HPA or a group; `None` where no metric of lagwise is asked for by such an
/// HPA.
#[must_use]
pub fn derive(
    subject: &Subject,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
) -> Option<Explanation> {
    let look = ExplainInput {
        snapshot,
        now,
        rules,
    };
    match subject {
        Subject::Hpa(hpa) => look.hpa(hpa),
        Subject::Group(interest) => Some(look.group(interest)),
    }
}

struct ExplainInput<'a> {
    snapshot: &'a LagSnapshot,
    now: &'a Moment,
    rules: &'a ServingPolicy,
}

impl ExplainInput<'_> {
    fn hpa(&self, hpa: &HpaKey) -> Option<Explanation> {
        let targets = &self.snapshot.targets;
        let wanted = |ns: &Arc<str>, n: &Arc<str>| *ns == hpa.namespace && *n == hpa.name;
        let standings = standings_of(targets, self.snapshot, self.now, self.rules, wanted);
        let mut of_hpa = targets.all.iter().filter(|target| match &target.origin {
            Origin::Hpa(origin) => origin == hpa,
            Origin::Config { .. } => false,
        });
        let cap = of_hpa.find_map(|target| target.cap);
        if standings.is_empty() {
            return None;
        }
        let limit = hpa_ceilings(&standings).into_values().next();
        let ceiling = limit.and_then(Limit::bounded);
        let metrics: Vec<_> = standings.iter().map(|s| self.metric(s)).collect();
        let groups = metrics.iter().flat_map(|metric| &metric.groups);
        let groups = groups.map(|g| (g.cluster.clone(), g.group.clone()));
        let groups: BTreeSet<_> = groups.collect();
        let known = self.snapshot.all_findings();
        let known = known.filter(|f| is_about(f, hpa, &groups));
        Some(Explanation {
            of: format!("HPA {hpa}"),
            at: self.time(),
            ceiling,
            cap: cap.map(|cap| self.cap(cap, ceiling)),
            outcome: None,
            findings: known.map(|f| format!("{} {f}", f.code.code())).collect(),
            not_knowable: not_knowable(&metrics),
            metrics,
        })
    }

    fn group(&self, interest: &WatchKey) -> Explanation {
        let targets = &self.snapshot.targets;
        let mut same = targets.all.iter().filter(|target| {
            target.interest.cluster == interest.cluster && target.interest.group == interest.group
        });
        let asked = GroupQuery {
            interest: Arc::new(interest.clone()),
            label: interest.group.to_string(),
            settings: same
                .next()
                .map(|t| Arc::clone(&t.settings))
                .unwrap_or_default(),
        };
        let part = self.part(&Selector::default(), &asked);
        let metrics = vec![Derivation {
            metric: String::new(),
            selector: String::new(),
            lag: part.lag,
            ceiling: part.ceiling,
            groups: vec![part],
            lag_per_replica: None,
            desired_replicas: None,
            value: None,
            rule: None,
            because: None,
            refusal: None,
        }];
        Explanation {
            of: format!("group {} on cluster {}", interest.group, interest.cluster),
            at: self.time(),
            ceiling: metrics.iter().find_map(|metric| metric.ceiling),
            cap: None,
            outcome: None,
            findings: Vec::new(),
            not_knowable: not_knowable(&metrics),
            metrics,
        }
    }

    fn time(&self) -> String {
        humantime::format_rfc3339_seconds(self.now.wall).to_string()
    }

    fn cap(&self, cap: HpaCap, ceiling: Option<u32>) -> Cap {
        let mode = cap.mode.unwrap_or(self.rules.cap);
        let (mode, enforces) = match mode {
            CapMode::Advise => ("advise", false),
            CapMode::Enforce => ("enforce", true),
        };
        Cap {
            mode: mode.into(),
            observed: enforces && ceiling.is_some_and(|ceiling| cap.max_replicas <= ceiling),
            max_replicas: cap.max_replicas,
            user_max_replicas: None,
        }
    }

    fn metric(&self, standing: &MetricEvaluation<'_>) -> Derivation {
        let question = MetricQuery {
            namespace: standing.namespace,
            metric: standing.metric.name(),
            selector: standing.selector,
        };
        let resolved = resolve(&question, &self.snapshot.targets);
        let asked = resolved.map(|resolved| resolved.asked).unwrap_or_default();
        let groups: Vec<_> = asked
            .iter()
            .map(|asked| self.part(standing.selector, asked))
            .collect();
        let answer = standing.outcome.as_ref().ok();
        Derivation {
            metric: standing.metric.name().to_owned(),
            selector: standing.selector.to_string(),
            groups,
            lag: answer.and_then(|answer| Some(answer.lag?.0)),
            lag_per_replica: answer.and_then(|answer| Some(answer.wanted?.to_string())),
            ceiling: answer.and_then(|answer| answer.ceiling?.replicas.bounded()),
            desired_replicas: answer.and_then(|answer| answer.desired),
            value: answer.map(|answer| answer.value.to_string()),
            rule: answer.map(|answer| answer.rule.label().to_owned()),
            because: answer.map(because),
            refusal: standing.outcome.as_ref().err().map(ToString::to_string),
        }
    }

    fn part(&self, selector: &Selector, asked: &GroupQuery) -> GroupPart {
        let GroupQuery {
            interest, settings, ..
        } = asked;
        let threads = settings.threads();
        let mut part = GroupPart {
            cluster: interest.cluster.to_string(),
            group: interest.group.to_string(),
            members: None,
            assignor: None,
            topics: Vec::new(),
            lag: None,
            useful_parallelism: None,
            parallelism_rule: None,
            because: None,
            threads: threads.get(),
            ceiling: None,
            unknown: None,
        };
        let Some((cluster, group)) = group_of(self.snapshot, interest) else {
            part.unknown = Some("it was not read yet".into());
            return part;
        };
        let description = group.description.as_deref();
        part.members = description.map(|described| described.members.len());
        let assignor = description.and_then(|described| described.assignor.as_deref());
        part.assignor = assignor
            .or(group.remembered.assignor.as_deref())
            .map(str::to_owned);
        match series(selector, asked, cluster, group) {
            Err(refusal) => part.unknown = Some(refusal.to_string()),
            Ok(picked) => {
                let topics = picked.topics.as_slice();
                self.add_topics(&mut part, asked, cluster, group, topics);
            }
        }
        part
    }

    fn add_topics(
        &self,
        part: &mut GroupPart,
        asked: &GroupQuery,
        cluster: &ClusterSnapshot,
        group: &GroupSnapshot,
        topics: &[(&TopicName, &GroupTopic)],
    ) {
        let filter = asked.settings.partitions.as_ref();
        let mut works = Vec::new();
        let mut lag = Some(0u64);
        for (topic, read) in topics.iter().copied() {
            let usable = topic_selection::usable(read, filter, self.now, self.rules.max_staleness);
            if let Some(usable) = usable {
                works.push((topic, topic_selection::work(usable, filter)));
            }
            let shown = usable
                .or(read.latest.as_ref().ok())
                .or(read.complete.as_ref());
            let total = usable.and_then(|usable| topic_selection::total(usable, filter).ok());
            lag = lag.zip(total).map(|(sum, own)| sum.saturating_add(own.0));
            let partitions: Vec<_> = shown.map(|lag| partitions(lag, filter)).unwrap_or_default();
            part.topics.push(TopicPart {
                topic: topic.to_string(),
                read_seconds_ago: shown.map(|lag| self.now.since(&lag.read).as_secs()),
                lag: total.map(|lag| lag.0),
                lag_seconds: oldest(&partitions),
                incomplete: read.fault().map(|fault| cluster.cause(fault)),
                partitions,
                partitions_left_out: 0,
            });
        }
        part.lag = lag;
        if lag.is_none() {
            part.unknown = Some("a partition that counts is unknown".into());
            return;
        }
        let ceiling = evaluation::ceiling(asked, group, &works);
        part.useful_parallelism = ceiling.useful.limit.bounded();
        part.parallelism_rule = Some(ceiling.useful.rule.label().to_owned());
        part.because = Some(ceiling.useful.rule.to_string());
        part.ceiling = ceiling.replicas.bounded();
    }
}

fn partitions(read: &TopicLag, filter: Option<&PartitionFilter>) -> Vec<PartitionPart> {
    let counted = (0..read.lags.len()).filter(|p| filter.is_none_or(|f| f.contains(*p)));
    counted
        .map(|partition| {
            let lag = read.lags.get(partition).copied();
            let lag = lag.unwrap_or(Err(Fault::NoAnswer));
            let committed = read.committed.get(partition);
            let end = read.offsets.ends.get(partition);
            let age = read.ages.get(partition).copied().flatten();
            PartitionPart {
                partition,
                committed_offset: committed.and_then(|c| Some(c.ok()??.0)),
                log_end_offset: end.and_then(|end| Some(end.ok()?.0)),
                lag: lag.ok().map(|lag| lag.messages().0),
                counts: lag.ok().map(|lag| lag.for_scaling().0),
                lag_seconds: age.map(|age| age.duration().as_secs_f64()),
                rule: match lag {
                    Ok(lag) => lag.label().to_owned(),
                    Err(fault) => format!("unknown: {fault}"),
                },
            }
        })
        .collect()
}

/// The longest of the partitions' lags in time; `None` while one is unknown.
fn oldest(partitions: &[PartitionPart]) -> Option<f64> {
    let ages = partitions.iter().map(|partition| partition.lag_seconds);
    let ages: Option<Vec<f64>> = ages.collect();
    ages?.into_iter().reduce(f64::max)
}

/// Why a value is what it is.
fn because(answer: &MetricValue) -> String {
    let per = answer.wanted.map(|wanted| wanted.to_string());
    let per = per.as_deref().unwrap_or("unknown");
    let ceiling = answer.ceiling.and_then(|c| c.replicas.bounded());
    let ceiling = ceiling.map_or_else(|| "no".to_owned(), |ceiling| ceiling.to_string());
    match answer.rule {
        ValueRule::AsMeasured => "as it is: no rule changes it".to_owned(),
        ValueRule::Clamped => format!("cut to what the ceiling is worth: {ceiling} x {per}"),
        ValueRule::Lifted => format!(
            "what carries the HPA over its tolerance to the ceiling of {ceiling}, which its own maxReplicas holds"
        ),
        ValueRule::Even => {
            "raised to the next number of replicas that share the partitions evenly".to_owned()
        }
        ValueRule::NeverRan => {
            "one replica's worth: the group has never committed and begins at the end".to_owned()
        }
        ValueRule::Cooldown => {
            "one replica's worth: no work, and not for as long as the cooldown".to_owned()
        }
        ValueRule::Fallback => {
            "the fallback's replicas: the lag has been unknown for longer than fallback-after"
                .to_owned()
        }
    }
}

/// Whether a finding is about this HPA, or about one of its groups.
fn is_about(finding: &Finding, hpa: &HpaKey, groups: &BTreeSet<(String, String)>) -> bool {
    match &finding.subject {
        FindingSubject::Group { cluster, group } => {
            groups.contains(&(cluster.to_string(), group.to_string()))
        }
        FindingSubject::Hpa(of) => of == hpa,
    }
}

/// What Kafka itself does not tell.
fn not_knowable(metrics: &[Derivation]) -> Vec<String> {
    let parts = || metrics.iter().flat_map(|metric| &metric.groups);
    let mut all = Vec::new();
    if parts().any(|part| part.parallelism_rule.as_deref() == Some("assignor_unknown")) {
        all.push("which assignor the group's consumers use: none of them has been seen".to_owned());
    }
    let is_open = |partition: &PartitionPart| {
        matches!(&*partition.rule, "never_ran" | "from_start" | "since_seen")
    };
    let topics = || parts().flat_map(|part| &part.topics);
    if topics().any(|topic| topic.partitions.iter().any(is_open)) {
        all.push(
            "where consumers begin without a commit: only their own auto.offset.reset says; the annotation lagwise.dev/offset-reset tells lagwise"
                .to_owned(),
        );
    }
    all
}

#[cfg(test)]
mod tests;
