//! All targets of one consumer group.

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use super::target::Target;
use super::watch_key::WatchKey;
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::RunningReplicas;
use crate::model::kafka::sweep_plan::{GroupPlan, KnownTopics};
use crate::model::settings::{GroupSettings, Settings};
use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment, TopicName};
use crate::model::units::topic_pattern::TopicPattern;

/// All targets of one consumer group, and how to read the group for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTargets {
    targets: Vec<Arc<Target>>,
    ad_hoc: Vec<Arc<WatchKey>>,
    /// Sorted, without duplicates.
    watched: Vec<Watched>,
    settings: Arc<GroupSettings>,
}

/// A key that is watched, and since when, if that was recorded.
type Watched = (Arc<WatchKey>, Option<Moment>);

impl GroupTargets {
    /// Joins targets, in their order, and ad hoc keys of one group. What no target sets is as in `defaults`. A key
    /// keeps the time since when it is watched from `before`, and is watched since `now` otherwise.
    pub(super) fn new(
        targets: Vec<Arc<Target>>,
        ad_hoc: Vec<Arc<WatchKey>>,
        defaults: &Arc<GroupSettings>,
        before: Option<&Self>,
        now: Option<Moment>,
    ) -> Self {
        let settings = join_settings(&targets, &defaults.settings);
        let keys = targets.iter().map(|target| &target.key).chain(&ad_hoc);
        let mut keys: Vec<_> = keys.map(Arc::clone).collect();
        keys.sort();
        keys.dedup();
        let since = |key: &WatchKey| match before.and_then(|before| before.find(key)) {
            Some((_, since)) => *since,
            None => now,
        };
        let watched = keys.into_iter().map(|key| {
            let since = since(&key);
            (key, since)
        });
        // Most groups have no settings.
        let is_default = settings == **defaults;
        Self {
            watched: watched.collect(),
            targets,
            ad_hoc,
            settings: match is_default {
                true => Arc::clone(defaults),
                false => Arc::new(settings),
            },
        }
    }

    fn find(&self, key: &WatchKey) -> Option<&Watched> {
        let index = self
            .watched
            .binary_search_by(|(known, _)| (**known).cmp(key));
        self.watched.get(index.ok()?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.ad_hoc.is_empty()
    }

    /// The targets of this group, in the order of all targets.
    #[must_use]
    pub fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// Whether the administrator has configured a target of this group.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.targets.iter().any(|target| target.hpa().is_none())
    }

    /// Whether the workloads of all targets have zero replicas. Then no member commits, so Kafka may delete the
    /// offsets. They must be remembered, because otherwise all messages that Kafka still has would count and wake the
    /// workload.
    fn is_asleep(&self) -> bool {
        let running = self.targets.iter().map(|target| Some(target.cap?.running));
        let mut asleep = running.map(|running| running == Some(RunningReplicas::None));
        !self.targets.is_empty() && asleep.all(|asleep| asleep)
    }

    /// Whether a configured target covers all topics that any target of this group needs.
    fn is_covered_by_configuration(&self) -> bool {
        let configured = self.targets.iter().filter(|target| target.hpa().is_none());
        let keys: Vec<_> = configured.map(|target| &target.key).collect();
        let named: BTreeSet<_> = keys.iter().flat_map(|key| &key.topics).collect();
        let is_covered = |key: &Arc<WatchKey>| {
            let are_named = key.topics.iter().all(|topic| named.contains(topic));
            keys.contains(&key) || (!key.topics.is_empty() && are_named)
        };
        !keys.is_empty() && self.watched.iter().all(|(key, _)| is_covered(key))
    }

    /// Whether this group and another one need the same topics.
    #[must_use]
    pub fn has_same_topics(&self, other: &Self) -> bool {
        self.watched_topics().eq(other.watched_topics()) && self.patterns() == other.patterns()
    }

    fn watched_topics(&self) -> impl Iterator<Item = &BTreeSet<TopicName>> {
        self.watched.iter().map(|(key, _)| &key.topics)
    }

    /// The patterns that choose among the topics where they are left open.
    fn patterns(&self) -> Vec<Option<&TopicPattern>> {
        let open = self.targets.iter().filter(|t| t.key.topics.is_empty());
        let mut patterns: Vec<_> = open.map(|target| target.settings.pattern()).collect();
        patterns.dedup();
        patterns
    }

    /// The merged settings of all targets of the group.
    #[must_use]
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Time since which a key of this group is watched.
    #[must_use]
    pub fn watched_since(&self, key: &WatchKey) -> Option<Moment> {
        self.find(key)?.1
    }

    /// Whether the topics to read depend on the members' subscriptions.
    #[must_use]
    pub fn has_open_topics(&self) -> bool {
        self.watched.iter().any(|(key, _)| key.topics.is_empty())
    }

    /// The topics that no target names, only requests. Empty without any target.
    fn only_requested(&self) -> Arc<BTreeSet<TopicName>> {
        if self.targets.is_empty() || self.ad_hoc.is_empty() {
            return Arc::default();
        }
        let by_targets = self.targets.iter().flat_map(|target| &target.key.topics);
        let by_targets = BTreeSet::from_iter(by_targets);
        let by_requests = self.ad_hoc.iter().flat_map(|key| &key.topics);
        let only = by_requests.filter(|topic| !by_targets.contains(topic));
        Arc::new(only.cloned().collect())
    }

    /// Plans the read of the group: the topics that any target needs. If a target names no topics, the plan includes
    /// the topics that the members were last known to read, since a topic without a commit has lag too. If the group
    /// has no members, it includes the topics of the cluster that match a pattern, because members would read them.
    #[must_use]
    pub fn plan<K: Into<KnownTopics>>(
        &self,
        id: &GroupId,
        base: LagThresholds,
        known_topics: impl Fn(&GroupId) -> K,
    ) -> GroupPlan {
        let Settings {
            offset_reset,
            isolation,
            ..
        } = &self.settings.settings;
        let discover = self.has_open_topics();
        let topics = self.watched.iter().flat_map(|(key, _)| &key.topics);
        let mut topics = BTreeSet::from_iter(topics.cloned());
        let mut listed_by = Vec::new();
        if discover {
            let KnownTopics {
                topics: known,
                is_empty,
            } = known_topics(id).into();
            let patterns = self.patterns().into_iter();
            if is_empty {
                listed_by = patterns.clone().flatten().cloned().collect();
            }
            let unfiltered = self.ad_hoc.iter().filter(|key| key.topics.is_empty());
            for pattern in patterns.chain(unfiltered.map(|_| None)) {
                let matching = known
                    .iter()
                    .filter(|t| pattern.is_none_or(|p| p.matches(t)));
                topics.extend(matching.cloned());
            }
        }
        let mut thresholds = self.settings.settings.lag_thresholds(base);
        if self.is_asleep() && !thresholds.forget_after.is_zero() {
            thresholds.forget_after = Duration::MAX;
        }
        GroupPlan {
            requested: self.only_requested(),
            discover,
            patterns: listed_by,
            is_unlimited: self.is_covered_by_configuration(),
            reset: offset_reset.unwrap_or_default(),
            isolation: isolation.unwrap_or_default(),
            thresholds,
            ..GroupPlan::new(id.clone(), topics)
        }
    }

    /// Finds the settings that targets set differently: one finding about the group, and one about each of its HPAs.
    pub(super) fn conflicts<'a>(
        &'a self,
        cluster: &'a ClusterName,
        group: &'a GroupId,
    ) -> impl Iterator<Item = Finding> + 'a {
        self.settings.conflicts.iter().flat_map(move |setting| {
            let code = FindingCode::ConflictingSettings;
            let about_group = format!(
                "targets set {setting} differently, or leave it unset; the value that counts more lag applies to all of them"
            );
            // Without the names of the others, who may belong to another team.
            let about_hpa = format!(
                "HPAs or targets of group {group:?} on Kafka cluster {cluster:?} set {setting} differently, or leave it unset; the value that counts more lag applies to all of them"
            );
            let hpas = self.targets.iter().filter_map(|target| target.hpa());
            let of_hpas = hpas.map(move |hpa| Finding::new(code, hpa, about_hpa.clone()));
            iter::once(Finding::new(code, (cluster, group), about_group)).chain(of_hpas)
        })
    }
}

/// Merges the settings of a group's targets. The administrator's configuration of the group is the default.
fn join_settings(targets: &[Arc<Target>], defaults: &Settings) -> GroupSettings {
    if targets.is_empty() {
        return GroupSettings {
            settings: defaults.clone(),
            ..GroupSettings::default()
        };
    }
    let mut configured = GroupSettings::default();
    for target in targets.iter().filter(|target| target.hpa().is_none()) {
        configured.add(&target.settings, &Settings::default());
    }
    let defaults = configured.settings.over(defaults);
    let mut joined = GroupSettings::default();
    for target in targets {
        joined.add(&target.settings, &defaults);
    }
    joined
}
