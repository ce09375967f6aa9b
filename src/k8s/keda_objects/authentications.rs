//! Watches TriggerAuthentications. Where they have logins from is kept, and nothing else: some of their sources may
//! hold a token in plain text.

use std::sync::Arc;

use futures::stream::{StreamExt, select_all};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::runtime::watcher::Event;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::watch::Sender;

use super::listing::{KedaEvent, KedaKind, events};
use super::{KedaState, distinct, note_problem, scopes};
use crate::model::keda::authentications::{
    AuthenticationKey, AuthenticationScope, Authentications, MAX_AUTHENTICATIONS, MAX_IN_NAMESPACE,
    describe_sources,
};
use crate::model::keda::scaled_object::AuthenticationSpec;

/// A TriggerAuthentication or ClusterTriggerAuthentication in a watch.
#[derive(Clone, Debug)]
struct WatchedAuthentication {
    /// Fields that the watch itself needs.
    metadata: ObjectMeta,
    sources: Arc<str>,
}

impl<'de> Deserialize<'de> for WatchedAuthentication {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct AnyAuthentication {
            #[serde(default)]
            metadata: ObjectMeta,
            /// Accepts any value, so that one malformed object does not fail the whole listing.
            #[serde(default)]
            spec: Value,
        }
        let AnyAuthentication { metadata, spec } = AnyAuthentication::deserialize(deserializer)?;
        let sources = match AuthenticationSpec::deserialize(spec) {
            Ok(spec) => describe_sources(&spec),
            Err(_) => "its spec cannot be read".into(),
        };
        Ok(Self {
            metadata: ObjectMeta {
                namespace: metadata.namespace,
                name: metadata.name,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
            sources,
        })
    }
}

is_keda_resource!(WatchedAuthentication);

impl WatchedAuthentication {
    fn key(&self) -> AuthenticationKey {
        AuthenticationKey {
            namespace: self.metadata.namespace.as_deref().map(Arc::from),
            name: self.metadata.name.as_deref().unwrap_or_default().into(),
        }
    }
}

/// One watch: a kind, in one namespace or in all.
struct AuthenticationWatch {
    kind: KedaKind,
    scope: AuthenticationScope,
    problem: Option<String>,
    /// The listing that is under way.
    listing: Vec<(AuthenticationKey, Arc<str>)>,
}

/// Watches the TriggerAuthentications in `namespaces` (empty = all) and all ClusterTriggerAuthentications forever, and
/// publishes where they get their logins from.
pub(super) async fn watch(client: &Client, namespaces: &[String], state: &Sender<KedaState>) {
    let new_watch = |kind, scope| AuthenticationWatch {
        kind,
        scope,
        problem: None,
        listing: Vec::new(),
    };
    let mut watches = vec![new_watch(
        KedaKind::ClusterTriggerAuthentication,
        AuthenticationScope::Cluster,
    )];
    watches.extend(scopes(namespaces).map(|namespace| {
        let scope = AuthenticationScope::Namespaced(namespace.map(Arc::from));
        new_watch(KedaKind::TriggerAuthentication, scope)
    }));
    let streams = watches.iter().enumerate().map(|(index, watch)| {
        let namespace = match &watch.scope {
            AuthenticationScope::Namespaced(Some(namespace)) => Some(&**namespace),
            _ => None,
        };
        let events = events(client, watch.kind, namespace);
        events.map(move |event| (index, event)).boxed()
    });
    let mut events = select_all(Vec::from_iter(streams));
    while let Some((index, event)) = events.next().await {
        let Some(watch) = watches.get_mut(index) else {
            continue;
        };
        let is_changed = match event {
            KedaEvent::Unlistable(why) => note_problem(&mut watch.problem, why, watch.kind),
            KedaEvent::Listable => watch.problem.take().is_some(),
            KedaEvent::Watch(event) => {
                state.send_if_modified(|state| {
                    watch.apply(*event, &mut state.objects.authentications)
                });
                false
            }
        };
        if is_changed {
            let problems = distinct(watches.iter().map(|watch| &watch.problem));
            state.send_modify(|state| state.login_problems = problems);
        }
    }
}

impl AuthenticationWatch {
    /// Applies an event. Returns whether there may be a change.
    fn apply(&mut self, event: Event<WatchedAuthentication>, all: &mut Authentications) -> bool {
        match event {
            Event::Init => {
                self.listing.clear();
                false
            }
            Event::InitApply(object) => {
                let key = object.key();
                let before = self.listing.iter().rev();
                let of_namespace = before.take_while(|(other, _)| other.namespace == key.namespace);
                // One more than fits, which says that some are left out.
                let has_room = key.namespace.is_none() || of_namespace.count() <= MAX_IN_NAMESPACE;
                if has_room && self.listing.len() < MAX_AUTHENTICATIONS {
                    self.listing.push((key, object.sources));
                }
                false
            }
            Event::InitDone => {
                all.replace(&self.scope, self.listing.drain(..));
                true
            }
            Event::Apply(object) => {
                all.insert(object.key(), object.sources);
                true
            }
            Event::Delete(object) => {
                all.remove(&object.key());
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::keda::authentications::{LoginKind, ObservedLogin};

    #[test]
    fn keeps_where_logins_are_from() {
        let object = |name: &str, spec: Value| -> WatchedAuthentication {
            let metadata = json!({"namespace": "shop", "name": name, "resourceVersion": "7"});
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
        };
        let user =
            json!({"secretTargetRef": [{"parameter": "password", "name": "user", "key": "p"}]});
        let mut watch = AuthenticationWatch {
            kind: KedaKind::TriggerAuthentication,
            scope: AuthenticationScope::Namespaced(None),
            problem: None,
            listing: Vec::new(),
        };
        let mut all = Authentications::default();
        let mut description_after = |event| {
            watch.apply(event, &mut all);
            let login = ObservedLogin {
                keda: LoginKind::default(),
                authentication: Some(AuthenticationKey {
                    namespace: Some("shop".into()),
                    name: "kafka".into(),
                }),
                ..ObservedLogin::default()
            };
            all.describe(&login, "main").0
        };
        assert!(description_after(Event::Init).contains("has not read"));
        description_after(Event::InitApply(object("kafka", user.clone())));
        assert!(description_after(Event::InitDone).contains("password from Secret user"));
        assert!(
            description_after(Event::Apply(object("kafka", json!(5)))).contains("cannot be read")
        );
        description_after(Event::Apply(object("kafka", user.clone())));
        assert!(description_after(Event::Delete(object("kafka", user))).contains("does not exist"));
    }
}
