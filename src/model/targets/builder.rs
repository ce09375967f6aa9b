//! HPAs, the configuration and requests -> targets, and what is odd about them.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    ConfiguredTarget, HpaCap, Origin, Target, Targets, UnpickedCluster, WatchKey, groups_of,
    topics_of,
};
use crate::model::findings::{Finding, FindingCode, suggestion};
use crate::model::hpa::facts::{
    ExternalMetric, HpaFacts, MetricTarget, other_external_metric, own_mode,
};
use crate::model::hpa::label;
use crate::model::hpa::selector::Selector;
use crate::model::settings::annotations::Annotations;
use crate::model::settings::{GroupSettings, Settings};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::{DESIRED_METRIC, Metric};
use crate::model::units::newtypes::{ClusterName, GroupId, Moment};
use crate::model::units::quantity::Milli;
use crate::model::units::spelling::did_you_mean;

impl Targets {
    /// Merges everything that asks.
    #[must_use]
    pub fn merge<H: Borrow<HpaFacts>>(
        clusters: &[ClusterName],
        fixed: &[ConfiguredTarget],
        hpas: &[H],
        interests: BTreeSet<WatchKey>,
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
                metric: Metric::Lag,
                index: 0,
                label: target.group.to_string(),
                interest: Arc::new(WatchKey {
                    cluster: target.cluster.clone(),
                    group: target.group.clone(),
                    topics: target.settings.named_topics(),
                }),
                wanted: target.per_replica.map(MetricTarget::AverageValue),
                settings: Arc::new(target.settings.clone()),
                cap: None,
            });
        }
        for hpa in hpas.iter().map(Borrow::borrow) {
            HpaTargetBuilder {
                targets: &mut merged,
                hpa,
                key: hpa.key(),
            }
            .add();
        }
        for (place, target) in merged.all.iter().enumerate() {
            if let Some(selector) = &target.selector {
                let places = merged.by_selector.entry(selector.clone());
                places.or_default().push(place);
            }
        }
        merged.note_conflicts();
        merged
    }

    /// Keeps since when each interest is wanted, from `before`; those that are new are so `now`.
    #[must_use]
    pub fn since(mut self, before: &Targets, now: Moment) -> Self {
        let wanted = self.all.iter().map(|target| Arc::clone(&target.interest));
        let asked = self.interests.iter().map(|i| Arc::new(i.clone()));
        let since = |interest: &WatchKey| before.since.get(interest).copied().unwrap_or(now);
        self.since = wanted
            .chain(asked)
            .map(|i| (Arc::clone(&i), since(&i)))
            .collect();
        self
    }

    /// Notes the groups for which targets set different things.
    fn note_conflicts(&mut self) {
        let mut groups: BTreeMap<(&ClusterName, &GroupId), GroupSettings> = BTreeMap::new();
        for Target {
            interest, settings, ..
        } in &self.all
        {
            let group = groups.entry((&interest.cluster, &interest.group));
            group.or_default().add(settings);
        }
        let conflicts = groups.into_iter().flat_map(|((cluster, group), settings)| {
            settings.conflicts.into_iter().map(move |setting| {
                let message = format!(
                    "targets set {setting} differently; the value that counts more lag applies to all of them"
                );
                Finding::new(FindingCode::ConflictingSettings, (cluster, group), message)
            })
        });
        let conflicts: Vec<_> = conflicts.collect();
        self.findings.extend(conflicts);
    }
}

/// A metric of ours on an HPA.
#[derive(Clone, Copy)]
struct RequestedMetric<'a> {
    /// Which of its External metrics it is.
    index: usize,
    serves: Metric,
    selector: &'a Selector,
    target: Option<MetricTarget>,
}

impl<'a> RequestedMetric<'a> {
    /// `None` for a metric of others.
    fn of((index, metric): (usize, &'a ExternalMetric)) -> Option<Self> {
        Some(Self {
            index,
            serves: Metric::from_name(&metric.name)?,
            selector: &metric.selector,
            target: metric.target,
        })
    }
}

const NO_GROUP: &str = "the selector of its Kafka metric names no consumer group";

/// The merging of one HPA.
struct HpaTargetBuilder<'a> {
    targets: &'a mut Targets,
    hpa: &'a HpaFacts,
    key: HpaKey,
}

impl HpaTargetBuilder<'_> {
    fn add(mut self) {
        let metrics = self.hpa.metrics.iter().enumerate();
        let mut ours = metrics.filter_map(RequestedMetric::of).peekable();
        if ours.peek().is_none() {
            // Whatever its annotations say, they are about nothing of ours.
            return;
        }
        let findings = &mut self.targets.findings;
        let annotations = Annotations::read(&self.key, &self.hpa.annotations, findings);
        let mut names = BTreeSet::new();
        for asks in ours {
            for key in [label::GROUP, label::TARGET] {
                names.extend(asks.selector.values(key).unwrap_or(&[]).iter().cloned());
            }
            self.add_metric(asks, &annotations);
        }
        if annotations.scale_to_zero()
            && let Some(metric) = other_external_metric(self.hpa)
        {
            let message = format!(
                "lagwise.dev/scale-to-zero has no effect: at zero replicas the HPA would not ask for its External metric {metric}, which lagwise does not serve"
            );
            self.note(FindingCode::NoZeroWithOthers, message);
        }
        for stray in annotations.strays(&names) {
            let message = format!(
                "annotation {stray} is for a group or target that none of its metrics selects"
            );
            self.note(FindingCode::StrayAnnotation, message);
        }
    }

    fn note(&mut self, code: FindingCode, message: impl Into<String>) {
        let finding = Finding::new(code, &self.key, message);
        self.targets.findings.insert(finding);
    }

    fn add_metric(&mut self, asks: RequestedMetric<'_>, annotations: &Annotations) {
        match (asks.serves, asks.target) {
            (Metric::Lag, Some(MetricTarget::Value(_))) => {
                self.note(
                    FindingCode::ValueTarget,
                    "its Kafka metric has a target of type Value, so the HPA multiplies lag by its ready pods at every sync",
                );
            }
            (Metric::DesiredReplicas, target)
                if target != Some(MetricTarget::AverageValue(Milli::ONE)) =>
            {
                self.note(
                    FindingCode::DesiredNotOne,
                    format!("the target of {DESIRED_METRIC} is not averageValue \"1\""),
                );
            }
            _ => {}
        }
        for key in asks.selector.keys().filter(|key| !label::ALL.contains(key)) {
            let meant = suggestion("", did_you_mean(key, label::ALL));
            self.note(
                FindingCode::UnknownLabel,
                format!("the selector of its Kafka metric has the unknown label {key}{meant}"),
            );
        }
        if asks.selector.mentions(label::TARGET) {
            self.add_configured(asks, annotations);
            return;
        }
        let clusters = match self.targets.pick_clusters(asks.selector) {
            Ok(clusters) => clusters,
            Err(UnpickedCluster::Unknown(cluster)) => {
                self.note(
                    FindingCode::UnknownCluster,
                    format!("the Kafka cluster {cluster:?} is not configured"),
                );
                return;
            }
            Err(UnpickedCluster::Ambiguous) => {
                self.note(
                    FindingCode::AmbiguousCluster,
                    "several Kafka clusters are configured, and its selector names none of them",
                );
                return;
            }
        };
        let labels: Vec<Option<&str>> = match groups_of(asks.selector) {
            Some(groups) => groups.iter().map(|group| Some(group.as_str())).collect(),
            None if asks.selector.mentions(label::GROUP) => Vec::new(),
            None => vec![None],
        };
        let mut wanted: Vec<(GroupId, &str, Settings)> = Vec::new();
        for label in &labels {
            let settings = annotations.of(*label);
            let named = settings.consumer_group.clone();
            let Some(group) = named.or_else(|| label.map(GroupId::from)) else {
                continue;
            };
            if wanted.iter().any(|(known, ..)| *known == group) {
                self.note(
                    FindingCode::OneGroupForAll,
                    "annotation lagwise.dev/consumer-group replaces several groups of the selector by one, whose lag counts once",
                );
            } else {
                wanted.push((group, label.unwrap_or_default(), settings));
            }
        }
        if wanted.is_empty() {
            self.note(FindingCode::NoGroup, NO_GROUP);
        }
        for cluster in clusters {
            for (group, label, settings) in &wanted {
                let topics = match topics_of(asks.selector) {
                    open if open.is_empty() => settings.named_topics(),
                    pinned => pinned,
                };
                let interest = WatchKey {
                    cluster: cluster.clone(),
                    group: group.clone(),
                    topics,
                };
                self.push(asks, label, interest, settings.clone());
            }
            self.note_fallback(annotations, &labels);
        }
    }

    /// The configuration says what to read; the HPA brings its own wanted lag to it, and settings
    /// that go before the configuration's.
    fn add_configured(&mut self, asks: RequestedMetric<'_>, annotations: &Annotations) {
        let names = asks.selector.values(label::TARGET).unwrap_or(&[]).to_vec();
        let named: Vec<_> = self
            .targets
            .configured(&self.hpa.namespace, asks.selector)
            .map(|t| (t.origin.clone(), t.interest.clone(), t.settings.clone()))
            .collect();
        for name in &names {
            let is_this = |origin: &Origin| matches!(origin, Origin::Config { name: of, .. } if **of == **name);
            let mut found = false;
            for (_, interest, base) in named.iter().filter(|(origin, ..)| is_this(origin)) {
                found = true;
                let settings = annotations.of(Some(name)).over(base);
                let topics = settings.named_topics();
                let interest = WatchKey {
                    topics,
                    ..(**interest).clone()
                };
                let label = interest.group.to_string();
                self.push(asks, &label, interest, settings);
            }
            if !found {
                self.note(
                    FindingCode::UnknownTarget,
                    format!("no target {name:?} is configured for its namespace"),
                );
            }
        }
        if names.is_empty() {
            self.note(FindingCode::NoGroup, NO_GROUP);
        }
        let labels: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
        self.note_fallback(annotations, &labels);
    }

    fn note_fallback(&mut self, annotations: &Annotations, labels: &[Option<&str>]) {
        let lacks = |label: &Option<&str>| annotations.lacks_fallback_replicas(*label);
        if labels.iter().any(lacks) {
            self.note(
                FindingCode::NoFallbackReplicas,
                "annotation lagwise.dev/fallback-after has no effect without lagwise.dev/fallback-replicas",
            );
        }
    }

    fn push(
        &mut self,
        asks: RequestedMetric<'_>,
        label: &str,
        interest: WatchKey,
        settings: Settings,
    ) {
        let wanted = match asks.serves {
            Metric::Lag => asks.target,
            Metric::DesiredReplicas => settings.lag_per_replica.map(MetricTarget::AverageValue),
        };
        if asks.serves == Metric::DesiredReplicas && wanted.is_none() {
            self.note(
                FindingCode::NoLagPerReplica,
                format!(
                    "{DESIRED_METRIC} needs to know the lag per replica, and no annotation lagwise.dev/lag-per-replica sets it"
                ),
            );
        }
        let settings = settings.for_value();
        // Hardly any HPA sets much, and those of one HPA set the same: neighbours share it.
        let last = self.targets.all.last().map(|target| &target.settings);
        let settings = match last.filter(|last| ***last == settings) {
            Some(last) => Arc::clone(last),
            None => Arc::new(settings),
        };
        self.targets.all.push(Target {
            origin: Origin::Hpa(self.key.clone()),
            selector: Some(asks.selector.clone()),
            metric: asks.serves,
            index: asks.index,
            label: label.to_owned(),
            interest: Arc::new(interest),
            wanted,
            settings,
            cap: Some(HpaCap {
                mode: own_mode(self.hpa),
                max_replicas: self.hpa.max_replicas,
                tolerance_up: self.hpa.tolerance_up(),
            }),
        });
    }
}
