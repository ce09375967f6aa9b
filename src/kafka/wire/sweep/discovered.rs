//! Topics that a sweep discovers, because their groups have commits on them.

use crate::kafka::wire::offset_fetch::{PartitionCommit, fill};
use crate::kafka::wire::topics::{ClusterMetadata, is_user_topic};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::units::newtypes::TopicName;

/// Commits of a group by topic, as in a response about all topics.
type DiscoveredCommits = [(String, Vec<PartitionCommit>)];

/// The topics on which a group has commits and whose metadata was not fetched, apart from Kafka's internal ones.
pub(super) fn topics_without_metadata(
    found: &DiscoveredCommits,
    metadata: &ClusterMetadata,
) -> impl Iterator<Item = TopicName> {
    found
        .iter()
        .filter(|(name, _)| is_user_topic(name))
        .map(|(name, _)| metadata.intern(name))
        .filter(|name| metadata.fetched_at(name).is_none())
}

/// Whether metadata is missing for a topic on which a group has commits.
pub(super) fn lacks_metadata(found: &DiscoveredCommits, metadata: &ClusterMetadata) -> bool {
    topics_without_metadata(found, metadata).next().is_some()
}

/// A column without a commit for each partition of a topic: a response about all topics omits such partitions.
pub(super) fn empty_column(name: &TopicName, metadata: &ClusterMetadata) -> CommittedOffsets {
    CommittedOffsets::filled(metadata.partitions(name), Ok(None))
}

/// Columns of a group with discovery: its planned topics and those with a commit.
pub(super) fn discovered_columns(
    plan: &GroupPlan,
    found: Vec<(String, Vec<PartitionCommit>)>,
    metadata: &ClusterMetadata,
) -> TopicMap<CommittedOffsets> {
    let empty = |name: &TopicName| empty_column(name, metadata);
    let mut columns: TopicMap<_> = plan
        .topics
        .iter()
        .map(|name| (name.clone(), empty(name)))
        .collect();
    for (name, commits) in found {
        let name = metadata.intern(&name);
        let is_new = is_user_topic(name.as_str()) && metadata.topic(&name).is_ok();
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::model::units::newtypes::Offset;

    #[test]
    fn a_group_lacks_the_metadata_of_its_own_topics_only() {
        let mut metadata = ClusterMetadata::default();
        for topic in ["orders", "payments", "deleted"] {
            metadata.insert_missing(&topic.into(), Instant::now());
        }
        for (topics, lacking) in [
            (&["orders", "payments"][..], &[][..]),
            (&["deleted"], &[]),
            (&[], &[]),
            (&["orders", "__consumer_offsets"], &[]),
            (&["orders", "new"], &["new"]),
            (
                &["newest", "__transaction_state", "new"],
                &["newest", "new"],
            ),
        ] {
            let commits = vec![(0, Ok(Some(Offset(5))))];
            let found = topics
                .iter()
                .map(|name| ((*name).to_owned(), commits.clone()));
            let found = Vec::from_iter(found);
            let names = Vec::from_iter(topics_without_metadata(&found, &metadata));
            let lacking = Vec::from_iter(lacking.iter().map(|name| TopicName::from(*name)));
            assert_eq!(names, lacking);
            assert_eq!(
                lacks_metadata(&found, &metadata),
                !lacking.is_empty(),
                "{topics:?}"
            );
        }
    }
}
