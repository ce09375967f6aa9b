//! What HPAs, the configuration and requests ask for, as targets, and from there what to read.
//!
//! Targets are immutable. New ones share with those before what did not change, so that one changed HPA among
//! thousands costs little; comparing two versions of an index tells what a change touched.

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
    WatchKey,
};

/// A consumer group and its cluster.
pub type GroupKey = (ClusterName, GroupId);

/// Everything that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// The configured clusters, in the configuration's order.
    pub clusters: Vec<ClusterName>,
    /// Whether the HPAs are still to be listed, so that they may ask for more than is here.
    pub hpas_unlisted: bool,
    /// Lag thresholds for targets that do not set their own.
    thresholds: LagThresholds,
    /// The settings of a group where no target sets others.
    group_defaults: Arc<GroupSettings>,
    /// What each namespace may ask for. HPAs that ask for more get no target.
    tenancy: Arc<Tenancy>,
    writes: Arc<WriteScopes>,
    /// The HPAs for which the budgets suffice.
    admission: Admission,
    configured: Arc<[Arc<Target>]>,
    /// What requests ask for and no HPA does.
    ad_hoc: Arc<BTreeSet<WatchKey>>,
    /// The HPAs as they are written.
    facts: HpaMap,
    /// Only HPAs that ask for something, or try to.
    hpas: PersistentMap<HpaKey, Arc<HpaTargets>>,
    /// Targets of HPAs by the query that these HPAs send.
    by_query: PersistentMap<QueryHash, Arc<[Arc<Target>]>>,
    /// Why the requests of HPAs are refused that have no target, by HPA.
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

    /// All that one HPA asks for; `None` if that is nothing.
    #[must_use]
    pub fn asked_by(&self, hpa: &HpaKey) -> Option<&Arc<HpaTargets>> {
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

    /// Whether a namespace may ask for this key.
    #[must_use]
    pub fn may_ask(&self, namespace: &str, key: &WatchKey) -> bool {
        self.tenancy.check(namespace, [key]).is_ok()
    }

    /// The HPAs as they are written, those without a metric of lagwise too.
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

    /// The targets of the HPAs of `namespace` that ask for this metric by this selector.
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

    /// Why `namespace` may not ask for this metric by this selector, if an HPA of it does and has no target for that
    /// reason.
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

    /// The targets of HPAs by the query that these HPAs send.
    #[must_use]
    pub fn by_query(&self) -> &PersistentMap<QueryHash, Arc<[Arc<Target>]>> {
        &self.by_query
    }

    /// What is asked of each consumer group.
    #[must_use]
    pub fn groups(&self) -> &PersistentMap<GroupKey, Arc<GroupTargets>> {
        &self.groups
    }

    /// What is asked of a consumer group; `None` where nothing is.
    #[must_use]
    pub fn group(&self, cluster: &ClusterName, group: &GroupId) -> Option<&GroupTargets> {
        let key = (cluster.clone(), group.clone());
        self.groups.get(&key).map(|group| &**group)
    }

    /// What requests ask for.
    #[must_use]
    pub fn ad_hoc(&self) -> &BTreeSet<WatchKey> {
        &self.ad_hoc
    }

    /// Whether a configured target or an HPA asks for this key.
    #[must_use]
    pub fn has_target_for(&self, key: &WatchKey) -> bool {
        let group = self.group(&key.cluster, &key.group);
        group.is_some_and(|group| group.targets().iter().any(|target| *target.key == *key))
    }

    /// Since when a key is watched: what was never read is unknown since then.
    #[must_use]
    pub fn watched_since(&self, key: &WatchKey) -> Option<Moment> {
        self.group(&key.cluster, &key.group)?.watched_since(key)
    }

    /// Mistakes in how HPAs ask, in the order of findings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.keys().map(|finding| &**finding)
    }

    /// Calls back for each finding that only one of both versions has: with `false` if it is that of `self`, with `true`
    /// if it is that of `after`.
    pub fn diff_findings(&self, after: &Self, mut on_change: impl FnMut(&Arc<Finding>, bool)) {
        self.findings.diff(&after.findings, |finding, _, new| {
            on_change(finding, new.is_some());
        });
    }

    /// Calls back, once or several times, for each HPA whose targets differ in `after`, at the cost of what differs.
    pub fn diff_hpas(&self, after: &Self, mut on_change: impl FnMut(&HpaKey)) {
        self.by_query
            .diff_by(&after.by_query, Arc::ptr_eq, |_, old, new| {
                let targets = old.into_iter().chain(new).flat_map(|targets| &**targets);
                for hpa in targets.filter_map(|target| target.hpa()) {
                    on_change(hpa);
                }
            });
    }

    /// Whether the other targets differ at most in HPAs and in what requests ask for.
    #[must_use]
    pub fn has_same_configuration(&self, other: &Self) -> bool {
        self.clusters == other.clusters
            && self.hpas_unlisted == other.hpas_unlisted
            && (Arc::ptr_eq(&self.configured, &other.configured)
                || self.configured == other.configured)
    }

    /// The clusters that a selector is about: those it names, else the only one there is.
    ///
    /// # Errors
    /// A name that is not configured, or no name where there are several clusters.
    pub fn pick_clusters(&self, selector: &Selector) -> Result<Vec<ClusterName>, UnpickedCluster> {
        match (selector.values(label::CLUSTER), self.clusters.as_slice()) {
            (None, [only]) => Ok(vec![only.clone()]),
            (None, _) => Err(UnpickedCluster::Ambiguous),
            (Some(names), known) => names
                .iter()
                .map(|name| {
                    let found = known.iter().find(|c| c.as_str() == name);
                    found
                        .cloned()
                        .ok_or_else(|| UnpickedCluster::Unknown(name.clone()))
                })
                .collect(),
        }
    }
}

/// Why a selector does not say which cluster it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnpickedCluster {
    /// It names one that is not configured.
    Unknown(String),
    /// It names none, and not exactly one is configured.
    Ambiguous,
}

/// The groups that a selector names; no group has the empty name.
#[must_use]
pub fn group_names(selector: &Selector) -> Option<&[String]> {
    let named = selector.values(label::GROUP)?;
    (!named.iter().any(String::is_empty)).then_some(named)
}

/// The topics that a selector pins; empty where it leaves them open.
#[must_use]
pub fn pinned_topics(selector: &Selector) -> BTreeSet<TopicName> {
    let named = selector.values(label::TOPIC).unwrap_or(&[]);
    named
        .iter()
        .map(|topic| TopicName::from(topic.as_str()))
        .collect()
}

#[cfg(test)]
mod tests;
