//! Finds the pod of the leader and reaches its ports through the Kubernetes API, with the rights of the user.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncWrite};

use super::api_error::{ApiError, in_time};
use super::certificates::API_SERVICE;
use crate::leader_election::identity;
use crate::model::units::names::split_namespaced;

/// The Lease of leader election: its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Deployment of daemons without a Lease: its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for DeploymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A text that is not `NAMESPACE/DEPLOYMENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAMESPACE/DEPLOYMENT, such as lagwise/lagwise")]
pub struct InvalidDeploymentKey;

impl FromStr for DeploymentKey {
    type Err = InvalidDeploymentKey;

    fn from_str(text: &str) -> Result<Self, InvalidDeploymentKey> {
        let (namespace, name) = split_namespaced(text).ok_or(InvalidDeploymentKey)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A text that is not `NAMESPACE/LEASE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAMESPACE/LEASE, such as lagwise/lagwise")]
pub struct InvalidLeaseKey;

impl FromStr for LeaseKey {
    type Err = InvalidLeaseKey;

    fn from_str(text: &str) -> Result<Self, InvalidLeaseKey> {
        let (namespace, name) = split_namespaced(text).ok_or(InvalidLeaseKey)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Why the leader cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum LeaderPodError {
    /// No external metrics API is registered, so nothing says where lagwise runs.
    #[error(
        "there is no APIService {API_SERVICE}, which says where lagwise runs; name its Lease: --lease NAMESPACE/LEASE"
    )]
    NotRegistered,
    /// The user may not read the registration.
    #[error(
        "cannot read APIService {API_SERVICE}, which says where lagwise runs ({0}); name its Lease: --lease NAMESPACE/LEASE"
    )]
    Registration(ApiError),
    /// The Lease cannot be read.
    #[error("cannot read Lease {lease}, which says who leads: {source}")]
    Lease { lease: LeaseKey, source: ApiError },
    /// There is no such Lease.
    #[error(
        "there is no Lease {0}, which would say who leads; name another: --lease NAMESPACE/LEASE"
    )]
    NoLease(LeaseKey),
    /// The Lease has no holder.
    #[error("Lease {0} has no holder at present, so no daemon leads; try again in a few seconds")]
    NoLeader(LeaseKey),
    /// The Deployment, or its pods, cannot be read.
    #[error("cannot read Deployment {deployment} and its pods: {source}")]
    Deployment {
        deployment: DeploymentKey,
        source: ApiError,
    },
    /// None of its pods runs.
    #[error("no pod of Deployment {0} is running")]
    NoPod(DeploymentKey),
    /// The port-forward failed.
    #[error("cannot forward port {port} of pod {namespace}/{pod}: {source}")]
    Forward {
        namespace: String,
        pod: String,
        port: u16,
        source: ApiError,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderPod {
    pub namespace: String,
    pub name: String,
}

impl LeaderPod {
    /// The pod that holds this Lease; by default the Lease named as the Service of the external metrics API, in its
    /// namespace, as the chart has it. Needs the right to get the Lease, and without `lease` the APIService.
    ///
    /// # Errors
    /// See [`LeaderPodError`].
    pub async fn find(
        client: &Client,
        lease: Option<&LeaseKey>,
        timeout: Duration,
    ) -> Result<Self, LeaderPodError> {
        let lease = match lease {
            Some(lease) => lease.clone(),
            None => registered(client, timeout).await?,
        };
        let api: Api<Lease> = Api::namespaced(client.clone(), &lease.namespace);
        let found = match in_time(timeout, api.get_opt(&lease.name)).await {
            Ok(found) => found,
            Err(source) => return Err(LeaderPodError::Lease { lease, source }),
        };
        let Some(found) = found else {
            return Err(LeaderPodError::NoLease(lease));
        };
        let holder = found.spec.and_then(|spec| spec.holder_identity);
        match holder.as_deref().and_then(identity::pod) {
            Some(pod) => Ok(Self {
                name: pod.to_owned(),
                namespace: lease.namespace,
            }),
            None => Err(LeaderPodError::NoLeader(lease)),
        }
    }

    /// A running pod of this Deployment, for daemons without a Lease. Needs the rights to get the Deployment and to
    /// list pods.
    ///
    /// # Errors
    /// See [`LeaderPodError`].
    pub async fn find_in_deployment(
        client: &Client,
        deployment: &DeploymentKey,
        timeout: Duration,
    ) -> Result<Self, LeaderPodError> {
        let failed = |source| LeaderPodError::Deployment {
            deployment: deployment.clone(),
            source,
        };
        let api: Api<Deployment> = Api::namespaced(client.clone(), &deployment.namespace);
        let found = in_time(timeout, api.get(&deployment.name)).await;
        let labels = found.map_err(failed)?.spec.selector.match_labels;
        let required = labels.unwrap_or_default().into_iter();
        let required = required.map(|(key, value)| format!("{key}={value}"));
        let chosen = ListParams::default().labels(&Vec::from_iter(required).join(","));
        let api: Api<Pod> = Api::namespaced(client.clone(), &deployment.namespace);
        let pods = in_time(timeout, api.list(&chosen)).await.map_err(failed)?;
        let is_running = |pod: &Pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        let running = pods.items.into_iter().find(is_running);
        match running.and_then(|pod| pod.metadata.name) {
            Some(name) => Ok(Self {
                namespace: deployment.namespace.clone(),
                name,
            }),
            None => Err(LeaderPodError::NoPod(deployment.clone())),
        }
    }

    /// A connection to a port of the pod. Needs the right to get and create `pods/portforward`.
    ///
    /// # Errors
    /// The API server's, or no response in time.
    pub async fn connect(
        &self,
        client: &Client,
        port: u16,
        timeout: Duration,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, LeaderPodError> {
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let forwarded = in_time(timeout, api.portforward(&self.name, &[port])).await;
        let stream = match forwarded {
            Ok(mut ports) => ports
                .take_stream(port)
                .ok_or_else(|| ApiError::no_answer("the port forward has no stream")),
            Err(source) => Err(source),
        };
        stream.map_err(|source| LeaderPodError::Forward {
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            port,
            source,
        })
    }
}

pub(super) async fn registered(
    client: &Client,
    timeout: Duration,
) -> Result<LeaseKey, LeaderPodError> {
    let api: Api<APIService> = Api::all(client.clone());
    let found = in_time(timeout, api.get_opt(API_SERVICE)).await;
    let found = found.map_err(LeaderPodError::Registration)?;
    let service = found.and_then(|found| found.spec?.service);
    let named = service.and_then(|service| Some((service.namespace?, service.name?)));
    let (namespace, name) = named.ok_or(LeaderPodError::NotRegistered)?;
    Ok(LeaseKey { namespace, name })
}
