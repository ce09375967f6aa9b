//! Why a group that was asked for has no reading.

use crate::model::evaluation::EvaluationsAt;
use crate::model::targets::WatchKey;

/// The reason for a group that will be read.
pub(super) const NOT_READ_YET: &str = "the group has not been read yet";

/// Why the group of the key has no reading of all its topics, and what to do about it.
pub(super) fn unread_reason(evaluations: EvaluationsAt<'_>, key: &WatchKey) -> String {
    let cluster = evaluations.clusters().get(&key.cluster);
    if let Some(read) = cluster.and_then(|cluster| cluster.groups.get(&key.group)) {
        let mut topics = key.topics.iter();
        return match topics.find(|topic| !read.topics.contains_key(*topic)) {
            Some(topic) => format!(
                "topic {topic:?} is not read for this group; to read it, name it in an HPA or a target"
            ),
            None => NOT_READ_YET.to_owned(),
        };
    }
    let targets = evaluations.targets();
    match targets.group(&key.cluster, &key.group) {
        Some(_) => NOT_READ_YET.to_owned(),
        None => format!(
            "no HPA or target names group {:?}, so it is not read",
            key.group
        ),
    }
}
