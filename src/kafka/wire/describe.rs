//! What groups are: their kind, their members, how their work is dealt out. Asked of their
//! coordinators, all groups of one in a request, and kept for a while; nothing else of a sweep
//! depends on the answer but which request tells a group's offsets.
//!
//! A coordinator answers for groups of one kind at a time and says `GROUP_ID_NOT_FOUND` of the
//! others, so a group of unknown kind is asked about as one of the consumer protocol first, then as
//! all others at once.

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

use self::decode::Entry;
use super::address::Address;
use super::broker::Broker;
use super::cluster::Cluster;
use super::topics::TopicCatalog;
use super::versions::{ApiVersions, Versions};
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::units::newtypes::GroupId;

pub(super) use self::decode::described;

/// Groups of one request at most.
const BATCH: usize = 500;

/// How long a description is good for. A little less than so many sweeps take, so that it is not
/// one more.
const LASTS: Duration = Duration::from_millis(29_500);

/// Likewise while the group deals out its partitions anew.
const LASTS_REBALANCING: Duration = Duration::from_millis(4_500);

/// How long a coordinator that cannot tell is not asked again.
const UNTOLD_LASTS: Duration = Duration::from_secs(300);

/// The least and the most time between questions that fail: a broker that closes the connection on
/// one takes the offsets' answers with it.
const BACKOFF: (Duration, Duration) = (LASTS_REBALANCING, Duration::from_secs(60));

/// How long a description stays without being asked for.
const KEPT: Duration = Duration::from_secs(600);

/// The kinds, in the order in which a group's is looked for.
const KINDS: [GroupKind; 4] = [
    GroupKind::Consumer,
    GroupKind::Classic,
    GroupKind::Share,
    GroupKind::Streams,
];

/// Groups as they were last described.
#[derive(Debug, Default)]
pub(super) struct Descriptions(Mutex<HashMap<GroupId, CachedDescription>>);

#[derive(Debug)]
struct CachedDescription {
    asked: Instant,
    /// How often in a row the question has failed.
    failures: u32,
    /// Once it is known, also while the group is gone.
    kind: Option<GroupKind>,
    /// `None` where the kind alone is known.
    told: Option<Result<Arc<GroupDescription>, Fault>>,
}

impl CachedDescription {
    fn is_due(&self) -> bool {
        let pause = match &self.told {
            None => return true,
            Some(Ok(group)) if group.state == GroupState::Rebalancing => LASTS_REBALANCING,
            Some(Ok(_)) => LASTS,
            Some(Err(Fault::Untold)) => UNTOLD_LASTS,
            Some(Err(_)) => {
                let factor = 1_u32 << self.failures.min(8);
                BACKOFF.0.saturating_mul(factor / 2).min(BACKOFF.1)
            }
        };
        self.asked.elapsed() >= pause
    }
}

impl Descriptions {
    fn all(&self) -> MutexGuard<'_, HashMap<GroupId, CachedDescription>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group's kind, where that is known.
    pub(super) fn kind(&self, group: &GroupId) -> Option<GroupKind> {
        self.all().get(group)?.kind
    }

    /// Takes note of what a list of groups tells.
    pub(super) fn learn(&self, group: &GroupId, kind: GroupKind) {
        let kept = CachedDescription {
            asked: Instant::now(),
            failures: 0,
            kind: None,
            told: None,
        };
        self.all().entry(group.clone()).or_insert(kept).kind = Some(kind);
    }

    /// What was last said of the group, if anything was lately.
    pub(super) fn told(&self, group: &GroupId) -> Option<Result<Arc<GroupDescription>, Fault>> {
        self.all().get(group)?.told.clone()
    }

    /// Those of the groups that are to be asked about: whether or not their kind is known.
    pub(super) fn due<'a>(
        &self,
        groups: impl Iterator<Item = &'a GroupId>,
        has_kind: bool,
    ) -> Vec<GroupId> {
        let all = self.all();
        let is_wanted = |group: &&GroupId| match all.get(*group) {
            Some(kept) => kept.kind.is_some() == has_kind && kept.is_due(),
            None => !has_kind,
        };
        groups.filter(is_wanted).cloned().collect()
    }

    fn keep(
        &self,
        group: &GroupId,
        kind: Option<GroupKind>,
        told: Result<GroupDescription, Fault>,
    ) {
        let mut all = self.all();
        let before = all.remove(group);
        let failures = match (&told, &before) {
            (Ok(_), _) => 0,
            (Err(_), Some(before)) => before.failures.saturating_add(1),
            (Err(_), None) => 1,
        };
        let told = told.map(|new| match &before {
            Some(CachedDescription {
                told: Some(Ok(old)),
                ..
            }) if **old == new => Arc::clone(old),
            _ => Arc::new(new),
        });
        let kept = CachedDescription {
            asked: Instant::now(),
            failures,
            kind: kind.or(before.and_then(|before| before.kind)),
            told: Some(told),
        };
        all.insert(group.clone(), kept);
    }

    /// Lets go of groups that nobody asked about lately.
    pub(super) fn let_go(&self) {
        self.all().retain(|_, kept| kept.asked.elapsed() < KEPT);
    }
}

/// What a coordinator says of a group, asked as one of a kind.
#[derive(Debug)]
enum DescribeAnswer {
    Is(GroupDescription),
    /// It is of that kind, or this has nothing to do with its kind, and more is not told.
    Fault(Fault),
    /// There is none of that kind.
    Not,
    /// The broker does not know of such groups.
    Unsupported,
}

/// Asks about groups.
pub(super) struct Describing<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) known: &'a TopicCatalog,
    pub(super) descriptions: &'a Descriptions,
    pub(super) deadline: Instant,
}

impl Describing<'_> {
    /// Asks about these groups, by the deadline; what is said is kept.
    pub(super) async fn run(&self, groups: Vec<GroupId>) {
        let mut by_address: BTreeMap<Address, Vec<GroupId>> = BTreeMap::new();
        for group in groups {
            match self.cluster.coordinators.get(&group) {
                Some(address) => by_address.entry(address).or_default().push(group),
                None => {
                    let fault = Fault::CoordinatorUnavailable;
                    self.descriptions.keep(&group, None, Err(fault));
                }
            }
        }
        let each = by_address
            .iter()
            .flat_map(|(address, groups)| groups.chunks(BATCH).map(move |some| (address, some)));
        join_all(each.map(|(address, groups)| self.coordinated(address, groups))).await;
    }

    async fn coordinated(&self, address: &Address, groups: &[GroupId]) {
        let broker = self.cluster.broker(address);
        let versions = match broker.versions(self.deadline).await {
            Ok(versions) => versions,
            Err(fault) => {
                for group in groups {
                    self.descriptions.keep(group, None, Err(fault));
                }
                return;
            }
        };
        let coordinator = Coordinator {
            of: self,
            address,
            broker: &broker,
            versions: &versions,
        };
        let kinds: HashMap<_, _> = groups
            .iter()
            .map(|group| (group, self.descriptions.kind(group)))
            .collect();
        let first = |group: &GroupId| kinds.get(group).copied().flatten();
        let can = |kind: &GroupKind| versions.of(api(*kind)).is_ok();
        // Where nothing is known, the first kind that the broker knows.
        let likely = KINDS.into_iter().find(can);
        let asked_as = |group: &GroupId| first(group).filter(can).or(likely);
        let at_first = |kind, group: &GroupId| asked_as(group) == Some(kind);
        let then = |kind, group: &GroupId| can(&kind) && asked_as(group) != Some(kind);
        let mut said: HashMap<GroupId, Vec<(GroupKind, DescribeAnswer)>> = HashMap::new();
        let mut left: BTreeSet<&GroupId> = groups.iter().collect();
        for wanted in [&at_first as &DescribeRequest<'_>, &then] {
            for (group, kind, answer) in coordinator.ask(&left, wanted).await {
                if matches!(answer, DescribeAnswer::Is(_) | DescribeAnswer::Fault(_)) {
                    left.remove(&group);
                }
                said.entry(group).or_default().push((kind, answer));
            }
        }
        for group in groups {
            let said = said.remove(group).unwrap_or_default();
            let (kind, told) = conclude(first(group), said);
            self.descriptions.keep(group, kind, told);
        }
    }
}

/// What the answers to one group's questions come to: its kind, where that is known now, and what it
/// is.
fn conclude(
    known: Option<GroupKind>,
    said: Vec<(GroupKind, DescribeAnswer)>,
) -> (Option<GroupKind>, Result<GroupDescription, Fault>) {
    let mut fault = Fault::Untold;
    let mut is_absent = false;
    for (kind, answer) in said {
        match answer {
            DescribeAnswer::Is(description) => return (Some(kind), Ok(description)),
            // Whether its topics may be seen is looked at once the group is found.
            DescribeAnswer::Fault(Fault::TopicDenied) => {
                return (Some(kind), Err(Fault::TopicDenied));
            }
            DescribeAnswer::Fault(found) => fault = found,
            DescribeAnswer::Not => is_absent = true,
            DescribeAnswer::Unsupported => {}
        }
    }
    if fault != Fault::Untold || !is_absent {
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

fn api(kind: GroupKind) -> ApiVersions {
    match kind {
        GroupKind::Classic => ApiVersions::DescribeGroups,
        GroupKind::Consumer => ApiVersions::ConsumerGroupDescribe,
        GroupKind::Share => ApiVersions::ShareGroupDescribe,
        GroupKind::Streams => ApiVersions::StreamsGroupDescribe,
    }
}

/// Whether a group is asked about as one of a kind.
type DescribeRequest<'a> = dyn Fn(GroupKind, &GroupId) -> bool + Sync + 'a;

/// One coordinator.
struct Coordinator<'a> {
    of: &'a Describing<'a>,
    address: &'a Address,
    broker: &'a Broker,
    versions: &'a Versions,
}

impl Coordinator<'_> {
    /// Asks about groups, for each kind about those that are `wanted` as such, all at once.
    async fn ask(
        &self,
        groups: &BTreeSet<&GroupId>,
        wanted: &DescribeRequest<'_>,
    ) -> Vec<(GroupId, GroupKind, DescribeAnswer)> {
        let each = KINDS.into_iter().filter_map(|kind| {
            let some = groups.iter().filter(|group| wanted(kind, group));
            let some: Vec<_> = some.map(|group| (*group).clone()).collect();
            (!some.is_empty()).then(|| self.ask_as(kind, some))
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    async fn ask_as(
        &self,
        kind: GroupKind,
        groups: Vec<GroupId>,
    ) -> Vec<(GroupId, GroupKind, DescribeAnswer)> {
        let mut answers = self.answers(kind, &groups).await;
        let each = groups.into_iter().map(|group| {
            let answer = match &mut answers {
                Ok(answers) => answers.remove(group.as_str()),
                Err(Fault::Untold) => Some(DescribeAnswer::Unsupported),
                Err(fault) => Some(DescribeAnswer::Fault(*fault)),
            };
            let answer = answer.unwrap_or(DescribeAnswer::Fault(Fault::NoAnswer));
            (group, kind, answer)
        });
        each.collect()
    }

    async fn answers(
        &self,
        kind: GroupKind,
        groups: &[GroupId],
    ) -> Result<HashMap<String, DescribeAnswer>, Fault> {
        let api = api(kind);
        let version = self.versions.of(api).map_err(|_| Fault::Untold)?;
        let names = groups
            .iter()
            .map(|group| StrBytes::from_string(group.as_str().to_owned()).into())
            .collect();
        let (broker, deadline) = (self.broker, self.of.deadline);
        let body = match kind {
            GroupKind::Classic => {
                let request = DescribeGroupsRequest::default().with_groups(names);
                broker.ask(api, version, &request, deadline).await
            }
            // The library lacks the latter, whose fields are those of the former.
            GroupKind::Consumer | GroupKind::Streams => {
                let request = ConsumerGroupDescribeRequest::default().with_group_ids(names);
                broker.ask(api, version, &request, deadline).await
            }
            GroupKind::Share => {
                let request = ShareGroupDescribeRequest::default().with_group_ids(names);
                broker.ask(api, version, &request, deadline).await
            }
        }?;
        let entries = described(kind, &body, version, self.of.known)
            .map_err(|error| self.of.cluster.garbled(self.address, &error))?;
        let each = entries.into_iter();
        Ok(each
            .map(|entry| (entry.group.to_owned(), answer(entry)))
            .collect())
    }
}

fn answer(entry: Entry<'_>) -> DescribeAnswer {
    match entry.code {
        codes::NONE => DescribeAnswer::Is(entry.description),
        codes::GROUP_ID_NOT_FOUND | codes::INVALID_GROUP_ID => DescribeAnswer::Not,
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
    fn answers_of_several_kinds_come_to_one() {
        use GroupKind::{Classic, Consumer, Share};
        let not = || (Consumer, DescribeAnswer::Not);
        let absent = |kind| some(kind, GroupState::NotReady);
        let share = || some(Share, GroupState::Stable);
        let cases = [
            (None, vec![], None, Err(Fault::Untold)),
            (
                None,
                vec![(Classic, DescribeAnswer::Unsupported)],
                None,
                Err(Fault::Untold),
            ),
            (
                None,
                vec![
                    not(),
                    (Classic, DescribeAnswer::Not),
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
                    (Share, DescribeAnswer::Is(share())),
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
        for (known, said, kind, told) in cases {
            let context = format!("{known:?} {said:?}");
            assert_eq!(conclude(known, said), (kind, told), "{context}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_about_again_and_when() {
        let (descriptions, group) = (Descriptions::default(), GroupId::from("g"));
        let is_due = |has_kind| !descriptions.due([&group].into_iter(), has_kind).is_empty();
        let steady = || some(GroupKind::Classic, GroupState::Stable);
        assert!(is_due(false) && !is_due(true), "at first");
        let cases = [
            (Ok(steady()), 29),
            (Ok(some(GroupKind::Classic, GroupState::Rebalancing)), 4),
            (Err(Fault::NoAnswer), 4),
            (Err(Fault::NoAnswer), 8),
            (Err(Fault::NoAnswer), 17),
            (Err(Fault::Untold), 299),
            (Ok(steady()), 29),
            (Err(Fault::NoAnswer), 4),
        ];
        for (told, seconds) in cases {
            descriptions.keep(&group, Some(GroupKind::Classic), told.clone());
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert!(!is_due(true), "{told:?} {seconds}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(is_due(true) && !is_due(false), "{told:?} {seconds}");
        }
        tokio::time::advance(KEPT).await;
        descriptions.let_go();
        assert_eq!(descriptions.told(&group), None);
    }
}
