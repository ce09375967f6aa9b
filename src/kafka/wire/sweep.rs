//! One sweep: metadata, commits, log ends, in this order, so that a live consumer has no negative
//! lag; each step with a share of the time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::describe::Describing;
use super::offset_fetch::{Commit, FetchedOffsets, OffsetFetchQuery, fill};
use super::topics::TopicCatalog;
use super::{Inner, commits};
use crate::kafka::reachability::{Reachability, heard, unheard};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::GroupKind;
use crate::model::kafka::observation::{CommittedColumn, GroupObservation, Observation, Traffic};
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::units::newtypes::{GroupId, Moment, TopicName};

/// How long the topics found to have commits are taken for all of them.
const DISCOVERY_LASTS: Duration = Duration::from_secs(30);

/// What groups have committed on, as last discovered.
#[derive(Debug, Default)]
pub(super) struct Discovered(Mutex<HashMap<GroupId, (Instant, BTreeSet<TopicName>)>>);

impl Discovered {
    fn all(&self) -> MutexGuard<'_, HashMap<GroupId, (Instant, BTreeSet<TopicName>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, group: &GroupId) -> Option<BTreeSet<TopicName>> {
        match self.all().get(group) {
            Some((when, topics)) if when.elapsed() < DISCOVERY_LASTS => Some(topics.clone()),
            _ => None,
        }
    }

    fn keep(&self, found: impl Iterator<Item = (GroupId, BTreeSet<TopicName>)>) {
        let now = Instant::now();
        let mut all = self.all();
        all.retain(|_, (when, _)| when.elapsed() < DISCOVERY_LASTS);
        all.extend(found.map(|(group, topics)| (group, (now, topics))));
    }
}

impl Inner {
    pub(super) async fn sweep(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        let started = Moment::now();
        // A later step gets what earlier ones leave: metadata 2/5 of the time, commits up to 3/5.
        let budget = deadline.saturating_duration_since(started.monotonic);
        let by = |fifths: u32| (started.monotonic + budget / 5 * fifths).into();
        self.let_go(&plan);
        // The topics to name; none where they are to be discovered.
        let named: Vec<_> = plan.groups.iter().map(|group| self.named(group)).collect();
        let by_name = named.iter().flatten().flat_map(|topics| topics.iter());
        let by_plan = plan.groups.iter().flat_map(|group| &group.topics);
        let names: BTreeSet<_> = by_name.chain(by_plan).collect();
        let names = names.into_iter().cloned().collect();
        let (known, is_new) = match self.cluster.topics(&names, by(2)).await {
            Ok(known) => known,
            Err(fault) => {
                let connection = self.health().silent(&self.bootstrap, Moment::now());
                return Observation {
                    traffic: Some(self.traffic()),
                    ..unheard(self.name.clone(), plan, started, fault, connection)
                };
            }
        };
        let asked: Vec<_> = plan
            .groups
            .iter()
            .zip(named)
            .map(|(group, named)| asked(group, named, &known))
            .collect();
        let commits = commits::CommitSweep {
            cluster: &self.cluster,
            asked: &asked,
            deadline: by(3),
        };
        let mut found = commits.run().await;
        // What a group is, is asked before the logs where its offsets depend on it, else beside them.
        let new = self.due(&asked, &found, false);
        self.describe(new, &known, by(4)).await;
        self.share_offsets(&asked, &mut found, by(4)).await;
        let (known, unknown) = self.discover(known, &found, by(4)).await;
        let described = self.due(&asked, &found, true);
        let mut groups: Vec<_> = plan
            .groups
            .into_iter()
            .zip(found)
            .map(|(plan, found)| {
                let committed = match (found, unknown) {
                    (Ok(FetchedOffsets::Named(columns)), _) => Ok(columns),
                    // Without their partitions nothing can be said of topics that were discovered.
                    (Ok(FetchedOffsets::Discovered(_)), Some(fault)) => Err(fault),
                    (Ok(FetchedOffsets::Discovered(found)), None) => {
                        Ok(columns(&plan, found, &known))
                    }
                    (Err(fault), _) => Err(fault),
                };
                GroupObservation {
                    plan,
                    committed,
                    description: Err(Fault::Untold),
                }
            })
            .collect();
        self.remember(&asked, &groups);
        let ((topics, moved), ()) = futures::join!(
            self.logs(&known, &groups, &started, deadline),
            self.describe(described, &known, deadline.into()),
        );
        self.fill_in(&mut groups);
        if moved {
            self.cluster.forget_topics();
        }
        let is_silent = match heard(&groups) {
            Reachability::NothingAsked if !is_new => None,
            Reachability::Silence if !is_new => {
                // Only kept metadata speaks for the cluster: a coordinator is gone, or all of it.
                // New metadata tells.
                let asked_anew = self
                    .cluster
                    .refresh(&BTreeSet::new(), deadline.into())
                    .await;
                if asked_anew.is_err() {
                    self.cluster.forget_topics();
                }
                Some(asked_anew.is_err())
            }
            _ => Some(false),
        };
        let connection = self.health().after_sweep(is_silent, &self.bootstrap);
        Observation {
            cluster: self.name.clone(),
            started,
            finished: Moment::now(),
            topics,
            groups,
            connection,
            traffic: Some(self.traffic()),
        }
    }

    fn traffic(&self) -> Traffic {
        self.cluster.shared.traffic.now()
    }

    /// What is kept of groups that are in no plan any more does not grow without end.
    fn let_go(&self, plan: &SweepPlan) {
        let known = self.cluster.coordinators.len();
        if known > plan.groups.len().saturating_mul(2).saturating_add(1000) {
            let wanted: BTreeSet<_> = plan.groups.iter().map(|group| &group.group).collect();
            self.cluster
                .coordinators
                .retain(|group| wanted.contains(group));
        }
    }

    /// The groups that are to be described, of those that have answered.
    fn due(
        &self,
        asked: &[OffsetFetchQuery],
        found: &[Result<FetchedOffsets, Fault>],
        has_kind: bool,
    ) -> Vec<GroupId> {
        let heard = asked.iter().zip(found).filter(|(_, found)| found.is_ok());
        let groups = heard.map(|(asked, _)| &asked.group);
        self.descriptions.due(groups, has_kind)
    }

    async fn describe(
        &self,
        groups: Vec<GroupId>,
        known: &TopicCatalog,
        deadline: tokio::time::Instant,
    ) {
        let describing = Describing {
            cluster: &self.cluster,
            known,
            descriptions: &self.descriptions,
            deadline,
        };
        describing.run(groups).await;
    }

    /// Gives every group what is known of it.
    fn fill_in(&self, groups: &mut [GroupObservation]) {
        for group in groups {
            let told = self.descriptions.told(&group.plan.group);
            group.description = match (told, &group.committed) {
                (Some(told), _) => told,
                (None, Err(fault)) => Err(*fault),
                (None, Ok(_)) => Err(Fault::NoAnswer),
            };
        }
        self.descriptions.let_go();
    }

    /// Replaces the commits of share groups, which have none, by where they stand.
    async fn share_offsets(
        &self,
        asked: &[OffsetFetchQuery],
        found: &mut [Result<FetchedOffsets, Fault>],
        deadline: tokio::time::Instant,
    ) {
        let is_share = |group| self.descriptions.kind(group) == Some(GroupKind::Share);
        let (places, shares): (Vec<_>, Vec<_>) = found
            .iter_mut()
            .zip(asked)
            .filter(|(found, asked)| found.is_ok() && is_share(&asked.group))
            .unzip();
        let read = self.cluster.share_offsets(&shares, deadline).await;
        for (place, read) in places.into_iter().zip(read) {
            *place = read;
        }
    }

    /// The topics to ask about by name, which alone tells a forbidden topic from one without a
    /// commit; `None` where the group's topics are to be discovered.
    fn named<'p>(&self, plan: &'p GroupPlan) -> Option<Cow<'p, BTreeSet<TopicName>>> {
        if !plan.discover {
            return Some(Cow::Borrowed(&plan.topics));
        }
        let mut topics = self.discovered.get(&plan.group)?;
        topics.extend(plan.topics.iter().cloned());
        Some(Cow::Owned(topics))
    }

    /// The topics that groups turned out to have commits on, with their partitions; and why those
    /// are unknown, where they are.
    async fn discover(
        &self,
        known: Arc<TopicCatalog>,
        found: &[Result<FetchedOffsets, Fault>],
        deadline: tokio::time::Instant,
    ) -> (Arc<TopicCatalog>, Option<Fault>) {
        let mut names: BTreeSet<TopicName> = found
            .iter()
            .filter_map(|found| match found {
                Ok(FetchedOffsets::Discovered(topics)) => Some(topics),
                _ => None,
            })
            .flatten()
            .filter(|(name, _)| is_read(name))
            .map(|(name, _)| known.name(name))
            .collect();
        names.retain(|name| known.age(name).is_none());
        if names.is_empty() {
            return (known, None);
        }
        match self.cluster.refresh(&names, deadline).await {
            Ok(known) => (known, None),
            Err(fault) => (known, Some(fault)),
        }
    }

    fn remember(&self, asked: &[OffsetFetchQuery], groups: &[GroupObservation]) {
        let found = asked.iter().zip(groups).filter_map(|(asked, group)| {
            let columns = group.committed.as_ref().ok()?;
            asked
                .topics
                .is_none()
                .then(|| (asked.group.clone(), columns.keys().cloned().collect()))
        });
        self.discovered.keep(found);
    }
}

/// Kafka's own topics are nobody's work.
fn is_read(name: &str) -> bool {
    !name.starts_with("__")
}

fn asked(
    plan: &GroupPlan,
    named: Option<Cow<'_, BTreeSet<TopicName>>>,
    known: &TopicCatalog,
) -> OffsetFetchQuery {
    let sized = |name: &TopicName| (name.clone(), known.partitions(name));
    OffsetFetchQuery {
        group: plan.group.clone(),
        topics: named.map(|names| names.iter().map(sized).collect()),
    }
}

/// The columns of a group that discovers: of the topics in its plan, and of those with a commit.
fn columns(
    plan: &GroupPlan,
    found: Vec<(String, Vec<Commit>)>,
    known: &TopicCatalog,
) -> BTreeMap<TopicName, CommittedColumn> {
    // An answer about all topics leaves out what has no commit.
    let empty = |name: &TopicName| vec![Ok(None); known.partitions(name)];
    let mut columns: BTreeMap<_, _> = plan
        .topics
        .iter()
        .map(|name| (name.clone(), empty(name)))
        .collect();
    for (name, commits) in found {
        let name = known.name(&name);
        let is_new = is_read(name.as_str()) && known.topic(&name).is_ok();
        let has_commit = || commits.iter().any(|(_, committed)| *committed != Ok(None));
        if is_new && has_commit() && !columns.contains_key(&name) {
            columns.insert(name.clone(), empty(&name));
        }
        if let Some(column) = columns.get_mut(&name) {
            fill(column, commits.into_iter());
        }
    }
    columns
}
