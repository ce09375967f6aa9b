//! What the commits of a sweep say beyond themselves: whether anybody answered, and which logs to
//! ask about.

use std::collections::BTreeMap;

use crate::model::fault::Fault;
use crate::model::observation::GroupObservation;
use crate::model::types::TopicName;

/// Whether a broker said anything of the group, if only that it may not be read.
pub(super) fn was_heard(group: &GroupObservation) -> bool {
    let is_silence = |fault: &Fault| fault.is_connection() || *fault == Fault::Client;
    match &group.committed {
        Err(fault) => !is_silence(fault),
        Ok(topics) => topics
            .values()
            .flatten()
            .any(|committed| !committed.as_ref().is_err_and(is_silence)),
    }
}

/// The topics whose log offsets are needed, and whether a log's start may have passed a commit.
pub(super) fn wanted(groups: &[GroupObservation]) -> BTreeMap<&TopicName, bool> {
    let mut wanted = BTreeMap::new();
    for (topic, column) in groups
        .iter()
        .filter_map(|group| group.committed.as_ref().ok())
        .flatten()
    {
        *wanted.entry(topic).or_default() |= column.contains(&Ok(None));
    }
    wanted
}
