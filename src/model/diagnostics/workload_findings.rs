//! Findings about the workloads that HPAs scale. Only commands look for them, because the daemon has no
//! permission to read workloads.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::evaluation::parallelism::Limit;
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{HpaFacts, has_lagwise_metric, scale_target_name};
use crate::model::kafka::group::{GroupDescription, GroupState};
use crate::model::units::newtypes::GroupId;

/// The parts of a workload that matter for scaling it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadFacts {
    pub namespace: Arc<str>,
    pub kind: Arc<str>,
    pub name: Arc<str>,
    /// Whether its pods start one after another (`podManagementPolicy: OrderedReady`).
    pub ordered: bool,
    /// Pods that a rollout starts before it ends others.
    pub surge: Surge,
    /// The field manager, or the manifest, that sets `spec.replicas`.
    pub replicas_owner: Option<String>,
    /// The addresses of its pods; `None` if unknown.
    pub pods: Option<BTreeSet<IpAddr>>,
}

/// Pods that a rollout starts beyond the replicas (`maxSurge`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surge {
    #[default]
    None,
    Pods(u32),
    /// Per cent of the replicas, rounded up.
    Percent(u32),
}

impl Surge {
    /// The number of surge pods of a workload with this many replicas.
    #[must_use]
    pub fn pods(self, replicas: u32) -> u32 {
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
    /// Whether it is the scale target of the HPA.
    #[must_use]
    pub fn is_target_of(&self, hpa: &HpaFacts) -> bool {
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
    if !has_lagwise_metric(hpa) || !workload.is_target_of(hpa) {
        return found;
    }
    let mut note = |code, message: String| found.push(Finding::new(code, hpa.key(), message));
    let name = scale_target_name(hpa);
    if let Some(owner) = &workload.replicas_owner {
        note(
            FindingCode::ReplicasInManifest,
            format!(
                "{owner} also sets spec.replicas of {name}, and every apply undoes the HPA's scaling"
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
        let surge = workload.surge.pods(ceiling.0);
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
                    format!("group {group:?} has members ({members}) that are not pods of {name}"),
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
    fn finds_surge_replicas_in_manifest_and_ordered_pods() {
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
            // maxReplicas leaves room for the surge pods.
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
        let without_metric = HpaFacts {
            metrics: Vec::new(),
            ..hpa(12)
        };
        let ordered = WorkloadFacts {
            ordered: true,
            ..workload()
        };
        assert_eq!(find_in_workload(&without_metric, &ordered, None, &[]), []);
        assert_eq!(Surge::Percent(25).pods(9), 3);
    }

    #[test]
    fn counts_members_outside_the_workload() {
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
            // Behind NAT every member looks foreign.
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
                omitted_members: 0,
                subtopologies: Vec::new(),
            };
            let found = find_in_workload(&hpa(12), &billing, None, &[(&"g".into(), &group)]);
            let messages: Vec<_> = found.into_iter().map(|finding| finding.message).collect();
            let expected = (expected > 0).then(|| {
                format!("group \"g\" has members ({expected}) that are not pods of Deployment shop/billing")
            });
            assert_eq!(messages, Vec::from_iter(expected), "{hosts:?}");
        }
        let unknown_pods = workload();
        let group = GroupDescription {
            kind: GroupKind::Classic,
            state,
            assignor: None,
            members: vec![member("/10.0.0.9")],
            omitted_members: 0,
            subtopologies: Vec::new(),
        };
        assert_eq!(
            find_in_workload(&hpa(12), &unknown_pods, None, &[(&"g".into(), &group)]),
            []
        );
    }
}
