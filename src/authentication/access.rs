//! Types for callers, requested actions and the certificate authorities that the cluster trusts,
//! modelled after Kubernetes.

use std::collections::BTreeMap;

/// Group of all authenticated users; added by Kubernetes.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of anonymous users.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// User name of anonymous users.
pub const ANONYMOUS: &str = "system:anonymous";
/// Group that may do everything, without any access review.
pub const MASTERS: &str = "system:masters";

/// Certificate authorities for client certificates, as Kubernetes publishes them in the ConfigMap
/// `kube-system/extension-apiserver-authentication`. At least one of the two is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterTrust {
    /// Trust in the front proxy, which acts for other users.
    pub front_proxy: Option<FrontProxyTrust>,
    /// Authorities of users' certificates (PEM, concatenated; key `client-ca-file`).
    pub client_ca_pem: Option<String>,
}

/// Trust in the front proxy (keys `requestheader-*`).
///
/// A caller whose client certificate chains to `client_ca_pem` and has an allowed name acts for the
/// user named in its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontProxyTrust {
    /// Authorities of the front proxy's client certificate (PEM, concatenated).
    pub client_ca_pem: String,
    /// Allowed common names; any if empty.
    pub allowed_names: Vec<String>,
    /// Headers that hold the user's name; the first that is present counts.
    pub username_headers: Vec<String>,
    /// Headers that hold the user's identifier; the first that is present counts.
    pub uid_headers: Vec<String>,
    /// Headers that hold the user's groups, one per value.
    pub group_headers: Vec<String>,
    /// Prefixes of headers with extra fields of the user.
    pub extra_prefixes: Vec<String>,
}

/// The user behind a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    /// Unique ID of the user; empty if unknown.
    pub uid: String,
    pub groups: Vec<String>,
    /// Extra fields from the authenticator, for authorizers.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// Adds the group of authenticated users, as Kubernetes does.
    #[must_use]
    pub fn with_implied_group(mut self) -> Self {
        let has = |group: &str| self.groups.iter().any(|g| g == group);
        if self.user != ANONYMOUS && !has(UNAUTHENTICATED) && !has(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// The anonymous user.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            user: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Whether the caller may do everything without an access review.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}

/// An action to authorize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// RBAC verb (`list`, `get`, ...).
    pub verb: &'static str,
    pub object: Object,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A resource of an API group.
    Resource {
        group: &'static str,
        version: &'static str,
        /// The resource; here, a metric name.
        resource: String,
        namespace: String,
    },
    /// A non-resource path.
    Path(String),
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.object {
            Object::Resource {
                group,
                resource,
                namespace,
                ..
            } => write!(
                f,
                "{} {resource:?} of API group {group} in namespace {namespace:?}",
                self.verb
            ),
            Object::Path(path) => write!(f, "{} path {path:?}", self.verb),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_the_implied_group() {
        let of = |user: &str, groups: &[&str]| {
            let caller = Caller {
                user: user.to_owned(),
                groups: groups.iter().map(|g| (*g).to_owned()).collect(),
                ..Caller::default()
            };
            caller.with_implied_group().groups
        };
        assert_eq!(of("mary", &[]), [AUTHENTICATED]);
        assert_eq!(of("mary", &["dev"]), ["dev", AUTHENTICATED]);
        assert_eq!(of("mary", &[AUTHENTICATED]), [AUTHENTICATED]);
        assert_eq!(of(ANONYMOUS, &[UNAUTHENTICATED]), [UNAUTHENTICATED]);
        assert_eq!(of("odd", &[UNAUTHENTICATED]), [UNAUTHENTICATED]);
        assert_eq!(
            Caller::anonymous().with_implied_group(),
            Caller::anonymous()
        );
    }

    #[test]
    fn only_the_masters_group_is_trusted() {
        let of = |user: &str, group: &str| {
            let groups = vec![group.to_owned()];
            let user = user.to_owned();
            Caller {
                user,
                groups,
                ..Caller::default()
            }
            .is_master()
        };
        assert!(of("x", "system:masters"));
        assert!(!of("system:masters", "dev"));
        assert!(!of("admin", "System:Masters"));
    }
}
