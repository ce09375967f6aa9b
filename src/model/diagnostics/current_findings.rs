//! Findings about HPAs and groups that follow from a snapshot: from its metrics, ceilings and members.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::at_ceiling::AtCeiling;
use super::hpa_findings::{find_against_ceiling, find_in_hpas, find_limited_scale_up};
use super::unseen_groups::find_unseen_groups;
use crate::model::evaluation::parallelism::{Limit, Parallelism};
use crate::model::evaluation::{Evaluations, HpaMetric, ValueRule, hpa_ceilings};
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::HpaFacts;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::lag::lag_age::LagAge;
use crate::model::settings::By;
use crate::model::settings::cap_mode::CapMode;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{Target, Targets, WatchKey};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, Replicas};
use crate::model::units::parallelism_rule::ParallelismRule;
use crate::model::units::short_list::short_list;

/// Options of the search for findings.
#[derive(Clone, Copy, Debug)]
pub struct FindingOptions {
    /// The cap mode of HPAs that set none.
    pub cap: CapMode,
    /// Minimum age of the lag of a group without members, and minimum time for which a group is not seen, before either
    /// is a finding: during a rollout a group has no members for a moment. Zero for commands, which read once.
    pub min_age: Duration,
}

/// Finds mistakes and risks of HPAs and groups that the targets alone do not show
/// ([`Targets::findings`](crate::model::targets::Targets::findings)).
#[must_use]
pub fn findings<H: Borrow<HpaFacts>>(
    evaluations: &Evaluations,
    metrics: &[HpaMetric<'_>],
    hpas: &[H],
    options: FindingOptions,
) -> BTreeSet<Finding> {
    let mut found = find_in_groups(evaluations, options);
    found.extend(metrics.iter().filter_map(find_in_outcome));
    found.extend(metrics.iter().flat_map(find_wide_patterns));
    let targets = evaluations.targets();
    let metrics_of_all = metrics.iter();
    found.extend(metrics_of_all.flat_map(|m| find_unseen_groups(m, targets, options.min_age)));
    found.extend(find_in_hpas(hpas));
    let ceilings = hpa_ceilings(metrics);
    // The metrics of an HPA follow one another.
    let of_hpas = metrics.chunk_by(|a, b| (a.hpa, a.namespace) == (b.hpa, b.namespace));
    let of_hpas: BTreeMap<_, _> = of_hpas
        .filter_map(|own| Some((own.first().map(|m| (m.namespace, m.hpa))?, own)))
        .collect();
    let writes = &evaluations.policy().writes;
    for hpa in hpas.iter().map(Borrow::borrow) {
        let ceiling = ceilings.get(&(&*hpa.namespace, &*hpa.name)).copied();
        let targets = evaluations.targets().of_hpa(&hpa.key());
        found.extend(find_limited_scale_up(
            hpa,
            targets,
            evaluations.policy().scaling,
        ));
        let ceiling = UsedCeiling::new(ceiling, targets);
        let mode = writes.cap_mode(hpa, options.cap);
        found.extend(ceiling.find_in_hpa(hpa, mode));
        let own = of_hpas.get(&(&*hpa.namespace, &*hpa.name));
        let own = own.copied().unwrap_or_default();
        let at_ceiling = AtCeiling::of_hpa(own, hpa.max_replicas);
        found.extend(at_ceiling.map(|at_ceiling| at_ceiling.finding(hpa.key())));
    }
    found
}

/// Finds mistakes and risks of groups, and the HPAs whose groups exceed a budget.
#[must_use]
pub fn find_in_groups(evaluations: &Evaluations, options: FindingOptions) -> BTreeSet<Finding> {
    let mut found: BTreeSet<Finding> = find_over_budget(evaluations).collect();
    for (cluster, read) in evaluations.clusters() {
        for (id, group) in &read.groups {
            let useful = || evaluations.parallelism(cluster, id);
            found.extend(find_in_group((cluster, id), group, useful));
            if lacks_members(group, options.min_age) {
                found.extend(find_without_members((cluster, id), evaluations.targets()));
            }
        }
    }
    found
}

/// Finds a tolerance that makes the HPA miss its ceiling. Within its tolerance the HPA keeps the current
/// replicas: too many after a rollout or because of another metric, or too few just below the ceiling.
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
    // At most ceiling x lag per replica is served, so from `from` replicas on the ratio is within the tolerance.
    let scaled = u64::from(ceiling.0).saturating_mul(1000);
    let from = u32::try_from(scaled.div_ceil(up.saturating_add(1000))).unwrap_or(u32::MAX);
    let goal = ceiling.0.min(hpa.max_replicas);
    if from < goal {
        let message =
            format!("within its tolerance it may stay at {from} replicas and never reach {goal}");
        found.push(Finding::new(
            FindingCode::ToleranceBelow,
            hpa.key(),
            message,
        ));
    }
    found
}

/// Finds the HPAs whose groups are not read because they have too many partitions.
fn find_over_budget(evaluations: &Evaluations) -> impl Iterator<Item = Finding> {
    let targets = evaluations.targets();
    let mut unread: BTreeMap<&HpaKey, BTreeSet<&GroupId>> = BTreeMap::new();
    for (cluster, read) in evaluations.clusters() {
        let groups = read.groups.iter();
        for (id, _) in groups.filter(|(_, group)| group.fault == Some(Fault::OverBudget)) {
            let group = targets.group(cluster, id);
            let group_targets = group.map_or(&[][..], |group| group.targets());
            for hpa in group_targets.iter().filter_map(|target| target.hpa()) {
                unread.entry(hpa).or_default().insert(id);
            }
        }
    }
    unread.into_iter().map(|(hpa, groups)| {
        let ids = short_list(groups.iter().map(|id| format!("{id:?}")));
        let are_not = match groups.len() {
            1 => "is not",
            _ => "are not",
        };
        let message = format!(
            "{ids} {are_not} read: more partitions than the budgets in the configuration of lagwise allow"
        );
        Finding::new(FindingCode::OverBudget, hpa, message)
    })
}

/// The ceiling of an HPA, and how it is used. Findings about the ceiling depend only on this and on the HPA itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsedCeiling {
    /// `None` if it is unknown or unbounded.
    ceiling: Option<Replicas>,
    /// It changes with the lag (`by: lagging`), so comparing fields of the HPA with it is pointless.
    follows_lag: bool,
    /// Only replica counts that share the partitions evenly are used.
    even: bool,
}

impl UsedCeiling {
    /// The ceiling of an HPA that has these targets.
    #[must_use]
    pub fn new(ceiling: Option<Limit>, targets: &[Arc<Target>]) -> Self {
        let Some(Limit::Bounded(ceiling)) = ceiling else {
            return Self::default();
        };
        let mut settings = targets.iter().map(|target| &target.settings);
        Self {
            ceiling: Some(ceiling),
            follows_lag: settings
                .clone()
                .any(|settings| settings.by() == By::Lagging),
            even: settings.any(|settings| settings.even()),
        }
    }

    /// The ceiling, unless it changes with the lag.
    #[must_use]
    pub fn fixed(self) -> Option<Replicas> {
        self.ceiling.filter(|_| !self.follows_lag)
    }

    /// Compares an HPA in this cap mode with its ceiling.
    #[must_use]
    pub fn find_in_hpa(self, hpa: &HpaFacts, mode: CapMode) -> Vec<Finding> {
        let Some(ceiling) = self.ceiling else {
            return Vec::new();
        };
        let mut found = find_tolerance_against_ceiling(hpa, ceiling);
        if !self.follows_lag {
            found.extend(find_against_ceiling(hpa, ceiling, mode, self.even));
        }
        found
    }
}

/// Reports that a group has lag and no members. If some of its HPAs scale to zero, this may be intended for them, so
/// only the other HPAs get the finding. Otherwise the group gets it.
fn find_without_members(
    (cluster, id): (&ClusterName, &GroupId),
    targets: &Targets,
) -> Vec<Finding> {
    let code = FindingCode::NoMembers;
    let group = targets.group(cluster, id);
    let group_targets = group.map_or(&[][..], |group| group.targets());
    let may_be_at_zero = |target: &&Arc<Target>| target.settings.scale_to_zero();
    if !group_targets.iter().any(|target| may_be_at_zero(&target)) {
        let message = "it has lag and no members";
        return vec![Finding::new(code, (cluster, id), message)];
    }
    let others = group_targets
        .iter()
        .filter(|target| !may_be_at_zero(target));
    // An HPA may have several targets of one group.
    let others: BTreeSet<_> = others.filter_map(|target| target.hpa()).collect();
    let finding = |hpa: &HpaKey| {
        let message = format!("group {id:?} on Kafka cluster {cluster:?} has lag and no members");
        Finding::new(code, hpa, message)
    };
    others.into_iter().map(finding).collect()
}

/// Time without members after which the expiry of a group's offsets is a finding. Kafka deletes them seven
/// days after the last member has left, by the default of `offsets.retention.minutes` (KIP-211).
const EXPIRES_AFTER: Duration = Duration::from_secs(5 * 24 * 3600);

fn find_in_group(
    (cluster, id): (&ClusterName, &GroupId),
    group: &GroupSnapshot,
    useful: impl FnOnce() -> Option<Parallelism>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |code, message: &str| found.push(Finding::new(code, (cluster, id), message));
    let Some(description) = group.description.as_deref() else {
        return found;
    };
    if group.empty_for.is_some_and(|empty| empty >= EXPIRES_AFTER) && has_commits(group) {
        note(
            FindingCode::OffsetsExpire,
            "it has had no members for five days; brokers delete the offsets of such a group after seven days by default",
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
    if let Some((useful, rule)) = useful().and_then(|p| {
        let most = p.limit.bounded()?;
        Some((Replicas(most), p.rule))
    }) && has_idle_members(description, useful, rule)
    {
        let message = format!("it has more members than the {useful} that can have work: {rule}");
        note(FindingCode::MembersBeyond, &message);
    }
    found
}

/// Finds mistakes behind the value of a metric, or behind the reason why it has none.
#[must_use]
pub fn find_in_outcome(metric: &HpaMetric<'_>) -> Option<Finding> {
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
            finding(FindingCode::ConflictingTargets, refusal.without_advice())
        }
        NoValueReason::NothingSelected { .. }
        | NoValueReason::NothingCommitted { .. }
        | NoValueReason::NothingMatches { .. }
        | NoValueReason::NoPartition { .. }
        | NoValueReason::NamespaceNotWatched { .. } => {
            finding(FindingCode::NothingToRead, refusal.without_advice())
        }
        // Already found when the targets were built, or not a mistake.
        NoValueReason::UnknownMetric { .. }
        | NoValueReason::NoGroup { .. }
        | NoValueReason::SelectorTooLarge(_)
        | NoValueReason::UnknownTarget { .. }
        | NoValueReason::UnknownCluster { .. }
        | NoValueReason::AmbiguousCluster { .. }
        | NoValueReason::NoLagPerReplica { .. }
        | NoValueReason::Denied(_)
        | NoValueReason::HpasUnlisted
        | NoValueReason::NotYetRead(_)
        | NoValueReason::NeverRan { .. }
        | NoValueReason::Unknown { .. }
        | NoValueReason::Stale { .. } => None,
    }
}

/// Finds the groups of a metric that have no members, and whose topic regex lists no topics because it or the Kafka
/// cluster is too large.
pub fn find_wide_patterns(metric: &HpaMetric<'_>) -> impl Iterator<Item = Finding> {
    let groups = metric.evaluation.groups.iter();
    groups.filter_map(move |group| {
        let pattern = group.query.settings.pattern()?;
        let listing = group.group.as_ref()?.listing.as_deref()?;
        let unlisted = listing.topics_of(pattern)?.err();
        let why = unlisted.filter(|unlisted| unlisted.is_lasting())?;
        let WatchKey { group, cluster, .. } = &*group.query.key;
        let message = format!(
            "while group {group:?} on Kafka cluster {cluster:?} has no members, topics without a commit that match {:?} do not count: {why}",
            pattern.to_string()
        );
        let hpa = HpaKey::new(metric.namespace, metric.hpa);
        Some(Finding::new(FindingCode::PatternTooWide, hpa, message))
    })
}

/// Whether the group has committed offsets that could expire.
fn has_commits(group: &GroupSnapshot) -> bool {
    let mut topics = group.counted_topics();
    topics.any(|(_, topic)| topic.latest.is_ok() && topic.may_have_commits())
}

/// Whether the group has no members, and lag of at least this age.
fn lacks_members(group: &GroupSnapshot, min_age: Duration) -> bool {
    let description = group.description.as_deref();
    description.is_some_and(|description| description.state == GroupState::Empty)
        && has_lag(group, min_age)
}

/// Whether the group has lag of at least this age. Lag of unknown age counts as new.
fn has_lag(group: &GroupSnapshot, min_age: Duration) -> bool {
    group.counted_topics().any(|(_, topic)| {
        let Ok(lag) = &topic.latest else {
            return false;
        };
        // Check the age last, because it takes the longest to compute and most topics have no lag.
        let is_old = || lag.age().map(LagAge::duration).unwrap_or_default() >= min_age;
        lag.total().is_ok_and(|total| total > Lag(0)) && topic.may_have_commits() && is_old()
    })
}

/// Whether members subscribe to different topics, as far as the broker reports subscriptions. Members of a
/// share group may.
fn is_mixed(group: &GroupDescription) -> bool {
    let mut known = group.members.iter().filter_map(|m| m.subscribed.as_ref());
    let first = known.next();
    group.kind != GroupKind::Share && known.any(|other| Some(other) != first)
}

/// Whether there are more members than can have work. If the assignor is unknown, a member must also be seen
/// without a partition.
fn has_idle_members(group: &GroupDescription, useful: Replicas, rule: ParallelismRule) -> bool {
    let members = u32::try_from(group.member_count()).unwrap_or(u32::MAX);
    let some_are_idle = group.members.iter().any(|m| m.partitions() == 0);
    members > useful.0 && (rule != ParallelismRule::AssignorUnknown || some_are_idle)
}

#[cfg(test)]
mod tests;
