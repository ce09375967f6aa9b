//! Who wants to know which lag: HPAs, the configuration and ad hoc requests, as targets (see
//! `merge`), and from there what to read.

pub mod builder;
pub mod lookup;
pub mod metric_query;
pub mod no_value_reason;
pub mod tenancy;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::findings::Finding;
use super::hpa::label;
use super::hpa::selector::Selector;
use super::kafka::sweep_plan::{GroupPlan, SweepPlan};
use super::settings::cap_mode::CapMode;
use super::settings::{GroupSettings, Settings};
use super::units::hpa_key::HpaKey;
use super::units::lag_thresholds::LagRules;
use super::units::newtypes::{ClusterName, GroupId, Moment, TopicName};
use super::units::quantity::Milli;
use crate::model::hpa::facts::MetricTarget;
use crate::model::units::metric::Metric;

/// A target from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredTarget {
    /// Its name, for the label `target`.
    pub name: Arc<str>,
    /// The namespaces that may ask for it by name; empty = all.
    pub namespaces: Vec<String>,
    /// The cluster.
    pub cluster: ClusterName,
    /// The group.
    pub group: GroupId,
    /// Lag wanted per replica.
    pub per_replica: Option<Milli>,
    /// What is set for it.
    pub settings: Settings,
}

/// A group that a request named and no HPA or configuration does (yet).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchKey {
    /// The cluster.
    pub cluster: ClusterName,
    /// The group.
    pub group: GroupId,
    /// Topics named; empty = those that its members read, or else those it has committed on.
    pub topics: BTreeSet<TopicName>,
}

/// Where a target comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A metric of this HPA.
    Hpa(HpaKey),
    /// The configuration.
    Config {
        /// The target's name.
        name: Arc<str>,
        /// The namespaces that may ask for it by name; empty = all.
        namespaces: Vec<String>,
    },
}

/// How an HPA is bounded by its own maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaCap {
    /// What its annotation says of the cap; `None` = the default holds.
    pub mode: Option<CapMode>,
    /// Its `spec.maxReplicas`, as it is now.
    pub max_replicas: u32,
    /// Its tolerance upwards, in thousandths.
    pub tolerance_up: u64,
}

/// A consumer group whose lag somebody wants, and how much of it one replica may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who wants it.
    pub origin: Origin,
    /// The HPA's selector; `None` for a target from the configuration.
    pub selector: Option<Selector>,
    /// What is served for it.
    pub metric: Metric,
    /// Which of the HPA's External metrics it is of, from 0.
    pub index: usize,
    /// What the selector calls the group; a configured group's own name.
    pub label: String,
    /// What is to be read for it.
    pub interest: Arc<WatchKey>,
    /// The lag wanted per replica, or in all: what an HPA compares [`LAG_METRIC`] with, and what is set
    /// where it asks for [`DESIRED_METRIC`].
    pub wanted: Option<MetricTarget>,
    /// What is set for it.
    pub settings: Arc<Settings>,
    /// How the HPA is bounded by itself.
    pub cap: Option<HpaCap>,
}

impl Target {
    /// Its HPA; `None` for a target of the configuration.
    #[must_use]
    pub fn hpa(&self) -> Option<&HpaKey> {
        match &self.origin {
            Origin::Hpa(hpa) => Some(hpa),
            Origin::Config { .. } => None,
        }
    }
}

/// All that is wanted now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The configured clusters, in the configuration's order.
    pub clusters: Vec<ClusterName>,
    /// From HPAs and the configuration.
    pub all: Vec<Target>,
    /// From requests.
    pub interests: BTreeSet<WatchKey>,
    /// Which lags are no work, where no target wants other rules.
    pub rules: LagRules,
    /// Whether the HPAs are still to be listed, so that one of them may want what is not in `all`.
    pub hpas_unlisted: bool,
    /// Since when each of their interests is wanted: what was never read is unknown since then.
    pub since: BTreeMap<Arc<WatchKey>, Moment>,
    /// What is odd about them.
    pub findings: BTreeSet<Finding>,
    /// Places in `all` of the metrics with a selector.
    pub by_selector: HashMap<Selector, Vec<usize>>,
}

impl Targets {
    /// The targets of the configuration, which come first.
    pub fn all_configured(&self) -> impl Iterator<Item = &Target> {
        let is_configured = |target: &&Target| matches!(target.origin, Origin::Config { .. });
        self.all.iter().take_while(is_configured)
    }

    /// The configured targets that a selector names and that `namespace` may ask for.
    pub fn configured<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a Target> {
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

    /// The targets of HPAs of `namespace` that ask for this metric by this selector.
    pub fn selecting<'a>(
        &'a self,
        namespace: &'a str,
        metric: Metric,
        selector: &Selector,
    ) -> impl Iterator<Item = &'a Target> {
        let places = self.places_selecting(namespace, metric, selector);
        places.filter_map(|place| self.all.get(place))
    }

    /// The places in `all` of the targets of HPAs of `namespace` that ask for this metric by this
    /// selector.
    pub fn places_selecting<'a>(
        &'a self,
        namespace: &'a str,
        metric: Metric,
        selector: &Selector,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let places = self.by_selector.get(selector).into_iter().flatten();
        places.copied().filter(move |place| {
            let target = self.all.get(*place).filter(|t| t.metric == metric);
            let hpa = target.and_then(Target::hpa);
            hpa.is_some_and(|hpa| *hpa.namespace == *namespace)
        })
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

    /// Whether what to read depends on what the groups turn out to read.
    #[must_use]
    pub fn leave_topics_open(&self) -> bool {
        let wanted = self.all.iter().map(|target| &*target.interest);
        let mut wanted = wanted.chain(&self.interests);
        wanted.any(|interest| interest.topics.is_empty())
    }

    /// What to read of one cluster: each group once, with everything that anyone wants of it. Where
    /// topics are left open, those that the group's members were last known to read are read, too:
    /// a topic without a commit has lag as well.
    #[must_use]
    pub fn plan(
        &self,
        cluster: &ClusterName,
        known_topics: impl Fn(&GroupId) -> BTreeSet<TopicName>,
    ) -> SweepPlan {
        let mut groups: BTreeMap<GroupId, (GroupPlan, GroupSettings)> = BTreeMap::new();
        let open = Settings::default();
        let targets = self.all.iter().map(|t| (&*t.interest, &*t.settings));
        let asked = self.interests.iter().map(|interest| (interest, &open));
        let wanted = targets.chain(asked).filter(|(i, _)| i.cluster == *cluster);
        for (interest, settings) in wanted {
            let id = &interest.group;
            let (plan, group) = groups.entry(id.clone()).or_insert_with(|| {
                let plan = GroupPlan {
                    discover: false,
                    ..GroupPlan::new(id.clone(), BTreeSet::new())
                };
                (plan, GroupSettings::default())
            });
            let topics = Arc::make_mut(&mut plan.topics);
            topics.extend(interest.topics.iter().cloned());
            if interest.topics.is_empty() {
                plan.discover = true;
                let known = known_topics(id).into_iter();
                let pattern = settings.pattern();
                topics.extend(known.filter(|t| pattern.is_none_or(|p| p.matches(t))));
            }
            group.add(settings);
        }
        let planned = groups.into_values().map(|(plan, group)| GroupPlan {
            reset: group.settings.offset_reset.unwrap_or_default(),
            isolation: group.settings.isolation.unwrap_or_default(),
            rules: group.settings.lag_rules(self.rules),
            ..plan
        });
        SweepPlan {
            groups: planned.collect(),
        }
    }

    /// What all targets set for one group together.
    #[must_use]
    pub fn group_settings(&self, cluster: &ClusterName, group: &GroupId) -> GroupSettings {
        let mut settings = GroupSettings::default();
        let of_group = |t: &&Target| t.interest.cluster == *cluster && t.interest.group == *group;
        for target in self.all.iter().filter(of_group) {
            settings.add(&target.settings);
        }
        settings
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
pub fn groups_of(selector: &Selector) -> Option<&[String]> {
    let named = selector.values(label::GROUP)?;
    (!named.iter().any(String::is_empty)).then_some(named)
}

/// The topics that a selector pins; empty where it leaves them open.
#[must_use]
pub fn topics_of(selector: &Selector) -> BTreeSet<TopicName> {
    let named = selector.values(label::TOPIC).unwrap_or(&[]);
    named
        .iter()
        .map(|topic| TopicName::from(topic.as_str()))
        .collect()
}

#[cfg(test)]
mod tests;
