//! Resolves an external-metrics query to consumer groups. The API does not say which HPA sent the query, so the HPA is
//! found by namespace, metric and selector.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat_n;
use std::sync::Arc;

use super::metric_query::MetricQuery;
use super::no_value_reason::NoValueReason;
use super::selector_size::check_size;
use super::{
    ClusterSelectionError, HpaCap, Target, Targets, WatchKey, group_names, selected_topics,
};
use crate::model::hpa::facts::MetricTarget;
use crate::model::hpa::label;
use crate::model::settings::Settings;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::model::units::short_list::short_list;

/// A group that a query is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupQuery {
    /// Kafka cluster, group and topics.
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

/// Groups and settings that a query resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedQuery {
    /// The metric served.
    pub metric: Metric,
    /// The groups, whose lag is summed.
    pub groups: Vec<Arc<GroupQuery>>,
    /// Metric target of the HPA that sends the query (lag per replica or total lag), or else the configured one.
    pub metric_target: Option<MetricTarget>,
    /// HPAs that send this query and have scale to zero enabled. They share one value, so 0 is served only after every
    /// one of them has had no demand for its cooldown.
    pub scale_to_zero_hpas: Vec<HpaKey>,
    /// Caps of the HPAs that send this query.
    pub caps: Vec<HpaCap>,
}

impl ResolvedQuery {
    /// Watch keys of the groups that the query sums.
    pub fn watch_keys(&self) -> impl Iterator<Item = &WatchKey> {
        self.groups.iter().map(|group| &*group.key)
    }
}

impl<'a> MetricQuery<'a> {
    /// The query that the HPA of a target sends; `None` for a configured target.
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
    let found = match resolve_by_hpa(query, metric, targets)? {
        Some(found) => found,
        None => match targets.denial_reason(query.namespace, metric, query.selector) {
            Some(reason) => return Err(NoValueReason::Denied(reason.clone())),
            None => resolve_by_selector(query, metric, targets)?,
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

/// Resolves a query that matches no known HPA: an ad hoc request, or one of an HPA that the watch has not shown yet.
fn resolve_by_selector(
    query: &MetricQuery<'_>,
    metric: Metric,
    targets: &Targets,
) -> Result<ResolvedQuery, NoValueReason> {
    let groups = if query.selector.mentions(label::TARGET) {
        resolve_by_target(query, targets)?
    } else {
        resolve_by_group(query, targets)?
    };
    Ok(ResolvedQuery {
        metric,
        groups,
        metric_target: configured_target(query, targets),
        scale_to_zero_hpas: Vec::new(),
        caps: Vec::new(),
    })
}

fn configured_target(query: &MetricQuery<'_>, targets: &Targets) -> Option<MetricTarget> {
    let mut configured = targets.configured(query.namespace, query.selector);
    configured.find_map(|target| target.metric_target)
}

/// Resolves a query to the metric of the HPA that sends it. If several HPAs send the same query with different metric
/// targets or settings, the result is an error unless the label `hpa` names one.
fn resolve_by_hpa(
    query: &MetricQuery<'_>,
    metric: Metric,
    targets: &Targets,
) -> Result<Option<ResolvedQuery>, NoValueReason> {
    let named = query.selector.values(label::HPA);
    let mut metrics: BTreeMap<(&Arc<str>, usize), ResolvedQuery> = BTreeMap::new();
    let (mut scale_to_zero_hpas, mut caps) = (Vec::new(), Vec::new());
    let mut last = None;
    for target in targets.selecting(query.namespace, metric, query.selector) {
        let Some(hpa) = target.hpa() else {
            continue;
        };
        if named.is_none_or(|names| names.iter().any(|n| **n == *hpa.name)) {
            // An HPA has a target for each group of each of its metrics, one after the other.
            if last.replace(hpa) != Some(hpa) {
                caps.extend(target.cap);
                if target.settings.scale_to_zero() {
                    scale_to_zero_hpas.push(hpa.clone());
                }
            }
            let of_hpa = metrics
                .entry((&hpa.name, target.index))
                .or_insert(ResolvedQuery {
                    metric,
                    groups: Vec::new(),
                    metric_target: target.metric_target,
                    scale_to_zero_hpas: Vec::new(),
                    caps: Vec::new(),
                });
            of_hpa.groups.push(Arc::new(GroupQuery::from(&**target)));
        }
    }
    // Ignore HPAs whose metric target could not be parsed if another HPA has one: they cannot conflict.
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
            hpas: short_list(hpas.into_iter().map(str::to_owned)),
            namespace: query.namespace.to_owned(),
            selector: query.selector.to_string(),
        });
    }
    let mut found = first.cloned();
    if let Some(found) = &mut found {
        found.scale_to_zero_hpas = scale_to_zero_hpas;
        found.caps = caps;
        if found.metric_target.is_none() {
            found.metric_target = configured_target(query, targets);
        }
    }
    Ok(found)
}

fn resolve_by_target(
    query: &MetricQuery<'_>,
    targets: &Targets,
) -> Result<Vec<Arc<GroupQuery>>, NoValueReason> {
    check_size(query.selector, 1).map_err(NoValueReason::SelectorTooLarge)?;
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

fn resolve_by_group(
    query: &MetricQuery<'_>,
    targets: &Targets,
) -> Result<Vec<Arc<GroupQuery>>, NoValueReason> {
    let selector = query.selector;
    let groups = group_names(selector).ok_or_else(|| NoValueReason::NoGroup {
        selector: selector.to_string(),
    })?;
    let clusters = targets
        .select_clusters(selector)
        .map_err(|error| match error {
            ClusterSelectionError::Unknown(cluster) => NoValueReason::UnknownCluster {
                cluster,
                known: list(&targets.clusters),
            },
            ClusterSelectionError::Ambiguous => NoValueReason::AmbiguousCluster {
                known: list(&targets.clusters),
            },
        })?;
    check_size(selector, clusters.len()).map_err(NoValueReason::SelectorTooLarge)?;
    let topics = selected_topics(selector);
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
