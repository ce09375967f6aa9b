//! Findings about HPAs and groups that need a snapshot: what their metrics, ceilings and members are now.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::hpa_findings::{find_against_ceiling, find_in_hpas};
use crate::model::evaluation::parallelism::{Limit, Parallelism};
use crate::model::evaluation::{Evaluations, HpaMetric, ValueRule, hpa_ceilings};
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::HpaFacts;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::lag::lag_age::LagAge;
use crate::model::settings::By;
use crate::model::settings::cap_mode::CapMode;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{Origin, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, Replicas};
use crate::model::units::parallelism_rule::ParallelismRule;

/// Options of the search for findings.
#[derive(Clone, Copy, Debug)]
pub struct FindingOptions {
    /// What is done about the ceiling of an HPA that does not say.
    pub cap: CapMode,
    /// How old the oldest waiting message must be before a group without members is a finding: during a
    /// rollout a group has no members for a moment. Zero for a single look.
    pub members_within: Duration,
}

/// Finds what is wrong or unwise about HPAs and groups, beyond what is known from the targets alone
/// ([`Targets::findings`](crate::model::targets::Targets::findings)).
#[must_use]
pub fn findings<H: Borrow<HpaFacts>>(
    evaluations: &Evaluations,
    metrics: &[HpaMetric<'_>],
    hpas: &[H],
    looking: FindingOptions,
) -> BTreeSet<Finding> {
    let mut found: BTreeSet<Finding> = find_in_hpas(hpas).collect();
    found.extend(metrics.iter().filter_map(find_in_outcome));
    let ceilings = hpa_ceilings(metrics);
    let targets = evaluations.targets();
    let manner = manners(targets);
    for hpa in hpas.iter().map(Borrow::borrow) {
        let key = (&*hpa.namespace, &*hpa.name);
        let Some(Limit::Bounded(ceiling)) = ceilings.get(&key) else {
            continue;
        };
        found.extend(find_tolerance_against_ceiling(hpa, *ceiling));
        let manner = manner.get(&key).copied().unwrap_or_default();
        if !manner.moves {
            found.extend(find_against_ceiling(
                hpa,
                *ceiling,
                looking.cap,
                manner.even,
            ));
        }
    }
    let sleepers = sleeping_groups(targets);
    for (cluster, read) in evaluations.clusters() {
        for (id, group) in &read.groups {
            let may_sleep = sleepers.contains(&(cluster, id));
            let useful = evaluations.parallelism(cluster, id);
            let id = (cluster, id);
            found.extend(find_in_group(id, group, useful, may_sleep, looking));
        }
    }
    found
}

/// Finds a tolerance that makes the HPA miss its ceiling. Within its tolerance the HPA keeps the replicas that
/// run: too many after a rollout or because of another metric, or too few just below the ceiling.
#[must_use]
pub fn find_tolerance_against_ceiling(hpa: &HpaFacts, ceiling: Replicas) -> Vec<Finding> {
    let (up, down) = (hpa.tolerance_up(), hpa.tolerance_down());
    let mut found = Vec::new();
    if hpa.max_replicas > ceiling.0 && up.max(down) > 0 {
        let message = format!(
            "within its tolerance it may keep more replicas than the replica ceiling {ceiling}, up to maxReplicas {}",
            hpa.max_replicas
        );
        found.push(Finding::new(
            FindingCode::ToleranceAbove,
            hpa.key(),
            message,
        ));
    }
    // The clamp serves at most ceiling x T, so from `from` replicas on the ratio is within the tolerance.
    let scaled = u64::from(ceiling.0).saturating_mul(1000);
    let from = u32::try_from(scaled.div_ceil(up.saturating_add(1000))).unwrap_or(u32::MAX);
    let goal = ceiling.0.min(hpa.max_replicas);
    if from < goal {
        let message =
            format!("its tolerance may stop it at {from} replicas, before it reaches {goal}");
        found.push(Finding::new(
            FindingCode::ToleranceBelow,
            hpa.key(),
            message,
        ));
    }
    found
}

/// How the ceiling of an HPA behaves.
#[derive(Clone, Copy, Debug, Default)]
struct CeilingUse {
    /// It follows the lag, so that no field of the HPA can be compared with it.
    moves: bool,
    /// Only numbers of replicas are desired that share the partitions evenly.
    even: bool,
}

fn manners(targets: &Targets) -> BTreeMap<(&str, &str), CeilingUse> {
    let mut all: BTreeMap<(&str, &str), CeilingUse> = BTreeMap::new();
    for target in &targets.all {
        let Origin::Hpa(hpa) = &target.origin else {
            continue;
        };
        let manner = all.entry((&hpa.namespace, &hpa.name)).or_default();
        manner.moves |= target.settings.by() == By::Lagging;
        manner.even |= target.settings.even();
    }
    all
}

/// The groups that have no members while their workload is scaled to zero.
fn sleeping_groups(targets: &Targets) -> BTreeSet<(&ClusterName, &GroupId)> {
    let sleepers = targets.all.iter().filter(|t| t.settings.scale_to_zero());
    sleepers
        .map(|target| (&target.interest.cluster, &target.interest.group))
        .collect()
}

/// How long a group may be without members before the expiry of its offsets is a finding. Kafka deletes them
/// seven days after the last member has left, by default of `offsets.retention.minutes` (KIP-211).
const EXPIRES_AFTER: Duration = Duration::from_secs(5 * 24 * 3600);

fn find_in_group(
    (cluster, id): (&ClusterName, &GroupId),
    group: &GroupSnapshot,
    useful: Option<Parallelism>,
    may_sleep: bool,
    looking: FindingOptions,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |code, message: &str| found.push(Finding::new(code, (cluster, id), message));
    let Some(description) = group.description.as_deref() else {
        return found;
    };
    if description.state == GroupState::Empty
        && !may_sleep
        && has_lag(group, looking.members_within)
    {
        note(FindingCode::NoMembers, "it has lag and no members");
    }
    if group.empty_for.is_some_and(|empty| empty >= EXPIRES_AFTER) && has_commits(group) {
        note(
            FindingCode::OffsetsExpire,
            "it has had no members for five days, and brokers delete the offsets of such a group after seven by default",
        );
    }
    if description.state != GroupState::Stable {
        return found;
    }
    if is_mixed(description) {
        note(
            FindingCode::MixedSubscriptions,
            "its members subscribe to different topics",
        );
    }
    if let Some((useful, rule)) = useful.and_then(|p| {
        let most = p.limit.bounded()?;
        Some((Replicas(most), p.rule))
    }) && has_idle_members(description, useful, rule)
    {
        let message = format!("it has more members than the {useful} that can have work ({rule})");
        note(FindingCode::MembersBeyond, &message);
    }
    found
}

/// Finds mistakes behind the value of a metric, or behind the reason why it has none.
fn find_in_outcome(metric: &HpaMetric<'_>) -> Option<Finding> {
    let finding = |code, message: String| {
        let hpa = HpaKey::new(metric.namespace, metric.hpa);
        Some(Finding::new(code, hpa, message))
    };
    let refusal = match &metric.outcome {
        Ok(value) if value.rule == ValueRule::Fallback => {
            return finding(
                FindingCode::FallbackServed,
                "lag has been unknown for longer than fallback-after, so fallback-replicas are served"
                    .to_owned(),
            );
        }
        Ok(_) => return None,
        Err(refusal) => refusal,
    };
    match refusal {
        NoValueReason::TopicMissing { .. } => {
            finding(FindingCode::TopicMissing, refusal.to_string())
        }
        NoValueReason::ConflictingTargets { .. } => {
            finding(FindingCode::ConflictingTargets, refusal.to_string())
        }
        NoValueReason::NothingSelected { .. }
        | NoValueReason::NothingCommitted { .. }
        | NoValueReason::NothingMatches { .. }
        | NoValueReason::NoPartition { .. }
        | NoValueReason::NamespaceNotWatched { .. } => {
            finding(FindingCode::NothingToRead, refusal.to_string())
        }
        // Found while the targets were built, or not a mistake.
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

/// Whether the group has committed offsets that could expire.
fn has_commits(group: &GroupSnapshot) -> bool {
    let mut topics = group.topics.values();
    topics.any(|topic| topic.latest.is_ok() && topic.may_have_commits())
}

/// Whether the group has lag that is at least so old. Lag of unknown age counts as new.
fn has_lag(group: &GroupSnapshot, at_least: Duration) -> bool {
    group.topics.values().any(|topic| {
        let Ok(lag) = &topic.latest else {
            return false;
        };
        let age = lag.age().map(LagAge::duration).unwrap_or_default();
        topic.may_have_commits() && lag.total().is_ok_and(|total| total > Lag(0)) && age >= at_least
    })
}

/// Whether members subscribe to different topics, of those whose subscription the broker reports. In a share
/// group they may.
fn is_mixed(group: &GroupDescription) -> bool {
    let mut known = group.members.iter().filter_map(|m| m.subscribed.as_ref());
    let first = known.next();
    group.kind != GroupKind::Share && known.any(|other| Some(other) != first)
}

/// Whether there are more members than can have work. If the assignor is not known, some members must also be
/// seen without a partition.
fn has_idle_members(group: &GroupDescription, useful: Replicas, rule: ParallelismRule) -> bool {
    let members = u32::try_from(group.members.len()).unwrap_or(u32::MAX);
    let some_are_idle = group.members.iter().any(|m| m.partitions() == 0);
    members > useful.0 && (rule != ParallelismRule::AssignorUnknown || some_are_idle)
}

#[cfg(test)]
mod tests;
