//! Who asks, for what, and by whose word: the nouns of authentication and authorisation, as
//! Kubernetes has them.

use std::collections::BTreeMap;

/// The group that Kubernetes adds to everyone who is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone who is not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of everyone who is not known.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything, by definition: nobody is asked about it.
pub const MASTERS: &str = "system:masters";

/// Whose certificates the cluster vouches for, as Kubernetes publishes it in the ConfigMap
/// `kube-system/extension-apiserver-authentication`. At least one of both is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterTrust {
    /// The front proxy, which speaks for others.
    pub front_proxy: Option<FrontProxyTrust>,
    /// Certificates (PEM, concatenated) that sign those of users (key `client-ca-file`).
    pub client_ca_pem: Option<String>,
}

/// The front proxy's trust (keys `requestheader-*`).
///
/// A caller whose client certificate chains to `client_ca_pem` and bears an allowed name speaks
/// for the user named in its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontProxyTrust {
    /// Certificates (PEM, concatenated) that sign the front proxy's client certificate.
    pub client_ca_pem: String,
    /// Common names that it may bear; empty = any.
    pub allowed_names: Vec<String>,
    /// Headers that hold the user's name; the first that is present counts.
    pub username_headers: Vec<String>,
    /// Headers that hold the user's identifier; the first that is present counts.
    pub uid_headers: Vec<String>,
    /// Headers that hold the user's groups, one per value.
    pub group_headers: Vec<String>,
    /// How headers begin that hold something more about the user.
    pub extra_prefixes: Vec<String>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's name.
    pub user: String,
    /// The user's identifier, which outlives a name; empty where none is known.
    pub uid: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// What else the one who vouches said, for the authorisers.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// Somebody, with the group of the known or the unknown added.
    #[must_use]
    pub fn known(mut self) -> Self {
        let has = |group: &str| self.groups.iter().any(|g| g == group);
        if self.user != ANONYMOUS && !has(UNAUTHENTICATED) && !has(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            user: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Whether nobody need be asked what this caller may do.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What kind of doing, as a role names it (`list`, `get`, ...).
    pub verb: &'static str,
    /// To what.
    pub object: Object,
}

/// What is acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A resource of an API group.
    Resource {
        /// The API group.
        group: &'static str,
        /// Its version.
        version: &'static str,
        /// The resource: here, a metric.
        resource: String,
        /// The namespace.
        namespace: String,
    },
    /// A path that is no resource.
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
    fn the_known_are_told_from_the_unknown() {
        let of = |user: &str, groups: &[&str]| {
            let caller = Caller {
                user: user.to_owned(),
                groups: groups.iter().map(|g| (*g).to_owned()).collect(),
                ..Caller::default()
            };
            caller.known().groups
        };
        assert_eq!(of("mary", &[]), [AUTHENTICATED]);
        assert_eq!(of("mary", &["dev"]), ["dev", AUTHENTICATED]);
        assert_eq!(of("mary", &[AUTHENTICATED]), [AUTHENTICATED]);
        assert_eq!(of(ANONYMOUS, &[UNAUTHENTICATED]), [UNAUTHENTICATED]);
        assert_eq!(of("odd", &[UNAUTHENTICATED]), [UNAUTHENTICATED]);
        assert_eq!(Caller::anonymous().known(), Caller::anonymous());
    }

    #[test]
    fn only_the_group_makes_a_master() {
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
