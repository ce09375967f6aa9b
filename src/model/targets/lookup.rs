//! What a request is about: a request does not say which HPA asks, so its target is found by the
//! selector.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat_n;
use std::sync::Arc;

use super::metric_query::MetricQuery;
use super::no_value_reason::NoValueReason;
use super::{HpaCap, Origin, Target, Targets, UnpickedCluster, WatchKey, groups_of, topics_of};
use crate::model::hpa::facts::MetricTarget;
use crate::model::hpa::label;
use crate::model::settings::Settings;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// A group that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupQuery {
    /// What is to be read.
    pub interest: Arc<WatchKey>,
    /// What the selector calls the group.
    pub label: String,
    /// What is set for it.
    pub settings: Arc<Settings>,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What is to be served.
    pub metric: Metric,
    /// The groups, whose lag is summed.
    pub asked: Vec<GroupQuery>,
    /// The lag wanted per replica, or in all, by the HPA that asks or else the configuration.
    pub wanted: Option<MetricTarget>,
    /// The HPAs that ask so and may be scaled to zero: none is served nothing before all have been
    /// without work for long enough.
    pub sleepers: Vec<HpaKey>,
    /// How the HPAs that ask so are bounded themselves.
    pub caps: Vec<HpaCap>,
}

impl Resolved {
    /// What has to be read to answer.
    pub fn interests(&self) -> impl Iterator<Item = &WatchKey> {
        self.asked.iter().map(|asked| &*asked.interest)
    }
}

impl<'a> MetricQuery<'a> {
    /// What the HPA of a target asks for it, with the HPA's namespace and name; `None` for a target from
    /// the configuration, which asks nothing.
    #[must_use]
    pub fn of(target: &'a Target) -> Option<(&'a Arc<str>, &'a Arc<str>, Self)> {
        let (Origin::Hpa(HpaKey { namespace, name }), Some(selector)) =
            (&target.origin, &target.selector)
        else {
            return None;
        };
        let question = Self {
            namespace,
            metric: target.metric.name(),
            selector,
        };
        Some((namespace, name, question))
    }
}

/// Finds out what a request is about.
///
/// # Errors
/// A question that no reading answers.
pub fn resolve(question: &MetricQuery<'_>, targets: &Targets) -> Result<Resolved, NoValueReason> {
    let metric =
        Metric::from_name(question.metric).ok_or_else(|| NoValueReason::UnknownMetric {
            metric: question.metric.to_owned(),
        })?;
    let found = match by_hpa(question, metric, targets)? {
        Some(found) => found,
        None => by_selector(question, metric, targets)?,
    };
    if metric == Metric::DesiredReplicas && found.wanted.is_none() {
        if targets.hpas_unlisted {
            return Err(NoValueReason::HpasUnlisted);
        }
        return Err(NoValueReason::NoLagPerReplica {
            selector: question.selector.to_string(),
        });
    }
    Ok(found)
}

/// What nobody has asked for so far: no HPA, or one that is not known yet.
fn by_selector(
    question: &MetricQuery<'_>,
    metric: Metric,
    targets: &Targets,
) -> Result<Resolved, NoValueReason> {
    let asked = if question.selector.mentions(label::TARGET) {
        by_target(question, targets)?
    } else {
        by_group(question, targets)?
    };
    let mut configured = targets.configured(question.namespace, question.selector);
    Ok(Resolved {
        metric,
        asked,
        wanted: configured.find_map(|target| target.wanted),
        sleepers: Vec::new(),
        caps: Vec::new(),
    })
}

fn asked(target: &Target) -> GroupQuery {
    GroupQuery {
        interest: Arc::clone(&target.interest),
        label: target.label.clone(),
        settings: Arc::clone(&target.settings),
    }
}

/// The metric of the HPA that asks so. Two that ask alike and want different things are told apart
/// by the label `hpa` alone.
fn by_hpa(
    question: &MetricQuery<'_>,
    asks: Metric,
    targets: &Targets,
) -> Result<Option<Resolved>, NoValueReason> {
    let named = question.selector.values(label::HPA);
    let mut metrics: BTreeMap<(&Arc<str>, usize), Resolved> = BTreeMap::new();
    let (mut sleepers, mut caps) = (Vec::new(), Vec::new());
    for target in targets.selecting(question.namespace, asks, question.selector) {
        let Origin::Hpa(hpa) = &target.origin else {
            continue;
        };
        if named.is_none_or(|names| names.iter().any(|n| **n == *hpa.name)) {
            caps.extend(target.cap);
            if target.settings.scale_to_zero() {
                sleepers.push(hpa.clone());
            }
            let metric = metrics
                .entry((&hpa.name, target.index))
                .or_insert(Resolved {
                    metric: asks,
                    asked: Vec::new(),
                    wanted: target.wanted,
                    sleepers: Vec::new(),
                    caps: Vec::new(),
                });
            metric.asked.push(asked(target));
        }
    }
    // An HPA whose target cannot be read wants nothing that another could contradict.
    if metrics.values().any(|metric| metric.wanted.is_some()) {
        metrics.retain(|_, metric| metric.wanted.is_some());
    }
    let mut all = metrics.values();
    let first = all.next();
    if all.any(|other| Some(other) != first) {
        let hpas: BTreeSet<&str> = metrics.keys().map(|(name, _)| &***name).collect();
        return Err(NoValueReason::ConflictingTargets {
            hpas: hpas.into_iter().collect::<Vec<_>>().join(", "),
            namespace: question.namespace.to_owned(),
            selector: question.selector.to_string(),
        });
    }
    let mut found = first.cloned();
    if let Some(found) = &mut found {
        found.sleepers = sleepers;
        found.caps = caps;
        if found.wanted.is_none() {
            let mut configured = targets.configured(question.namespace, question.selector);
            found.wanted = configured.find_map(|target| target.wanted);
        }
    }
    Ok(found)
}

fn by_target(
    question: &MetricQuery<'_>,
    targets: &Targets,
) -> Result<Vec<GroupQuery>, NoValueReason> {
    let configured = targets.configured(question.namespace, question.selector);
    let found: Vec<_> = configured.map(asked).collect();
    if found.is_empty() {
        return Err(NoValueReason::UnknownTarget {
            selector: question.selector.to_string(),
            namespace: question.namespace.to_owned(),
        });
    }
    Ok(found)
}

fn by_group(
    question: &MetricQuery<'_>,
    targets: &Targets,
) -> Result<Vec<GroupQuery>, NoValueReason> {
    let selector = question.selector;
    let groups = groups_of(selector).ok_or_else(|| NoValueReason::NoGroup {
        selector: selector.to_string(),
    })?;
    let clusters = targets
        .pick_clusters(selector)
        .map_err(|unpicked| match unpicked {
            UnpickedCluster::Unknown(cluster) => NoValueReason::UnknownCluster {
                cluster,
                known: listed(&targets.clusters),
            },
            UnpickedCluster::Ambiguous => NoValueReason::AmbiguousCluster {
                known: listed(&targets.clusters),
            },
        })?;
    let topics = topics_of(selector);
    let pairs = clusters
        .iter()
        .flat_map(|cluster| groups.iter().map(move |group| (cluster, group)));
    let count = clusters.len().saturating_mul(groups.len());
    Ok(pairs
        .zip(repeat_n(topics, count))
        .map(|((cluster, group), topics)| GroupQuery {
            interest: Arc::new(WatchKey {
                cluster: cluster.clone(),
                group: GroupId::from(group.as_str()),
                topics,
            }),
            label: group.clone(),
            settings: Settings::unset(),
        })
        .collect())
}

fn listed(clusters: &[ClusterName]) -> String {
    let names: Vec<_> = clusters.iter().map(ClusterName::as_str).collect();
    names.join(", ")
}
