//! Groups of a metric that were never seen on its topics while replicas of its HPA run: most likely a misspelled name.

use std::sync::Arc;
use std::time::Duration;

use super::group_evaluation::GroupEvaluation;
use super::valuation::measures;
use super::{HpaMetric, MetricEvaluation};
use crate::model::hpa::facts::RunningReplicas;
use crate::model::targets::lookup::ResolvedQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{Targets, WatchKey};
use crate::model::units::newtypes::GroupId;

/// A group that was never seen, although replicas run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnseenGroup {
    pub key: Arc<WatchKey>,
    /// How long it has not been seen.
    pub since: Duration,
    /// Whether Kafka knows the group, so that only the names of the topics may be wrong.
    pub exists: bool,
    /// An existing group of a similar name that the namespace may use.
    pub nearest: Option<GroupId>,
}

/// The groups of a metric that were never seen, while replicas of an HPA with this metric run.
pub fn unseen_groups(
    metric: &HpaMetric<'_>,
    targets: &Targets,
) -> impl Iterator<Item = UnseenGroup> {
    let MetricEvaluation {
        resolved, groups, ..
    } = metric.evaluation;
    let running = resolved.as_deref().map(running).unwrap_or_default();
    let replicas_run = matches!(running, RunningReplicas::One | RunningReplicas::Several);
    let groups = groups.iter().filter(move |_| replicas_run);
    groups.filter_map(move |group| {
        let unseen = group.group.as_ref()?.unseen.as_ref()?;
        Some(UnseenGroup {
            key: Arc::clone(&group.query.key),
            since: unseen.since,
            exists: unseen.exists,
            nearest: nearest(metric.namespace, group, targets),
        })
    })
}

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
    if !never_ran || running(resolved) < RunningReplicas::Several {
        return None;
    }
    Some(NoValueReason::NeverRan {
        group: first.query.key.group.clone(),
        cluster: first.query.key.cluster.clone(),
        nearest: nearest(namespace, first, targets),
    })
}

/// The largest number of replicas among the HPAs with this metric.
fn running(resolved: &ResolvedQuery) -> RunningReplicas {
    let running = resolved.caps.iter().map(|cap| cap.running);
    running.max().unwrap_or_default()
}

fn nearest(namespace: &str, group: &GroupEvaluation, targets: &Targets) -> Option<GroupId> {
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
