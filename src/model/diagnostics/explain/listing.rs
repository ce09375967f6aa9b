//! Says which topics without a committed offset count because they match the topic regex of a group without members.

use std::collections::BTreeSet;

use crate::model::kafka::topic_listing::Unlisted;
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::units::newtypes::TopicName;
use crate::model::units::short_list::short_list;
use crate::model::units::topic_pattern::TopicPattern;

/// Describes which of the topics in `listed` count. `listed` has the topics without a commit that match `pattern`, or
/// the reason why they are not listed.
pub(super) fn describe_listing(
    pattern: &TopicPattern,
    listed: Result<&BTreeSet<TopicName>, Unlisted>,
    group: &GroupSnapshot,
) -> String {
    match listed {
        Ok(topics) => {
            let (counted, ignored): (Vec<_>, Vec<_>) = topics
                .iter()
                .partition(|topic| group.would_read(pattern, topic));
            let list = |topics: Vec<&TopicName>| short_list(topics.iter().map(ToString::to_string));
            if counted.is_empty() && ignored.is_empty() {
                return "no topic without a commit matches the topic regex".to_owned();
            }
            if counted.is_empty() {
                return format!(
                    "topics without a commit that match the topic regex do not count, since earlier members did not read them: {}",
                    list(ignored)
                );
            }
            let counts = format!(
                "these topics match the topic regex and count without a commit while the group has no members: {}",
                list(counted)
            );
            match ignored.is_empty() {
                true => counts,
                false => format!(
                    "{counts}; these match but do not count, since earlier members did not read them: {}",
                    list(ignored)
                ),
            }
        }
        Err(why) => format!("topics without a commit do not count: {why}"),
    }
}
