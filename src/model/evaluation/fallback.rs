//! What is served where lag has been unknown for so long that somebody prefers a number to a hold.

use super::parallelism::Limit;
use super::series_match::group_of;
use super::{Ceiling, Evaluator, MetricValue, ValueRule, ceiling, topic_selection};
use crate::model::hpa::facts::MetricTarget;
use crate::model::settings::Fallback;
use crate::model::targets::lookup::{GroupQuery, Resolved};
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Moment;
use crate::model::units::quantity::Milli;

impl Evaluator<'_> {
    /// What is served instead, where lag has been unknown for as long as was set.
    pub(super) fn fallback(&self, resolved: &Resolved) -> Option<MetricValue> {
        let Some(MetricTarget::AverageValue(wanted)) = resolved.wanted else {
            return None;
        };
        let set = resolved.asked.iter().filter_map(|a| a.settings.fallback());
        let fallback = set.reduce(|a, b| Fallback {
            replicas: a.replicas.max(b.replicas),
            after: a.after.max(b.after),
        })?;
        let unknown = resolved.asked.iter().filter_map(|a| self.unknown_since(a));
        let since = unknown.min_by_key(|since| since.monotonic)?;
        if self.now.since(&since) < fallback.after {
            return None;
        }
        // Partitions do not go away: what was known of them last still bounds.
        let known = resolved.asked.iter().map(|a| self.last_ceiling(a));
        let ceiling = known
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().reduce(Ceiling::max));
        let most = ceiling.map_or(Limit::Unbounded, |ceiling| ceiling.replicas);
        let replicas = most.cut(fallback.replicas.get());
        Some(MetricValue {
            metric: resolved.metric,
            value: match resolved.metric {
                Metric::Lag => wanted.times(replicas),
                Metric::DesiredReplicas => Milli::from_units(replicas.into()),
            },
            desired: Some(replicas),
            lag: None,
            ceiling,
            wanted: Some(wanted),
            rule: ValueRule::Fallback,
            read: since,
        })
    }

    /// Since when something of a group is unknown; `None` where nothing is.
    fn unknown_since(&self, asked: &GroupQuery) -> Option<Moment> {
        let first_wanted = self.snapshot.targets.since.get(&asked.interest).copied();
        let Some((_, group)) = group_of(self.snapshot, &asked.interest) else {
            return first_wanted;
        };
        let filter = asked.settings.partitions.as_ref();
        let picked = topic_selection::pick(group, &asked.interest.topics, asked.settings.pattern());
        if picked.topics.is_empty() {
            return first_wanted;
        }
        let usable = |read| {
            topic_selection::usable(read, filter, self.now, self.rules.max_staleness).is_some()
        };
        let unusable = picked.topics.into_iter().filter(|(_, read)| !usable(read));
        unusable
            .filter_map(|(_, read)| match &read.complete {
                Some(complete) => Some(complete.read),
                None => first_wanted,
            })
            .min_by_key(|since| since.monotonic)
    }

    /// A group's ceiling by its last complete readings, however old.
    fn last_ceiling(&self, asked: &GroupQuery) -> Option<Ceiling> {
        let (_, group) = group_of(self.snapshot, &asked.interest)?;
        let filter = asked.settings.partitions.as_ref();
        let picked = topic_selection::pick(group, &asked.interest.topics, asked.settings.pattern());
        let works: Option<Vec<_>> = picked
            .topics
            .into_iter()
            .map(|(topic, read)| {
                Some((
                    topic,
                    topic_selection::work(read.complete.as_ref()?, filter),
                ))
            })
            .collect();
        let works = works.filter(|works| works.iter().any(|(_, work)| work.partitions > 0))?;
        Some(ceiling(asked, group, &works))
    }
}
