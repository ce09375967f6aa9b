//! Describes groups: kind, members and assignments. Coordinators describe all their groups in one
//! request, and descriptions are cached; the sweep needs them only to choose the request that
//! returns a group's offsets.
//!
//! A coordinator answers a request for one kind of group only and returns `GROUP_ID_NOT_FOUND` for
//! the others. So a group of unknown kind is first requested as a group of the consumer protocol,
//! then as all other kinds at once.

mod cache;
mod decode;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};

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

pub(super) use self::cache::DescriptionCache;
pub(super) use self::decode::decode_groups;

/// Maximum groups per request.
const MAX_GROUPS: usize = 500;

/// All kinds, in the order in which they are tried.
const KINDS: [GroupKind; 4] = [
    GroupKind::Consumer,
    GroupKind::Classic,
    GroupKind::Share,
    GroupKind::Streams,
];

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
    pub(super) metadata: &'a ClusterMetadata,
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
        let known_kind = |group: &GroupId| kinds.get(group).copied().flatten();
        let is_supported = |kind: &GroupKind| versions.highest_common(api(*kind)).is_ok();
        // A group of unknown kind is first requested as the first kind that the broker supports.
        let default_kind = KINDS.into_iter().find(is_supported);
        let first_kind = |group: &GroupId| known_kind(group).filter(is_supported).or(default_kind);
        let is_first = |kind, group: &GroupId| first_kind(group) == Some(kind);
        let is_other =
            |kind, group: &GroupId| is_supported(&kind) && first_kind(group) != Some(kind);
        let mut answers: HashMap<GroupId, Vec<(GroupKind, DescribeAnswer)>> = HashMap::new();
        let mut left: BTreeSet<&GroupId> = groups.iter().collect();
        for wanted in [&is_first as &KindFilter<'_>, &is_other] {
            for (group, kind, answer) in coordinator.describe(&left, wanted).await {
                if matches!(
                    answer,
                    DescribeAnswer::Described(_) | DescribeAnswer::Fault(_)
                ) {
                    left.remove(&group);
                }
                answers.entry(group).or_default().push((kind, answer));
            }
        }
        for group in groups {
            let answers = answers.remove(group).unwrap_or_default();
            let (kind, result) = combine_answers(known_kind(group), answers);
            self.descriptions.record(group, kind, result);
        }
    }
}

/// Combines the answers about one group: its kind, if known by now, and its description.
fn combine_answers(
    known: Option<GroupKind>,
    answers: Vec<(GroupKind, DescribeAnswer)>,
) -> (Option<GroupKind>, Result<GroupDescription, Fault>) {
    let mut fault = Fault::Unsupported;
    let mut is_absent = false;
    for (kind, answer) in answers {
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
    let kind = known.unwrap_or(GroupKind::Classic);
    let description = GroupDescription::memberless(kind, GroupState::NotReady);
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
            decode_groups(kind, &body, version, self.describer.metadata).map_err(|error| {
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

    #[test]
    fn answers_of_several_kinds_combine_to_one() {
        use GroupKind::{Classic, Consumer, Share};
        let not = || (Consumer, DescribeAnswer::NotThisKind);
        let absent = |kind| GroupDescription::memberless(kind, GroupState::NotReady);
        let share = || GroupDescription::memberless(Share, GroupState::Stable);
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
        for (known, answers, kind, result) in cases {
            let context = format!("{known:?} {answers:?}");
            assert_eq!(combine_answers(known, answers), (kind, result), "{context}");
        }
    }
}
