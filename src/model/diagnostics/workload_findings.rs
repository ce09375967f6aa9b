//! Findings about the workloads that HPAs scale. Only commands look for them, because the daemon has no
//! permission to read workloads.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::evaluation::parallelism::Limit;
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{HpaFacts, is_ours, scales};
use crate::model::kafka::group::{GroupDescription, GroupState};
use crate::model::units::newtypes::GroupId;

/// A workload, as far as scaling it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadFacts {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Whether its pods start one after another.
    pub ordered: bool,
    /// How many pods a rollout starts before it ends others.
    pub surge: Surge,
    /// Who applies `spec.replicas` along with the rest of it.
    pub replicas_owner: Option<String>,
    /// The addresses of its pods; `None` where they are not known.
    pub pods: Option<BTreeSet<IpAddr>>,
}

/// How many pods a rollout starts beyond the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surge {
    /// None.
    #[default]
    None,
    /// So many.
    Pods(u32),
    /// So many per cent of the replicas, rounded up.
    Percent(u32),
}

impl Surge {
    /// How many at so many replicas.
    #[must_use]
    pub fn of(self, replicas: u32) -> u32 {
        match self {
            Surge::None => 0,
            Surge::Pods(pods) => pods,
            Surge::Percent(percent) => {
                let share = u64::from(replicas).saturating_mul(percent.into());
                u32::try_from(share.div_ceil(100)).unwrap_or(u32::MAX)
            }
        }
    }
}

impl WorkloadFacts {
    /// Whether it is what the HPA scales.
    #[must_use]
    pub fn is_of(&self, hpa: &HpaFacts) -> bool {
        let target = &hpa.scale_target;
        self.namespace == hpa.namespace && self.kind == target.kind && self.name == target.name
    }
}

/// Finds mistakes in a workload that an HPA scales on a metric of lagwise: `ceiling` is the HPA's, if known, and
/// `groups` are those whose lag it scales on.
#[must_use]
pub fn find_in_workload(
    hpa: &HpaFacts,
    workload: &WorkloadFacts,
    ceiling: Option<Limit>,
    groups: &[(&GroupId, &GroupDescription)],
) -> Vec<Finding> {
    let mut found = Vec::new();
    if !is_ours(hpa) || !workload.is_of(hpa) {
        return found;
    }
    let mut note = |code, message: String| found.push(Finding::new(code, hpa.key(), message));
    let name = scales(hpa);
    if let Some(owner) = &workload.replicas_owner {
        note(
            FindingCode::ReplicasInManifest,
            format!(
                "{owner} also sets spec.replicas of {name}: every time that is applied it undoes the HPA"
            ),
        );
    }
    if workload.ordered {
        note(
            FindingCode::OrderedReady,
            format!("{name} starts its pods one after another (podManagementPolicy OrderedReady)"),
        );
    }
    if let Some(Limit::Bounded(ceiling)) = ceiling
        && ceiling.0 > 0
        && hpa.max_replicas >= ceiling.0
    {
        let surge = workload.surge.of(ceiling.0);
        if surge > 0 {
            note(
                FindingCode::SurgeAboveCeiling,
                format!(
                    "at the replica ceiling {ceiling} a rollout of {name} starts up to {surge} more pods, which join the group and have no work"
                ),
            );
        }
    }
    if let Some(pods) = &workload.pods {
        for (group, description) in groups {
            let members = count_foreign_members(description, pods);
            if members > 0 {
                note(
                    FindingCode::ForeignMembers,
                    format!("group {group:?} has members that are not pods of {name}: {members}"),
                );
            }
        }
    }
    found
}

/// Counts the members that are not among the pods. If no member is, the brokers see other addresses than the
/// pods' own (behind NAT), and the count is zero.
fn count_foreign_members(group: &GroupDescription, pods: &BTreeSet<IpAddr>) -> u32 {
    if group.state != GroupState::Stable {
        return 0;
    }
    let hosts = group.members.iter().map(|member| parse_host(&member.host));
    let (own, other): (Vec<_>, Vec<_>) =
        hosts.partition(|host| host.is_some_and(|host| pods.contains(&host)));
    if own.is_empty() {
        return 0;
    }
    // A member whose address cannot be read may be a pod.
    let other = other.into_iter().flatten().count();
    u32::try_from(other).unwrap_or(u32::MAX)
}

/// Parses a member's host as brokers report it, such as `/10.0.0.7`.
fn parse_host(host: &str) -> Option<IpAddr> {
    let host = host.rsplit('/').next().unwrap_or_default();
    host.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hpa::facts::{ExternalMetric, ScaleTarget};
    use crate::model::hpa::selector::Selector;
    use crate::model::kafka::group::{GroupKind, Member};
    use crate::model::units::metric::LAG_METRIC;
    use crate::model::units::newtypes::Replicas;

    fn hpa(max_replicas: u32) -> HpaFacts {
        HpaFacts {
            namespace: "shop".into(),
            name: "h".into(),
            max_replicas,
            metrics: vec![ExternalMetric {
                name: LAG_METRIC.into(),
                selector: Selector::default(),
                target: None,
            }],
            scale_target: ScaleTarget {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: "billing".into(),
            },
            ..HpaFacts::default()
        }
    }

    fn workload() -> WorkloadFacts {
        WorkloadFacts {
            namespace: "shop".into(),
            kind: "Deployment".into(),
            name: "billing".into(),
            ..WorkloadFacts::default()
        }
    }

    fn labels(found: &[Finding]) -> Vec<&'static str> {
        found.iter().map(|finding| finding.code.label()).collect()
    }

    #[test]
    fn rollouts_manifests_and_ordered_pods() {
        let with = |surge| WorkloadFacts {
            surge,
            ..workload()
        };
        let twelve = Some(Limit::Bounded(Replicas(12)));
        for (workload, max, ceiling, expected) in [
            (workload(), 12, twelve, &[][..]),
            (
                with(Surge::Percent(25)),
                12,
                twelve,
                &["surge_above_ceiling"],
            ),
            (with(Surge::Pods(1)), 20, twelve, &["surge_above_ceiling"]),
            (with(Surge::Percent(0)), 12, twelve, &[]),
            // There is room for it.
            (with(Surge::Percent(25)), 11, twelve, &[]),
            (with(Surge::Percent(25)), 12, Some(Limit::Unbounded), &[]),
            (with(Surge::Percent(25)), 12, None, &[]),
            (
                WorkloadFacts {
                    ordered: true,
                    replicas_owner: Some("argocd".into()),
                    ..workload()
                },
                12,
                None,
                &["replicas_in_manifest", "ordered_ready"],
            ),
            (
                WorkloadFacts {
                    name: "other".into(),
                    ordered: true,
                    ..workload()
                },
                12,
                None,
                &[],
            ),
        ] {
            let found = find_in_workload(&hpa(max), &workload, ceiling, &[]);
            assert_eq!(labels(&found), expected, "{workload:?} {max}");
        }
        let strange = HpaFacts {
            metrics: Vec::new(),
            ..hpa(12)
        };
        let ordered = WorkloadFacts {
            ordered: true,
            ..workload()
        };
        assert_eq!(find_in_workload(&strange, &ordered, None, &[]), []);
        assert_eq!(Surge::Percent(25).of(9), 3);
    }

    #[test]
    fn members_elsewhere() {
        let member = |host: &str| Member {
            id: "m".into(),
            instance: None,
            client: "c".into(),
            host: host.into(),
            subscribed: None,
            assigned: Vec::new(),
        };
        let pods = Some(["10.0.0.1", "fd00::2"].map(|ip| ip.parse().unwrap()).into());
        let billing = WorkloadFacts { pods, ..workload() };
        let state = GroupState::Stable;
        for (hosts, state, expected) in [
            (&["/10.0.0.1", "/10.0.0.1"][..], state, 0),
            (&["/10.0.0.1", "/10.0.0.9", "/10.0.0.8"], state, 2),
            (&["/10.0.0.1", "/fd00:0:0:0:0:0:0:2"], state, 0),
            // Behind NAT all look foreign.
            (&["/192.168.0.1", "/192.168.0.2"], state, 0),
            (&["/10.0.0.1", "unreadable"], state, 0),
            (&["/10.0.0.1", "/10.0.0.9"], GroupState::Rebalancing, 0),
            (&[], state, 0),
        ] {
            let group = GroupDescription {
                kind: GroupKind::Classic,
                state,
                assignor: None,
                members: hosts.iter().map(|host| member(host)).collect(),
                subtopologies: Vec::new(),
            };
            let found = find_in_workload(&hpa(12), &billing, None, &[(&"g".into(), &group)]);
            let messages: Vec<_> = found.into_iter().map(|finding| finding.message).collect();
            let expected = (expected > 0).then(|| {
                format!("group \"g\" has members that are not pods of Deployment shop/billing: {expected}")
            });
            assert_eq!(messages, Vec::from_iter(expected), "{hosts:?}");
        }
        let unknown = workload();
        let nobody = GroupDescription {
            kind: GroupKind::Classic,
            state,
            assignor: None,
            members: vec![member("/10.0.0.9")],
            subtopologies: Vec::new(),
        };
        assert_eq!(
            find_in_workload(&hpa(12), &unknown, None, &[(&"g".into(), &nobody)]),
            []
        );
    }
}
