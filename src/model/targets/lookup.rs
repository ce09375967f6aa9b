//! Resolves a query to the groups it is about. A query does not say which HPA asks, so its target is found
//! by its selector.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat_n;
use std::sync::Arc;

use super::metric_query::MetricQuery;
use super::no_value_reason::NoValueReason;
use super::{HpaCap, Target, Targets, UnpickedCluster, WatchKey, groups_of, topics_of};
use crate::model::hpa::facts::MetricTarget;
use crate::model::hpa::label;
use crate::model::settings::Settings;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// A group that a query is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupQuery {
    /// What is to be read.
    pub key: Arc<WatchKey>,
    /// What the selector calls the group.
    pub label: String,
    /// What is set for it.
    pub settings: Arc<Settings>,
}

impl From<&Target> for GroupQuery {
    fn from(target: &Target) -> Self {
        Self {
            key: Arc::clone(&target.interest),
            label: target.label.clone(),
            settings: Arc::clone(&target.settings),
        }
    }
}

/// What a query is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedQuery {
    /// What is to be served.
    pub metric: Metric,
    /// The groups, whose lag is summed.
    pub groups: Vec<Arc<GroupQuery>>,
    /// The lag wanted per replica, or in all, by the HPA that asks or else the configuration.
    pub wanted: Option<MetricTarget>,
    /// The HPAs that ask this query and may be scaled to zero. None of them is served a zero before all
    /// of them have had no demand for their cooldown.
    pub may_sleep: Vec<HpaKey>,
    /// How the HPAs that ask this query are bounded by their own maximum.
    pub caps: Vec<HpaCap>,
}

impl ResolvedQuery {
    /// What has to be read to answer.
    pub fn watch_keys(&self) -> impl Iterator<Item = &WatchKey> {
        self.groups.iter().map(|group| &*group.key)
    }
}

impl<'a> MetricQuery<'a> {
    /// The query by which the HPA of a target asks for it; `None` for a target of the configuration.
    #[must_use]
    pub fn from_target(target: &'a Target) -> Option<Self> {
        let HpaKey { namespace, .. } = target.hpa()?;
        Some(Self {
            namespace,
            metric: target.metric.name(),
            selector: target.selector.as_ref()?,
        })
    }
}

/// Finds out what a query is about.
///
/// # Errors
/// Why no reading answers it.
pub fn resolve(query: &MetricQuery<'_>, targets: &Targets) -> Result<ResolvedQuery, NoValueReason> {
    let metric = Metric::from_name(query.metric).ok_or_else(|| NoValueReason::UnknownMetric {
        metric: query.metric.to_owned(),
    })?;
    let found = match by_hpa(query, metric, targets)? {
        Some(found) => found,
        None => by_selector(query, metric, targets)?,
    };
    if metric == Metric::DesiredReplicas && found.wanted.is_none() {
        if targets.hpas_unlisted {
            return Err(NoValueReason::HpasUnlisted);
        }
        return Err(NoValueReason::NoLagPerReplica {
            selector: query.selector.to_string(),
        });
    }
    Ok(found)
}

/// Resolves a query that no HPA asks, or only one that is not known yet.
fn by_selector(
    query: &MetricQuery<'_>,
    metric: Metric,
    targets: &Targets,
) -> Result<ResolvedQuery, NoValueReason> {
    let groups = if query.selector.mentions(label::TARGET) {
        by_target(query, targets)?
    } else {
        by_group(query, targets)?
    };
    Ok(ResolvedQuery {
        metric,
        groups,
        wanted: configured_target(query, targets),
        may_sleep: Vec::new(),
        caps: Vec::new(),
    })
}

fn configured_target(query: &MetricQuery<'_>, targets: &Targets) -> Option<MetricTarget> {
    let mut configured = targets.configured(query.namespace, query.selector);
    configured.find_map(|target| target.wanted)
}

/// Resolves a query to the metric of the HPA that asks it. HPAs that ask the same query and want
/// different things are told apart by the label `hpa` alone.
fn by_hpa(
    query: &MetricQuery<'_>,
    metric: Metric,
    targets: &Targets,
) -> Result<Option<ResolvedQuery>, NoValueReason> {
    let named = query.selector.values(label::HPA);
    let mut metrics: BTreeMap<(&Arc<str>, usize), ResolvedQuery> = BTreeMap::new();
    let (mut may_sleep, mut caps) = (Vec::new(), Vec::new());
    for target in targets.selecting(query.namespace, metric, query.selector) {
        let Some(hpa) = target.hpa() else {
            continue;
        };
        if named.is_none_or(|names| names.iter().any(|n| **n == *hpa.name)) {
            caps.extend(target.cap);
            if target.settings.scale_to_zero() {
                may_sleep.push(hpa.clone());
            }
            let of_hpa = metrics
                .entry((&hpa.name, target.index))
                .or_insert(ResolvedQuery {
                    metric,
                    groups: Vec::new(),
                    wanted: target.wanted,
                    may_sleep: Vec::new(),
                    caps: Vec::new(),
                });
            of_hpa.groups.push(Arc::new(GroupQuery::from(target)));
        }
    }
    // An HPA whose target cannot be read wants nothing that another could contradict.
    if metrics.values().any(|of_hpa| of_hpa.wanted.is_some()) {
        metrics.retain(|_, of_hpa| of_hpa.wanted.is_some());
    }
    let mut all = metrics.values();
    let first = all.next();
    if all.any(|other| Some(other) != first) {
        let hpas: BTreeSet<&str> = metrics.keys().map(|(name, _)| &***name).collect();
        return Err(NoValueReason::ConflictingTargets {
            hpas: hpas.into_iter().collect::<Vec<_>>().join(", "),
            namespace: query.namespace.to_owned(),
            selector: query.selector.to_string(),
        });
    }
    let mut found = first.cloned();
    if let Some(found) = &mut found {
        found.may_sleep = may_sleep;
        found.caps = caps;
        if found.wanted.is_none() {
            found.wanted = configured_target(query, targets);
        }
    }
    Ok(found)
}

fn by_target(
    query: &MetricQuery<'_>,
    targets: &Targets,
) -> Result<Vec<Arc<GroupQuery>>, NoValueReason> {
    let configured = targets.configured(query.namespace, query.selector);
    let found: Vec<_> = configured.map(|t| Arc::new(GroupQuery::from(t))).collect();
    if found.is_empty() {
        return Err(NoValueReason::UnknownTarget {
            selector: query.selector.to_string(),
            namespace: query.namespace.to_owned(),
        });
    }
    Ok(found)
}

fn by_group(
    query: &MetricQuery<'_>,
    targets: &Targets,
) -> Result<Vec<Arc<GroupQuery>>, NoValueReason> {
    let selector = query.selector;
    let groups = groups_of(selector).ok_or_else(|| NoValueReason::NoGroup {
        selector: selector.to_string(),
    })?;
    let clusters = targets
        .pick_clusters(selector)
        .map_err(|unpicked| match unpicked {
            UnpickedCluster::Unknown(cluster) => NoValueReason::UnknownCluster {
                cluster,
                known: list(&targets.clusters),
            },
            UnpickedCluster::Ambiguous => NoValueReason::AmbiguousCluster {
                known: list(&targets.clusters),
            },
        })?;
    let topics = topics_of(selector);
    let pairs = clusters
        .iter()
        .flat_map(|cluster| groups.iter().map(move |group| (cluster, group)));
    let count = clusters.len().saturating_mul(groups.len());
    let query = |((cluster, group), topics): ((&ClusterName, &String), _)| {
        Arc::new(GroupQuery {
            key: Arc::new(WatchKey {
                cluster: cluster.clone(),
                group: GroupId::from(group.as_str()),
                topics,
            }),
            label: group.clone(),
            settings: Settings::unset(),
        })
    };
    Ok(pairs.zip(repeat_n(topics, count)).map(query).collect())
}

fn list(clusters: &[ClusterName]) -> String {
    let names: Vec<_> = clusters.iter().map(ClusterName::as_str).collect();
    names.join(", ")
}
