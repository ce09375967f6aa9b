//! Says what became of the topics of the cluster that match a topic regex.

use std::collections::BTreeSet;

use crate::model::kafka::topic_listing::Unlisted;
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::units::newtypes::TopicName;
use crate::model::units::short_list::short_list;
use crate::model::units::topic_pattern::TopicPattern;

/// Says which topics of the cluster count because they match the pattern.
pub(super) fn describe_listing(
    pattern: &TopicPattern,
    listed: Result<&BTreeSet<TopicName>, Unlisted>,
    group: &GroupSnapshot,
) -> String {
    match listed {
        Ok(topics) => {
            let (read, ignored): (Vec<_>, Vec<_>) = topics
                .iter()
                .partition(|topic| group.would_read(pattern, topic));
            let list = |topics: Vec<&TopicName>| short_list(topics.iter().map(ToString::to_string));
            if read.is_empty() && ignored.is_empty() {
                return "no topic without a commit matches the topic regex".to_owned();
            }
            if read.is_empty() {
                return format!(
                    "topics without a commit that match the topic regex do not count, since members did not read them: {}",
                    list(ignored)
                );
            }
            let counts = format!(
                "topics without a commit count that match the topic regex, since the group has no members: {}",
                list(read)
            );
            match ignored.is_empty() {
                true => counts,
                false => format!(
                    "{counts}; these do not, since members did not read them: {}",
                    list(ignored)
                ),
            }
        }
        Err(why) => format!("topics without a commit do not count: {why}"),
    }
}
