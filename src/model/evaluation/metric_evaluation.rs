//! Evaluation of one metric for one query: its groups, its value, and the rule that produced the value or
//! the reason why there is none.
//!
//! An evaluation is valid as long as the readings and targets that it was made from. Only what depends on
//! the time of reading is decided by [`MetricEvaluation::value_at`]: whether the readings are stale, whether
//! the fallback is due, and whether the cooldown before zero is over.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::fallback::FallbackEvaluation;
use super::group_evaluation::{Clusters, GroupEvaluation};
use super::idle::IdleSince;
use super::parallelism::Limit;
use super::policy_outcome::PolicyOutcome;
use super::sizing::{ClampRule, in_milli};
use super::unseen::held_reason;
use super::valuation::{ServedValue, Valuation, measures};
use super::{Ceiling, MetricValue, ServingPolicy, is_cap_observed};
use crate::model::hpa::facts::MetricTarget;
use crate::model::targets::Targets;
use crate::model::targets::lookup::ResolvedQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::{Lag, Moment, Replicas};
use crate::model::units::quantity::Milli;

/// Evaluation of one metric.
#[derive(Clone, Debug)]
pub struct MetricEvaluation {
    /// The resolved query, or why it cannot be resolved. Such reasons are large and rare, so they are boxed.
    pub resolved: Result<Arc<ResolvedQuery>, Box<NoValueReason>>,
    /// The groups whose lag is summed, in the order of the query.
    pub groups: SmallVec<[Arc<GroupEvaluation>; 1]>,
    /// Measure over all groups, or why it is unknown. Its readings may be stale by now.
    pub outcome: Result<MetricMeasure, NoValueReason>,
    /// When the oldest of the readings that decide the outcome was made.
    oldest: Option<Moment>,
    /// The first groups, up to this number, decide the outcome: later ones do not matter after the first without a
    /// measure.
    decisive: usize,
    /// Why no value is served even if one is known.
    withheld: Option<Box<NoValueReason>>,
    /// The value to serve while lag is unknown, if an HPA sets a fallback.
    fallback: Option<Box<FallbackEvaluation>>,
    /// Result of its policy and its hold, if it has one.
    pub policy: Option<Arc<PolicyOutcome>>,
}

/// Measure of a metric over all its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricMeasure {
    /// Lag for scaling over all groups.
    pub lag: Lag,
    /// Replica ceiling.
    pub ceiling: Option<Ceiling>,
    /// Replicas for the lag without the ceiling; `None` without a lag per replica.
    pub uncapped: Option<u32>,
    /// Whether `maxReplicas` of every HPA with this query is observed to be at or below the ceiling.
    pub cap_observed: bool,
    /// What is served.
    pub served: ServedValue,
    /// The value to serve until the cooldown before zero is over; `None` without a cooldown.
    pub cooling: Option<ServedValue>,
}

impl MetricEvaluation {
    /// Evaluation of a query that cannot be resolved.
    pub(super) fn unresolved(reason: NoValueReason) -> Self {
        Self {
            resolved: Err(Box::new(reason.clone())),
            groups: SmallVec::new(),
            outcome: Err(reason),
            oldest: None,
            decisive: 0,
            withheld: None,
            fallback: None,
            policy: None,
        }
    }

    /// Evaluates a resolved query of `namespace` from the evaluations of its groups.
    pub(super) fn new(
        namespace: &str,
        resolved: Arc<ResolvedQuery>,
        groups: SmallVec<[Arc<GroupEvaluation>; 1]>,
        targets: &Targets,
        policy: &ServingPolicy,
    ) -> Self {
        let (decisive, measured) = check_measured(&groups);
        let held = || held_reason(namespace, &resolved, &groups, targets).map_or(Ok(()), Err);
        let outcome = measured.and_then(|()| held());
        let outcome = outcome.map(|()| measure(&resolved, &groups, policy));
        let oldest = oldest_reading(&groups, decisive);
        let fallback = FallbackEvaluation::new(&resolved, &groups, targets);
        Self {
            withheld: withheld_reason(namespace, targets, policy).map(Box::new),
            fallback: fallback.map(Box::new),
            resolved: Ok(resolved),
            groups,
            outcome,
            oldest,
            decisive,
            policy: None,
        }
    }

    /// Whether later evaluations of its groups have the same measures, so that only the time of the readings differs.
    pub(super) fn has_same_measures(&self, groups: &[Arc<GroupEvaluation>]) -> bool {
        let is_same = |(before, now): (&Arc<GroupEvaluation>, &Arc<GroupEvaluation>)| {
            let both = before.measure.as_ref().ok().zip(now.measure.as_ref().ok());
            both.is_some_and(|(before, now)| before == now)
        };
        self.outcome.is_ok()
            && self.fallback.is_none()
            && self.groups.len() == groups.len()
            && self.groups.iter().zip(groups).all(is_same)
    }

    /// The evaluation for groups that [have the same measures](Self::has_same_measures).
    pub(super) fn with_same_measures(&self, groups: SmallVec<[Arc<GroupEvaluation>; 1]>) -> Self {
        Self {
            oldest: oldest_reading(&groups, self.decisive),
            groups,
            resolved: self.resolved.clone(),
            outcome: self.outcome.clone(),
            withheld: self.withheld.clone(),
            fallback: None,
            decisive: self.decisive,
            policy: self.policy.clone(),
        }
    }

    /// The value at `now`, or why there is none; never a zero instead of an unknown one.
    ///
    /// # Errors
    /// Why there is no value.
    pub(super) fn value_at(
        &self,
        clusters: &Clusters,
        idle: &IdleSince,
        max_staleness: Duration,
        now: &Moment,
    ) -> Result<MetricValue, NoValueReason> {
        let mut value = self.lag_value_at(clusters, idle, max_staleness, now)?;
        if let Some(policy) = &self.policy {
            policy.apply(&mut value, now);
        }
        Ok(value)
    }

    /// The value at `now` by the lag alone.
    fn lag_value_at(
        &self,
        clusters: &Clusters,
        idle: &IdleSince,
        max_staleness: Duration,
        now: &Moment,
    ) -> Result<MetricValue, NoValueReason> {
        let resolved = self
            .resolved
            .as_ref()
            .map_err(|reason| (**reason).clone())?;
        let stale = self.stale_reason(clusters, max_staleness, now);
        let reason = match (stale, &self.outcome) {
            (None, Ok(measure)) => {
                return match self.withheld.as_deref() {
                    Some(withheld) => Err(withheld.clone()),
                    None => Ok(self.value(resolved, measure, idle, now)),
                };
            }
            (Some(stale), _) => stale,
            (None, Err(reason)) => reason.clone(),
        };
        match self.withheld.as_deref() {
            _ if !reason.is_unknown() => Err(reason),
            // No first read is made for a namespace to which nothing is served.
            Some(withheld @ NoValueReason::NamespaceNotWatched { .. }) => Err(withheld.clone()),
            Some(_) => Err(reason),
            None => {
                let fallback = self.fallback.as_ref();
                let due = fallback.and_then(|f| f.value_at(max_staleness, now));
                due.ok_or(reason)
            }
        }
    }

    /// Whether a fallback may be served.
    pub(super) fn has_fallback(&self) -> bool {
        self.fallback.is_some()
    }

    /// Reason for the first stale reading, in the order in which the outcome was decided; `None` if none is
    /// stale.
    fn stale_reason(
        &self,
        clusters: &Clusters,
        max_staleness: Duration,
        now: &Moment,
    ) -> Option<NoValueReason> {
        if now.since(&self.oldest?) <= max_staleness {
            return None;
        }
        self.groups.iter().take(self.decisive).find_map(|group| {
            let mut topics = group.decisive_topics();
            let stale = topics.find(|topic| topic.is_unusable(now, max_staleness))?;
            Some(group.stale_reason(stale, clusters))
        })
    }

    fn value(
        &self,
        resolved: &ResolvedQuery,
        measure: &MetricMeasure,
        idle: &IdleSince,
        now: &Moment,
    ) -> MetricValue {
        let cooling = measure.cooling.as_ref();
        let cooling = cooling.filter(|_| self.is_cooling(resolved, idle, now));
        let ServedValue {
            value,
            rule,
            desired,
        } = *cooling.unwrap_or(&measure.served);
        MetricValue {
            metric: resolved.metric,
            value,
            desired,
            uncapped: measure.uncapped,
            lag: Some(measure.lag),
            ceiling: measure.ceiling,
            wanted: lag_per_replica(resolved),
            rule,
            read: self.oldest.unwrap_or(*now),
        }
    }

    /// Whether an HPA that may go to zero has been idle for less than its cooldown. An HPA whose `minReplicas` is zero
    /// has no cooldown itself.
    fn is_cooling(&self, resolved: &ResolvedQuery, idle: &IdleSince, now: &Moment) -> bool {
        let cooldowns = self.groups.iter().map(|g| g.query.settings.cooldown());
        let cooldown = cooldowns.max().unwrap_or_default();
        resolved.scale_to_zero_hpas.iter().any(|hpa| {
            let since = idle.get(hpa);
            since.is_none_or(|since| now.since(since) < cooldown)
        })
    }
}

/// When the oldest reading of the groups that decide the result was made.
fn oldest_reading(groups: &[Arc<GroupEvaluation>], decisive: usize) -> Option<Moment> {
    let readings = groups.iter().take(decisive);
    let readings = readings.flat_map(|group| group.decisive_topics());
    readings
        .filter_map(|topic| Some(topic.reading?.read))
        .min_by_key(|read| read.monotonic)
}

/// Number of groups that decide the result, and the first reason why a group has no measure, if there is one.
fn check_measured(groups: &[Arc<GroupEvaluation>]) -> (usize, Result<(), NoValueReason>) {
    let unread = groups.iter().filter(|group| group.group.is_none());
    let unread: Vec<_> = unread.map(|g| (*g.query.key).clone()).collect();
    if !unread.is_empty() {
        return (0, Err(NoValueReason::NotYetRead(unread)));
    }
    for (index, group) in groups.iter().enumerate() {
        let settings = &group.query.settings;
        let reason = match (&group.measure, &settings.partitions) {
            (Err(unmeasured), _) => unmeasured.reason().clone(),
            (Ok(measure), Some(filter)) if measure.partitions == 0 => NoValueReason::NoPartition {
                filter: filter.to_string(),
                group: group.query.key.group.clone(),
            },
            (Ok(_), _) => continue,
        };
        return (index.saturating_add(1), Err(reason));
    }
    (groups.len(), Ok(()))
}

/// Why nothing is served to a namespace: its HPAs are not known, so no value could be clamped.
fn withheld_reason(
    namespace: &str,
    targets: &Targets,
    policy: &ServingPolicy,
) -> Option<NoValueReason> {
    let watched = &policy.namespaces;
    let is_watched = watched.is_empty() || watched.iter().any(|w| w == namespace);
    if !policy.clamp {
        None
    } else if !is_watched {
        Some(NoValueReason::NamespaceNotWatched {
            namespace: namespace.to_owned(),
        })
    } else {
        targets.hpas_unlisted.then_some(NoValueReason::HpasUnlisted)
    }
}

pub(super) fn lag_per_replica(resolved: &ResolvedQuery) -> Option<Milli> {
    resolved
        .metric_target
        .map(|(MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted))| wanted)
}

fn measure(
    resolved: &ResolvedQuery,
    groups: &[Arc<GroupEvaluation>],
    policy: &ServingPolicy,
) -> MetricMeasure {
    let lag: Lag = measures(groups).map(|measure| measure.lag).sum();
    let ceilings = measures(groups).map(|measure| measure.ceiling);
    let ceiling = ceilings.reduce(Ceiling::max);
    let limit = ceiling.map_or(Limit::Bounded(Replicas(0)), |ceiling| ceiling.replicas);
    let caps = &resolved.caps;
    let cap_observed = !caps.is_empty()
        && caps
            .iter()
            .all(|cap| is_cap_observed(cap, policy.cap, limit));
    let tolerance = caps.iter().map(|cap| cap.tolerance_up).max();
    let valuation = Valuation {
        resolved,
        groups,
        lag: in_milli(lag),
        limit,
        clamp: match cap_observed {
            true => ClampRule::Observed {
                tolerance: tolerance.unwrap_or_default(),
            },
            false => ClampRule::Clamp,
        },
        clamps_lag: policy.clamp,
    };
    let per_replica = match resolved.metric_target {
        Some(MetricTarget::AverageValue(per_replica)) => Some(per_replica),
        _ => None,
    };
    let may_cool =
        lag == Lag(0) && !resolved.scale_to_zero_hpas.is_empty() && per_replica.is_some();
    let uncapped = per_replica.and_then(|per| in_milli(lag).ceil_div(per));
    MetricMeasure {
        lag,
        ceiling,
        uncapped: uncapped.map(|replicas| u32::try_from(replicas).unwrap_or(u32::MAX)),
        cap_observed,
        served: valuation.served(false),
        cooling: may_cool.then(|| valuation.served(true)),
    }
}
