//! Keeps the descriptions of groups, within a bound of memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::units::newtypes::GroupId;

/// How long a description is used. A little less than a multiple of the usual sweep intervals, so
/// that jitter does not add another interval.
const MAX_AGE: Duration = Duration::from_millis(29_500);

/// How long a description is used while the group rebalances, or is about to.
const MAX_REBALANCING_AGE: Duration = Duration::from_millis(4_500);

/// How long a group is not requested again after a coordinator did not support the request.
const MAX_UNSUPPORTED_AGE: Duration = Duration::from_secs(300);

/// Minimum and maximum backoff of failing requests. A broker that closes the connection at such a request also ends the
/// offset requests in flight on it.
const BACKOFF: (Duration, Duration) = (MAX_REBALANCING_AGE, Duration::from_secs(60));

/// How long a description is kept without being refreshed.
const MAX_UNUSED_AGE: Duration = Duration::from_secs(600);

/// Maximum memory of the members of all groups together, in bytes. Of a group for which there is no room, only their
/// number is known. The largest groups are the first without, so that they do not use up what others need.
const MAX_ALL_MEMBERS_BYTES: usize = 64 * 1024 * 1024;

/// Cache of group descriptions.
#[derive(Debug, Default)]
pub(in crate::kafka::wire) struct DescriptionCache(Mutex<CachedDescriptions>);

#[derive(Debug, Default)]
struct CachedDescriptions {
    groups: HashMap<GroupId, CachedDescription>,
    members: MemberMemory,
}

/// Memory that the members of groups take, in bytes.
#[derive(Debug, Default)]
struct MemberMemory {
    total: usize,
    /// The memory of each group with members, in ascending order.
    by_size: BTreeSet<(usize, GroupId)>,
}

impl MemberMemory {
    fn add(&mut self, group: &GroupId, bytes: usize) {
        if bytes > 0 {
            self.total = self.total.saturating_add(bytes);
            self.by_size.insert((bytes, group.clone()));
        }
    }

    fn remove(&mut self, group: &GroupId, bytes: usize) {
        if self.by_size.remove(&(bytes, group.clone())) {
            self.total = self.total.saturating_sub(bytes);
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.total.saturating_add(bytes) <= MAX_ALL_MEMBERS_BYTES
    }
}

#[derive(Debug)]
struct CachedDescription {
    requested_at: Instant,
    /// Consecutive failures.
    failures: u32,
    /// Kept while the group does not exist.
    kind: Option<GroupKind>,
    /// `None` if only the kind is known.
    result: Option<Result<Arc<GroupDescription>, Fault>>,
}

impl CachedDescription {
    /// `is_changing`: whether the members may change now.
    fn is_due(&self, now: Instant, is_changing: bool) -> bool {
        let max_age = match &self.result {
            None => return true,
            Some(Ok(group)) if is_changing || group.state == GroupState::Rebalancing => {
                MAX_REBALANCING_AGE
            }
            Some(Ok(_)) => MAX_AGE,
            Some(Err(Fault::Unsupported)) => MAX_UNSUPPORTED_AGE,
            Some(Err(_)) => {
                let factor = 1_u32 << self.failures.min(8);
                BACKOFF.0.saturating_mul(factor / 2).min(BACKOFF.1)
            }
        };
        now.saturating_duration_since(self.requested_at) >= max_age
    }

    fn member_bytes(&self) -> usize {
        let described = self.result.as_ref().and_then(|result| result.as_ref().ok());
        described.map_or(0, |described| described.member_bytes())
    }
}

impl CachedDescriptions {
    /// Frees memory for the members of a group, if there is too little, by dropping the members of larger groups.
    /// Returns the group without its members if no group is larger.
    fn bound_members(&mut self, new: GroupDescription) -> GroupDescription {
        let bytes = new.member_bytes();
        while !self.members.has_room(bytes) {
            let largest = self.members.by_size.last();
            let Some((most, largest)) = largest.filter(|(most, _)| *most > bytes).cloned() else {
                return new.without_members();
            };
            self.members.remove(&largest, most);
            let kept = self.groups.get_mut(&largest);
            if let Some(Ok(described)) = kept.and_then(|kept| kept.result.as_mut()) {
                *described = Arc::new(described.without_members());
            }
        }
        new
    }
}

impl DescriptionCache {
    fn all(&self) -> MutexGuard<'_, CachedDescriptions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group's kind, if known.
    pub(in crate::kafka::wire) fn kind(&self, group: &GroupId) -> Option<GroupKind> {
        self.all().groups.get(group)?.kind
    }

    /// Records a kind learned from `ListGroups`.
    pub(in crate::kafka::wire) fn record_kind(&self, group: &GroupId, kind: GroupKind) {
        let kept = CachedDescription {
            requested_at: Instant::now(),
            failures: 0,
            kind: None,
            result: None,
        };
        self.all().groups.entry(group.clone()).or_insert(kept).kind = Some(kind);
    }

    /// The latest description or fault, if any.
    pub(in crate::kafka::wire) fn latest(
        &self,
        group: &GroupId,
    ) -> Option<Result<Arc<GroupDescription>, Fault>> {
        self.all().groups.get(group)?.result.clone()
    }

    /// Groups whose description is due, limited to those whose kind is known (`has_kind`) or not. With each group comes
    /// whether its members may change now.
    pub(in crate::kafka::wire) fn due_groups<'a>(
        &self,
        groups: impl Iterator<Item = (&'a GroupId, bool)>,
        has_kind: bool,
    ) -> Vec<GroupId> {
        let (all, now) = (self.all(), Instant::now());
        let is_wanted = |(group, is_changing): &(&GroupId, bool)| match all.groups.get(*group) {
            Some(kept) => kept.kind.is_some() == has_kind && kept.is_due(now, *is_changing),
            None => !has_kind,
        };
        let wanted = groups.filter(is_wanted);
        wanted.map(|(group, _)| group.clone()).collect()
    }

    pub(super) fn record(
        &self,
        group: &GroupId,
        kind: Option<GroupKind>,
        result: Result<GroupDescription, Fault>,
    ) {
        let mut all = self.all();
        let before = all.groups.remove(group);
        let freed = before.as_ref().map_or(0, CachedDescription::member_bytes);
        all.members.remove(group, freed);
        let failures = match (&result, &before) {
            (Ok(_), _) => 0,
            (Err(_), Some(before)) => before.failures.saturating_add(1),
            (Err(_), None) => 1,
        };
        let result = result.map(|new| all.bound_members(new));
        let result = result.map(|new| match &before {
            Some(CachedDescription {
                result: Some(Ok(old)),
                ..
            }) if **old == new => Arc::clone(old),
            _ => Arc::new(new),
        });
        let kept = CachedDescription {
            requested_at: Instant::now(),
            failures,
            kind: kind.or(before.and_then(|before| before.kind)),
            result: Some(result),
        };
        all.members.add(group, kept.member_bytes());
        all.groups.insert(group.clone(), kept);
    }

    /// Evicts groups that were not requested lately.
    pub(in crate::kafka::wire) fn evict_unused(&self) {
        let now = Instant::now();
        let is_used = |kept: &CachedDescription| {
            now.saturating_duration_since(kept.requested_at) < MAX_UNUSED_AGE
        };
        let mut all = self.all();
        let CachedDescriptions { groups, members } = &mut *all;
        groups.retain(|group, kept| {
            let is_used = is_used(kept);
            if !is_used {
                members.remove(group, kept.member_bytes());
            }
            is_used
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kafka::group::{BoundedMembers, Member};

    fn classic(state: GroupState) -> GroupDescription {
        GroupDescription::memberless(GroupKind::Classic, state)
    }

    /// A group with this number of members of about 30 kB, or as many as a group may have.
    fn with_members(count: usize, client: &str) -> GroupDescription {
        let mut members = BoundedMembers::default();
        while members.omitted == 0 && members.kept.len() < count {
            members.push(Member {
                id: "m".into(),
                instance: None,
                client: client.repeat(30_000).into(),
                host: "/10.0.0.1".into(),
                subscribed: None,
                assigned: Vec::new(),
            });
        }
        GroupDescription {
            members: members.kept,
            ..classic(GroupState::Stable)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_of_all_groups_together_have_a_limit() {
        let cache = DescriptionCache::default();
        let large = |client: &str| with_members(usize::MAX, client);
        let groups: Vec<_> = (0..40)
            .map(|n| GroupId::from(format!("g{n}").as_str()))
            .collect();
        let omitted = || {
            let described = groups.iter().filter_map(|group| cache.latest(group)?.ok());
            described
                .filter(|described| described.omitted_members > 0)
                .count()
        };
        for (round, client) in ["a", "b", "c"].into_iter().enumerate() {
            for group in &groups {
                cache.record(group, Some(GroupKind::Classic), Ok(large(client)));
                let all = cache.all();
                let kept = all.groups.values().map(CachedDescription::member_bytes);
                assert_eq!(all.members.total, kept.sum::<usize>());
                assert!(all.members.total <= MAX_ALL_MEMBERS_BYTES);
            }
            // The same ones each time, and their number is known.
            assert!((20..30).contains(&omitted()), "{round}: {}", omitted());
            let last = cache.latest(&groups[39]).unwrap().unwrap();
            assert_eq!(last.member_count(), large(client).member_count());
        }
        // Removed groups free their memory.
        for group in &groups[..30] {
            cache.record(group, None, Err(Fault::NoAnswer));
        }
        for group in &groups[30..] {
            cache.record(group, None, Ok(large("a")));
        }
        assert_eq!(omitted(), 0);
        tokio::time::advance(MAX_UNUSED_AGE).await;
        cache.evict_unused();
        assert_eq!(cache.all().members.total, 0);
        assert!(cache.all().members.by_size.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_groups_make_room_for_the_members_of_others() {
        let cache = DescriptionCache::default();
        let record = |name: &str, count| {
            let described = with_members(count, "a");
            cache.record(
                &GroupId::from(name),
                Some(GroupKind::Classic),
                Ok(described),
            );
        };
        let omitted = |name: &str| {
            let described = cache.latest(&GroupId::from(name)).unwrap().unwrap();
            described.omitted_members
        };
        let large = || (0..20).map(|n| format!("large{n:02}"));
        let omitted_of_large = || large().filter(|name| omitted(name) > 0).count();
        large().for_each(|name| record(&name, 130));
        let without_room = omitted_of_large();
        assert!((1..10).contains(&without_room), "{without_room}");
        for round in 0..3 {
            for n in 0..10 {
                record(&format!("small{n}"), 100);
                record(&format!("tiny{n}"), 1);
            }
            large().for_each(|name| record(&name, 130));
            for n in 0..10 {
                assert_eq!(omitted(&format!("small{n}")), 0, "{round}");
                assert_eq!(omitted(&format!("tiny{n}")), 0, "{round}");
            }
            let all = omitted_of_large();
            assert!((without_room + 6..20).contains(&all), "{round}: {all}");
        }
        assert!(large().all(|name| matches!(omitted(&name), 0 | 130)));
    }

    #[tokio::test(start_paused = true)]
    async fn descriptions_of_changing_groups_are_refreshed_in_every_sweep() {
        let (descriptions, group) = (DescriptionCache::default(), GroupId::from("g"));
        let kind = Some(GroupKind::Classic);
        descriptions.record(&group, kind, Ok(classic(GroupState::Stable)));
        let is_due = |is_changing| {
            let due = descriptions.due_groups([(&group, is_changing)].into_iter(), true);
            !due.is_empty()
        };
        assert!(!is_due(true));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(is_due(true) && !is_due(false));
    }

    #[tokio::test(start_paused = true)]
    async fn descriptions_are_refreshed_when_due() {
        let (descriptions, group) = (DescriptionCache::default(), GroupId::from("g"));
        let is_due = |has_kind| {
            !descriptions
                .due_groups([(&group, false)].into_iter(), has_kind)
                .is_empty()
        };
        let steady = || classic(GroupState::Stable);
        assert!(is_due(false) && !is_due(true), "at first");
        let cases = [
            (Ok(steady()), 29),
            (Ok(classic(GroupState::Rebalancing)), 4),
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
        tokio::time::advance(MAX_UNUSED_AGE).await;
        descriptions.evict_unused();
        assert_eq!(descriptions.latest(&group), None);
    }
}
