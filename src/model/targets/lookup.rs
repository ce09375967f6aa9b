//! Resolves a query to the groups it is about. A query does not say which HPA asks, so its target is found
//! by its selector.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat_n;
use std::sync::Arc;

use super::metric_query::MetricQuery;
use super::no_value_reason::NoValueReason;
use super::{HpaCap, Target, Targets, UnpickedCluster, WatchKey, group_names, pinned_topics};
use crate::model::hpa::facts::MetricTarget;
use crate::model::hpa::label;
use crate::model::settings::Settings;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// A group that a query is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupQuery {
    /// What is read.
    pub key: Arc<WatchKey>,
    /// The selector's name for the group.
    pub label: String,
    pub settings: Arc<Settings>,
}

impl From<&Target> for GroupQuery {
    fn from(target: &Target) -> Self {
        Self {
            key: Arc::clone(&target.key),
            label: target.label.clone(),
            settings: Arc::clone(&target.settings),
        }
    }
}

/// The groups and settings that a query comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedQuery {
    /// The metric served.
    pub metric: Metric,
    /// The groups, whose lag is summed.
    pub groups: Vec<Arc<GroupQuery>>,
    /// Lag per replica, or in all, of the HPA that asks or else of the configuration.
    pub metric_target: Option<MetricTarget>,
    /// The HPAs that ask this query and may be scaled to zero. None of them is served a zero before all
    /// of them have had no demand for their cooldown.
    pub may_sleep: Vec<HpaKey>,
    /// The bounds that the HPAs that ask this query set for themselves.
    pub caps: Vec<HpaCap>,
}

impl ResolvedQuery {
    /// The keys whose readings answer the query.
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

/// Finds the groups that a query is about.
///
/// # Errors
/// Why no reading can answer it.
pub fn resolve(query: &MetricQuery<'_>, targets: &Targets) -> Result<ResolvedQuery, NoValueReason> {
    let metric = Metric::from_name(query.metric).ok_or_else(|| NoValueReason::UnknownMetric {
        metric: query.metric.to_owned(),
    })?;
    let found = match by_hpa(query, metric, targets)? {
        Some(found) => found,
        None => match targets.why_barred(query.namespace, metric, query.selector) {
            Some(reason) => return Err(NoValueReason::NotAllowed(reason.clone())),
            None => by_selector(query, metric, targets)?,
        },
    };
    if metric == Metric::DesiredReplicas && found.metric_target.is_none() {
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
        metric_target: configured_target(query, targets),
        may_sleep: Vec::new(),
        caps: Vec::new(),
    })
}

fn configured_target(query: &MetricQuery<'_>, targets: &Targets) -> Option<MetricTarget> {
    let mut configured = targets.configured(query.namespace, query.selector);
    configured.find_map(|target| target.metric_target)
}

/// Resolves a query to the metric of the HPA that asks it. Only the label `hpa` tells HPAs apart that ask the same
/// query with different metric targets or settings.
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
                    metric_target: target.metric_target,
                    may_sleep: Vec::new(),
                    caps: Vec::new(),
                });
            of_hpa.groups.push(Arc::new(GroupQuery::from(&**target)));
        }
    }
    // An HPA whose metric target is unreadable has none that could contradict another's.
    if metrics
        .values()
        .any(|of_hpa| of_hpa.metric_target.is_some())
    {
        metrics.retain(|_, of_hpa| of_hpa.metric_target.is_some());
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
        if found.metric_target.is_none() {
            found.metric_target = configured_target(query, targets);
        }
    }
    Ok(found)
}

fn by_target(
    query: &MetricQuery<'_>,
    targets: &Targets,
) -> Result<Vec<Arc<GroupQuery>>, NoValueReason> {
    let configured = targets.configured(query.namespace, query.selector);
    let found: Vec<_> = configured
        .map(|t| Arc::new(GroupQuery::from(&**t)))
        .collect();
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
    let groups = group_names(selector).ok_or_else(|| NoValueReason::NoGroup {
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
    let topics = pinned_topics(selector);
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
