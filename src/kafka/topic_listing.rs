//! Lists the topics of a cluster that match the patterns of groups without members.
#![allow(
    clippy::mutable_key_type,
    reason = "patterns are compared by their text, which does not change"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::kafka::fault::Fault;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::kafka::topic_listing::{MAX_LISTED_TOPICS, TopicListing, Unlisted};
use crate::model::units::newtypes::{GroupId, TopicName};
use crate::model::units::topic_pattern::TopicPattern;

/// How long the names of topics are used before they are listed again. Also after a failure.
const MAX_AGE: Duration = Duration::from_secs(30);

/// How long the names are not listed again after there were too many. Such a listing costs a broker a large response,
/// and a connection.
const TOO_MANY_AGE: Duration = Duration::from_secs(600);

/// Maximum number of topic names. In a larger cluster nothing is listed.
pub(super) const MAX_NAMES: usize = 200_000;

/// Maximum time for comparing the patterns of a listing with names, and for each of them. Tenants write patterns, and
/// slow ones take a millisecond for a name.
pub(super) const MAX_MATCH_TIME: Duration = Duration::from_secs(1);
const MAX_PATTERN_TIME: Duration = Duration::from_millis(100);

/// Maximum number of patterns outside the last query whose matches are kept.
const MAX_OTHER_PATTERNS: usize = 1_000;

/// After how many names the elapsed time is checked.
const NAMES_BETWEEN: usize = 64;

/// Listings by group.
pub(super) type Listings = BTreeMap<GroupId, Arc<TopicListing>>;

/// The groups that topics are listed for, with their patterns.
pub(super) type ListingQuery = Vec<(GroupId, Vec<TopicPattern>)>;

/// The groups of a plan that topics are listed for.
pub(super) fn listing_query(groups: &[GroupPlan]) -> ListingQuery {
    let groups = groups.iter().filter(|group| !group.patterns.is_empty());
    groups
        .map(|group| (group.group.clone(), group.patterns.clone()))
        .collect()
}

/// The names of the cluster's topics, or why they are not known.
pub(super) type Names = Result<Arc<[TopicName]>, Fault>;

/// The topics that match each pattern: at most one more than are listed.
type Matches = BTreeMap<TopicPattern, Arc<BTreeSet<TopicName>>>;

/// The names of topics as last listed, and the listings of groups.
#[derive(Debug, Default)]
pub(super) struct ListingCache(Mutex<Option<CachedListing>>);

#[derive(Clone, Debug)]
pub(super) struct CachedListing {
    fetched: Instant,
    names: Names,
    matches: Matches,
    /// The pattern that was next when the time was over.
    next: Option<TopicPattern>,
    query: ListingQuery,
    listings: Listings,
}

impl ListingCache {
    fn lock(&self) -> MutexGuard<'_, Option<CachedListing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last listing.
    pub(super) fn last(&self) -> Option<CachedListing> {
        self.lock().clone()
    }

    pub(super) fn insert(&self, listing: CachedListing) {
        *self.lock() = Some(listing);
    }
}

impl CachedListing {
    fn is_fresh(&self) -> bool {
        let max_age = match self.names {
            Err(Fault::OverBudget) => TOO_MANY_AGE,
            _ => MAX_AGE,
        };
        self.fetched.elapsed() < max_age
    }

    /// The names, if they were listed lately, and when.
    pub(super) fn fresh_names(&self) -> Option<(Instant, Names)> {
        self.is_fresh().then(|| (self.fetched, self.names.clone()))
    }

    /// The listings of a query, if it is the last one and the names were listed lately.
    pub(super) fn listings_of(&self, query: &ListingQuery) -> Option<&Listings> {
        let is_valid = self.is_fresh() && self.query == *query;
        is_valid.then_some(&self.listings)
    }

    pub(super) fn into_listings(self) -> Listings {
        self.listings
    }

    /// Lists the topics that match the patterns of each group. Patterns that are not compared in time keep their last
    /// result. The results of other patterns are kept for the next query, and so is the position at which to continue,
    /// because sweeps of single groups come between whole sweeps.
    pub(super) fn new(
        query: ListingQuery,
        (fetched, names): (Instant, Names),
        last: Option<Self>,
        time: Duration,
    ) -> Self {
        let mut matches = Matches::new();
        let mut next = None;
        if let Ok(names) = &names {
            let last_names = last.as_ref().and_then(|last| last.names.as_ref().ok());
            let is_same = last_names.is_some_and(|last| Arc::ptr_eq(last, names));
            let known = |pattern| last.as_ref()?.matches.get(pattern).cloned();
            // Groups share patterns.
            let requested: BTreeSet<_> = query.iter().flat_map(|(_, patterns)| patterns).collect();
            let begin = last.as_ref().and_then(|last| last.next.as_ref());
            let (before, after): (Vec<_>, Vec<_>) = requested
                .iter()
                .copied()
                .partition(|pattern| begin.is_some_and(|begin| *pattern < begin));
            let until = Instant::now() + time;
            for pattern in after.into_iter().chain(before) {
                let found = match known(pattern) {
                    Some(known) if is_same => Some(known),
                    known if next.is_some() => known,
                    known => {
                        if Instant::now() >= until {
                            next = Some(pattern.clone());
                        }
                        let limit = until.min(Instant::now() + MAX_PATTERN_TIME);
                        matching(pattern, names, limit).or(known)
                    }
                };
                matches.extend(found.map(|found| (pattern.clone(), found)));
            }
            let former = last.iter().flat_map(|last| &last.matches);
            let others = former.filter(|(pattern, _)| is_same && !requested.contains(*pattern));
            let kept = others.take(MAX_OTHER_PATTERNS);
            matches.extend(kept.map(|(pattern, found)| (pattern.clone(), Arc::clone(found))));
            next = next.or_else(|| begin.filter(|begin| !requested.contains(*begin)).cloned());
        }
        let known = names.as_ref().map(|_| &matches).map_err(|fault| *fault);
        let listings = query
            .iter()
            .map(|(group, patterns)| (group.clone(), Arc::new(listing(patterns, known))));
        Self {
            listings: listings.collect(),
            fetched,
            names,
            matches,
            next,
            query,
        }
    }
}

/// The names that match a pattern; `None` if it takes too long.
fn matching(
    pattern: &TopicPattern,
    names: &[TopicName],
    until: Instant,
) -> Option<Arc<BTreeSet<TopicName>>> {
    let mut found = BTreeSet::new();
    for names in names.chunks(NAMES_BETWEEN) {
        if found.len() > MAX_LISTED_TOPICS {
            break;
        }
        if Instant::now() >= until {
            return None;
        }
        found.extend(names.iter().filter(|name| pattern.matches(name)).cloned());
    }
    Some(Arc::new(found))
}

/// The listing of a group: the topics that match each of its patterns, or why they are not listed.
fn listing(patterns: &[TopicPattern], matches: Result<&Matches, Fault>) -> TopicListing {
    let of = |pattern: &TopicPattern| {
        let found = matches.map_err(Unlisted::Failed)?.get(pattern);
        match found.ok_or(Unlisted::TooSlow)? {
            topics if topics.len() > MAX_LISTED_TOPICS => Err(Unlisted::TooMany),
            topics => Ok(BTreeSet::clone(topics)),
        }
    };
    let patterns = patterns.iter();
    TopicListing::new(patterns.map(|p| (p.clone(), of(p))).collect())
}

/// The topics listed for a group; none if there are too many, or they could not be listed.
pub(super) fn listed<'a>(
    listings: &'a Listings,
    group: &GroupId,
) -> impl Iterator<Item = &'a TopicName> + use<'a> {
    let listing = listings.get(group);
    listing.into_iter().flat_map(|listing| listing.topics())
}

/// The topics that are read for a group only because its patterns match them.
pub(super) fn only_listed<'a>(
    listings: &'a Listings,
    plan: &'a GroupPlan,
) -> impl Iterator<Item = &'a TopicName> {
    let listing = listings.get(&plan.group).into_iter();
    listing.flat_map(|listing| {
        let topics = listing.topics().iter();
        topics.filter(|topic| listing.is_only_listed(topic, plan))
    })
}

/// Removes from the listing of a group the topics that are read for it anyway.
pub(super) fn leave_out(
    listings: &mut Listings,
    group: &GroupId,
    is_read: impl Fn(&TopicName) -> bool,
) {
    let Some(listing) = listings.get_mut(group) else {
        return;
    };
    if listing.topics().iter().any(&is_read) {
        Arc::make_mut(listing).leave_out(is_read);
    }
}

/// Refuses the pattern of a group that most topics match, since those of all have too many partitions. Returns whether
/// any topics were listed.
pub(super) fn refuse_widest(listings: &mut Listings, group: &GroupId) -> bool {
    let listing = listings.get_mut(group).map(Arc::make_mut);
    listing.is_some_and(|listing| listing.refuse_widest(Unlisted::OverBudget).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).unwrap()
    }

    fn query(groups: &[(&str, &[&str])]) -> ListingQuery {
        let of = |(group, patterns): &(&str, &[&str])| {
            let patterns = patterns.iter().map(|text| pattern(text));
            (GroupId::from(*group), patterns.collect())
        };
        groups.iter().map(of).collect()
    }

    fn names(names: impl IntoIterator<Item = String>) -> (Instant, Names) {
        let names = names.into_iter().map(|name| name.as_str().into());
        (Instant::now(), Ok(names.collect()))
    }

    fn list(query: ListingQuery, names: (Instant, Names)) -> Listings {
        CachedListing::new(query, names, None, LONG).into_listings()
    }

    #[test]
    fn topics_are_listed_by_the_patterns_of_each_group() {
        let names = names(["orders-eu", "orders-us", "pay"].map(str::to_owned));
        let groups = query(&[
            ("a", &["orders-.*"]),
            ("b", &["pay", "orders-.*"]),
            ("c", &["x"]),
        ]);
        let mut listings = list(groups, names);
        let of = |listings: &Listings, group: &str| {
            let topics = listed(listings, &group.into());
            topics.map(TopicName::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(&listings, "a"), "orders-eu orders-us");
        assert_eq!(of(&listings, "b"), "orders-eu orders-us pay");
        assert_eq!(of(&listings, "c"), "");
        assert_eq!(of(&listings, "d"), "");
        // A request names a topic that is listed.
        let plan = GroupPlan::new("b", ["pay".into()].into());
        let only: Vec<_> = only_listed(&listings, &plan)
            .map(TopicName::as_str)
            .collect();
        assert_eq!(only, ["orders-eu", "orders-us"]);
        leave_out(&mut listings, &"b".into(), |topic| topic.as_str() == "pay");
        assert_eq!(of(&listings, "b"), "orders-eu orders-us");
        // The topic of the other pattern is read anyway.
        assert!(refuse_widest(&mut listings, &"b".into()));
        assert!(!refuse_widest(&mut listings, &"b".into()));
        assert!(!refuse_widest(&mut listings, &"c".into()));
        assert_eq!(of(&listings, "b"), "");
        let refused = Some(Err(Unlisted::OverBudget));
        assert_eq!(listings["b"].topics_of(&pattern("orders-.*")), refused);
        assert_eq!(
            listings["c"].topics_of(&pattern("x")),
            Some(Ok(&BTreeSet::new()))
        );
    }

    #[test]
    fn more_topics_than_the_limit_are_none() {
        let groups = query(&[
            ("all", &["t.*"]),
            ("some", &["t1.*"]),
            ("both", &["t.*", "t1.*"]),
        ]);
        let some = names((0..=MAX_LISTED_TOPICS).map(|i| format!("t{i}")));
        let listings = list(groups.clone(), some);
        let refused = Some(Err(Unlisted::TooMany));
        assert_eq!(listings["all"].topics_of(&pattern("t.*")), refused);
        assert_eq!(listed(&listings, &"some".into()).count(), 111);
        // The other HPAs of the group are not hit.
        assert_eq!(listings["both"].topics_of(&pattern("t.*")), refused);
        assert_eq!(listed(&listings, &"both".into()).count(), 111);
        let most = names((1..=MAX_LISTED_TOPICS).map(|i| format!("t{i}")));
        let listings = list(groups, most);
        assert_eq!(listed(&listings, &"all".into()).count(), MAX_LISTED_TOPICS);
    }

    #[test]
    fn listings_are_kept_for_the_same_query_and_names_for_others() {
        let (first, second) = (query(&[("a", &["x"])]), query(&[("a", &["y"])]));
        for (names, max_age) in [
            (names(["x".to_owned()]), MAX_AGE),
            ((Instant::now(), Err(Fault::NoAnswer)), MAX_AGE),
            ((Instant::now(), Err(Fault::OverBudget)), TOO_MANY_AGE),
        ] {
            let listing = CachedListing::new(first.clone(), names.clone(), None, LONG);
            assert!(listing.listings_of(&first).is_some());
            assert_eq!(listing.listings_of(&second), None);
            assert_eq!(listing.fresh_names(), Some(names.clone()));
            let aged = |age| CachedListing {
                fetched: names.0.checked_sub(age).unwrap(),
                ..listing.clone()
            };
            let young = aged(max_age / 2);
            assert!(young.fresh_names().is_some() && young.listings_of(&first).is_some());
            let old = aged(max_age);
            assert_eq!(old.listings_of(&first), None);
            assert_eq!(old.fresh_names(), None);
        }
    }

    #[test]
    fn patterns_that_are_not_compared_in_time_have_their_turn_later() {
        let groups = query(&[("a", &["x.*"]), ("b", &["y.*"])]);
        let late = CachedListing::new(groups.clone(), names(["x1".into()]), None, Duration::ZERO);
        let slow = Some(Err(Unlisted::TooSlow));
        assert_eq!(late.listings["a"].topics_of(&groups[0].1[0]), slow);
        assert_eq!(late.listings["b"].topics_of(&groups[1].1[0]), slow);
        let next = late.next.clone();
        assert_eq!(next, Some(groups[0].1[0].clone()));
        let all = ["x1", "y1"].map(str::to_owned);
        let first = CachedListing::new(groups.clone(), names(all), Some(late), LONG);
        let before = first.clone().into_listings();
        assert_eq!(listed(&before, &"b".into()).count(), 1);
        assert_eq!(first.next, None);
        // Out of time again: the last results stay.
        let later = names(["x2".to_owned()]);
        let later = CachedListing::new(groups, later, Some(first), Duration::ZERO);
        assert_eq!(later.into_listings(), before);
    }

    #[test]
    fn a_query_of_some_groups_keeps_the_results_and_the_turn_of_others() {
        let all = query(&[("a", &["x.*"]), ("b", &["y.*"])]);
        let some = query(&[("a", &["x.*"])]);
        let names = names(["x1", "y1"].map(str::to_owned));
        let first = CachedListing::new(all.clone(), names.clone(), None, LONG);
        let between = CachedListing::new(some.clone(), names.clone(), Some(first), LONG);
        let after = CachedListing::new(all.clone(), names.clone(), Some(between), Duration::ZERO);
        let turn = Some(all[1].1[0].clone());
        let late = CachedListing {
            next: turn.clone(),
            ..after.clone()
        };
        let listings = after.into_listings();
        assert_eq!(listed(&listings, &"a".into()).count(), 1);
        assert_eq!(listed(&listings, &"b".into()).count(), 1);
        let between = CachedListing::new(some, names.clone(), Some(late), LONG);
        assert_eq!(between.next, turn);
        let after = CachedListing::new(all, names, Some(between), LONG);
        assert_eq!(after.next, None);
    }
}
