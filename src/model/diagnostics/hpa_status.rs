//! Where each HPA stands, in one line: what is behind, what is wanted, what bounds it, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::evaluation::metric_evaluation::{MetricEvaluation, hpa_ceilings, standings};
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::series_match::{group_of, series};
use crate::model::evaluation::{ServingPolicy, topic_selection};
use crate::model::findings::{Finding, FindingSubject};
use crate::model::hpa::selector::Selector;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::TopicLag;
use crate::model::lag::lag_age::LagAge;
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::lookup::GroupQuery;
use crate::model::targets::{HpaCap, Origin, Target};
use crate::model::units::newtypes::{Lag, Moment};
use crate::model::units::partition_filter::PartitionFilter;

/// Where one HPA stands. What is unknown is `None`, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HpaStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub hpa: String,
    /// Messages that replicas are wanted for, over everything that it reads.
    pub lag: Option<u64>,
    /// The age of the oldest of them, in milliseconds.
    pub lag_millis: Option<u64>,
    /// Whether it may be older.
    pub lag_millis_is_lower_bound: bool,
    /// The replicas that there are, as the HPA last saw them; whoever looks at the HPA itself knows.
    pub replicas: Option<u32>,
    /// The replicas that are wanted: the most over its metrics of ours.
    pub desired: Option<u32>,
    /// The most replicas that can have work.
    pub ceiling: Option<Limit>,
    /// Partitions that count, over everything that it reads.
    pub partitions: Option<u32>,
    /// What is done about the ceiling.
    pub cap: CapMode,
    /// Whether `maxReplicas` is seen to hold it.
    pub cap_observed: bool,
    /// The rule that made the value served, or why there is none.
    pub reason: String,
    /// The age of the oldest reading in it, in milliseconds.
    pub age_millis: Option<u64>,
    /// The codes of what is to be said of it and its groups.
    pub findings: Vec<String>,
}

/// Every HPA with a metric of ours, in the order of namespaces and names.
#[must_use]
pub fn statuses(snapshot: &LagSnapshot, now: &Moment, rules: &ServingPolicy) -> Vec<HpaStatus> {
    let standings = standings(&snapshot.targets, snapshot, now, rules);
    let ceilings = hpa_ceilings(&standings);
    let mut all: BTreeMap<(&str, &str), Gathered<'_>> = BTreeMap::new();
    for standing in &standings {
        let key = (standing.namespace, standing.hpa);
        all.entry(key).or_default().standings.push(standing);
    }
    for target in &snapshot.targets.all {
        if let Origin::Hpa(hpa) = &target.origin {
            let gathered = all.entry((&hpa.namespace, &hpa.name)).or_default();
            gathered.targets.push(target);
        }
    }
    for finding in snapshot.all_findings() {
        match &finding.subject {
            // An HPA whose only metric cannot be used has no target, and is one all the same.
            FindingSubject::Hpa(hpa) => {
                let key = (&*hpa.namespace, &*hpa.name);
                all.entry(key).or_default().findings.push(finding);
            }
            FindingSubject::Group { cluster, group } => {
                for gathered in all.values_mut() {
                    let is_of =
                        |t: &&Target| t.interest.cluster == *cluster && t.interest.group == *group;
                    if gathered.targets.iter().any(is_of) {
                        gathered.findings.push(finding);
                    }
                }
            }
        }
    }
    let status = |(key, gathered): ((&str, &str), Gathered<'_>)| {
        let ceiling = ceilings.get(&key).copied();
        gathered.status(key, ceiling, snapshot, now, rules)
    };
    all.into_iter().map(status).collect()
}

/// What there is about one HPA.
#[derive(Default)]
struct Gathered<'a> {
    standings: Vec<&'a MetricEvaluation<'a>>,
    targets: Vec<&'a Target>,
    findings: Vec<&'a Finding>,
}

impl Gathered<'_> {
    fn status(
        &self,
        (namespace, hpa): (&str, &str),
        ceiling: Option<Limit>,
        snapshot: &LagSnapshot,
        now: &Moment,
        rules: &ServingPolicy,
    ) -> HpaStatus {
        let measured = self.measured(snapshot, now, rules);
        let answers: Option<Vec<_>> = self
            .standings
            .iter()
            .map(|s| s.outcome.as_ref().ok())
            .collect();
        let answers = answers.filter(|answers| !answers.is_empty());
        let desired = answers.as_ref().and_then(|answers| {
            let wanted: Option<Vec<u32>> = answers.iter().map(|answer| answer.desired).collect();
            wanted?.into_iter().max()
        });
        let oldest = answers
            .iter()
            .flatten()
            .map(|answer| now.since(&answer.read))
            .max();
        let cap = self.targets.iter().find_map(|target| target.cap);
        let mode = cap.and_then(|cap| cap.mode).unwrap_or(rules.cap);
        let age = measured.as_ref().and_then(|m| m.age);
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
            replicas: None,
            desired,
            ceiling,
            partitions: measured.as_ref().map(|m| m.partitions),
            cap: mode,
            cap_observed: mode == CapMode::Enforce && is_observed(cap, ceiling),
            reason: self.reason(),
            age_millis: oldest.map(millis),
            findings,
        }
    }

    /// The first refusal; the rule of the metric that wants most where there is none.
    fn reason(&self) -> String {
        let mut refusals = self
            .standings
            .iter()
            .filter_map(|s| s.outcome.as_ref().err());
        if let Some(refusal) = refusals.next() {
            return refusal.to_string();
        }
        let answers = self
            .standings
            .iter()
            .filter_map(|s| s.outcome.as_ref().ok());
        if let Some(most) = answers.max_by_key(|answer| answer.desired) {
            return most.rule.label().to_owned();
        }
        let worst = self.findings.iter().max_by_key(|f| f.code.severity());
        worst.map(ToString::to_string).unwrap_or_default()
    }

    /// All that it reads, each once, however many of its metrics ask for it; `None` while any of it is
    /// unknown.
    fn measured(
        &self,
        snapshot: &LagSnapshot,
        now: &Moment,
        rules: &ServingPolicy,
    ) -> Option<Measured> {
        let mut seen: Vec<(&Arc<_>, Option<&PartitionFilter>)> = Vec::new();
        let mut all: Option<Measured> = None;
        for target in &self.targets {
            let filter = target.settings.partitions.as_ref();
            if seen.contains(&(&target.interest, filter)) {
                continue;
            }
            seen.push((&target.interest, filter));
            let selector = target.selector.as_ref()?;
            let own = measure(target, selector, snapshot, now, rules)?;
            all = Some(match all {
                Some(all) => all.and(&own),
                None => own,
            });
        }
        all
    }
}

/// Whether the HPA's own maximum is seen to hold its ceiling.
fn is_observed(cap: Option<HpaCap>, ceiling: Option<Limit>) -> bool {
    let most = ceiling.map(|limit| limit.bounded().unwrap_or(u32::MAX));
    cap.zip(most)
        .is_some_and(|(cap, most)| cap.max_replicas <= most)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What an HPA reads.
struct Measured {
    lag: Lag,
    /// `None` where it is not known of some partition.
    age: Option<LagAge>,
    partitions: u32,
}

impl Measured {
    fn and(&self, other: &Self) -> Self {
        Self {
            lag: self.lag.plus(other.lag),
            age: self.age.zip(other.age).map(|(a, b)| a.or_older(b)),
            partitions: self.partitions.saturating_add(other.partitions),
        }
    }
}

fn measure(
    target: &Target,
    selector: &Selector,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
) -> Option<Measured> {
    let (cluster, group) = group_of(snapshot, &target.interest)?;
    let asked = GroupQuery {
        interest: Arc::clone(&target.interest),
        label: target.label.clone(),
        settings: Arc::clone(&target.settings),
    };
    let filter = target.settings.partitions.as_ref();
    let picked = series(selector, &asked, cluster, group).ok()?;
    let mut all = Measured {
        lag: Lag::default(),
        age: Some(LagAge::exactly(0)),
        partitions: 0,
    };
    for (_, topic) in picked.topics {
        let lag = topic_selection::usable(topic, filter, now, rules.max_staleness)?;
        all = all.and(&Measured {
            lag: topic_selection::total(lag, filter).ok()?,
            age: age(lag, filter),
            partitions: topic_selection::work(lag, filter).partitions,
        });
    }
    Some(all)
}

/// The age of the oldest message that is behind on the partitions that count.
fn age(lag: &TopicLag, filter: Option<&PartitionFilter>) -> Option<LagAge> {
    let all = lag.ages.iter().zip(&lag.lags).enumerate();
    let mut counted = all.filter(|(partition, _)| filter.is_none_or(|f| f.contains(*partition)));
    counted.try_fold(LagAge::exactly(0), |oldest, (_, (age, lag))| match lag {
        // Who has never run has nothing behind, and no age of it.
        Ok(PartitionLag::NeverRan) => Some(oldest),
        _ => Some(oldest.or_older((*age)?)),
    })
}

#[cfg(test)]
mod tests;
