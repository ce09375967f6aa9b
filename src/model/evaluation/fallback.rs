//! Fallback: the replicas to serve once lag has been unknown for as long as the HPA sets.

use std::sync::Arc;
use std::time::Duration;

use super::group_evaluation::GroupEvaluation;
use super::parallelism::Limit;
use super::{Ceiling, MetricValue, ValueRule};
use crate::model::hpa::facts::MetricTarget;
use crate::model::settings::Fallback;
use crate::model::targets::Targets;
use crate::model::targets::lookup::ResolvedQuery;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Moment;
use crate::model::units::quantity::Milli;

/// Fallback of a metric, except for what depends on the time of reading.
#[derive(Clone, Debug)]
pub(super) struct FallbackEvaluation {
    /// How long lag has to be unknown.
    after: Duration,
    metric: Metric,
    lag_per_replica: Milli,
    /// Replicas to serve, at most the ceiling.
    replicas: u32,
    ceiling: Option<Ceiling>,
    /// The lags that may be unknown.
    sources: Vec<LagSource>,
}

/// A lag that may be unknown: of a topic, or of a group without known topics.
#[derive(Clone, Copy, Debug)]
struct LagSource {
    /// When the reading that is served until it is stale was made.
    reading: Option<Moment>,
    /// Time since which the lag is unknown without such a reading.
    unknown_since: Option<Moment>,
}

impl FallbackEvaluation {
    /// Fallback of a metric; `None` if no HPA sets one.
    pub(super) fn new(
        resolved: &ResolvedQuery,
        groups: &[Arc<GroupEvaluation>],
        targets: &Targets,
    ) -> Option<Self> {
        let Some(MetricTarget::AverageValue(lag_per_replica)) = resolved.metric_target else {
            return None;
        };
        let set = groups.iter().filter_map(|g| g.query.settings.fallback());
        let fallback = set.reduce(|a, b| Fallback {
            replicas: a.replicas.max(b.replicas),
            after: a.after.max(b.after),
        })?;
        let ceilings = groups.iter().map(|group| group.last_ceiling());
        let ceiling = ceilings
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().reduce(Ceiling::max));
        let most = ceiling.map_or(Limit::Unbounded, |ceiling| ceiling.replicas);
        Some(Self {
            after: fallback.after,
            metric: resolved.metric,
            lag_per_replica,
            replicas: most.cut(fallback.replicas.get()),
            ceiling,
            sources: groups.iter().flat_map(|g| sources(g, targets)).collect(),
        })
    }

    /// Value to serve at `now`; `None` if lag is known or has not been unknown for long enough.
    pub(super) fn value_at(&self, max_staleness: Duration, now: &Moment) -> Option<MetricValue> {
        let is_fresh = |read: Moment| now.since(&read) <= max_staleness;
        let unknown = self
            .sources
            .iter()
            .filter(|s| !s.reading.is_some_and(is_fresh));
        let since = unknown
            .filter_map(|source| source.unknown_since)
            .min_by_key(|since| since.monotonic)?;
        if now.since(&since) < self.after {
            return None;
        }
        Some(MetricValue {
            metric: self.metric,
            value: match self.metric {
                Metric::Lag => self.lag_per_replica.times(self.replicas),
                Metric::DesiredReplicas => Milli::from_units(self.replicas.into()),
            },
            desired: Some(self.replicas),
            uncapped: None,
            lag: None,
            ceiling: self.ceiling,
            wanted: Some(self.lag_per_replica),
            rule: ValueRule::Fallback,
            read: since,
        })
    }
}

/// The lags of a group that may be unknown. A lag that was never read is unknown since the group is watched.
fn sources(group: &GroupEvaluation, targets: &Targets) -> Vec<LagSource> {
    let watched_since = targets.watched_since(&group.query.key);
    let topics = group.topics();
    let of_topics = topics.map(|topic| {
        let complete = topic.read.complete.as_ref();
        LagSource {
            reading: topic.reading.map(|reading| reading.read),
            unknown_since: complete.map(|complete| complete.read).or(watched_since),
        }
    });
    let mut sources: Vec<_> = of_topics.collect();
    if sources.is_empty() {
        sources.push(LagSource {
            reading: None,
            unknown_since: watched_since,
        });
    }
    sources
}
