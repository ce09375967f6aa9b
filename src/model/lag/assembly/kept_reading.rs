//! Decides which complete reading of a topic is kept while later ones are incomplete.

use std::sync::Arc;

use super::MISSING_GRACE_PERIOD;
use crate::model::kafka::fault::Fault;
use crate::model::lag::cluster_snapshot::{GroupTopic, TopicLag};
use crate::model::units::newtypes::Moment;

/// Whether a topic or partition that is missing now was read so recently that it is not taken for deleted.
pub(super) fn is_missed(complete: &TopicLag, now: &Moment) -> bool {
    now.since(&complete.read) < MISSING_GRACE_PERIOD
}

/// Whether two readings are of different topics of the same name, as their topic IDs show.
fn is_recreated(before: &TopicLag, after: &TopicLag) -> bool {
    let ids = before.offsets.id.zip(after.offsets.id);
    ids.is_some_and(|(before, after)| before != after)
}

/// The latest reading of a group on a topic, with the last complete one.
pub(super) fn group_topic(
    latest: Result<Arc<TopicLag>, Fault>,
    before: Option<Arc<TopicLag>>,
) -> GroupTopic {
    // The last reading of a deleted topic must not be served for a new topic of that name.
    let before = before.filter(|before| match &latest {
        Ok(lag) => !is_recreated(before, lag),
        Err(fault) => *fault != Fault::TopicMissing,
    });
    let complete = match (&latest, before) {
        // Kafka never removes partitions from a topic, so this answer is incomplete.
        (Ok(lag), Some(before))
            if lag.partitions() < before.partitions() && is_missed(&before, &lag.read) =>
        {
            return GroupTopic {
                latest: Err(Fault::NoAnswer),
                complete: Some(before),
            };
        }
        (Ok(lag), _) if lag.first_fault().is_none() => Some(Arc::clone(lag)),
        (_, before) => before,
    };
    GroupTopic { latest, complete }
}
