//! The rights in Kubernetes that a configuration needs. The chart grants exactly these, which the end-to-end tests
//! `chart::an_installed_chart_scales_and_is_removed_completely` and
//! `chart::the_rights_of_each_mode_are_those_in_use` check.

use std::collections::BTreeSet;
use std::fmt;

/// A right to one verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccessRight {
    pub verb: &'static str,
    pub group: &'static str,
    /// With the subresource after a slash.
    pub resource: &'static str,
    /// The only object, if it is limited to one.
    pub name: Option<String>,
    /// `None` = all namespaces, or a resource of the cluster.
    pub namespace: Option<String>,
}

impl fmt::Display for AccessRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// Scope of the daemon's access to Kubernetes, by its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonScope {
    /// The namespace of lagwise.
    pub own: String,
    /// Namespaces whose HPAs are watched; empty = all.
    pub watched: Vec<String>,
    /// Namespaces in which the cap is enforced (empty = all); `None` if nowhere.
    pub enforced: Option<Vec<String>>,
    /// Namespaces in which workloads are scaled to zero (empty = all); `None` if nowhere.
    pub zeroed: Option<Vec<String>>,
    /// Resources that are scaled to zero, such as `deployments`, of the group `apps`.
    pub scaled: Vec<&'static str>,
    /// Whether it only observes, and compares itself with KEDA.
    pub observes: bool,
    /// The Lease; `None` if it has none.
    pub lease: Option<String>,
    /// ConfigMap of the persistent state; `None` if it is a file.
    pub state: Option<String>,
    /// ConfigMap that records what was scaled to zero.
    pub ledger: String,
    /// Secret of the self-signed certificate; `None` with a certificate in files.
    pub certificate: Option<String>,
    /// The APIService whose `caBundle` lagwise writes.
    pub registration: Option<String>,
    /// The admission policy that lagwise looks for.
    pub policy: String,
    /// Whether callers are authorized by the cluster.
    pub reviews: bool,
}

const WATCH: [&str; 2] = ["list", "watch"];

/// The rights that a daemon of this scope uses.
#[must_use]
pub fn daemon_rights(scope: &DaemonScope) -> BTreeSet<AccessRight> {
    let mut rights = RightList::default();
    let watched = namespaces(&scope.watched);
    for namespace in &watched {
        rights.add("autoscaling", "horizontalpodautoscalers", &WATCH, namespace);
        if scope.observes {
            for resource in ["scaledobjects", "scaledjobs", "triggerauthentications"] {
                rights.add("keda.sh", resource, &WATCH, namespace);
            }
            let of_cluster = "clustertriggerauthentications";
            rights.add("keda.sh", of_cluster, &WATCH, &None);
        } else {
            rights.add("events.k8s.io", "events", &["create", "patch"], namespace);
        }
    }
    for mode in [&scope.enforced, &scope.zeroed].into_iter().flatten() {
        for namespace in written(mode, &scope.watched) {
            rights.add(
                "autoscaling",
                "horizontalpodautoscalers",
                &["get", "patch"],
                &namespace,
            );
        }
    }
    for namespace in scope
        .zeroed
        .iter()
        .flat_map(|zeroed| written(zeroed, &scope.watched))
    {
        for resource in &scope.scaled {
            rights.add("apps", resource, &["get", "patch"], &namespace);
        }
    }
    if scope.enforced.is_some() || scope.zeroed.is_some() {
        for resource in [
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ] {
            let group = "admissionregistration.k8s.io";
            rights.add_named(group, resource, &["get"], &scope.policy, &None);
        }
    }
    let own = Some(scope.own.clone());
    let group = "coordination.k8s.io";
    let verbs = ["get", "list", "watch", "update"];
    if let Some(lease) = &scope.lease {
        rights.add_named(group, "leases", &verbs, lease, &own);
        rights.add(group, "leases", &["create"], &own);
    }
    let ledger = scope.zeroed.is_some().then_some(&scope.ledger);
    for map in scope.state.iter().chain(ledger) {
        rights.add_named("", "configmaps", &["get", "patch"], map, &own);
        rights.add("", "configmaps", &["create"], &own);
    }
    if let Some(secret) = &scope.certificate {
        rights.add_named("", "secrets", &["get", "patch"], secret, &own);
        rights.add("", "secrets", &["create"], &own);
    }
    if let Some(name) = &scope.registration {
        let group = "apiregistration.k8s.io";
        rights.add_named(group, "apiservices", &["get", "patch"], name, &None);
    }
    if scope.reviews {
        let create = &["create"];
        rights.add("authentication.k8s.io", "tokenreviews", create, &None);
        rights.add(
            "authorization.k8s.io",
            "subjectaccessreviews",
            create,
            &None,
        );
        let trust = "extension-apiserver-authentication";
        let system = Some("kube-system".to_owned());
        rights.add_named("", "configmaps", &WATCH, trust, &system);
    }
    rights.0
}

/// The rights that installing the chart takes.
#[must_use]
pub fn install_rights(scope: &DaemonScope) -> BTreeSet<AccessRight> {
    let mut rights = RightList::default();
    let own = Some(scope.own.clone());
    let rbac = "rbac.authorization.k8s.io";
    for (group, resource) in [
        ("", "configmaps"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("apps", "deployments"),
    ] {
        rights.add(group, resource, &["create"], &own);
    }
    if !scope.observes {
        for (group, resource) in [
            ("", "secrets"),
            ("policy", "poddisruptionbudgets"),
            (rbac, "roles"),
            (rbac, "rolebindings"),
        ] {
            rights.add(group, resource, &["create"], &own);
        }
        let system = Some("kube-system".to_owned());
        rights.add(rbac, "rolebindings", &["create"], &system);
    }
    for resource in ["clusterroles", "clusterrolebindings"] {
        rights.add(rbac, resource, &["create"], &None);
    }
    // Where namespaces are listed, each has a separate Role.
    let modes = [&scope.enforced, &scope.zeroed].into_iter().flatten();
    for namespace in modes.flatten().chain(&scope.watched) {
        for resource in ["roles", "rolebindings"] {
            rights.add(rbac, resource, &["create"], &Some(namespace.clone()));
        }
    }
    if scope.registration.is_some() {
        let group = "apiregistration.k8s.io";
        rights.add(group, "apiservices", &["create"], &None);
    }
    if scope.enforced.is_some() {
        for resource in [
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ] {
            let group = "admissionregistration.k8s.io";
            rights.add(group, resource, &["create"], &None);
        }
    }
    rights.0
}

/// The namespaces, or all of them.
fn namespaces(listed: &[String]) -> Vec<Option<String>> {
    match listed {
        [] => vec![None],
        listed => listed.iter().cloned().map(Some).collect(),
    }
}

/// The namespaces in which a mode writes: those that it lists, otherwise those that are watched.
fn written(mode: &[String], watched: &[String]) -> Vec<Option<String>> {
    namespaces(if mode.is_empty() { watched } else { mode })
}

#[derive(Default)]
struct RightList(BTreeSet<AccessRight>);

impl RightList {
    fn add(
        &mut self,
        group: &'static str,
        resource: &'static str,
        verbs: &[&'static str],
        namespace: &Option<String>,
    ) {
        self.0.extend(verbs.iter().map(|verb| AccessRight {
            verb,
            group,
            resource,
            name: None,
            namespace: namespace.clone(),
        }));
    }

    fn add_named(
        &mut self,
        group: &'static str,
        resource: &'static str,
        verbs: &[&'static str],
        name: &str,
        namespace: &Option<String>,
    ) {
        self.0.extend(verbs.iter().map(|verb| AccessRight {
            verb,
            group,
            resource,
            name: Some(name.to_owned()),
            namespace: namespace.clone(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rights: &BTreeSet<AccessRight>) -> String {
        let lines = rights.iter().map(|right| format!("{right}\n"));
        lines.collect()
    }

    fn scope() -> DaemonScope {
        DaemonScope {
            own: "lagwise".into(),
            lease: Some("lagwise".into()),
            state: Some("lagwise-state".into()),
            ledger: "lagwise-zero".into(),
            certificate: Some("lagwise-tls".into()),
            registration: Some("v1beta1.external.metrics.k8s.io".into()),
            policy: "lagwise-cap".into(),
            reviews: true,
            scaled: vec!["deployments/scale"],
            ..DaemonScope::default()
        }
    }

    #[test]
    fn a_daemon_that_only_reads_needs_no_patch_of_hpas() {
        insta::assert_snapshot!(shown(&daemon_rights(&scope())));
    }

    #[test]
    fn modes_need_their_rights_where_they_write() {
        let read = daemon_rights(&scope());
        let writes = DaemonScope {
            watched: vec!["shop".into(), "pay".into()],
            enforced: Some(Vec::new()),
            zeroed: Some(vec!["shop".into()]),
            ..scope()
        };
        let writes = daemon_rights(&writes);
        let more: BTreeSet<_> = writes.difference(&read).cloned().collect();
        insta::assert_snapshot!(shown(&more));
        // Rights in single namespaces replace those in all.
        let fewer: Vec<_> = read.difference(&writes).map(ToString::to_string).collect();
        assert_eq!(
            fewer,
            [
                "create events.events.k8s.io",
                "list horizontalpodautoscalers.autoscaling",
                "patch events.events.k8s.io",
                "watch horizontalpodautoscalers.autoscaling",
            ]
        );
    }

    #[test]
    fn files_and_no_authentication_need_fewer_rights() {
        let alone = DaemonScope {
            state: None,
            certificate: None,
            registration: None,
            reviews: false,
            ..scope()
        };
        let text = shown(&daemon_rights(&alone));
        for absent in ["configmaps", "secrets", "apiservices", "reviews"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
    }

    #[test]
    fn a_daemon_that_observes_only_reads() {
        let observes = DaemonScope {
            own: "lagwise".into(),
            observes: true,
            ..DaemonScope::default()
        };
        let shown = shown(&daemon_rights(&observes));
        let expected = [
            "clustertriggerauthentications.keda.sh",
            "scaledjobs.keda.sh",
            "scaledobjects.keda.sh",
            "triggerauthentications.keda.sh",
            "horizontalpodautoscalers.autoscaling",
        ];
        assert_eq!(shown.lines().count(), 10, "{shown}");
        for resource in expected {
            for verb in WATCH {
                assert!(shown.contains(&format!("{verb} {resource}\n")), "{shown}");
            }
        }
        let install = install_rights(&observes);
        assert!(install.is_subset(&install_rights(&scope())));
    }

    #[test]
    fn installing_needs_rights_of_an_administrator() {
        let enforces = DaemonScope {
            enforced: Some(Vec::new()),
            ..scope()
        };
        let (plain, more) = (install_rights(&scope()), install_rights(&enforces));
        assert!(plain.is_subset(&more) && plain.len() < more.len());
        insta::assert_snapshot!(shown(&more));
        let single = install_rights(&DaemonScope {
            watched: vec!["shop".into()],
            ..scope()
        });
        let added: Vec<_> = single.difference(&plain).map(ToString::to_string).collect();
        assert_eq!(
            added,
            [
                "create rolebindings.rbac.authorization.k8s.io in namespace shop",
                "create roles.rbac.authorization.k8s.io in namespace shop",
            ]
        );
    }
}
