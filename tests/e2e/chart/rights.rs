//! Compares the rights that the chart grants with those that were used according to the audit log.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::RELEASE;
use crate::testbed::audit::Request;
use crate::testbed::control_plane::ControlPlane;

/// A right that a scenario does not use, and the reason.
pub(super) type UnusedRight = (&'static str, &'static str);

/// Rights that a daemon that serves does not use.
pub(super) const UNUSED_BY_SERVERS: &[UnusedRight] = &[
    ("patch events of events.k8s.io []", "an event may not recur"),
    (
        "patch secrets of core [lagwise-tls]",
        "the certificate is not renewed",
    ),
    (
        "create tokenreviews of authentication.k8s.io []",
        "all callers come through the API server",
    ),
    (
        "get configmaps of core [extension-apiserver-authentication]",
        "Kubernetes has it in the Role that also grants list and watch",
    ),
];

/// A right that is not used without the admission policy.
pub(super) const UNUSED_WITHOUT_POLICY: &[UnusedRight] = &[(
    "get mutatingadmissionpolicybindings of admissionregistration.k8s.io [lagwise-cap]",
    "there is no policy",
)];

/// Rights that are not used if only a Deployment is scaled to zero.
pub(super) const UNUSED_BY_RELEASE: &[UnusedRight] = &[
    (
        "get statefulsets/scale of apps []",
        "only a Deployment is scaled to zero",
    ),
    (
        "patch statefulsets/scale of apps []",
        "only a Deployment is scaled to zero",
    ),
];

/// A rule of a role.
#[derive(Debug)]
pub(super) struct GrantedRule {
    /// Namespace in which the rule applies; `None` = all.
    namespace: Option<String>,
    /// Whether the role comes with Kubernetes.
    pub(super) is_built_in: bool,
    pub(super) rule: Value,
}

/// Checks that no request of an account of the chart was refused, and that the account used every right that the chart
/// grants to it.
pub(super) fn check_granted_are_used(
    plane: &ControlPlane,
    namespace: &str,
    account: &str,
    may_be_unused: &[UnusedRight],
) -> Result<()> {
    let requests = plane.requests(namespace, account)?;
    let refused: Vec<_> = requests.iter().filter(|r| r.is_forbidden).collect();
    ensure!(refused.is_empty(), "refused: {refused:?}");
    let granted = granted(plane, namespace, account)?;
    ensure!(!granted.is_empty(), "{account} has no rights");
    let mut unused: BTreeSet<_> = granted
        .iter()
        .flat_map(|granted| granted.unused(&requests))
        .collect();
    unused.retain(|right| may_be_unused.iter().all(|(known, _)| right != known));
    ensure!(unused.is_empty(), "never used by {account}: {unused:#?}");
    Ok(())
}

impl GrantedRule {
    /// Rights of the rule that none of these requests needed.
    fn unused(&self, requests: &BTreeSet<Request>) -> Vec<String> {
        let names = texts(&self.rule["resourceNames"]);
        let is_used = |group: &str, resource: &str, verb: &str| {
            requests.iter().any(|request| {
                // A list or a watch of one object has its name in a field selector.
                let is_named = names.is_empty() || request.name.is_empty();
                let is_here = |namespace: &String| *namespace == request.namespace;
                request.group == group
                    && request.resource == resource
                    && request.verb == verb
                    && (is_named || names.contains(&request.name))
                    && self.namespace.as_ref().is_none_or(is_here)
            })
        };
        let mut unused = Vec::new();
        for group in texts(&self.rule["apiGroups"]) {
            for resource in texts(&self.rule["resources"]) {
                for verb in texts(&self.rule["verbs"]) {
                    if !is_used(&group, &resource, &verb) {
                        let group = if group.is_empty() { "core" } else { &group };
                        let names = names.join(" ");
                        unused.push(format!("{verb} {resource} of {group} [{names}]"));
                    }
                }
            }
        }
        unused
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Rules of the roles that the chart binds to this account.
pub(super) fn granted(
    plane: &ControlPlane,
    namespace: &str,
    account: &str,
) -> Result<Vec<GrantedRule>> {
    let mut granted = Vec::new();
    for kind in ["clusterrolebindings", "rolebindings"] {
        let label = "app.kubernetes.io/instance=lagwise";
        let args = ["get", kind, "-A", "-l", label, "-o", "json"];
        let list: Value = serde_json::from_str(&plane.kubectl(&args)?)?;
        for binding in list["items"].as_array().context("no bindings")? {
            let mut subjects = binding["subjects"].as_array().into_iter().flatten();
            let is_of_account = subjects.any(|subject| {
                subject["kind"] == "ServiceAccount"
                    && subject["name"] == account
                    && subject["namespace"] == namespace
            });
            let role = &binding["roleRef"];
            let name = role["name"].as_str().context("no role")?;
            if !is_of_account {
                continue;
            }
            let place = binding["metadata"]["namespace"].as_str();
            let role = match role["kind"] == "Role" {
                true => plane.get("role", name, place)?,
                false => plane.get("clusterrole", name, None)?,
            };
            let rules = role["rules"].as_array().context("no rules")?;
            granted.extend(rules.iter().map(|rule| GrantedRule {
                namespace: place.map(str::to_owned),
                is_built_in: !name.starts_with(RELEASE),
                rule: rule.clone(),
            }));
        }
    }
    Ok(granted)
}
