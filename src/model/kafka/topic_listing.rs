//! Topics of a cluster that match the patterns of a group without members.
#![allow(
    clippy::mutable_key_type,
    reason = "patterns are compared by their text, which does not change"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::fault::Fault;
use super::sweep_plan::GroupPlan;
use crate::model::units::newtypes::TopicName;
use crate::model::units::topic_pattern::TopicPattern;

/// Maximum number of topics that are listed for a pattern.
pub const MAX_LISTED_TOPICS: usize = 200;

/// Maximum number of topics that are listed for a group. If its patterns match more, the patterns that match most
/// topics are refused first.
pub const MAX_LISTED_OF_GROUP: usize = 1_000;

/// The topics of a cluster that match a group's patterns, besides those that are read without a pattern and without a
/// request to the API. Each pattern belongs to one or several HPAs, so refusing one that matches too many topics must
/// not affect the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicListing {
    by_pattern: BTreeMap<TopicPattern, Result<BTreeSet<TopicName>, Unlisted>>,
    /// The topics of all patterns.
    topics: BTreeSet<TopicName>,
    /// Number of patterns that list each topic, so that refusing one of thousands of patterns need not look at the
    /// others.
    counts: BTreeMap<TopicName, usize>,
}

/// Why the topics that match a pattern are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// There are more than [`MAX_LISTED_TOPICS`], or those of all patterns are more than [`MAX_LISTED_OF_GROUP`].
    TooMany,
    /// They have more partitions than the budgets allow.
    OverBudget,
    /// The patterns of all groups could not be compared with all topics in time.
    TooSlow,
    /// The topics of the cluster could not be listed; [`Fault::OverBudget`] if there are too many.
    Failed(Fault),
}

impl Unlisted {
    /// Whether waiting does not help, because the pattern or the cluster is too large.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        match self {
            Self::TooMany | Self::OverBudget | Self::Failed(Fault::OverBudget) => true,
            Self::TooSlow | Self::Failed(_) => false,
        }
    }
}

impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(
                f,
                "more than {MAX_LISTED_TOPICS} match, or more than {MAX_LISTED_OF_GROUP} match the topic regexes of all HPAs of the group"
            ),
            Self::OverBudget => f.write_str("they have more partitions than the budgets allow"),
            Self::TooSlow => f.write_str(
                "comparing the topics of the cluster with the regexes of all HPAs takes too long, so these take turns",
            ),
            Self::Failed(Fault::OverBudget) => {
                f.write_str("the Kafka cluster has too many topics to list them")
            }
            Self::Failed(fault) => {
                write!(f, "the topics of the cluster could not be listed: {fault}")
            }
        }
    }
}

impl TopicListing {
    /// A listing of these topics, by pattern.
    #[must_use]
    pub fn new(by_pattern: BTreeMap<TopicPattern, Result<BTreeSet<TopicName>, Unlisted>>) -> Self {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for topic in by_pattern.values().flatten().flatten() {
            let count = counts.entry(topic.clone()).or_default();
            *count = count.saturating_add(1);
        }
        let mut listing = Self {
            topics: counts.keys().cloned().collect(),
            by_pattern,
            counts,
        };
        while listing.topics.len() > MAX_LISTED_OF_GROUP {
            listing.refuse_widest(Unlisted::TooMany);
        }
        listing
    }

    /// The topics that match any of the patterns.
    #[must_use]
    pub fn topics(&self) -> &BTreeSet<TopicName> {
        &self.topics
    }

    /// Whether a topic of a group with this plan is read only because a pattern matches it.
    #[must_use]
    pub fn is_only_listed(&self, topic: &TopicName, plan: &GroupPlan) -> bool {
        self.topics.contains(topic) && !plan.topics.contains(topic)
    }

    /// The topics that match a pattern, or why they are not listed; `None` for a pattern that the listing does not
    /// have.
    pub fn topics_of(
        &self,
        pattern: &TopicPattern,
    ) -> Option<Result<&BTreeSet<TopicName>, Unlisted>> {
        let listed = self.by_pattern.get(pattern)?;
        Some(listed.as_ref().map_err(|unlisted| *unlisted))
    }

    /// The patterns that were refused for this reason.
    pub fn refused(&self, reason: Unlisted) -> impl Iterator<Item = &TopicPattern> {
        let all = self.by_pattern.iter();
        all.filter(move |(_, listed)| **listed == Err(reason))
            .map(|(pattern, _)| pattern)
    }

    /// Refuses a pattern.
    pub fn refuse(&mut self, pattern: TopicPattern, reason: Unlisted) {
        let before = self.by_pattern.insert(pattern, Err(reason));
        for topic in before.into_iter().flatten().flatten() {
            match self.counts.get_mut(&topic) {
                Some(count) if *count > 1 => *count = count.saturating_sub(1),
                _ => {
                    self.counts.remove(&topic);
                    self.topics.remove(&topic);
                }
            }
        }
    }

    /// Refuses the pattern that most topics match. Returns it, or `None` if no topics are listed.
    pub fn refuse_widest(&mut self, reason: Unlisted) -> Option<TopicPattern> {
        let listed = self.by_pattern.iter().filter_map(|(pattern, topics)| {
            let topics = topics.as_ref().ok()?.len();
            (topics > 0).then_some((topics, pattern))
        });
        let widest = listed.max_by_key(|(topics, _)| *topics)?.1.clone();
        self.refuse(widest.clone(), reason);
        Some(widest)
    }

    /// Removes the topics that are read anyway.
    pub fn leave_out(&mut self, is_read: impl Fn(&TopicName) -> bool) {
        for topics in self.by_pattern.values_mut().flatten() {
            topics.retain(|topic| !is_read(topic));
        }
        self.topics.retain(|topic| !is_read(topic));
        self.counts.retain(|topic, _| !is_read(topic));
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A listing for one pattern.
    pub(crate) fn listing(pattern: &str, topics: Result<&[&str], Unlisted>) -> TopicListing {
        let pattern = TopicPattern::parse(pattern).unwrap();
        let topics = topics.map(|topics| topics.iter().copied().map(TopicName::from).collect());
        TopicListing::new([(pattern, topics)].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).unwrap()
    }

    fn topics(letter: char, count: usize) -> Result<BTreeSet<TopicName>, Unlisted> {
        let names = (0..count).map(|i| format!("{letter}{i:03}").as_str().into());
        Ok(names.collect())
    }

    #[test]
    fn the_widest_pattern_makes_room_and_the_others_stay() {
        let all = [("a.*", 3), ("b.*", 5), ("c.*", 0)];
        let all =
            all.map(|(text, count)| (pattern(text), topics(text.chars().next().unwrap(), count)));
        let mut listing = TopicListing::new(all.into());
        assert_eq!(listing.topics().len(), 8);
        listing.leave_out(|topic| topic.as_str() == "a000");
        assert_eq!(listing.topics().len(), 7);
        for (widest, left) in [("b.*", 2), ("a.*", 0)] {
            let refused = listing.refuse_widest(Unlisted::OverBudget);
            assert_eq!(refused, Some(pattern(widest)));
            assert_eq!(listing.topics().len(), left);
        }
        assert_eq!(listing.refuse_widest(Unlisted::OverBudget), None);
        assert_eq!(
            listing.topics_of(&pattern("c.*")),
            Some(Ok(&BTreeSet::new()))
        );
        assert_eq!(listing.topics_of(&pattern("d.*")), None);
        assert_eq!(listing.refused(Unlisted::OverBudget).count(), 2);
    }

    #[test]
    fn a_topic_stays_while_another_pattern_lists_it() {
        let all = ["a.*", "a0.*", "a1.*"].map(|text| (pattern(text), topics('a', 3)));
        let mut listing = TopicListing::new(all.into());
        for left in [3, 3, 0] {
            assert!(listing.refuse_widest(Unlisted::OverBudget).is_some());
            assert_eq!(listing.topics().len(), left);
        }
        assert_eq!(listing, TopicListing::new(listing.by_pattern.clone()));
    }

    #[test]
    fn the_topics_of_each_group_are_limited() {
        let each = MAX_LISTED_TOPICS;
        let patterns = ["a.*", "b.*", "c.*", "d.*", "e.*"].map(|text| {
            let letter = text.chars().next().unwrap();
            (pattern(text), topics(letter, each))
        });
        let mut all = BTreeMap::from(patterns);
        assert_eq!(TopicListing::new(all.clone()).topics().len(), 5 * each);
        all.insert(pattern("f.*"), topics('f', 1));
        let listing = TopicListing::new(all);
        assert_eq!(listing.topics().len(), 4 * each + 1);
        assert_eq!(listing.refused(Unlisted::TooMany).count(), 1);
        assert!(
            listing
                .topics_of(&pattern("f.*"))
                .is_some_and(|listed| listed.is_ok())
        );
    }

    #[test]
    fn only_size_errors_are_lasting() {
        for (unlisted, is_lasting) in [
            (Unlisted::TooMany, true),
            (Unlisted::OverBudget, true),
            (Unlisted::Failed(Fault::OverBudget), true),
            (Unlisted::TooSlow, false),
            (Unlisted::Failed(Fault::NoAnswer), false),
        ] {
            assert_eq!(unlisted.is_lasting(), is_lasting, "{unlisted}");
        }
    }
}
