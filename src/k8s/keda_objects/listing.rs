//! Watches a kind of KEDA's objects, once it can be listed.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use kube::api::ListParams;
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::k8s::api_error::ApiError;
use crate::k8s::hpa::PAGE;
use crate::k8s::resilient_watch;

/// Timeout of the request that finds out whether KEDA's objects can be listed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time until it is sent again.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KedaKind {
    ScaledObject,
    ScaledJob,
    TriggerAuthentication,
    ClusterTriggerAuthentication,
}

impl KedaKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScaledObject => "ScaledObject",
            Self::ScaledJob => "ScaledJob",
            Self::TriggerAuthentication => "TriggerAuthentication",
            Self::ClusterTriggerAuthentication => "ClusterTriggerAuthentication",
        }
    }

    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::ScaledObject => "scaledobjects",
            Self::ScaledJob => "scaledjobs",
            Self::TriggerAuthentication => "triggerauthentications",
            Self::ClusterTriggerAuthentication => "clustertriggerauthentications",
        }
    }

    /// The name for messages about all objects.
    fn plural(self) -> &'static str {
        match self {
            Self::ScaledObject => "ScaledObjects",
            Self::ScaledJob => "ScaledJobs",
            Self::TriggerAuthentication => "TriggerAuthentications",
            Self::ClusterTriggerAuthentication => "ClusterTriggerAuthentications",
        }
    }

    /// Whether objects of this kind are compared. Without these, the other kinds are not needed.
    fn is_scaled(self) -> bool {
        matches!(self, Self::ScaledObject | Self::ScaledJob)
    }
}

/// What happens in one watch.
pub(super) enum KedaEvent<K> {
    /// The objects cannot be listed. The reason, if it is to be reported.
    Unlistable(Option<String>),
    /// The objects can be listed.
    Listable,
    Watch(Box<Event<K>>),
}

/// An object of KEDA in a watch.
pub(super) trait KedaResource:
    Resource<DynamicType = KedaKind, Scope = DynamicResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + 'static
{
}

impl<K> KedaResource for K where
    K: Resource<DynamicType = KedaKind, Scope = DynamicResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static
{
}

/// The events of a kind in a namespace, once its objects can be listed.
pub(super) fn events<K: KedaResource>(
    client: &Client,
    kind: KedaKind,
    namespace: Option<&str>,
) -> BoxStream<'static, KedaEvent<K>> {
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let config = watcher::Config::default().page_size(PAGE);
    let watching = resilient_watch::events(api.clone(), config, kind.plural())
        .map(|event| KedaEvent::Watch(Box::new(event)));
    let probing = stream::unfold(Some((api, Duration::ZERO)), move |probe| async move {
        let (api, pause) = probe?;
        tokio::time::sleep(pause).await;
        Some(match probe_listing(&api, kind).await {
            Err(why) => (KedaEvent::Unlistable(why), Some((api, PROBE_INTERVAL))),
            Ok(()) => (KedaEvent::Listable, None),
        })
    });
    probing.chain(watching).boxed()
}

/// Checks whether the objects can be listed. The error is the reason, if it is to be reported.
async fn probe_listing<K: KedaResource>(
    api: &Api<K>,
    kind: KedaKind,
) -> Result<(), Option<String>> {
    let (kinds, resource) = (kind.plural(), kind.resource());
    let page = ListParams::default().limit(1);
    let listed = tokio::time::timeout(PROBE_TIMEOUT, api.list(&page)).await;
    let why = match listed {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            return Err(kind.is_scaled().then(|| format!(
                "the cluster has no {kinds} of keda.sh/v1alpha1, so there are none to compare; lagwise checks again every 30 seconds"
            )));
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            let so = match kind.is_scaled() {
                true => "there are none to compare",
                false => "the report does not say where KEDA has its logins from",
            };
            return Err(Some(format!(
                "the right to list and watch {resource}.keda.sh is missing, so {so}; the chart grants it with mode: observe"
            )));
        }
        Ok(Err(kube::Error::Api(status))) => status.message.clone(),
        Ok(Err(error)) => ApiError::from(error).to_string(),
        Err(_) => ApiError::timed_out().to_string(),
    };
    Err(Some(format!("cannot list {resource}.keda.sh: {why}")))
}
