//! Checks of the Kubernetes cluster: its version and what that allows, rights, the admission policy, HPAs, and the
//! Prometheus operator.

use super::rights::AccessRight;
use super::{CheckLine, PreflightProblem, some_of};
use crate::model::decisions::cap::FieldOwner;
use crate::model::units::counted::counted;
use crate::model::units::kubernetes_version::KubernetesVersion;

/// Heading of the lines.
pub const SECTION: &str = "Kubernetes";

/// Heading of the lines about Prometheus.
const PROMETHEUS: &str = "Prometheus";

/// Facts about a Kubernetes cluster that answers.
#[derive(Debug)]
pub struct KubernetesFacts {
    pub is_before_install: bool,
    pub version: KubernetesVersion,
    /// The user whose rights were checked; `None` if the API server does not report it.
    pub account: Option<String>,
    /// Each right that is needed, and whether the account has it.
    pub rights: Vec<(AccessRight, Result<bool, String>)>,
    /// Whether the configuration lets lagwise enforce the cap.
    pub enforces: bool,
    /// Who records the user's `maxReplicas`: the admission policy, if it is installed.
    pub policy: Result<FieldOwner, String>,
    pub hpas: Result<HpaCounts, String>,
    /// Kinds that configure what the Prometheus operator scrapes, of those that the cluster has.
    pub monitors: Vec<String>,
}

/// Numbers of HPAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaCounts {
    pub all: usize,
    /// HPAs with a metric of lagwise.
    pub lagwise: usize,
}

/// The lines about a cluster that cannot be reached.
#[must_use]
pub fn check_unreachable(problem: PreflightProblem, reason: &str) -> CheckLine {
    CheckLine::problem(SECTION, "version", problem, reason)
}

/// The lines about the version and the rights.
#[must_use]
pub fn check_kubernetes(facts: &KubernetesFacts) -> Vec<CheckLine> {
    let mut lines = vec![version(facts.version)];
    lines.extend(rights(facts));
    lines.extend(policy(facts));
    lines
}

/// The line about HPAs, and those about Prometheus.
#[must_use]
pub fn check_objects(facts: &KubernetesFacts) -> Vec<CheckLine> {
    let mut lines = vec![hpas(facts)];
    if !facts.monitors.is_empty() {
        let message = format!(
            "the cluster has the Prometheus operator ({}); the chart makes one with serviceMonitor.enabled or podMonitor.enabled",
            facts.monitors.join(", ")
        );
        lines.push(CheckLine::passed(PROMETHEUS, "operator", message));
    }
    lines
}

fn version(version: KubernetesVersion) -> CheckLine {
    if !version.is_supported() {
        let message = format!("version {version} is older than lagwise supports");
        let problem = PreflightProblem::KubernetesTooOld;
        return CheckLine::problem(SECTION, "version", problem, message);
    }
    let features = [
        (version.has_tolerance(), "tolerance of an HPA (1.35)"),
        (
            version.has_cap_policy(),
            "the cap by an admission policy (1.36)",
        ),
        (version.has_native_zero(), "minReplicas: 0 (1.37)"),
    ];
    let named = |has: bool| {
        let all = features.iter().filter(|(allowed, _)| *allowed == has);
        all.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    };
    let (allowed, missing) = (named(true), named(false));
    let mut message = format!("version {version}");
    if !allowed.is_empty() {
        message = format!("{message} allows {allowed}");
    }
    if !missing.is_empty() {
        message = format!("{message}; not {missing}");
    }
    CheckLine::passed(SECTION, "version", message)
}

fn rights(facts: &KubernetesFacts) -> Vec<CheckLine> {
    let account = facts.account.as_deref().unwrap_or("this account");
    let missing = match facts.is_before_install {
        true => PreflightProblem::InstallRightMissing,
        false => PreflightProblem::RightMissing,
    };
    let mut lines = Vec::new();
    let (mut granted, mut unknown) = (Vec::new(), Vec::new());
    for (right, answer) in &facts.rights {
        match answer {
            Ok(true) => granted.push(right.to_string()),
            Ok(false) => {
                let message = format!("{account} may not {right}");
                lines.push(CheckLine::problem(SECTION, "rights", missing, message));
            }
            Err(reason) => unknown.push((right, reason)),
        }
    }
    if let Some((_, reason)) = unknown.first() {
        let rights = some_of(unknown.iter().map(|(right, _)| right));
        let message = format!("whether {account} may {rights} is unknown: {reason}");
        let problem = PreflightProblem::KubernetesUnread;
        lines.push(CheckLine::problem(SECTION, "rights", problem, message));
    }
    if lines.is_empty() {
        let purpose = match facts.is_before_install {
            true => "to install the chart",
            false => "that this configuration needs",
        };
        let count = counted(granted.len(), "right");
        let message = format!("{account} has the {count} {purpose}");
        lines.push(CheckLine::passed(SECTION, "rights", message).with_details(granted));
    }
    lines
}

fn policy(facts: &KubernetesFacts) -> Option<CheckLine> {
    let is_relevant = facts.enforces && !facts.is_before_install && facts.version.has_cap_policy();
    Some(match &facts.policy {
        _ if !is_relevant => return None,
        Ok(FieldOwner::Policy) => CheckLine::passed(
            SECTION,
            "admission policy",
            "the admission policy applies the cap",
        ),
        Ok(FieldOwner::Lagwise) => CheckLine::problem(
            SECTION,
            "admission policy",
            PreflightProblem::PolicyMissing,
            "there is no admission policy, so lagwise itself lowers maxReplicas after each change",
        ),
        Err(reason) => CheckLine::problem(
            SECTION,
            "admission policy",
            PreflightProblem::KubernetesUnread,
            format!("whether there is an admission policy is unknown: {reason}"),
        ),
    })
}

fn hpas(facts: &KubernetesFacts) -> CheckLine {
    match &facts.hpas {
        Err(reason) => CheckLine::problem(
            SECTION,
            "HPAs",
            PreflightProblem::KubernetesUnread,
            format!("the HPAs cannot be listed: {reason}"),
        ),
        Ok(HpaCounts { all, lagwise: 0 }) if !facts.is_before_install => CheckLine::problem(
            SECTION,
            "HPAs",
            PreflightProblem::NoHpas,
            format!("{}, none with a metric of lagwise", counted(*all, "HPA")),
        ),
        Ok(HpaCounts { all, lagwise }) => CheckLine::passed(
            SECTION,
            "HPAs",
            format!(
                "{}, {lagwise} with a metric of lagwise",
                counted(*all, "HPA")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::diagnostics::preflight::CheckStatus;

    fn right() -> AccessRight {
        AccessRight {
            verb: "patch",
            group: "autoscaling",
            resource: "horizontalpodautoscalers",
            name: None,
            namespace: Some("shop".into()),
        }
    }

    fn facts() -> KubernetesFacts {
        KubernetesFacts {
            is_before_install: false,
            version: "1.36".parse().unwrap(),
            account: Some("system:serviceaccount:lagwise:lagwise".into()),
            rights: vec![(right(), Ok(true))],
            enforces: true,
            policy: Ok(FieldOwner::Policy),
            hpas: Ok(HpaCounts { all: 3, lagwise: 2 }),
            monitors: Vec::new(),
        }
    }

    fn lines(facts: &KubernetesFacts) -> Vec<CheckLine> {
        let mut lines = check_kubernetes(facts);
        lines.extend(check_objects(facts));
        lines
    }

    fn codes(facts: &KubernetesFacts) -> Vec<&'static str> {
        lines(facts).iter().filter_map(|line| line.code).collect()
    }

    #[test]
    fn a_good_cluster_passes() {
        let lines = lines(&facts());
        assert!(lines.iter().all(|line| line.status == CheckStatus::Passed));
        let all: Vec<_> = lines.iter().map(|line| &*line.message).collect();
        insta::assert_snapshot!(all.join("\n"), @r"
        version 1.36 allows tolerance of an HPA (1.35), the cap by an admission policy (1.36); not minReplicas: 0 (1.37)
        system:serviceaccount:lagwise:lagwise has the 1 right that this configuration needs
        the admission policy applies the cap
        3 HPAs, 2 with a metric of lagwise
        ");
    }

    #[test]
    fn versions_before_the_first_supported_one_fail() {
        for (version, expected) in [("1.28", &["kubernetes_too_old"][..]), ("1.29", &[])] {
            let facts = KubernetesFacts {
                version: version.parse().unwrap(),
                ..facts()
            };
            assert_eq!(codes(&facts), expected, "{version}");
        }
    }

    #[test]
    fn missing_rights_are_named_one_by_one() {
        let may_not = |is_before_install| KubernetesFacts {
            is_before_install,
            rights: vec![(right(), Ok(false)), (right(), Ok(true))],
            ..facts()
        };
        assert_eq!(codes(&may_not(false)), ["right_missing"]);
        assert_eq!(codes(&may_not(true)), ["install_right_missing"]);
        let expected = "system:serviceaccount:lagwise:lagwise may not patch horizontalpodautoscalers.autoscaling in namespace shop";
        assert_eq!(lines(&may_not(false))[1].message, expected);
        let unknown = KubernetesFacts {
            account: None,
            rights: vec![(right(), Err("no answer".into()))],
            ..facts()
        };
        assert_eq!(codes(&unknown), ["kubernetes_unread"]);
    }

    #[test]
    fn the_policy_matters_where_the_cap_is_enforced_and_the_version_has_it() {
        let missing = |version: &str, enforces| KubernetesFacts {
            version: version.parse().unwrap(),
            enforces,
            policy: Ok(FieldOwner::Lagwise),
            ..facts()
        };
        assert_eq!(codes(&missing("1.36", true)), ["policy_missing"]);
        assert_eq!(codes(&missing("1.35", true)), [""; 0]);
        assert_eq!(codes(&missing("1.36", false)), [""; 0]);
        let unread = KubernetesFacts {
            policy: Err("forbidden".into()),
            ..facts()
        };
        assert_eq!(codes(&unread), ["kubernetes_unread"]);
    }

    #[test]
    fn hpas_of_lagwise_are_expected_after_the_installation() {
        let none = |is_before_install| KubernetesFacts {
            is_before_install,
            hpas: Ok(HpaCounts { all: 3, lagwise: 0 }),
            ..facts()
        };
        assert_eq!(codes(&none(false)), ["no_hpas"]);
        assert_eq!(codes(&none(true)), [""; 0]);
        let unread = KubernetesFacts {
            hpas: Err("forbidden".into()),
            ..facts()
        };
        assert_eq!(codes(&unread), ["kubernetes_unread"]);
    }

    #[test]
    fn prometheus_is_mentioned_only_with_its_operator() {
        let sections = |monitors: &[&str]| {
            let facts = KubernetesFacts {
                monitors: monitors.iter().map(ToString::to_string).collect(),
                ..facts()
            };
            let lines = lines(&facts);
            lines.iter().filter(|l| l.section == "Prometheus").count()
        };
        assert_eq!(sections(&[]), 0);
        assert_eq!(sections(&["ServiceMonitor", "PodMonitor"]), 1);
    }

    #[test]
    fn an_unreachable_cluster_is_one_line() {
        for (problem, code) in [
            (PreflightProblem::KubernetesNoClient, "kubernetes_no_client"),
            (
                PreflightProblem::KubernetesUnreachable,
                "kubernetes_unreachable",
            ),
        ] {
            let line = check_unreachable(problem, "the reason");
            assert_eq!((line.code, &*line.message), (Some(code), "the reason"));
            assert_eq!(line.status, CheckStatus::Failed);
        }
    }
}
