//! Who wants to know which lag: HPAs, the configuration and ad hoc requests, merged into targets
//! and from there into what to read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::finding::Finding;
use super::lag::LagRules;
use super::observation::{GroupPlan, SweepPlan};
use super::quantity::Milli;
use super::selector::Selector;
use super::types::{ClusterName, GroupId, OffsetReset, TopicName};

/// The external metric that serves lag.
pub const LAG_METRIC: &str = "kafka_lag";

/// The label keys that a selector may use; anything else selects nothing.
pub mod label {
    /// The consumer group; a request must name it, or a configured target.
    pub const GROUP: &str = "group";
    /// A topic; absent = every topic that the group has committed on.
    pub const TOPIC: &str = "topic";
    /// The Kafka cluster's configured name; absent = the only one.
    pub const CLUSTER: &str = "cluster";
    /// The HPA that asks, where two of them select alike.
    pub const HPA: &str = "hpa";
    /// A configured target's name, instead of a group whose name is no label value.
    pub const TARGET: &str = "target";
}

/// What an HPA compares the metric with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricTarget {
    /// Lag wanted per replica.
    AverageValue(Milli),
    /// Lag wanted in all; cannot be clamped, since the HPA multiplies it by the ready pods.
    Value(Milli),
}

/// One External metric of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMetric {
    /// The metric's name.
    pub name: String,
    /// Its selector.
    pub selector: Selector,
    /// What it is compared with; `None` where the HPA says nothing that can be read.
    pub target: Option<MetricTarget>,
}

/// What is known of one HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaFacts {
    /// Its namespace, which is also that of its metric requests.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its External metrics, in its order, those of others too.
    pub metrics: Vec<ExternalMetric>,
}

/// A target from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticTarget {
    /// Its name, for the label `target`.
    pub name: Arc<str>,
    /// The namespaces that may ask for it by name; empty = all.
    pub namespaces: Vec<String>,
    /// The cluster.
    pub cluster: ClusterName,
    /// The group.
    pub group: GroupId,
    /// Its topics; empty = those that the group has committed on.
    pub topics: BTreeSet<TopicName>,
    /// Lag wanted per replica.
    pub per_replica: Option<Milli>,
    /// Where its consumers start without a committed offset.
    pub reset: OffsetReset,
}

/// A group that a request named and no HPA or configuration does (yet).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interest {
    /// The cluster.
    pub cluster: ClusterName,
    /// The group.
    pub group: GroupId,
    /// Topics named; empty = those that the group has committed on.
    pub topics: BTreeSet<TopicName>,
}

/// Where a target comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A metric of this HPA.
    Hpa {
        /// The HPA's namespace.
        namespace: Arc<str>,
        /// The HPA's name.
        name: Arc<str>,
    },
    /// The configuration.
    Config {
        /// The target's name.
        name: Arc<str>,
        /// The namespaces that may ask for it by name; empty = all.
        namespaces: Vec<String>,
    },
}

/// A consumer group whose lag somebody wants, and how much of it one replica may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who wants it.
    pub origin: Origin,
    /// The HPA's selector; `None` for a target from the configuration.
    pub selector: Option<Selector>,
    /// What is to be read for it.
    pub interest: Interest,
    /// What the HPA or the configuration compares with.
    pub wanted: Option<MetricTarget>,
    /// Where its consumers start without a committed offset.
    pub reset: OffsetReset,
}

/// All that is wanted now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The configured clusters, in the configuration's order.
    pub clusters: Vec<ClusterName>,
    /// From HPAs and the configuration.
    pub all: Vec<Target>,
    /// From requests.
    pub interests: BTreeSet<Interest>,
    /// Which lags are no work, where no target wants other rules.
    pub rules: LagRules,
    /// Whether the HPAs are still to be listed, so that one of them may want what is not in `all`.
    pub hpas_unlisted: bool,
    /// What is odd about them.
    pub findings: BTreeSet<Finding>,
}

impl Targets {
    /// Merges everything that asks.
    #[must_use]
    pub fn merge(
        clusters: &[ClusterName],
        fixed: &[StaticTarget],
        hpas: &[HpaFacts],
        interests: BTreeSet<Interest>,
    ) -> Self {
        let mut merged = Self {
            clusters: clusters.to_vec(),
            interests,
            ..Self::default()
        };
        for target in fixed {
            merged.all.push(Target {
                origin: Origin::Config {
                    name: Arc::clone(&target.name),
                    namespaces: target.namespaces.clone(),
                },
                selector: None,
                interest: Interest {
                    cluster: target.cluster.clone(),
                    group: target.group.clone(),
                    topics: target.topics.clone(),
                },
                wanted: target.per_replica.map(MetricTarget::AverageValue),
                reset: target.reset,
            });
        }
        for hpa in hpas {
            for metric in hpa.metrics.iter().filter(|m| m.name == LAG_METRIC) {
                merged.add_metric(hpa, metric);
            }
        }
        merged
    }

    fn add_metric(&mut self, hpa: &HpaFacts, metric: &ExternalMetric) {
        let shown = || format!("{}/{}", hpa.namespace, hpa.name);
        if matches!(metric.target, Some(MetricTarget::Value(_))) {
            self.findings.insert(Finding::ValueTarget { hpa: shown() });
        }
        if metric.selector.mentions(label::TARGET) {
            // The configuration says what to read; the HPA brings its own wanted lag to it.
            let named: Vec<Interest> = self
                .configured(&hpa.namespace, &metric.selector)
                .map(|t| t.interest.clone())
                .collect();
            for interest in named {
                self.push(hpa, metric, interest);
            }
            return;
        }
        let Some(groups) = groups_of(&metric.selector) else {
            self.findings.insert(Finding::NoGroup { hpa: shown() });
            return;
        };
        let clusters = match self.pick_clusters(&metric.selector) {
            Ok(clusters) => clusters,
            Err(UnpickedCluster::Unknown(cluster)) => {
                self.findings.insert(Finding::UnknownCluster {
                    hpa: shown(),
                    cluster,
                });
                return;
            }
            Err(UnpickedCluster::Ambiguous) => {
                self.findings
                    .insert(Finding::AmbiguousCluster { hpa: shown() });
                return;
            }
        };
        let topics = topics_of(&metric.selector);
        for cluster in clusters {
            for group in groups {
                let interest = Interest {
                    cluster: cluster.clone(),
                    group: GroupId::from(group.as_str()),
                    topics: topics.clone(),
                };
                self.push(hpa, metric, interest);
            }
        }
    }

    fn push(&mut self, hpa: &HpaFacts, metric: &ExternalMetric, interest: Interest) {
        self.all.push(Target {
            origin: Origin::Hpa {
                namespace: Arc::clone(&hpa.namespace),
                name: Arc::clone(&hpa.name),
            },
            selector: Some(metric.selector.clone()),
            interest,
            wanted: metric.target,
            reset: OffsetReset::default(),
        });
    }

    /// The configured targets that a selector names and that `namespace` may ask for.
    pub fn configured<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a Target> {
        let names = selector.values(label::TARGET).unwrap_or(&[]);
        self.all.iter().filter(move |target| match &target.origin {
            Origin::Config { name, namespaces } => {
                names.iter().any(|n| **n == **name)
                    && (namespaces.is_empty() || namespaces.iter().any(|n| n == namespace))
            }
            Origin::Hpa { .. } => false,
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

    /// What to read of one cluster: each group once, with everything that anyone wants of it.
    #[must_use]
    pub fn plan(&self, cluster: &ClusterName) -> SweepPlan {
        let mut groups: BTreeMap<GroupId, GroupPlan> = BTreeMap::new();
        let wanted = self
            .all
            .iter()
            .map(|target| (&target.interest, target.reset))
            .chain(
                self.interests
                    .iter()
                    .map(|interest| (interest, OffsetReset::default())),
            )
            .filter(|(interest, _)| interest.cluster == *cluster);
        for (interest, reset) in wanted {
            let plan = groups
                .entry(interest.group.clone())
                .or_insert_with(|| GroupPlan {
                    discover: false,
                    rules: self.rules,
                    ..GroupPlan::new(interest.group.clone(), BTreeSet::new())
                });
            plan.topics.extend(interest.topics.iter().cloned());
            plan.discover |= interest.topics.is_empty();
            if reset == OffsetReset::Earliest {
                plan.reset = reset;
            }
        }
        SweepPlan {
            groups: groups.into_values().collect(),
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
mod tests {
    use super::*;

    fn hpa(name: &str, selector: &str, target: MetricTarget) -> HpaFacts {
        HpaFacts {
            namespace: "shop".into(),
            name: name.into(),
            metrics: vec![ExternalMetric {
                name: LAG_METRIC.into(),
                selector: Selector::parse(selector).unwrap(),
                target: Some(target),
            }],
        }
    }

    const ONE: MetricTarget = MetricTarget::AverageValue(Milli::ONE);

    fn clusters(names: &[&str]) -> Vec<ClusterName> {
        names.iter().map(|n| ClusterName::from(*n)).collect()
    }

    fn merge(names: &[&str], hpas: &[HpaFacts]) -> Targets {
        Targets::merge(&clusters(names), &[], hpas, BTreeSet::new())
    }

    #[test]
    fn each_group_is_planned_once() {
        let hpas = [
            hpa("a", "group=g,topic=t1", ONE),
            hpa("b", "group=g,topic in (t2,t3)", ONE),
            hpa("c", "group=h", ONE),
        ];
        let plan = merge(&["main"], &hpas).plan(&"main".into());
        let shown: Vec<_> = plan
            .groups
            .iter()
            .map(|g| {
                (
                    g.group.as_str(),
                    g.topics.iter().map(TopicName::as_str).collect::<Vec<_>>(),
                    g.discover,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [("g", vec!["t1", "t2", "t3"], false), ("h", vec![], true)]
        );
    }

    #[test]
    fn odd_metrics_are_findings_and_plan_nothing() {
        let shown = || "shop/a".to_owned();
        for (names, selector, finding) in [
            (vec!["m"], "topic=t", Finding::NoGroup { hpa: shown() }),
            (vec!["m"], "group=", Finding::NoGroup { hpa: shown() }),
            (
                vec!["m"],
                "group=g,cluster=x",
                Finding::UnknownCluster {
                    hpa: shown(),
                    cluster: "x".into(),
                },
            ),
            (
                vec!["m", "n"],
                "group=g",
                Finding::AmbiguousCluster { hpa: shown() },
            ),
        ] {
            let targets = merge(&names, &[hpa("a", selector, ONE)]);
            assert_eq!(
                targets.findings.into_iter().collect::<Vec<_>>(),
                [finding],
                "{selector}"
            );
            assert!(targets.all.is_empty(), "{selector}");
        }
    }

    #[test]
    fn a_value_target_is_a_finding_and_still_read() {
        let targets = merge(
            &["m"],
            &[hpa("a", "group=g", MetricTarget::Value(Milli::ONE))],
        );
        assert_eq!(targets.all.len(), 1);
        assert!(targets.findings.contains(&Finding::ValueTarget {
            hpa: "shop/a".into()
        }));
    }

    #[test]
    fn metrics_of_others_are_none_of_ours() {
        let mut other = hpa("a", "group=g", ONE);
        other.metrics[0].name = "kafka_lag_total".into();
        assert!(merge(&["m"], &[other]).all.is_empty());
    }

    #[test]
    fn a_configured_target_is_found_by_name_where_its_namespaces_allow() {
        let fixed = StaticTarget {
            name: "orders".into(),
            namespaces: vec!["shop".into()],
            cluster: "m".into(),
            group: "Orders Group/1".into(),
            topics: BTreeSet::new(),
            per_replica: None,
            reset: OffsetReset::Earliest,
        };
        let hpas = [hpa("a", "target=orders", ONE)];
        let targets = Targets::merge(&clusters(&["m"]), &[fixed], &hpas, BTreeSet::new());
        assert_eq!(targets.all.len(), 2);
        let selector = Selector::parse("target=orders").unwrap();
        assert_eq!(targets.configured("shop", &selector).count(), 1);
        assert_eq!(targets.configured("other", &selector).count(), 0);
        assert_eq!(
            targets.plan(&"m".into()).groups[0].reset,
            OffsetReset::Earliest
        );
    }
}
