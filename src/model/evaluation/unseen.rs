//! Why a metric has no value while none of its groups was ever seen: most likely the name of a group is misspelled.

use std::sync::Arc;

use super::group_evaluation::GroupEvaluation;
use super::valuation::measures;
use crate::model::hpa::facts::RunningReplicas;
use crate::model::targets::lookup::ResolvedQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{Targets, WatchKey};
use crate::model::units::newtypes::GroupId;

/// Why a metric none of whose groups ever ran has no value: several replicas run, or may run, so a lag of zero is no
/// reason to remove all but one of them. `None` where at most one runs.
pub(super) fn held_reason(
    namespace: &str,
    resolved: &ResolvedQuery,
    groups: &[Arc<GroupEvaluation>],
    targets: &Targets,
) -> Option<NoValueReason> {
    let first = groups.first()?;
    let never_ran = measures(groups).all(|measure| measure.never_ran);
    if !never_ran || max_running(resolved) < RunningReplicas::Several {
        return None;
    }
    Some(NoValueReason::NeverRan {
        group: first.query.key.group.clone(),
        cluster: first.query.key.cluster.clone(),
        nearest: find_similar_group(namespace, first, targets),
    })
}

/// The largest number of replicas among the HPAs with this metric.
pub(in crate::model) fn max_running(resolved: &ResolvedQuery) -> RunningReplicas {
    let running = resolved.caps.iter().map(|cap| cap.running);
    running.max().unwrap_or_default()
}

/// An existing group with a name similar to that of an unseen group, which the namespace may use.
pub(in crate::model) fn find_similar_group(
    namespace: &str,
    group: &GroupEvaluation,
    targets: &Targets,
) -> Option<GroupId> {
    let may_read = |similar: &&GroupId| {
        let key = WatchKey {
            group: (*similar).clone(),
            ..(*group.query.key).clone()
        };
        targets.may_read(namespace, &key)
    };
    let unseen = group.group.as_ref()?.unseen.as_ref()?;
    unseen.similar.iter().find(may_read).cloned()
}
