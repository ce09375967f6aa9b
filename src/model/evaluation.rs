//! One metric request -> its value, or why there is none.

pub mod fallback;
pub mod idle;
pub mod metric_evaluation;
pub mod parallelism;
pub mod series_match;
pub mod sizing;
pub mod topic_selection;

use std::num::NonZeroU32;
use std::time::Duration;

use self::parallelism::{Limit, Parallelism, TopicWork};
use self::series_match::{group_of, series, unknown};
use self::sizing::{ClampRule, Sizing, in_milli};
use super::hpa::facts::MetricTarget;
use super::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot};
use super::settings::cap_mode::CapMode;
use super::snapshot::LagSnapshot;
use super::targets::HpaCap;
use super::targets::lookup::{GroupQuery, Resolved, resolve};
use super::targets::no_value_reason::NoValueReason;
use super::units::metric::Metric;
use super::units::newtypes::{Lag, Moment, Replicas, TopicName};
use super::units::quantity::Milli;
use crate::model::targets::metric_query::MetricQuery;

pub use self::sizing::ValueRule;

/// The rules that answers follow.
#[derive(Clone, Debug)]
pub struct ServingPolicy {
    /// Whether the value served never exceeds ceiling x wanted lag per replica.
    pub clamp: bool,
    /// What is done about the ceiling of an HPA that does not say.
    pub cap: CapMode,
    /// The oldest reading that is still served.
    pub max_staleness: Duration,
    /// The namespaces whose HPAs are watched; empty = all. What an HPA of another wants is not
    /// known, so its value could not be clamped.
    pub namespaces: Vec<String>,
}

/// The most replicas that can have work, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// So many.
    pub replicas: Limit,
    /// The members that can have work, in all of them.
    pub useful: Parallelism,
    /// Members in each.
    pub threads: NonZeroU32,
}

impl Ceiling {
    /// The larger one: whoever reads several groups has work while one of them has.
    pub(crate) fn max(self, other: Self) -> Self {
        if other.replicas.max(self.replicas) == self.replicas {
            self
        } else {
            other
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricValue {
    /// What it is the value of.
    pub metric: Metric,
    /// What is served.
    pub value: Milli,
    /// The replicas that are wanted, at most the ceiling; `None` where nobody says how much lag each
    /// may have.
    pub desired: Option<u32>,
    /// The lag behind it; `None` where it is unknown and a fallback is served.
    pub lag: Option<Lag>,
    /// The most replicas that can be useful; `None` where that is unknown.
    pub ceiling: Option<Ceiling>,
    /// The lag wanted per replica, where an HPA or the configuration says.
    pub wanted: Option<Milli>,
    /// Which rule made the value.
    pub rule: ValueRule,
    /// When the oldest reading in it was made; of a fallback, since when lag is unknown.
    pub read: Moment,
}

/// The value for a question.
///
/// # Errors
/// Why there is none; never a zero instead.
pub fn answer(
    question: &MetricQuery<'_>,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
) -> Result<MetricValue, NoValueReason> {
    let resolved = resolve(question, &snapshot.targets)?;
    answer_resolved(question, &resolved, snapshot, now, rules)
}

/// As [`answer`], for who has found out by the same snapshot what the question is about.
///
/// # Errors
/// Why there is no value; never a zero instead.
pub fn answer_resolved(
    question: &MetricQuery<'_>,
    resolved: &Resolved,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &ServingPolicy,
) -> Result<MetricValue, NoValueReason> {
    let asking = Evaluator {
        question,
        snapshot,
        now,
        rules,
    };
    let parts = match asking.measure(resolved) {
        Ok(parts) => parts,
        Err(refusal) if refusal.is_unknown() => {
            // Nothing is read for whom nothing can be served.
            asking.watched()?;
            return match asking.listed() {
                Ok(()) => asking.fallback(resolved).ok_or(refusal),
                Err(_) => Err(refusal),
            };
        }
        Err(refusal) => return Err(refusal),
    };
    asking.watched()?;
    asking.listed()?;
    Ok(asking.value(resolved, &parts))
}

/// What is known of one group that a question is about.
struct GroupMeasurement<'a> {
    asked: &'a GroupQuery,
    lag: Lag,
    ceiling: Ceiling,
    read: Moment,
    never_ran: bool,
}

/// A question, and what it is answered from.
pub(super) struct Evaluator<'a> {
    pub(super) question: &'a MetricQuery<'a>,
    pub(super) snapshot: &'a LagSnapshot,
    pub(super) now: &'a Moment,
    pub(super) rules: &'a ServingPolicy,
}

impl Evaluator<'_> {
    /// Whether the HPAs of the namespace are watched: the value can only be clamped by what they want.
    fn watched(&self) -> Result<(), NoValueReason> {
        let watched = &self.rules.namespaces;
        let is_watched = watched.is_empty() || watched.iter().any(|w| w == self.question.namespace);
        if self.rules.clamp && !is_watched {
            return Err(NoValueReason::NamespaceNotWatched {
                namespace: self.question.namespace.to_owned(),
            });
        }
        Ok(())
    }

    /// Whether what the HPAs want is known by now: without it there is nothing to clamp by.
    fn listed(&self) -> Result<(), NoValueReason> {
        if self.rules.clamp && self.snapshot.targets.hpas_unlisted {
            return Err(NoValueReason::HpasUnlisted);
        }
        Ok(())
    }

    fn measure<'r>(
        &self,
        resolved: &'r Resolved,
    ) -> Result<Vec<GroupMeasurement<'r>>, NoValueReason> {
        let mut unread = Vec::new();
        let mut found = Vec::new();
        for asked in &resolved.asked {
            match group_of(self.snapshot, &asked.interest) {
                Some((cluster, group)) => found.push((asked, cluster, group)),
                None => unread.push((*asked.interest).clone()),
            }
        }
        if !unread.is_empty() {
            return Err(NoValueReason::NotYetRead(unread));
        }
        let parts = found.into_iter();
        parts
            .map(|(asked, cluster, group)| self.part(asked, cluster, group))
            .collect()
    }

    fn part<'r>(
        &self,
        asked: &'r GroupQuery,
        cluster: &ClusterSnapshot,
        group: &GroupSnapshot,
    ) -> Result<GroupMeasurement<'r>, NoValueReason> {
        let filter = asked.settings.partitions.as_ref();
        let picked = series(self.question.selector, asked, cluster, group)?;
        let mut lag = Lag::default();
        let mut works = Vec::new();
        let mut read = *self.now;
        let mut never_ran = true;
        for (topic, group_topic) in picked.topics {
            let refuse = || unknown(&asked.interest, cluster, topic, group_topic);
            let complete =
                topic_selection::usable(group_topic, filter, self.now, self.rules.max_staleness)
                    .ok_or_else(refuse)?;
            // A usable reading has no unknown partition; were there one, it is never summed over.
            let total = topic_selection::total(complete, filter).map_err(|_| refuse())?;
            lag = lag.plus(total);
            works.push((topic, topic_selection::work(complete, filter)));
            never_ran &= topic_selection::never_ran(complete, filter);
            if complete.read.monotonic < read.monotonic {
                read = complete.read;
            }
        }
        if let Some(filter) = filter
            && works.iter().all(|(_, work)| work.partitions == 0)
        {
            return Err(NoValueReason::NoPartition {
                filter: filter.to_string(),
                group: asked.interest.group.clone(),
            });
        }
        Ok(GroupMeasurement {
            asked,
            lag,
            ceiling: ceiling(asked, group, &works),
            read,
            never_ran,
        })
    }

    fn value(&self, resolved: &Resolved, parts: &[GroupMeasurement<'_>]) -> MetricValue {
        let lag: Lag = parts.iter().map(|part| part.lag).sum();
        let ceiling = parts.iter().map(|part| part.ceiling).reduce(Ceiling::max);
        let reads = parts.iter().map(|part| part.read);
        let measured = in_milli(lag);
        let limit = ceiling.map_or(Limit::Bounded(Replicas(0)), |ceiling| ceiling.replicas);
        let bound = self.bound(limit, &resolved.caps);
        let sized = |wanted, bound| match wanted {
            MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted)
                if parts.iter().all(|part| part.never_ran) =>
            {
                (wanted, ValueRule::NeverRan)
            }
            MetricTarget::AverageValue(wanted) if self.cools(resolved, parts, lag) => {
                (wanted, ValueRule::Cooldown)
            }
            MetricTarget::AverageValue(wanted) => sized(wanted, limit, parts, bound),
            MetricTarget::Value(_) => (measured, ValueRule::AsMeasured),
        };
        let desired = match resolved.wanted {
            Some(MetricTarget::AverageValue(per_replica)) => {
                let (worth, rule) =
                    sized(MetricTarget::AverageValue(per_replica), ClampRule::Clamp);
                let replicas = worth.ceil_div(per_replica).unwrap_or(0);
                Some((u32::try_from(replicas).unwrap_or(u32::MAX), rule))
            }
            _ => None,
        };
        let (value, rule) = match (resolved.metric, desired, resolved.wanted) {
            (Metric::DesiredReplicas, Some((replicas, rule)), _) => {
                in_replicas(replicas, rule, limit, bound)
            }
            (_, _, Some(wanted)) if self.rules.clamp => sized(wanted, bound),
            (_, _, Some(wanted)) => sized(wanted, ClampRule::None),
            _ => (measured, ValueRule::AsMeasured),
        };
        MetricValue {
            metric: resolved.metric,
            value,
            desired: desired.map(|(replicas, _)| replicas),
            lag: Some(lag),
            ceiling,
            wanted: units(resolved),
            rule,
            read: reads.min_by_key(|read| read.monotonic).unwrap_or(*self.now),
        }
    }

    /// Whether an HPA that may go to zero has had no work for less than its cooldown. An HPA whose
    /// `minReplicas` is zero has none of its own.
    fn cools(&self, resolved: &Resolved, parts: &[GroupMeasurement<'_>], lag: Lag) -> bool {
        let cooldowns = parts.iter().map(|part| part.asked.settings.cooldown());
        let cooldown = cooldowns.max().unwrap_or_default();
        let is_short =
            |since: Option<&Moment>| since.is_none_or(|since| self.now.since(since) < cooldown);
        let mut sleepers = resolved.sleepers.iter();
        lag == Lag(0) && sleepers.any(|hpa| is_short(self.snapshot.idle.get(hpa)))
    }

    /// How the value is bounded: by itself, but where every HPA that asks so is seen to be bounded by
    /// its own maximum.
    fn bound(&self, ceiling: Limit, caps: &[HpaCap]) -> ClampRule {
        let most = ceiling.bounded().unwrap_or(u32::MAX);
        let is_observed = |cap: &HpaCap| {
            cap.mode.unwrap_or(self.rules.cap) == CapMode::Enforce && cap.max_replicas <= most
        };
        if caps.is_empty() || !caps.iter().all(is_observed) {
            return ClampRule::Clamp;
        }
        let tolerances = caps.iter().map(|cap| cap.tolerance_up);
        ClampRule::Observed {
            tolerance: tolerances.max().unwrap_or_default(),
        }
    }
}

/// Each group's lag by its own ceiling, then the sum by the largest.
fn sized(
    wanted: Milli,
    limit: Limit,
    parts: &[GroupMeasurement<'_>],
    bound: ClampRule,
) -> (Milli, ValueRule) {
    let sizing = |ceiling, even, bound| Sizing {
        per_replica: wanted,
        ceiling,
        even,
        bound,
    };
    let mut sum = Milli::default();
    let mut strictest = ValueRule::AsMeasured;
    for part in parts {
        let own = match bound {
            ClampRule::None => ClampRule::None,
            ClampRule::Clamp | ClampRule::Observed { .. } => ClampRule::Clamp,
        };
        let own = sizing(part.ceiling.replicas, false, own);
        let (value, rule) = own.value(in_milli(part.lag));
        sum = sum.plus(value);
        strictest = strictest.max(rule);
    }
    let even = parts.iter().any(|part| part.asked.settings.even());
    match sizing(limit, even, bound).value(sum) {
        // What a group's own ceiling has cut is not raised by being a step already.
        (value, _) if value == sum => (value, strictest),
        sized => sized,
    }
}

/// Replicas as the value of a metric that the HPA compares with one. They are capped already; where the
/// HPA's own maximum holds it, the value carries it over its tolerance as lag does.
fn in_replicas(
    replicas: u32,
    rule: ValueRule,
    limit: Limit,
    bound: ClampRule,
) -> (Milli, ValueRule) {
    let value = Milli::from_units(replicas.into());
    let sizing = Sizing {
        per_replica: Milli::ONE,
        ceiling: limit,
        even: false,
        bound,
    };
    match sizing.value(value) {
        (lifted, ValueRule::Lifted) => (lifted, ValueRule::Lifted),
        _ => (value, rule),
    }
}

/// The most replicas that can have work on what a target reads of a group.
pub(super) fn ceiling(
    asked: &GroupQuery,
    group: &GroupSnapshot,
    works: &[(&TopicName, TopicWork)],
) -> Ceiling {
    let GroupQuery { settings, .. } = asked;
    let filter = settings.partitions.as_ref();
    let useful = topic_selection::parallelism(group, works, filter, settings.by());
    Ceiling {
        replicas: useful.ceiling(settings.threads()),
        useful,
        threads: settings.threads(),
    }
}

fn units(resolved: &Resolved) -> Option<Milli> {
    resolved
        .wanted
        .map(|(MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted))| wanted)
}

#[cfg(test)]
mod tests;
