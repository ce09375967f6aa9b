//! Findings about HPAs and groups as they are now.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::hpa_findings::{of_ceiling, of_hpas};
use crate::model::evaluation::metric_evaluation::{MetricEvaluation, hpa_ceilings};
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{ValueRule, topic_selection};
use crate::model::findings::Finding;
use crate::model::hpa::facts::{HpaFacts, shown};
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::lag::lag_age::LagAge;
use crate::model::settings::By;
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{Origin, Targets};
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, Replicas};
use crate::model::units::parallelism_rule::ParallelismRule;

/// How findings are looked for.
#[derive(Clone, Copy, Debug)]
pub struct FindingOptions {
    /// What is done about the ceiling of an HPA that does not say.
    pub cap: CapMode,
    /// How old the oldest message has to be before a group without members is one that nobody runs:
    /// a rollout, too, leaves it without for a moment. Zero where there is one look only.
    pub members_within: Duration,
}

/// What a person should know of HPAs and groups as they are now, beyond what
/// [`Targets::findings`](crate::model::targets::Targets::findings) says.
#[must_use]
pub fn findings<H: Borrow<HpaFacts>>(
    snapshot: &LagSnapshot,
    standings: &[MetricEvaluation<'_>],
    hpas: &[H],
    looking: FindingOptions,
) -> BTreeSet<Finding> {
    let mut found: BTreeSet<Finding> = of_hpas(hpas).collect();
    found.extend(standings.iter().filter_map(of_outcome));
    let ceilings = hpa_ceilings(standings);
    let manner = manners(&snapshot.targets);
    for hpa in hpas.iter().map(Borrow::borrow) {
        let key = (&*hpa.namespace, &*hpa.name);
        let Some(Limit::Bounded(ceiling)) = ceilings.get(&key) else {
            continue;
        };
        found.extend(of_tolerance(hpa, *ceiling));
        let manner = manner.get(&key).copied().unwrap_or_default();
        if !manner.moves {
            found.extend(of_ceiling(hpa, *ceiling, looking.cap, manner.even));
        }
    }
    let sleepers = sleeping_groups(&snapshot.targets);
    for (cluster, read) in &snapshot.clusters {
        for (id, group) in &read.groups {
            let may_sleep = sleepers.contains(&(cluster, id));
            found.extend(of_group(cluster, id, group, may_sleep, looking));
        }
    }
    found
}

/// What an HPA's tolerance does to the ceiling. Within it the HPA proposes the replicas there are:
/// those that a rollout or another metric brought above the ceiling, or one too few below it.
#[must_use]
pub fn of_tolerance(hpa: &HpaFacts, ceiling: Replicas) -> Vec<Finding> {
    let (up, down) = (hpa.tolerance_up(), hpa.tolerance_down());
    let name = || shown(hpa);
    let mut found = Vec::new();
    if hpa.max_replicas > ceiling.0 && up.max(down) > 0 {
        found.push(Finding::ToleranceAbove {
            hpa: name(),
            ceiling,
            max_replicas: hpa.max_replicas,
        });
    }
    // The clamp serves at most ceiling x T, so from here on the ratio is within the tolerance.
    let scaled = u64::from(ceiling.0).saturating_mul(1000);
    let from = u32::try_from(scaled.div_ceil(up.saturating_add(1000))).unwrap_or(u32::MAX);
    let goal = ceiling.0.min(hpa.max_replicas);
    if from < goal {
        found.push(Finding::ToleranceBelow {
            hpa: name(),
            from,
            goal,
        });
    }
    found
}

/// How an HPA's ceiling is to be taken.
#[derive(Clone, Copy, Debug, Default)]
struct CeilingUse {
    /// It follows the lag, so that nothing of the HPA can be compared with it.
    moves: bool,
    /// Only what shares it evenly is wanted.
    even: bool,
}

fn manners(targets: &Targets) -> BTreeMap<(&str, &str), CeilingUse> {
    let mut all: BTreeMap<(&str, &str), CeilingUse> = BTreeMap::new();
    for target in &targets.all {
        let Origin::Hpa { namespace, name } = &target.origin else {
            continue;
        };
        let manner = all.entry((namespace, name)).or_default();
        manner.moves |= target.settings.by() == By::Lagging;
        manner.even |= target.settings.even();
    }
    all
}

/// The groups that have no members while their workload sleeps.
fn sleeping_groups(targets: &Targets) -> BTreeSet<(&ClusterName, &GroupId)> {
    let sleepers = targets.all.iter().filter(|t| t.settings.scale_to_zero());
    sleepers
        .map(|target| (&target.interest.cluster, &target.interest.group))
        .collect()
}

/// How long a group may be without members before a person is told that its offsets will go: two days
/// before they do, with Kafka's default of `offsets.retention.minutes`, which counts from when the last
/// member leaves (KIP-211).
const EXPIRES_AFTER: Duration = Duration::from_secs(5 * 24 * 3600);

fn of_group(
    cluster: &ClusterName,
    id: &GroupId,
    group: &GroupSnapshot,
    may_sleep: bool,
    looking: FindingOptions,
) -> Vec<Finding> {
    let names = || (cluster.clone(), id.clone());
    let mut found = Vec::new();
    let Some(told) = group.description.as_deref() else {
        return found;
    };
    if told.state == GroupState::Empty && !may_sleep && waits(group, looking.members_within) {
        let (cluster, group) = names();
        found.push(Finding::NoMembers { cluster, group });
    }
    if group.empty_for.is_some_and(|empty| empty >= EXPIRES_AFTER) && has_commits(group) {
        let (cluster, group) = names();
        found.push(Finding::OffsetsExpire { cluster, group });
    }
    if told.state != GroupState::Stable {
        return found;
    }
    if is_mixed(told) {
        let (cluster, group) = names();
        found.push(Finding::MixedSubscriptions { cluster, group });
    }
    let known = topic_selection::whole_parallelism(group);
    if let Some((useful, rule)) = known.and_then(|p| {
        let most = p.limit.bounded()?;
        Some((Replicas(most), p.rule))
    }) && has_more(told, useful, rule)
    {
        let (cluster, group) = names();
        found.push(Finding::MembersBeyond {
            cluster,
            group,
            useful,
            rule,
        });
    }
    found
}

/// What an answer, or the want of one, says.
fn of_outcome(standing: &MetricEvaluation<'_>) -> Option<Finding> {
    let hpa = format!("{}/{}", standing.namespace, standing.hpa);
    let refusal = match &standing.outcome {
        Ok(answer) if answer.rule == ValueRule::Fallback => {
            return Some(Finding::FallbackServed { hpa });
        }
        Ok(_) => return None,
        Err(refusal) => refusal,
    };
    match refusal {
        NoValueReason::TopicMissing { topic, cluster } => Some(Finding::TopicMissing {
            hpa,
            cluster: cluster.clone(),
            topic: topic.clone(),
        }),
        NoValueReason::ConflictingTargets { .. } => Some(Finding::ConflictingTargets {
            hpa,
            reason: refusal.to_string(),
        }),
        NoValueReason::NothingSelected { .. }
        | NoValueReason::NothingCommitted { .. }
        | NoValueReason::NothingMatches { .. }
        | NoValueReason::NoPartition { .. }
        | NoValueReason::NamespaceNotWatched { .. } => Some(Finding::NothingToRead {
            hpa,
            reason: refusal.to_string(),
        }),
        // Told by what made the targets, or no mistake of anybody's.
        NoValueReason::UnknownMetric { .. }
        | NoValueReason::NoGroup { .. }
        | NoValueReason::UnknownTarget { .. }
        | NoValueReason::UnknownCluster { .. }
        | NoValueReason::AmbiguousCluster { .. }
        | NoValueReason::NoLagPerReplica { .. }
        | NoValueReason::HpasUnlisted
        | NoValueReason::NotYetRead(_)
        | NoValueReason::Unknown { .. }
        | NoValueReason::Stale { .. } => None,
    }
}

/// Whether there are offsets that could be deleted.
fn has_commits(group: &GroupSnapshot) -> bool {
    let mut topics = group.topics.values();
    topics.any(|topic| topic.latest.is_ok() && topic.may_have_commits())
}

/// Whether messages wait that are at least so old. Where their age cannot be told they are new.
fn waits(group: &GroupSnapshot, at_least: Duration) -> bool {
    group.topics.values().any(|topic| {
        let Ok(lag) = &topic.latest else {
            return false;
        };
        let age = lag.age().map(LagAge::duration).unwrap_or_default();
        topic.may_have_commits() && lag.total().is_ok_and(|total| total > Lag(0)) && age >= at_least
    })
}

/// Whether members subscribe to different topics, which the broker has to have told of each. Not of
/// a share group: there each member may read what it likes.
fn is_mixed(group: &GroupDescription) -> bool {
    let mut told = group.members.iter().filter_map(|m| m.subscribed.as_ref());
    let first = told.next();
    group.kind != GroupKind::Share && told.any(|other| Some(other) != first)
}

/// Whether there are more members than can have work. Where the assignor is not known, only where
/// some are seen to have none.
fn has_more(group: &GroupDescription, useful: Replicas, rule: ParallelismRule) -> bool {
    let members = u32::try_from(group.members.len()).unwrap_or(u32::MAX);
    let some_are_idle = group.members.iter().any(|m| m.partitions() == 0);
    members > useful.0 && (rule != ParallelismRule::AssignorUnknown || some_are_idle)
}

#[cfg(test)]
mod tests;
