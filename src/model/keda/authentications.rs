//! How KEDA logs in to Kafka: what TriggerAuthentications say of it, without anything secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::scaled_object::{AuthenticationRef, AuthenticationSpec};
use crate::model::units::untrusted_text::{Printable, cut_message};

/// Maximum number of TriggerAuthentications. Where there are more, a missing one may be one that was not read.
pub const MAX_AUTHENTICATIONS: usize = 4096;

/// Maximum number of them in one namespace, so that a few namespaces leave room for the others.
pub const MAX_IN_NAMESPACE: usize = 256;

/// Security of a connection to Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginKind {
    is_tls: bool,
    /// SASL mechanism; `None` without SASL.
    mechanism: Option<String>,
}

impl LoginKind {
    /// The login by these properties of librdkafka.
    #[must_use]
    pub fn from_properties(protocol: Option<&str>, mechanism: Option<&str>) -> Self {
        let protocol = protocol.unwrap_or_default().to_ascii_uppercase();
        let has_sasl = protocol.starts_with("SASL");
        Self {
            is_tls: protocol.ends_with("SSL"),
            mechanism: has_sasl.then(|| mechanism.unwrap_or("GSSAPI").to_ascii_uppercase()),
        }
    }
}

impl fmt::Display for LoginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_tls, &self.mechanism) {
            (false, None) => f.write_str("PLAINTEXT"),
            (true, None) => f.write_str("SSL"),
            (false, Some(mechanism)) => write!(f, "SASL_PLAINTEXT, {}", Printable::name(mechanism)),
            (true, Some(mechanism)) => write!(f, "SASL_SSL, {}", Printable::name(mechanism)),
        }
    }
}

/// A TriggerAuthentication of a namespace, or a ClusterTriggerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuthenticationKey {
    /// `None` for a ClusterTriggerAuthentication.
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
}

impl AuthenticationKey {
    /// The object to which a trigger of a ScaledObject in `namespace` refers.
    #[must_use]
    pub fn new(reference: &AuthenticationRef, namespace: &str) -> Self {
        let is_of_cluster = reference.kind.as_deref() == Some("ClusterTriggerAuthentication");
        Self {
            namespace: (!is_of_cluster).then(|| namespace.into()),
            name: reference.name.as_str().into(),
        }
    }
}

impl fmt::Display for AuthenticationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.namespace {
            Some(_) => "TriggerAuthentication",
            None => "ClusterTriggerAuthentication",
        };
        write!(f, "{kind} {}", Printable::name(&self.name))
    }
}

/// How both log in for one trigger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedLogin {
    pub keda: LoginKind,
    /// Login of lagwise to the same Kafka cluster.
    pub lagwise: LoginKind,
    pub authentication: Option<AuthenticationKey>,
}

/// The sources of all TriggerAuthentications. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Authentications {
    sources: Arc<BTreeMap<AuthenticationKey, Arc<str>>>,
    /// The namespaces that have been listed; `None` stands for ClusterTriggerAuthentications.
    listed: Arc<BTreeSet<Option<Arc<str>>>>,
    /// Whether the TriggerAuthentications of all namespaces have been listed.
    is_whole: bool,
    /// Whether some may ever have been left out.
    was_full: bool,
}

/// Part of the cluster that a listing of TriggerAuthentications covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthenticationScope {
    Cluster,
    /// TriggerAuthentications of this namespace, or of all.
    Namespaced(Option<Arc<str>>),
}

impl AuthenticationScope {
    fn covers(&self, key: &AuthenticationKey) -> bool {
        match (self, &key.namespace) {
            (Self::Cluster, of) => of.is_none(),
            (Self::Namespaced(None), of) => of.is_some(),
            (Self::Namespaced(only), of) => of == only,
        }
    }
}

impl Authentications {
    pub fn insert(&mut self, key: AuthenticationKey, sources: Arc<str>) {
        if self.has_room_for(&key) || self.sources.contains_key(&key) {
            Arc::make_mut(&mut self.sources).insert(key, sources);
        } else {
            self.was_full = true;
        }
        // What did not fit into a listing is not here.
        self.was_full |= self.sources.len() >= MAX_AUTHENTICATIONS;
    }

    fn has_room_for(&self, key: &AuthenticationKey) -> bool {
        let first = AuthenticationKey {
            namespace: key.namespace.clone(),
            name: "".into(),
        };
        let of_namespace = || {
            let all = self.sources.range(first..);
            all.take_while(|(other, _)| other.namespace == key.namespace)
        };
        self.sources.len() < MAX_AUTHENTICATIONS
            && (key.namespace.is_none() || of_namespace().count() < MAX_IN_NAMESPACE)
    }

    pub fn remove(&mut self, key: &AuthenticationKey) {
        Arc::make_mut(&mut self.sources).remove(key);
    }

    /// Replaces all of a part of the cluster.
    pub fn replace(
        &mut self,
        scope: &AuthenticationScope,
        listed: impl IntoIterator<Item = (AuthenticationKey, Arc<str>)>,
    ) {
        Arc::make_mut(&mut self.sources).retain(|key, _| !scope.covers(key));
        for (key, sources) in listed {
            self.insert(key, sources);
        }
        match scope {
            AuthenticationScope::Cluster => {
                Arc::make_mut(&mut self.listed).insert(None);
            }
            AuthenticationScope::Namespaced(None) => self.is_whole = true,
            AuthenticationScope::Namespaced(of) => {
                Arc::make_mut(&mut self.listed).insert(of.clone());
            }
        }
    }

    /// Where KEDA has a login from. `Ok(None)` if it is not known.
    ///
    /// # Errors
    /// There is no such object, so that KEDA refuses the trigger.
    fn find(&self, key: &AuthenticationKey) -> Result<Option<&str>, ()> {
        if let Some(sources) = self.sources.get(key) {
            return Ok(Some(sources));
        }
        let is_listed =
            (self.is_whole && key.namespace.is_some()) || self.listed.contains(&key.namespace);
        match is_listed && !self.was_full {
            true => Err(()),
            false => Ok(None),
        }
    }

    /// How both log in, and why KEDA cannot, if it cannot: each as a sentence without a full stop.
    #[must_use]
    pub fn describe(&self, login: &ObservedLogin, cluster: &str) -> (String, Option<String>) {
        let by = match &login.authentication {
            None => String::new(),
            Some(key) => match self.find(key) {
                Ok(Some(sources)) => format!(" ({sources}, by {key})"),
                Ok(None) => format!(" (by {key}, which lagwise has not read)"),
                Err(()) => {
                    let missing = format!("{key} does not exist, so that KEDA's trigger fails");
                    return (missing.clone(), Some(missing));
                }
            },
        };
        let ObservedLogin { keda, lagwise, .. } = login;
        let text = format!(
            "KEDA logs in to Kafka cluster {cluster} with {keda}{by}, lagwise with {lagwise}"
        );
        (text, None)
    }
}

/// Where the parameters of a login come from, such as `username and password from Secret kafka`. The contents of the
/// sources are not read.
#[must_use]
pub fn describe_sources(spec: &AuthenticationSpec) -> Arc<str> {
    let mut from: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let name = |text: &str| Printable::name(text).to_string();
    let keys = [
        ("Secret", &spec.secret_target_ref),
        ("ConfigMap", &spec.config_map_target_ref),
    ];
    for (kind, keys) in keys {
        for key in keys {
            let source = format!("{kind} {}", name(&key.name));
            from.entry(source).or_default().push(name(&key.parameter));
        }
    }
    for variable in &spec.env {
        let parameters = from.entry("the environment of the workload".to_owned());
        parameters.or_default().push(name(&variable.parameter));
    }
    for source in spec.others.keys() {
        from.entry(name(source)).or_default();
    }
    let mut parts = Vec::new();
    for (source, parameters) in from {
        parts.push(match parameters.as_slice() {
            [] => format!("parameters from {source}"),
            [rest @ .., last] if !rest.is_empty() => {
                format!("{} and {last} from {source}", rest.join(", "))
            }
            [only, ..] => format!("{only} from {source}"),
        });
    }
    if let Some(identity) = &spec.pod_identity {
        parts.push(format!("pod identity {}", name(&identity.provider)));
    }
    match parts.is_empty() {
        true => "no parameters".into(),
        false => cut_message(parts.join(", ")).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sources(spec: serde_json::Value) -> String {
        let spec: AuthenticationSpec = serde_json::from_value(spec).unwrap();
        describe_sources(&spec).to_string()
    }

    #[test]
    fn names_sources_and_no_secret() {
        let vault = json!({"hashiCorpVault": {"credential": {"token": "hunter2"}}});
        let secrets = json!({"secretTargetRef": [
            {"parameter": "username", "name": "user", "key": "u"},
            {"parameter": "password", "name": "user", "key": "p"},
            {"parameter": "ca", "name": "ca", "key": "ca.crt"},
        ]});
        let mixed = json!({
            "env": [{"parameter": "sasl", "name": "SASL"}],
            "configMapTargetRef": [{"parameter": "tls", "name": "m", "key": "t"}],
            "podIdentity": {"provider": "aws"},
        });
        for (spec, expected) in [
            (
                secrets,
                "ca from Secret ca, username and password from Secret user",
            ),
            (
                mixed,
                "tls from ConfigMap m, sasl from the environment of the workload, pod identity aws",
            ),
            (vault, "parameters from hashiCorpVault"),
            (json!({}), "no parameters"),
        ] {
            assert_eq!(sources(spec), expected);
        }
        let many: Vec<_> = (0..5000)
            .map(|n| json!({"parameter": n.to_string(), "name": "s", "key": "k"}))
            .collect();
        assert!(sources(json!({"secretTargetRef": many})).len() < 1100);
    }

    #[test]
    fn logins_are_those_of_the_properties() {
        for (protocol, mechanism, expected) in [
            (None, None, "PLAINTEXT"),
            (Some("plaintext"), Some("PLAIN"), "PLAINTEXT"),
            (Some("ssl"), None, "SSL"),
            (
                Some("sasl_ssl"),
                Some("scram-sha-512"),
                "SASL_SSL, SCRAM-SHA-512",
            ),
            (Some("SASL_PLAINTEXT"), None, "SASL_PLAINTEXT, GSSAPI"),
        ] {
            let login = LoginKind::from_properties(protocol, mechanism);
            assert_eq!(login.to_string(), expected);
        }
    }

    #[test]
    fn a_missing_authentication_differs_from_an_unread_one() {
        let key = |namespace: Option<&str>| AuthenticationKey {
            namespace: namespace.map(Into::into),
            name: "kafka".into(),
        };
        let mut all = Authentications::default();
        let describe = |all: &Authentications, namespace: Option<&str>| {
            let login = ObservedLogin {
                keda: LoginKind::from_properties(Some("SSL"), None),
                authentication: Some(key(namespace)),
                ..ObservedLogin::default()
            };
            all.describe(&login, "main")
        };
        let (text, problem) = describe(&all, Some("shop"));
        let expected = "KEDA logs in to Kafka cluster main with SSL (by TriggerAuthentication kafka, which lagwise has not read), lagwise with PLAINTEXT";
        assert_eq!((text.as_str(), problem), (expected, None));
        let shop = AuthenticationScope::Namespaced(Some("shop".into()));
        all.replace(&shop, [(key(Some("shop")), "ca from Secret ca".into())]);
        let (text, _) = describe(&all, Some("shop"));
        assert!(
            text.contains("(ca from Secret ca, by TriggerAuthentication kafka)"),
            "{text}"
        );
        assert!(describe(&all, Some("pay")).1.is_none());
        assert!(describe(&all, None).1.is_none());
        all.replace(&AuthenticationScope::Cluster, []);
        all.replace(&shop, []);
        for namespace in [None, Some("shop")] {
            let (_, problem) = describe(&all, namespace);
            assert!(
                problem
                    .unwrap()
                    .ends_with("kafka does not exist, so that KEDA's trigger fails")
            );
        }
        all.replace(&AuthenticationScope::Namespaced(None), []);
        assert!(describe(&all, Some("pay")).1.is_some());
        all.insert(key(Some("pay")), "no parameters".into());
        assert!(describe(&all, Some("pay")).1.is_none());
        all.remove(&key(Some("pay")));
        assert!(describe(&all, Some("pay")).1.is_some());
        // Where there are too many, some are left out, also after others have been removed.
        let numbered = |number: usize| AuthenticationKey {
            namespace: Some("large".into()),
            name: number.to_string().into(),
        };
        for number in 0..MAX_IN_NAMESPACE {
            all.insert(numbered(number), "no parameters".into());
        }
        assert!(describe(&all, Some("pay")).1.is_some());
        all.insert(numbered(MAX_IN_NAMESPACE), "no parameters".into());
        all.remove(&numbered(0));
        assert!(describe(&all, Some("pay")).1.is_none());
        // Other namespaces have room all the same.
        all.insert(key(Some("pay")), "no parameters".into());
        assert!(describe(&all, Some("pay")).0.contains("(no parameters, by"));
    }
}
