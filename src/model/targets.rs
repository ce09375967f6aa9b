//! Targets: the consumer groups whose lag HPAs, the configuration or requests need.
//!
//! [`Targets`] is immutable. A new version shares what did not change with the version before, so that one changed HPA
//! among thousands costs little. Comparing an index of two versions finds what a change affects.

mod admission;
pub mod budgets;
mod builder;
pub mod denial_reason;
pub mod fair_share;
pub mod group_targets;
pub mod lookup;
pub mod metric_query;
pub mod no_value_reason;
pub mod selector_size;
mod target;
pub mod tenancy;
mod unrecognized;
mod update;
mod watch_key;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::admission::Admission;
use self::budgets::{BudgetExceeded, Budgets, count_exceeded};
use self::denial_reason::DenialReason;
use self::group_targets::GroupTargets;
use self::tenancy::Tenancy;
use super::findings::Finding;
use super::hpa::facts::HpaMap;
use super::hpa::label;
use super::hpa::selector::Selector;
use super::settings::GroupSettings;
use super::units::hpa_key::HpaKey;
use super::units::lag_thresholds::LagThresholds;
use super::units::metric::Metric;
use super::units::newtypes::{ClusterName, GroupId, Moment, TopicName};
use super::units::persistent_map::PersistentMap;
use crate::model::hpa::write_scopes::WriteScopes;

pub use self::target::{
    ConfiguredTarget, DeniedQuery, HpaCap, HpaTargets, Origin, QueryHash, Target, TargetOptions,
};
pub use self::watch_key::WatchKey;

/// A consumer group and its cluster.
pub type GroupKey = (ClusterName, GroupId);

/// All targets, with indexes by HPA, by query and by consumer group.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// The configured clusters, in the configuration's order.
    pub clusters: Vec<ClusterName>,
    /// Whether the HPAs have not been listed yet, so that targets may be missing.
    pub hpas_unlisted: bool,
    /// Lag thresholds for targets that do not set their own.
    thresholds: LagThresholds,
    /// Settings that belong to a group, for groups whose targets do not set them.
    group_defaults: Arc<GroupSettings>,
    /// Groups and topics that each namespace may use. HPAs on others get no target.
    tenancy: Arc<Tenancy>,
    writes: Arc<WriteScopes>,
    /// The HPAs for which the budgets suffice.
    admission: Admission,
    configured: Arc<[Arc<Target>]>,
    /// Keys of requests that no HPA uses.
    ad_hoc: Arc<BTreeSet<WatchKey>>,
    /// The HPAs as the API server has them, also those without a lagwise metric.
    facts: HpaMap,
    /// The HPAs that have targets, or would if nothing were wrong with them.
    hpas: PersistentMap<HpaKey, Arc<HpaTargets>>,
    /// Targets of HPAs, by the query that the HPA controller sends for the metric.
    by_query: PersistentMap<QueryHash, Arc<[Arc<Target>]>>,
    /// Why queries of HPAs without a target are refused, by HPA.
    denied: PersistentMap<QueryHash, Arc<BTreeMap<HpaKey, DenialReason>>>,
    groups: PersistentMap<GroupKey, Arc<GroupTargets>>,
    findings: PersistentMap<Arc<Finding>, ()>,
}

impl Targets {
    /// All targets: first the configured ones, then those of HPAs by namespace, name and metric.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.all_configured().chain(self.of_hpas())
    }

    /// The configured targets, in the configuration's order.
    pub fn all_configured(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.configured.iter()
    }

    /// The targets of all HPAs, by namespace, name and metric.
    pub fn of_hpas(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.hpas.values().flat_map(|hpa| &hpa.targets)
    }

    /// The targets of one HPA, in the order of its metrics.
    #[must_use]
    pub fn of_hpa(&self, hpa: &HpaKey) -> &[Arc<Target>] {
        self.hpas.get(hpa).map_or(&[], |hpa| &hpa.targets)
    }

    /// Targets and refused queries of one HPA; `None` if it has neither.
    #[must_use]
    pub fn hpa_targets(&self, hpa: &HpaKey) -> Option<&Arc<HpaTargets>> {
        self.hpas.get(hpa)
    }

    /// Lag thresholds for targets that do not set their own.
    #[must_use]
    pub fn thresholds(&self) -> LagThresholds {
        self.thresholds
    }

    /// The budgets of HPAs.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        self.admission.budgets()
    }

    /// The budgets that are exceeded, each with the number of HPAs that are not read for that reason.
    #[must_use]
    pub fn exceeded_budgets(&self) -> BTreeMap<BudgetExceeded, usize> {
        let refused = self.admission.refused().values();
        count_exceeded(refused.map(|refusal| refusal.reason))
    }

    /// Whether tenancy allows a namespace to read this key.
    #[must_use]
    pub fn may_read(&self, namespace: &str, key: &WatchKey) -> bool {
        self.tenancy.check(namespace, [key]).is_ok()
    }

    /// The HPAs as the API server has them, also those without a lagwise metric.
    #[must_use]
    pub fn facts(&self) -> &HpaMap {
        &self.facts
    }

    /// The configured targets that a selector names and that `namespace` may select.
    pub fn configured<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a Arc<Target>> {
        let names = selector.values(label::TARGET).unwrap_or(&[]);
        self.all_configured()
            .filter(move |target| match &target.origin {
                Origin::Config { name, namespaces } => {
                    names.iter().any(|n| **n == **name)
                        && (namespaces.is_empty() || namespaces.iter().any(|n| n == namespace))
                }
                Origin::Hpa(_) => false,
            })
    }

    /// The targets that answer a query of `namespace` for this metric with this selector.
    pub fn selecting<'a>(
        &'a self,
        namespace: &'a str,
        metric: Metric,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a Arc<Target>> {
        let hash = QueryHash::new(namespace, metric, selector);
        let targets = self.by_query.get(&hash).into_iter();
        let targets = targets.flat_map(|targets| targets.iter());
        targets.filter(move |target| target.answers(namespace, metric, selector))
    }

    /// Why a query of `namespace` is refused, if one of its HPAs sends it and has no target for that reason.
    #[must_use]
    pub fn denial_reason(
        &self,
        namespace: &str,
        metric: Metric,
        selector: &Selector,
    ) -> Option<&DenialReason> {
        let denied = self
            .denied
            .get(&QueryHash::new(namespace, metric, selector))?;
        // Another namespace may have a query of the same hash. Within a namespace a collision only refuses a request.
        let mut reasons = denied
            .iter()
            .filter(|(hpa, _)| *hpa.namespace == *namespace);
        reasons.next().map(|(_, reason)| reason)
    }

    /// The targets of HPAs, by the query that the HPA controller sends for the metric.
    #[must_use]
    pub fn by_query(&self) -> &PersistentMap<QueryHash, Arc<[Arc<Target>]>> {
        &self.by_query
    }

    /// The targets of each consumer group.
    #[must_use]
    pub fn groups(&self) -> &PersistentMap<GroupKey, Arc<GroupTargets>> {
        &self.groups
    }

    /// The targets of a consumer group; `None` if it has none.
    #[must_use]
    pub fn group(&self, cluster: &ClusterName, group: &GroupId) -> Option<&GroupTargets> {
        let key = (cluster.clone(), group.clone());
        self.groups.get(&key).map(|group| &**group)
    }

    /// Keys of requests that no HPA uses.
    #[must_use]
    pub fn ad_hoc(&self) -> &BTreeSet<WatchKey> {
        &self.ad_hoc
    }

    /// Whether a configured target or an HPA uses this key.
    #[must_use]
    pub fn has_target_for(&self, key: &WatchKey) -> bool {
        let group = self.group(&key.cluster, &key.group);
        group.is_some_and(|group| group.targets().iter().any(|target| *target.key == *key))
    }

    /// Time since which a key is watched. A key that was never read is unknown since then.
    #[must_use]
    pub fn watched_since(&self, key: &WatchKey) -> Option<Moment> {
        self.group(&key.cluster, &key.group)?.watched_since(key)
    }

    /// Findings about the metrics and annotations of HPAs, sorted.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.keys().map(|finding| &**finding)
    }

    /// Calls `on_change` for each finding that only one of the two versions has: with `true` if it is new in `after`,
    /// with `false` if it is gone.
    pub fn diff_findings(&self, after: &Self, mut on_change: impl FnMut(&Arc<Finding>, bool)) {
        self.findings.diff(&after.findings, |finding, _, new| {
            on_change(finding, new.is_some());
        });
    }

    /// Calls `on_change` for each HPA whose targets differ in `after`, possibly several times. Costs as much as there
    /// are differences, not HPAs.
    pub fn diff_hpas(&self, after: &Self, mut on_change: impl FnMut(&HpaKey)) {
        self.by_query
            .diff_by(&after.by_query, Arc::ptr_eq, |_, old, new| {
                let targets = old.into_iter().chain(new).flat_map(|targets| &**targets);
                for hpa in targets.filter_map(|target| target.hpa()) {
                    on_change(hpa);
                }
            });
    }

    /// Whether both versions have the same configuration, so that they differ at most in HPAs and ad hoc keys.
    #[must_use]
    pub fn has_same_configuration(&self, other: &Self) -> bool {
        self.clusters == other.clusters
            && self.hpas_unlisted == other.hpas_unlisted
            && (Arc::ptr_eq(&self.configured, &other.configured)
                || self.configured == other.configured)
    }

    /// The Kafka clusters that a selector selects: those it names, or the only one that is configured.
    ///
    /// # Errors
    /// A name that is not configured, or no name although several clusters are configured.
    pub fn select_clusters(
        &self,
        selector: &Selector,
    ) -> Result<Vec<ClusterName>, ClusterSelectionError> {
        match (selector.values(label::CLUSTER), self.clusters.as_slice()) {
            (None, [only]) => Ok(vec![only.clone()]),
            (None, _) => Err(ClusterSelectionError::Ambiguous),
            (Some(names), known) => names
                .iter()
                .map(|name| {
                    let found = known.iter().find(|c| c.as_str() == name);
                    found
                        .cloned()
                        .ok_or_else(|| ClusterSelectionError::Unknown(name.clone()))
                })
                .collect(),
        }
    }
}

/// Why a selector selects no Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterSelectionError {
    /// It names one that is not configured.
    Unknown(String),
    /// It names none, and not exactly one is configured.
    Ambiguous,
}

/// The groups that a selector names. `None` if it names none, or an empty name, which no group has.
#[must_use]
pub fn group_names(selector: &Selector) -> Option<&[String]> {
    let named = selector.values(label::GROUP)?;
    (!named.iter().any(String::is_empty)).then_some(named)
}

/// The topics that a selector names; empty if it has no label `topic`.
#[must_use]
pub fn selected_topics(selector: &Selector) -> BTreeSet<TopicName> {
    let named = selector.values(label::TOPIC).unwrap_or(&[]);
    named
        .iter()
        .map(|topic| TopicName::from(topic.as_str()))
        .collect()
}

#[cfg(test)]
mod tests;
