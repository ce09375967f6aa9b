//! Finding about groups that were never seen while replicas run: most likely a misspelled name.

use std::time::Duration;

use crate::model::evaluation::{HpaMetric, find_similar_group, max_running};
use crate::model::findings::{Finding, FindingCode, suggestion};
use crate::model::hpa::facts::RunningReplicas;
use crate::model::targets::Targets;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::GroupId;

/// Finds the groups of a metric that have not been seen for at least this long, although replicas run.
pub fn find_unseen_groups(
    metric: &HpaMetric<'_>,
    targets: &Targets,
    at_least: Duration,
) -> impl Iterator<Item = Finding> {
    let resolved = metric.evaluation.resolved.as_deref();
    let running = resolved.map(max_running).unwrap_or_default();
    let replicas_run = matches!(running, RunningReplicas::One | RunningReplicas::Several);
    let groups = metric.evaluation.groups.iter();
    groups.filter(move |_| replicas_run).filter_map(move |group| {
        let unseen = group.group.as_ref()?.unseen.as_ref()?;
        if unseen.since < at_least {
            return None;
        }
        let key = &group.query.key;
        // If Kafka knows the group, only the names of the topics can be wrong.
        let exists = if unseen.exists { "exists, but " } else { "" };
        let nearest = find_similar_group(metric.namespace, group, targets);
        let meant = suggestion("group ", nearest.as_ref().map(GroupId::as_str));
        let message = format!(
            "group {:?} on Kafka cluster {:?} {exists}has neither members nor committed offsets on the topics that count, although replicas run{meant}",
            key.group, key.cluster
        );
        let hpa = HpaKey::new(metric.namespace, metric.hpa);
        Some(Finding::new(FindingCode::UnseenGroup, hpa, message))
    })
}
