//! Describes groups: kind, members and assignments. Coordinators describe all their groups in one
//! request, and descriptions are cached; the sweep needs them only to choose the request that
//! returns a group's offsets.
//!
//! A coordinator answers a request for one kind of group only and returns `GROUP_ID_NOT_FOUND` for
//! the others. So a group of unknown kind is first requested as a group of the consumer protocol,
//! then as all other kinds at once.

mod decode;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, ShareGroupDescribeRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use self::decode::GroupEntry;
use super::address::Address;
use super::broker::Broker;
use super::cluster::WireCluster;
use super::topics::ClusterMetadata;
use super::versions::{ApiKey, BrokerVersions};
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::units::newtypes::GroupId;

pub(super) use self::decode::decode_groups;

/// Maximum groups per request.
const MAX_GROUPS: usize = 500;

/// How long a description is used. A little less than a multiple of the usual sweep intervals, so
/// that jitter does not add another interval.
const MAX_AGE: Duration = Duration::from_millis(29_500);

/// How long a description is used while the group rebalances.
const REBALANCING_MAX_AGE: Duration = Duration::from_millis(4_500);

/// How long a group is not requested again after a coordinator did not support the request.
const UNSUPPORTED_MAX_AGE: Duration = Duration::from_secs(300);

/// Backoff of failing requests, shortest and longest. A broker that closes the connection on such a
/// request also takes the offset requests on it with it.
const BACKOFF: (Duration, Duration) = (REBALANCING_MAX_AGE, Duration::from_secs(60));

/// How long a description is kept without being refreshed.
const UNUSED_MAX_AGE: Duration = Duration::from_secs(600);

/// All kinds, in the order in which they are tried.
const KINDS: [GroupKind; 4] = [
    GroupKind::Consumer,
    GroupKind::Classic,
    GroupKind::Share,
    GroupKind::Streams,
];

/// Cache of group descriptions.
#[derive(Debug, Default)]
pub(super) struct DescriptionCache(Mutex<HashMap<GroupId, CachedDescription>>);

#[derive(Debug)]
struct CachedDescription {
    asked: Instant,
    /// Consecutive failures.
    failures: u32,
    /// Stays known while the group does not exist.
    kind: Option<GroupKind>,
    /// `None` if only the kind is known.
    result: Option<Result<Arc<GroupDescription>, Fault>>,
}

impl CachedDescription {
    fn is_due(&self, now: Instant) -> bool {
        let pause = match &self.result {
            None => return true,
            Some(Ok(group)) if group.state == GroupState::Rebalancing => REBALANCING_MAX_AGE,
            Some(Ok(_)) => MAX_AGE,
            Some(Err(Fault::Unsupported)) => UNSUPPORTED_MAX_AGE,
            Some(Err(_)) => {
                let factor = 1_u32 << self.failures.min(8);
                BACKOFF.0.saturating_mul(factor / 2).min(BACKOFF.1)
            }
        };
        now.saturating_duration_since(self.asked) >= pause
    }
}

impl DescriptionCache {
    fn all(&self) -> MutexGuard<'_, HashMap<GroupId, CachedDescription>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group's kind, if known.
    pub(super) fn kind(&self, group: &GroupId) -> Option<GroupKind> {
        self.all().get(group)?.kind
    }

    /// Records a kind learned from `ListGroups`.
    pub(super) fn record_kind(&self, group: &GroupId, kind: GroupKind) {
        let kept = CachedDescription {
            asked: Instant::now(),
            failures: 0,
            kind: None,
            result: None,
        };
        self.all().entry(group.clone()).or_insert(kept).kind = Some(kind);
    }

    /// The latest description or fault, if any.
    pub(super) fn latest(&self, group: &GroupId) -> Option<Result<Arc<GroupDescription>, Fault>> {
        self.all().get(group)?.result.clone()
    }

    /// Groups whose description is due, limited to those whose kind is known (`has_kind`) or not.
    pub(super) fn due_groups<'a>(
        &self,
        groups: impl Iterator<Item = &'a GroupId>,
        has_kind: bool,
    ) -> Vec<GroupId> {
        let (all, now) = (self.all(), Instant::now());
        let is_wanted = |group: &&GroupId| match all.get(*group) {
            Some(kept) => kept.kind.is_some() == has_kind && kept.is_due(now),
            None => !has_kind,
        };
        groups.filter(is_wanted).cloned().collect()
    }

    fn record(
        &self,
        group: &GroupId,
        kind: Option<GroupKind>,
        result: Result<GroupDescription, Fault>,
    ) {
        let mut all = self.all();
        let before = all.remove(group);
        let failures = match (&result, &before) {
            (Ok(_), _) => 0,
            (Err(_), Some(before)) => before.failures.saturating_add(1),
            (Err(_), None) => 1,
        };
        let result = result.map(|new| match &before {
            Some(CachedDescription {
                result: Some(Ok(old)),
                ..
            }) if **old == new => Arc::clone(old),
            _ => Arc::new(new),
        });
        let kept = CachedDescription {
            asked: Instant::now(),
            failures,
            kind: kind.or(before.and_then(|before| before.kind)),
            result: Some(result),
        };
        all.insert(group.clone(), kept);
    }

    /// Evicts groups that were not requested lately.
    pub(super) fn evict_unused(&self) {
        let now = Instant::now();
        let is_used =
            |kept: &CachedDescription| now.saturating_duration_since(kept.asked) < UNUSED_MAX_AGE;
        self.all().retain(|_, kept| is_used(kept));
    }
}

/// A coordinator's answer about a group requested as one kind.
#[derive(Debug)]
enum DescribeAnswer {
    Described(GroupDescription),
    /// The group has this kind, or the fault is independent of the kind.
    Fault(Fault),
    /// No group of this kind has this name.
    NotThisKind,
    /// The broker does not support groups of this kind.
    Unsupported,
}

/// Requests descriptions and stores them in the cache.
pub(super) struct GroupDescriber<'a> {
    pub(super) cluster: &'a WireCluster,
    pub(super) known: &'a ClusterMetadata,
    pub(super) descriptions: &'a DescriptionCache,
    pub(super) deadline: Instant,
}

impl GroupDescriber<'_> {
    /// Describes these groups by the deadline.
    pub(super) async fn run(&self, groups: Vec<GroupId>) {
        let mut by_address: BTreeMap<Address, Vec<GroupId>> = BTreeMap::new();
        for group in groups {
            match self.cluster.coordinators.get(&group) {
                Some(address) => by_address.entry(address).or_default().push(group),
                None => {
                    let fault = Fault::CoordinatorUnavailable;
                    self.descriptions.record(&group, None, Err(fault));
                }
            }
        }
        let each = by_address.iter().flat_map(|(address, groups)| {
            groups.chunks(MAX_GROUPS).map(move |some| (address, some))
        });
        join_all(each.map(|(address, groups)| self.describe_at(address, groups))).await;
    }

    async fn describe_at(&self, address: &Address, groups: &[GroupId]) {
        let broker = self.cluster.broker(address);
        let versions = match broker.versions(self.deadline).await {
            Ok(versions) => versions,
            Err(fault) => {
                for group in groups {
                    self.descriptions.record(group, None, Err(fault));
                }
                return;
            }
        };
        let coordinator = CoordinatorSession {
            describer: self,
            address,
            broker: &broker,
            versions: &versions,
        };
        let kinds: HashMap<_, _> = groups
            .iter()
            .map(|group| (group, self.descriptions.kind(group)))
            .collect();
        let first = |group: &GroupId| kinds.get(group).copied().flatten();
        let can = |kind: &GroupKind| versions.highest_common(api(*kind)).is_ok();
        // A group of unknown kind is first requested as the first kind that the broker supports.
        let likely = KINDS.into_iter().find(can);
        let asked_as = |group: &GroupId| first(group).filter(can).or(likely);
        let at_first = |kind, group: &GroupId| asked_as(group) == Some(kind);
        let then = |kind, group: &GroupId| can(&kind) && asked_as(group) != Some(kind);
        let mut said: HashMap<GroupId, Vec<(GroupKind, DescribeAnswer)>> = HashMap::new();
        let mut left: BTreeSet<&GroupId> = groups.iter().collect();
        for wanted in [&at_first as &KindFilter<'_>, &then] {
            for (group, kind, answer) in coordinator.describe(&left, wanted).await {
                if matches!(
                    answer,
                    DescribeAnswer::Described(_) | DescribeAnswer::Fault(_)
                ) {
                    left.remove(&group);
                }
                said.entry(group).or_default().push((kind, answer));
            }
        }
        for group in groups {
            let said = said.remove(group).unwrap_or_default();
            let (kind, result) = combine_answers(first(group), said);
            self.descriptions.record(group, kind, result);
        }
    }
}

/// Combines the answers about one group: its kind, if known by now, and its description.
fn combine_answers(
    known: Option<GroupKind>,
    said: Vec<(GroupKind, DescribeAnswer)>,
) -> (Option<GroupKind>, Result<GroupDescription, Fault>) {
    let mut fault = Fault::Unsupported;
    let mut is_absent = false;
    for (kind, answer) in said {
        match answer {
            DescribeAnswer::Described(description) => return (Some(kind), Ok(description)),
            // Brokers check topic permissions only after they found the group, so the kind is
            // right.
            DescribeAnswer::Fault(Fault::TopicDenied) => {
                return (Some(kind), Err(Fault::TopicDenied));
            }
            DescribeAnswer::Fault(found) => fault = found,
            DescribeAnswer::NotThisKind => is_absent = true,
            DescribeAnswer::Unsupported => {}
        }
    }
    if fault != Fault::Unsupported || !is_absent {
        return (known, Err(fault));
    }
    let description = GroupDescription {
        kind: known.unwrap_or(GroupKind::Classic),
        state: GroupState::NotReady,
        assignor: None,
        members: Vec::new(),
        subtopologies: Vec::new(),
    };
    (known, Ok(description))
}

fn api(kind: GroupKind) -> ApiKey {
    match kind {
        GroupKind::Classic => ApiKey::DescribeGroups,
        GroupKind::Consumer => ApiKey::ConsumerGroupDescribe,
        GroupKind::Share => ApiKey::ShareGroupDescribe,
        GroupKind::Streams => ApiKey::StreamsGroupDescribe,
    }
}

/// Selects the groups to request as a given kind.
type KindFilter<'a> = dyn Fn(GroupKind, &GroupId) -> bool + Sync + 'a;

/// Requests to one coordinator.
struct CoordinatorSession<'a> {
    describer: &'a GroupDescriber<'a>,
    address: &'a Address,
    broker: &'a Broker,
    versions: &'a BrokerVersions,
}

impl CoordinatorSession<'_> {
    /// Requests groups as every kind that `wanted` selects them for, all kinds in parallel.
    async fn describe(
        &self,
        groups: &BTreeSet<&GroupId>,
        wanted: &KindFilter<'_>,
    ) -> Vec<(GroupId, GroupKind, DescribeAnswer)> {
        let each = KINDS.into_iter().filter_map(|kind| {
            let some = groups.iter().filter(|group| wanted(kind, group));
            let some: Vec<_> = some.map(|group| (*group).clone()).collect();
            (!some.is_empty()).then(|| self.describe_as(kind, some))
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    async fn describe_as(
        &self,
        kind: GroupKind,
        groups: Vec<GroupId>,
    ) -> Vec<(GroupId, GroupKind, DescribeAnswer)> {
        let mut answers = self.request_descriptions(kind, &groups).await;
        let each = groups.into_iter().map(|group| {
            let answer = match &mut answers {
                Ok(answers) => answers.remove(group.as_str()),
                Err(Fault::Unsupported) => Some(DescribeAnswer::Unsupported),
                Err(fault) => Some(DescribeAnswer::Fault(*fault)),
            };
            let answer = answer.unwrap_or(DescribeAnswer::Fault(Fault::NoAnswer));
            (group, kind, answer)
        });
        each.collect()
    }

    async fn request_descriptions(
        &self,
        kind: GroupKind,
        groups: &[GroupId],
    ) -> Result<HashMap<String, DescribeAnswer>, Fault> {
        let api = api(kind);
        let version = self
            .versions
            .highest_common(api)
            .map_err(|_| Fault::Unsupported)?;
        let names = groups
            .iter()
            .map(|group| StrBytes::from_string(group.as_str().to_owned()).into())
            .collect();
        let (broker, deadline) = (self.broker, self.describer.deadline);
        let body = match kind {
            GroupKind::Classic => {
                let request = DescribeGroupsRequest::default().with_groups(names);
                broker.send_request(api, version, &request, deadline).await
            }
            // `kafka-protocol` lacks `StreamsGroupDescribe`; its request has the same fields.
            GroupKind::Consumer | GroupKind::Streams => {
                let request = ConsumerGroupDescribeRequest::default().with_group_ids(names);
                broker.send_request(api, version, &request, deadline).await
            }
            GroupKind::Share => {
                let request = ShareGroupDescribeRequest::default().with_group_ids(names);
                broker.send_request(api, version, &request, deadline).await
            }
        }?;
        let entries =
            decode_groups(kind, &body, version, self.describer.known).map_err(|error| {
                self.describer
                    .cluster
                    .report_malformed(self.address, &error)
            })?;
        let each = entries.into_iter();
        Ok(each
            .map(|entry| (entry.group.to_owned(), answer(entry)))
            .collect())
    }
}

fn answer(entry: GroupEntry<'_>) -> DescribeAnswer {
    match entry.code {
        codes::NONE => DescribeAnswer::Described(entry.description),
        codes::GROUP_ID_NOT_FOUND | codes::INVALID_GROUP_ID => DescribeAnswer::NotThisKind,
        codes::UNSUPPORTED_VERSION => DescribeAnswer::Unsupported,
        code => DescribeAnswer::Fault(codes::fault_of(code.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(kind: GroupKind, state: GroupState) -> GroupDescription {
        GroupDescription {
            kind,
            state,
            assignor: None,
            members: Vec::new(),
            subtopologies: Vec::new(),
        }
    }

    #[test]
    fn answers_of_several_kinds_combine_to_one() {
        use GroupKind::{Classic, Consumer, Share};
        let not = || (Consumer, DescribeAnswer::NotThisKind);
        let absent = |kind| some(kind, GroupState::NotReady);
        let share = || some(Share, GroupState::Stable);
        let cases = [
            (None, vec![], None, Err(Fault::Unsupported)),
            (
                None,
                vec![(Classic, DescribeAnswer::Unsupported)],
                None,
                Err(Fault::Unsupported),
            ),
            (
                None,
                vec![
                    not(),
                    (Classic, DescribeAnswer::NotThisKind),
                    (Share, DescribeAnswer::Unsupported),
                ],
                None,
                Ok(absent(Classic)),
            ),
            (Some(Share), vec![not()], Some(Share), Ok(absent(Share))),
            (
                None,
                vec![
                    not(),
                    (Classic, DescribeAnswer::Fault(Fault::NoAnswer)),
                    (Share, DescribeAnswer::Described(share())),
                ],
                Some(Share),
                Ok(share()),
            ),
            (
                None,
                vec![not(), (Classic, DescribeAnswer::Fault(Fault::GroupDenied))],
                None,
                Err(Fault::GroupDenied),
            ),
            (
                None,
                vec![(Share, DescribeAnswer::Fault(Fault::TopicDenied))],
                Some(Share),
                Err(Fault::TopicDenied),
            ),
        ];
        for (known, said, kind, result) in cases {
            let context = format!("{known:?} {said:?}");
            assert_eq!(combine_answers(known, said), (kind, result), "{context}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn descriptions_are_refreshed_when_due() {
        let (descriptions, group) = (DescriptionCache::default(), GroupId::from("g"));
        let is_due = |has_kind| {
            !descriptions
                .due_groups([&group].into_iter(), has_kind)
                .is_empty()
        };
        let steady = || some(GroupKind::Classic, GroupState::Stable);
        assert!(is_due(false) && !is_due(true), "at first");
        let cases = [
            (Ok(steady()), 29),
            (Ok(some(GroupKind::Classic, GroupState::Rebalancing)), 4),
            (Err(Fault::NoAnswer), 4),
            (Err(Fault::NoAnswer), 8),
            (Err(Fault::NoAnswer), 17),
            (Err(Fault::Unsupported), 299),
            (Ok(steady()), 29),
            (Err(Fault::NoAnswer), 4),
        ];
        for (result, seconds) in cases {
            descriptions.record(&group, Some(GroupKind::Classic), result.clone());
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert!(!is_due(true), "{result:?} {seconds}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(is_due(true) && !is_due(false), "{result:?} {seconds}");
        }
        tokio::time::advance(UNUSED_MAX_AGE).await;
        descriptions.evict_unused();
        assert_eq!(descriptions.latest(&group), None);
    }
}
