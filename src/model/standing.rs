//! Where each target stands: its value and ceiling by the rules that answer requests, and what of
//! that a person should know.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::finding::Finding;
use super::group::{GroupDescription, GroupKind, GroupState};
use super::parallelism::{Limit, ParallelismRule};
use super::query::{Answer, Question, Rules, ValueRule, answer};
use super::reading;
use super::refusal::Refusal;
use super::selector::Selector;
use super::snapshot::LagSnapshot;
use super::target::{HpaFacts, Metric, Origin, Targets};
use super::types::{Moment, Replicas};

/// One metric of an HPA, as the HPA would be answered now.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// The HPA's namespace.
    pub namespace: &'a str,
    /// The HPA's name.
    pub hpa: &'a str,
    /// The metric.
    pub metric: Metric,
    /// The metric's selector.
    pub selector: &'a Selector,
    /// Its value, or why it has none.
    pub outcome: Result<Answer, Refusal>,
}

/// Every metric of ours on every HPA, in the order of the targets.
#[must_use]
pub fn standings<'a>(
    targets: &'a Targets,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &Rules,
) -> Vec<Standing<'a>> {
    standings_of(targets, snapshot, now, rules, |_, _| true)
}

/// The same, of those HPAs alone whose namespace and name are `wanted`.
#[must_use]
pub fn standings_of<'a>(
    targets: &'a Targets,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &Rules,
    wanted: impl Fn(&Arc<str>, &Arc<str>) -> bool,
) -> Vec<Standing<'a>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for target in &targets.all {
        let (Origin::Hpa { namespace, name }, Some(selector)) = (&target.origin, &target.selector)
        else {
            continue;
        };
        if !wanted(namespace, name) || !seen.insert((namespace, name, target.index)) {
            continue;
        }
        let question = Question {
            namespace,
            metric: target.metric.name(),
            selector,
        };
        all.push(Standing {
            namespace,
            hpa: name,
            metric: target.metric,
            selector,
            outcome: answer(&question, snapshot, now, rules),
        });
    }
    all
}

/// Each HPA's ceiling, by namespace and name: the largest over its metrics of ours. An HPA of which
/// one is unknown has none: another metric might have allowed more.
#[must_use]
pub fn hpa_ceilings<'a>(standings: &[Standing<'a>]) -> BTreeMap<(&'a str, &'a str), Limit> {
    let mut all: BTreeMap<(&str, &str), Option<Limit>> = BTreeMap::new();
    for standing in standings {
        let known = standing.outcome.as_ref().ok().and_then(|a| a.ceiling);
        let own = known.map(|ceiling| ceiling.replicas);
        all.entry((standing.namespace, standing.hpa))
            .and_modify(|so_far| {
                *so_far = so_far.zip(own).map(|(a, b)| a.max(b));
            })
            .or_insert(own);
    }
    let known = all.into_iter();
    known
        .filter_map(|(hpa, limit)| Some((hpa, limit?)))
        .collect()
}

/// What a person should know of HPAs and groups as they are now.
#[must_use]
pub fn findings<H: Borrow<HpaFacts>>(
    snapshot: &LagSnapshot,
    standings: &[Standing<'_>],
    hpas: &[H],
) -> BTreeSet<Finding> {
    let mut found = BTreeSet::new();
    for standing in standings {
        if let Ok(answer) = &standing.outcome
            && answer.rule == ValueRule::Fallback
        {
            let hpa = format!("{}/{}", standing.namespace, standing.hpa);
            found.insert(Finding::FallbackServed { hpa });
        }
    }
    let ceilings = hpa_ceilings(standings);
    for hpa in hpas.iter().map(Borrow::borrow) {
        if let Some(Limit::Bounded(ceiling)) = ceilings.get(&(&*hpa.namespace, &*hpa.name)) {
            found.extend(of_tolerance(hpa, *ceiling));
        }
    }
    for (cluster, read) in &snapshot.clusters {
        for (id, group) in &read.groups {
            let (cluster, id) = (cluster.clone(), id.clone());
            let told = group.description.as_deref();
            let Some(stable) = told.filter(|d| d.state == GroupState::Stable) else {
                continue;
            };
            if is_mixed(stable) {
                let (cluster, group) = (cluster.clone(), id.clone());
                found.insert(Finding::MixedSubscriptions { cluster, group });
            }
            let known = reading::whole_parallelism(group);
            if let Some((useful, rule)) = known.and_then(|p| {
                let most = p.limit.bounded()?;
                Some((Replicas(most), p.rule))
            }) && has_more(stable, useful, rule)
            {
                found.insert(Finding::MembersBeyond {
                    cluster,
                    group: id,
                    useful,
                    rule,
                });
            }
        }
    }
    found
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

/// What an HPA's tolerance does to the ceiling. Within it the HPA proposes the replicas there are:
/// those that a rollout or another metric brought above the ceiling, or one too few below it.
#[must_use]
pub fn of_tolerance(hpa: &HpaFacts, ceiling: Replicas) -> Vec<Finding> {
    let (up, down) = (hpa.tolerance_up(), hpa.tolerance_down());
    let name = || format!("{}/{}", hpa.namespace, hpa.name);
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

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
