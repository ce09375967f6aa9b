//! Types of targets: consumer groups that HPAs, the configuration and requests need.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, LazyLock};

use super::budgets::{Amounts, BudgetExceeded, Budgets};
use super::denial_reason::DenialReason;
use super::tenancy::Tenancy;
use super::watch_key::WatchKey;
use crate::model::findings::Finding;
use crate::model::hpa::facts::{MetricTarget, RunningReplicas};
use crate::model::hpa::label;
use crate::model::hpa::selector::Selector;
use crate::model::hpa::write_scopes::WriteScopes;
use crate::model::settings::Settings;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::model::units::quantity::Milli;
use crate::model::units::topic_pattern::TopicPattern;

/// A target from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredTarget {
    /// Value of the label `target` that selects it.
    pub name: Arc<str>,
    /// The namespaces that may select it; empty = all.
    pub namespaces: Vec<String>,
    pub cluster: ClusterName,
    pub group: GroupId,
    /// Lag per replica where no HPA brings its own.
    pub lag_per_replica: Option<Milli>,
    pub settings: Settings,
}

/// Options of targets that the administrator configures.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// Targets besides those of HPAs.
    pub configured: Vec<ConfiguredTarget>,
    /// Lag thresholds for targets that do not set their own.
    pub thresholds: LagThresholds,
    /// Groups and topics that each namespace may use.
    pub tenancy: Tenancy,
    /// Budgets of HPAs.
    pub budgets: Budgets,
    /// Where lagwise may write.
    pub writes: WriteScopes,
}

/// Source of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A metric of this HPA.
    Hpa(HpaKey),
    Config {
        /// The target's name.
        name: Arc<str>,
        /// The namespaces that may select it; empty = all.
        namespaces: Vec<String>,
    },
}

/// The bounds that an HPA sets for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaCap {
    /// Cap mode of its annotation; `None` = the default applies.
    pub mode: Option<CapMode>,
    /// Its present `spec.maxReplicas`.
    pub max_replicas: u32,
    /// Its tolerance upwards, in thousandths.
    pub tolerance_up: u64,
    /// How many replicas its scale target has.
    pub running: RunningReplicas,
}

/// A consumer group that one metric of an HPA, or the configuration, needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub origin: Origin,
    /// The HPA's selector; `None` for a configured target.
    pub selector: Option<Selector>,
    /// The metric served.
    pub metric: Metric,
    /// Position among the HPA's External metrics, from 0.
    pub index: usize,
    /// The selector's name for the group; the group itself for a configured target.
    pub label: String,
    /// The metric.
    pub key: Arc<WatchKey>,
    /// Lag per replica, or in all: the metric target of the HPA for [`LAG_METRIC`], and what is set where it asks
    /// for [`DESIRED_METRIC`].
    ///
    /// [`LAG_METRIC`]: crate::model::units::metric::LAG_METRIC
    /// [`DESIRED_METRIC`]: crate::model::units::metric::DESIRED_METRIC
    pub metric_target: Option<MetricTarget>,
    pub settings: Arc<Settings>,
    /// `None` for a configured target.
    pub cap: Option<HpaCap>,
    /// Hash of the request that its HPA sends; `None` for a configured target.
    pub query_hash: Option<QueryHash>,
}

impl Target {
    /// Its HPA; `None` for a configured target.
    #[must_use]
    pub fn hpa(&self) -> Option<&HpaKey> {
        match &self.origin {
            Origin::Hpa(hpa) => Some(hpa),
            Origin::Config { .. } => None,
        }
    }

    /// Whether a request of `namespace` for this metric and selector is what its HPA sends.
    #[must_use]
    pub fn answers(&self, namespace: &str, metric: Metric, selector: &Selector) -> bool {
        self.metric == metric
            && self.selector.as_ref() == Some(selector)
            && self.hpa().is_some_and(|hpa| *hpa.namespace == *namespace)
    }

    /// Whether the HPAs of both send the same request.
    #[must_use]
    pub fn shares_query_with(&self, other: &Target) -> bool {
        let query = other.hpa().zip(other.selector.as_ref());
        query.is_some_and(|(hpa, selector)| self.answers(&hpa.namespace, other.metric, selector))
    }
}

/// Hash of a metric request. Different requests may share it. In the order of hashes, requests of a namespace for the
/// same groups follow one another, so that a sweep evaluates them while the groups are in the processor's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryHash(u64);

impl QueryHash {
    /// The first one in their order.
    pub const FIRST: Self = Self(0);

    #[must_use]
    pub fn new(namespace: &str, metric: Metric, selector: &Selector) -> Self {
        // Each process has its own random keys, so that users cannot choose selectors that collide.
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let of_groups = KEYS.hash_one((namespace, selector.values(label::GROUP)));
        let of_all = KEYS.hash_one((namespace, metric, selector));
        let low = u64::from(u32::MAX);
        Self((of_groups & !low) | (of_all & low))
    }
}

/// A request of an HPA that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedQuery {
    pub query_hash: QueryHash,
    pub reason: DenialReason,
}

/// Findings, shared between the versions of targets that have them.
pub(super) type Findings = BTreeSet<Arc<Finding>>;

/// The targets of one HPA, and the findings about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HpaTargets {
    /// In the order of its metrics. A metric that is denied has none, so nothing is read or decided for it.
    pub targets: Vec<Arc<Target>>,
    /// In the order of its metrics.
    pub denied: Vec<DeniedQuery>,
    pub findings: Findings,
}

impl HpaTargets {
    /// The demand of the HPA, without the partitions, which are known once its topics are read.
    #[must_use]
    pub fn demand(&self) -> Amounts {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let topics = self
            .targets
            .iter()
            .map(|target| target.key.topics.len().max(1));
        let patterns = self.targets.iter().filter_map(|t| t.settings.pattern());
        let patterns = BTreeSet::from_iter(patterns).into_iter();
        let sum = |amounts: &mut dyn Iterator<Item = usize>| {
            count(amounts.fold(0, usize::saturating_add))
        };
        Amounts {
            groups: count(self.targets.len()),
            topics: sum(&mut topics.into_iter()),
            pattern_bytes: sum(&mut patterns.map(TopicPattern::bytes)),
            partitions: 0,
        }
    }

    /// The same HPA without targets, because a budget is exceeded.
    pub(super) fn denied_by(mut self, hpa: &HpaKey, exceeded: BudgetExceeded) -> Self {
        let reason = DenialReason::OverBudget(exceeded);
        let finding = Finding::new(reason.finding_code(), hpa, reason.to_string());
        self.findings.insert(Arc::new(finding));
        let targets = std::mem::take(&mut self.targets);
        let queries: BTreeSet<_> = targets.iter().filter_map(|t| t.query_hash).collect();
        self.denied
            .extend(queries.into_iter().map(|query_hash| DeniedQuery {
                query_hash,
                reason: reason.clone(),
            }));
        self
    }

    /// Whether the HPA has nothing to do with lagwise.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // A denied query always comes with a finding.
        self.targets.is_empty() && self.findings.is_empty()
    }
}
