//! Builds the targets of one HPA, and reports mistakes in its metrics and annotations as findings.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::denial_reason::DenialReason;
use super::selector_size::check_size;
use super::target::{DeniedQuery, HpaCap, HpaTargets, Origin, QueryHash, Target};
use super::unrecognized::{find_rejected, find_unrecognized};
use super::watch_key::WatchKey;
use super::{ClusterSelectionError, Targets, group_names, selected_topics};
use crate::model::findings::{BoundedFindings, Finding, FindingCode, suggestion};
use crate::model::hpa::facts::{
    ExternalMetric, HpaFacts, MetricTarget, annotated_cap_mode, other_external_metric,
    scales_to_zero_natively,
};
use crate::model::hpa::label;
use crate::model::hpa::selector::Selector;
use crate::model::settings::Settings;
use crate::model::settings::annotations::Annotations;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::{DESIRED_METRIC, Metric};
use crate::model::units::newtypes::GroupId;
use crate::model::units::quantity::Milli;
use crate::model::units::spelling::did_you_mean;

/// A metric that lagwise serves, on an HPA.
#[derive(Clone, Copy)]
struct RequestedMetric<'a> {
    /// Position among its External metrics.
    index: usize,
    metric: Metric,
    selector: &'a Selector,
    target: Option<MetricTarget>,
    query_hash: QueryHash,
}

impl<'a> RequestedMetric<'a> {
    /// `None` for a metric of another metrics server.
    fn new(namespace: &str, index: usize, external: &'a ExternalMetric) -> Option<Self> {
        let metric = Metric::from_name(&external.name)?;
        Some(Self {
            index,
            metric,
            selector: &external.selector,
            target: external.target,
            query_hash: QueryHash::new(namespace, metric, &external.selector),
        })
    }
}

const NO_GROUP: &str = "the selector of its Kafka metric names no consumer group";

/// Builds the targets of one HPA among configured clusters and targets.
pub(super) struct HpaTargetBuilder<'a> {
    configured: &'a Targets,
    hpa: &'a HpaFacts,
    key: HpaKey,
    targets: Vec<Arc<Target>>,
    denied: Vec<DeniedQuery>,
    findings: BoundedFindings,
    cap: HpaCap,
}

impl<'a> HpaTargetBuilder<'a> {
    /// Uses only the clusters, the configured targets and tenancy of `configured`.
    pub(super) fn new(configured: &'a Targets, hpa: &'a HpaFacts) -> Self {
        Self {
            configured,
            hpa,
            key: hpa.key(),
            targets: Vec::new(),
            denied: Vec::new(),
            findings: BoundedFindings::default(),
            cap: HpaCap {
                mode: None,
                max_replicas: hpa.max_replicas,
                tolerance_up: hpa.tolerance_up(),
                running: hpa.running,
            },
        }
    }

    /// Returns no targets for an HPA that uses no metric of lagwise.
    pub(super) fn build(mut self) -> HpaTargets {
        let metrics = self.hpa.metrics.iter().enumerate();
        let requested = metrics.filter_map(|(index, external)| {
            RequestedMetric::new(&self.hpa.namespace, index, external)
        });
        let requested: Vec<_> = requested.collect();
        match &self.hpa.too_large {
            Some(too_large) => {
                self.deny_all(&requested, &DenialReason::HpaTooLarge(too_large.clone()))
            }
            // Annotations have no effect on an HPA that uses no metric of lagwise.
            None if requested.is_empty() => {
                let found = find_unrecognized(self.hpa);
                found.into_iter().for_each(|f| self.findings.insert(f));
            }
            None => self.add_metrics(&requested),
        }
        for finding in find_rejected(self.hpa) {
            self.findings.insert(finding);
        }
        let findings = self.findings.into_findings(&self.key);
        HpaTargets {
            targets: self.targets,
            denied: self.denied,
            findings: findings.map(Arc::new).collect(),
        }
    }

    fn add_metrics(&mut self, requested: &[RequestedMetric<'_>]) {
        let names = requested.iter().flat_map(|metric| {
            let values = |key| metric.selector.values(key).unwrap_or(&[]);
            let values = values(label::GROUP).iter().chain(values(label::TARGET));
            values.map(String::as_str)
        });
        let names = names.collect();
        let mut annotations =
            Annotations::read(&self.key, &self.hpa.annotations, &names, &mut self.findings);
        self.cap.mode = self.configured.writes.cap_mode_override(self.hpa);
        self.limit_writes(&mut annotations);
        for metric in requested {
            let before = self.targets.len();
            self.add_metric(*metric, &annotations);
            self.remove_forbidden_targets(*metric, before);
        }
        if annotations.scale_to_zero()
            && let Some(metric) = other_external_metric(self.hpa)
        {
            let message = format!(
                "lagwise.dev/scale-to-zero has no effect: the HPA also uses the External metric {metric} of another metrics server, and at zero replicas it would not evaluate that"
            );
            self.add_finding(FindingCode::NoZeroWithOthers, message);
        }
    }

    /// Ignores settings that need writes, where the administrator has not enabled these writes.
    fn limit_writes(&mut self, annotations: &mut Annotations) {
        let (writes, namespace) = (&self.configured.writes, Arc::clone(&self.key.namespace));
        let mut ignored = Vec::new();
        if annotated_cap_mode(self.hpa) == Some(CapMode::Enforce)
            && !writes.cap.includes(&namespace)
        {
            ignored.push(("cap", "cap.enforce"));
        }
        // An HPA that goes to zero by itself needs no write.
        if annotations.scale_to_zero()
            && !scales_to_zero_natively(self.hpa)
            && !writes.zero.includes(&namespace)
        {
            annotations.disable_scale_to_zero();
            ignored.push(("scale-to-zero", "scale_to_zero"));
        }
        for (annotation, section) in ignored {
            let message = format!(
                "lagwise.dev/{annotation} has no effect: {section} in the configuration of lagwise is not enabled for namespace {namespace}"
            );
            self.add_finding(FindingCode::WritesNotEnabled, message);
        }
    }

    /// Refuses all requests of the HPA.
    fn deny_all(&mut self, requested: &[RequestedMetric<'_>], reason: &DenialReason) {
        self.add_finding(reason.finding_code(), reason.to_string());
        self.denied = requested
            .iter()
            .map(|metric| DeniedQuery {
                query_hash: metric.query_hash,
                reason: reason.clone(),
            })
            .collect();
    }

    /// Removes the targets of a metric (those from `begin` on) if tenancy forbids the namespace to read any of them.
    /// All are removed, because a sum that leaves out a group would be too low.
    fn remove_forbidden_targets(&mut self, requested: RequestedMetric<'_>, begin: usize) {
        let namespace = &self.key.namespace;
        let added = self.targets.get(begin..).unwrap_or_default();
        let keys = added.iter().map(|target| &*target.key);
        let Err(reason) = self.configured.tenancy.check(namespace, keys) else {
            return;
        };
        self.targets.truncate(begin);
        let reason = DenialReason::NotAllowed(reason);
        self.add_finding(reason.finding_code(), reason.to_string());
        self.denied.push(DeniedQuery {
            query_hash: requested.query_hash,
            reason,
        });
    }

    fn add_finding(&mut self, code: FindingCode, message: impl Into<String>) {
        let finding = Finding::new(code, &self.key, message);
        self.findings.insert(finding);
    }

    fn add_metric(&mut self, requested: RequestedMetric<'_>, annotations: &Annotations) {
        match (requested.metric, requested.target) {
            (Metric::Lag, Some(MetricTarget::Value(_))) => {
                self.add_finding(
                    FindingCode::ValueTarget,
                    "its Kafka metric has a target of type Value, so the HPA multiplies by its ready pods at every sync",
                );
            }
            (Metric::DesiredReplicas, target)
                if target != Some(MetricTarget::AverageValue(Milli::ONE)) =>
            {
                self.add_finding(
                    FindingCode::DesiredNotOne,
                    format!("the target of {DESIRED_METRIC} is not averageValue \"1\", so the HPA does not run the replicas that lagwise computes"),
                );
            }
            _ => {}
        }
        for key in requested
            .selector
            .keys()
            .filter(|key| !label::ALL.contains(key))
        {
            let meant = suggestion("", did_you_mean(key, label::ALL));
            self.add_finding(
                FindingCode::UnknownLabel,
                format!("the selector of its Kafka metric has the unknown label {key}{meant}"),
            );
        }
        if requested.selector.mentions(label::TARGET) {
            self.add_configured(requested, annotations);
            return;
        }
        let clusters = match self.configured.select_clusters(requested.selector) {
            Ok(clusters) => clusters,
            Err(ClusterSelectionError::Unknown(cluster)) => {
                self.add_finding(
                    FindingCode::UnknownCluster,
                    format!("the Kafka cluster {cluster:?} is not configured"),
                );
                return;
            }
            Err(ClusterSelectionError::Ambiguous) => {
                self.add_finding(
                    FindingCode::AmbiguousCluster,
                    "several Kafka clusters are configured and its selector names none",
                );
                return;
            }
        };
        if !self.check_selector_size(requested.selector, clusters.len()) {
            return;
        }
        let labels: Vec<Option<&str>> = match group_names(requested.selector) {
            Some(groups) => groups.iter().map(|group| Some(group.as_str())).collect(),
            None if requested.selector.mentions(label::GROUP) => Vec::new(),
            None => vec![None],
        };
        let mut groups: Vec<(GroupId, &str, Settings)> = Vec::new();
        let mut known = BTreeSet::new();
        for label in &labels {
            let settings = annotations.for_name(*label);
            let named = settings.consumer_group.clone();
            let Some(group) = named.or_else(|| label.map(GroupId::from)) else {
                continue;
            };
            if !known.insert(group.clone()) {
                self.add_finding(
                    FindingCode::OneGroupForAll,
                    "annotation lagwise.dev/consumer-group maps several groups of the selector to one consumer group, whose lag counts once",
                );
            } else {
                groups.push((group, label.unwrap_or_default(), settings));
            }
        }
        if groups.is_empty() {
            self.add_finding(FindingCode::NoGroup, NO_GROUP);
        }
        let selected = selected_topics(requested.selector);
        for cluster in clusters {
            for (group, label, settings) in &groups {
                let topics = match selected.is_empty() {
                    true => settings.named_topics(),
                    false => selected.clone(),
                };
                let key = WatchKey {
                    cluster: cluster.clone(),
                    group: group.clone(),
                    topics,
                };
                self.push(requested, label, key, settings.clone());
            }
        }
        self.note_fallback(annotations, &labels);
    }

    /// Whether the selector is within the limits of one metric, with a finding if not. A larger one gets no target, and
    /// [`resolve`](super::lookup::resolve) refuses its queries for the same reason.
    fn check_selector_size(&mut self, selector: &Selector, clusters: usize) -> bool {
        let size = check_size(selector, clusters);
        if let Err(too_large) = size {
            let message = format!("its Kafka metric is not read: {too_large}");
            self.add_finding(FindingCode::OverBudget, message);
        }
        size.is_ok()
    }

    /// Adds configured targets that the HPA selects. The configuration names the group; the metric target and the
    /// annotations of the HPA take precedence over the configuration.
    fn add_configured(&mut self, requested: RequestedMetric<'_>, annotations: &Annotations) {
        if !self.check_selector_size(requested.selector, 1) {
            return;
        }
        let names = requested.selector.values(label::TARGET).unwrap_or(&[]);
        let (configured, hpa) = (self.configured, self.hpa);
        for name in names {
            let is_this = |target: &&Arc<Target>| matches!(&target.origin, Origin::Config { name: of, .. } if **of == **name);
            let mut found = false;
            let named = configured.configured(&hpa.namespace, requested.selector);
            for target in named.filter(is_this) {
                found = true;
                let settings = annotations.for_name(Some(name)).over(&target.settings);
                let topics = settings.named_topics();
                let key = WatchKey {
                    topics,
                    ..(*target.key).clone()
                };
                let label = key.group.to_string();
                self.push(requested, &label, key, settings);
            }
            if !found {
                self.add_finding(
                    FindingCode::UnknownTarget,
                    format!("no target {name:?} is configured for its namespace"),
                );
            }
        }
        if names.is_empty() {
            self.add_finding(FindingCode::NoGroup, NO_GROUP);
        }
        let labels: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
        self.note_fallback(annotations, &labels);
    }

    fn note_fallback(&mut self, annotations: &Annotations, labels: &[Option<&str>]) {
        let lacks = |label: &Option<&str>| annotations.lacks_fallback_replicas(*label);
        if labels.iter().any(lacks) {
            self.add_finding(
                FindingCode::NoFallbackReplicas,
                "annotation lagwise.dev/fallback-after has no effect without lagwise.dev/fallback-replicas",
            );
        }
    }

    fn push(
        &mut self,
        requested: RequestedMetric<'_>,
        label: &str,
        key: WatchKey,
        settings: Settings,
    ) {
        let metric_target = match requested.metric {
            Metric::Lag => requested.target,
            Metric::DesiredReplicas => settings.lag_per_replica.map(MetricTarget::AverageValue),
        };
        if requested.metric == Metric::DesiredReplicas && metric_target.is_none() {
            self.add_finding(
                FindingCode::NoLagPerReplica,
                format!(
                    "{DESIRED_METRIC} needs to know the lag per replica, and no annotation lagwise.dev/lag-per-replica sets it"
                ),
            );
        }
        let settings = settings.for_value();
        // Most HPAs set nothing, and the targets of one HPA usually have the same settings.
        let last = self.targets.last();
        let last = last.map_or_else(Settings::unset, |target| Arc::clone(&target.settings));
        let mut shared = [last, Settings::unset()].into_iter();
        let shared = shared.find(|shared| **shared == settings);
        let settings = shared.unwrap_or_else(|| Arc::new(settings));
        self.targets.push(Arc::new(Target {
            origin: Origin::Hpa(self.key.clone()),
            selector: Some(requested.selector.clone()),
            metric: requested.metric,
            index: requested.index,
            label: label.to_owned(),
            key: Arc::new(key),
            metric_target,
            settings,
            cap: Some(self.cap),
            query_hash: Some(requested.query_hash),
        }));
    }
}
