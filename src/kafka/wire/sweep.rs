//! One sweep of a cluster: metadata, then committed offsets, then log-end offsets. In this order a consumer that
//! commits during the sweep cannot appear to be ahead of the log. Each step gets a share of the time.

mod discovered;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use self::discovered::{discovered_columns, empty_column, lacks_metadata, topics_without_metadata};
use super::describe::GroupDescriber;
use super::offset_fetch::{FetchedOffsets, OffsetFetchQuery};
use super::topics::ClusterMetadata;
use super::{WireInner, commits};
use crate::kafka::reachability::{Reachability, classify_answers, unreachable_observation};
use crate::kafka::topic_listing::{self, Listings};
use crate::model::kafka::fault::{BrokerFault, Fault};
use crate::model::kafka::group::GroupKind;
use crate::model::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, ReportedLags, Traffic,
};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::sweep_plan::{GroupPlan, PartitionAllowance, SweepPlan};
use crate::model::kafka::topic_map::TopicMap;
use crate::model::units::newtypes::{GroupId, Moment, TopicName};

impl WireInner {
    /// Executes a plan until `deadline`.
    pub(super) async fn sweep(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        let started = Moment::now();
        // Deadlines as shares of the budget:
        //   1/5  names of topics
        //   2/5  metadata
        //   3/5  commits
        //   4/5  descriptions of groups of unknown kind, offsets of share groups, metadata of discovered topics
        // A step that ends early leaves its time to the later ones.
        let budget = deadline.saturating_duration_since(started.monotonic);
        let by = |fifths: u32| (started.monotonic + budget / 5 * fifths).into();
        self.prune_coordinators(&plan);
        let mut listings = self.list_topics(&plan.groups, by(1)).await;
        // Decided once: a concurrent sweep may discover topics that the metadata below does not cover.
        let discovered: Vec<_> = plan
            .groups
            .iter()
            .map(|group| self.discovered.get(&group.group))
            .collect();
        for (group, discovered) in plan.groups.iter().zip(&discovered) {
            topic_listing::leave_out(&mut listings, &group.group, |topic| {
                discovered.as_ref().is_some_and(|d| d.contains(topic)) || group.is_named(topic)
            });
        }
        let named: Vec<_> = plan
            .groups
            .iter()
            .zip(discovered)
            .map(|(group, discovered)| topics_to_request(group, discovered))
            .collect();
        let fetched = {
            let named = plan.groups.iter().zip(&named);
            let topics = named.flat_map(|(g, named)| {
                let listed = topic_listing::listed(&listings, &g.group);
                named.as_ref().unwrap_or(&g.topics).iter().chain(listed)
            });
            self.cluster.metadata(&topics.collect(), by(2)).await
        };
        let (metadata, is_metadata_new) = match fetched {
            Ok(fetched) => fetched,
            Err(fault) => {
                let connection = self.health().record_silence(&self.bootstrap, Moment::now());
                return Observation {
                    traffic: Some(self.traffic()),
                    ..unreachable_observation(
                        self.name.clone(),
                        plan,
                        started,
                        fault,
                        connection,
                        self.unreachable_brokers(&started),
                    )
                };
            }
        };
        let mut allowance = PartitionAllowance::new(plan.max_partitions);
        let (mut planned, mut queries, mut over_budget) = (Vec::new(), Vec::new(), Vec::new());
        for (group, named) in plan.groups.into_iter().zip(named) {
            let query = offset_query(&group, named.as_deref(), &metadata);
            match allowance.take(&group, query.named_partitions()) {
                Ok(()) => {
                    planned.push(group);
                    queries.push(query);
                }
                Err(refused) => over_budget.push(GroupObservation::over_budget(group, refused)),
            }
        }
        // Topics that only patterns match have an allowance of their own, so they use up none of that of others.
        let mut listed_allowance = PartitionAllowance::new(plan.max_listed_partitions);
        for (group, query) in planned.iter().zip(&mut queries) {
            if let Some(topics) = &mut query.topics {
                let listed = listed_topics(group, &mut listings, &mut listed_allowance, &metadata);
                if !listed.is_empty() {
                    topics.extend(listed);
                    topics.sort();
                }
            }
        }
        let commits = commits::CommitSweep {
            cluster: &self.cluster,
            queries: &queries,
            deadline: by(3),
        };
        let mut found = commits.run().await;
        // Groups of unknown kind are described first, because share groups need another request for
        // their offsets. Groups of known kind are described while the logs are read.
        let of_unknown_kind = self.groups_to_describe(&queries, &found, false);
        self.describe(of_unknown_kind, &metadata, by(4)).await;
        let mut reported = self.share_offsets(&queries, &mut found, by(4)).await;
        let (metadata, metadata_fault) = self.resolve_discovered(metadata, &found, by(4)).await;
        let of_known_kind = self.groups_to_describe(&queries, &found, true);
        let mut groups: Vec<_> = planned
            .into_iter()
            .zip(found)
            .map(|(plan, found)| {
                let committed = match (found, metadata_fault) {
                    (Ok(FetchedOffsets::Named(columns)), _) => Ok(columns),
                    // Discovered topics are useless without their partition counts.
                    (Ok(FetchedOffsets::Discovered(found)), Some(fault))
                        if lacks_metadata(&found, &metadata) =>
                    {
                        Err(fault)
                    }
                    (Ok(FetchedOffsets::Discovered(found)), _) => {
                        let mut columns = discovered_columns(&plan, found, &metadata);
                        topic_listing::leave_out(&mut listings, &plan.group, |topic| {
                            let column = columns.get(topic);
                            column.is_some_and(|c| c.has_commits() || plan.is_named(topic))
                        });
                        if let Err(refused) = allowance.take(&plan, count_partitions(&columns)) {
                            return GroupObservation::over_budget(plan, refused);
                        }
                        let listed =
                            listed_topics(&plan, &mut listings, &mut listed_allowance, &metadata);
                        for (topic, _) in listed {
                            let column = empty_column(&topic, &metadata);
                            columns.insert(topic, column);
                        }
                        Ok(columns)
                    }
                    (Err(fault), _) => Err(fault),
                };
                GroupObservation {
                    reported_lags: reported.remove(&plan.group),
                    plan,
                    committed,
                    description: Err(Fault::Unsupported),
                    refused_partitions: None,
                }
            })
            .collect();
        self.cache_discovered(&queries, &groups, &listings);
        // Only in whole sweeps: partial sweeps come at any time, and each listing would put off the next one.
        let listing = (!plan.is_partial).then(|| self.listing.deadline(&groups, deadline));
        let ((topics, have_leaders_moved), (), group_names) = futures::join!(
            self.logs(&metadata, &groups, &started, deadline),
            self.describe(of_known_kind, &metadata, deadline.into()),
            self.group_names(listing.flatten()),
        );
        self.attach_descriptions(&mut groups);
        if have_leaders_moved {
            self.cluster.invalidate_topics();
        }
        let is_silent = match classify_answers(&groups) {
            Reachability::NotAsked if !is_metadata_new => None,
            Reachability::NoAnswer if !is_metadata_new => {
                // No broker answered, and the metadata came from the cache: either a coordinator is down, or the whole
                // cluster. New metadata shows which.
                let refetched = self
                    .cluster
                    .fetch_metadata(&BTreeSet::new(), deadline.into())
                    .await;
                if refetched.is_err() {
                    self.cluster.invalidate_topics();
                }
                Some(refetched.is_err())
            }
            _ => Some(false),
        };
        let connection = self.health().record_sweep(is_silent, &self.bootstrap);
        groups.extend(over_budget);
        Observation {
            cluster: self.name.clone(),
            started,
            finished: Moment::now(),
            topics,
            groups,
            connection,
            unreachable_brokers: self.unreachable_brokers(&started),
            traffic: Some(self.traffic()),
            listings,
            group_names,
            certificates: CertificateExpiry::default(),
        }
    }

    /// The brokers that the sweep needed and that cannot be reached.
    fn unreachable_brokers(&self, started: &Moment) -> Vec<BrokerFault> {
        let sweep = Some(started.monotonic);
        self.health().unreachable_brokers(Instant::now(), sweep)
    }

    fn traffic(&self) -> Traffic {
        self.cluster.shared.traffic.totals()
    }

    /// Evicts coordinators of groups that left the plan, once they are many.
    fn prune_coordinators(&self, plan: &SweepPlan) {
        let known = self.cluster.coordinators.len();
        if known > plan.groups.len().saturating_mul(2).saturating_add(1000) {
            let wanted: BTreeSet<_> = plan.groups.iter().map(|group| &group.group).collect();
            self.cluster
                .coordinators
                .retain(|group| wanted.contains(group));
        }
    }

    /// Groups whose coordinator answered and whose description is due: those of known kind, or those of unknown kind.
    fn groups_to_describe(
        &self,
        queries: &[OffsetFetchQuery],
        found: &[Result<FetchedOffsets, Fault>],
        is_kind_known: bool,
    ) -> Vec<GroupId> {
        let answered = queries.iter().zip(found).filter(|(_, found)| found.is_ok());
        let groups = answered.map(|(query, _)| (&query.group, query.is_changing));
        self.descriptions.due_groups(groups, is_kind_known)
    }

    async fn describe(
        &self,
        groups: Vec<GroupId>,
        metadata: &ClusterMetadata,
        deadline: tokio::time::Instant,
    ) {
        let describer = GroupDescriber {
            cluster: &self.cluster,
            metadata,
            descriptions: &self.descriptions,
            deadline,
        };
        describer.run(groups).await;
    }

    /// Adds the latest description to every group.
    fn attach_descriptions(&self, groups: &mut [GroupObservation]) {
        for group in groups {
            let latest = self.descriptions.latest(&group.plan.group);
            group.description = match (latest, &group.committed) {
                (Some(latest), _) => latest,
                (None, Err(fault)) => Err(*fault),
                (None, Ok(_)) => Err(Fault::NoAnswer),
            };
        }
        self.descriptions.evict_unused();
    }

    /// Replaces the committed offsets of share groups, which have none, by their share-partition
    /// start offsets. Returns the lags that the coordinators report, by share group.
    async fn share_offsets(
        &self,
        queries: &[OffsetFetchQuery],
        found: &mut [Result<FetchedOffsets, Fault>],
        deadline: tokio::time::Instant,
    ) -> HashMap<GroupId, ReportedLags> {
        let is_share = |group| self.descriptions.kind(group) == Some(GroupKind::Share);
        let (places, shares): (Vec<_>, Vec<_>) = found
            .iter_mut()
            .zip(queries)
            .filter(|(found, query)| found.is_ok() && is_share(&query.group))
            .unzip();
        let read = self.cluster.share_offsets(&shares, deadline).await;
        let mut reported = HashMap::new();
        for ((place, query), read) in places.into_iter().zip(&shares).zip(read) {
            *place = read.map(|(starts, lags)| {
                reported.insert(query.group.clone(), lags);
                starts
            });
        }
        reported
    }

    /// Fetches the metadata of discovered topics if it is not cached. Returns the old metadata and the fault if that
    /// fails.
    async fn resolve_discovered(
        &self,
        metadata: Arc<ClusterMetadata>,
        found: &[Result<FetchedOffsets, Fault>],
        deadline: tokio::time::Instant,
    ) -> (Arc<ClusterMetadata>, Option<Fault>) {
        let names: BTreeSet<TopicName> = found
            .iter()
            .filter_map(|found| match found {
                Ok(FetchedOffsets::Discovered(topics)) => Some(topics),
                _ => None,
            })
            .flat_map(|topics| topics_without_metadata(topics, &metadata))
            .collect();
        if names.is_empty() {
            return (metadata, None);
        }
        match self.cluster.fetch_metadata(&names, deadline).await {
            Ok(metadata) => (metadata, None),
            Err(fault) => (metadata, Some(fault)),
        }
    }

    /// Remembers the discovered topics of each group, so that later sweeps request them by name.
    fn cache_discovered(
        &self,
        queries: &[OffsetFetchQuery],
        groups: &[GroupObservation],
        listings: &Listings,
    ) {
        let discovered = queries.iter().zip(groups).filter_map(|(query, group)| {
            let columns = group.committed.as_ref().ok()?;
            let listed = listings.get(&query.group).map(|listing| listing.topics());
            let is_listed = |topic: &&TopicName| listed.is_some_and(|l| l.contains(*topic));
            let topics = columns.keys().filter(|topic| !is_listed(topic)).cloned();
            query
                .topics
                .is_none()
                .then(|| (query.group.clone(), topics.collect()))
        });
        self.discovered.insert(discovered);
    }
}

/// The topics of a group to request by name; `None` if they must be discovered first. A request for all topics omits
/// forbidden topics as well as those without a commit, so only a request by name distinguishes them.
fn topics_to_request(
    plan: &GroupPlan,
    discovered: Option<Arc<BTreeSet<TopicName>>>,
) -> Option<Arc<BTreeSet<TopicName>>> {
    if !plan.discover {
        return Some(Arc::clone(&plan.topics));
    }
    let mut topics = discovered?;
    if !plan.topics.is_subset(&topics) {
        Arc::make_mut(&mut topics).extend(plan.topics.iter().cloned());
    }
    Some(topics)
}

fn offset_query(
    plan: &GroupPlan,
    named: Option<&BTreeSet<TopicName>>,
    metadata: &ClusterMetadata,
) -> OffsetFetchQuery {
    let sized = |name: &TopicName| (name.clone(), metadata.partitions(name));
    OffsetFetchQuery {
        group: plan.group.clone(),
        topics: named.map(|names| names.iter().map(sized).collect()),
        is_changing: plan.is_changing,
    }
}

/// The topics that are read only because the patterns of a group match them, with their partitions. While they exceed
/// the allowance, the pattern that matches most topics is refused.
fn listed_topics(
    group: &GroupPlan,
    listings: &mut Listings,
    allowance: &mut PartitionAllowance,
    metadata: &ClusterMetadata,
) -> Vec<(TopicName, usize)> {
    loop {
        let only_listed = topic_listing::only_listed(listings, group);
        let listed: Vec<_> = only_listed
            .map(|name| (name.clone(), metadata.partitions(name)))
            .collect();
        let partitions = listed.iter().map(|(_, partitions)| *partitions);
        let partitions = partitions.fold(0, usize::saturating_add);
        if allowance.take(group, partitions).is_ok()
            || !topic_listing::refuse_widest(listings, &group.group)
        {
            return listed;
        }
    }
}

fn count_partitions(columns: &TopicMap<CommittedOffsets>) -> usize {
    let partitions = columns.values().map(CommittedOffsets::len);
    partitions.fold(0, usize::saturating_add)
}
