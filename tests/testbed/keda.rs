//! Fake KEDA: its kinds of objects, and for one ScaledObject its metrics server and the HPA that it maintains. Messages
//! and arithmetic follow KEDA's documentation and source, and share no code with lagwise.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tonic::Streaming;
use tonic_prost::ProstCodec;

use super::control_plane::ControlPlane;
use super::kubernetes::ServingCertificate;

const SERVICE: &str = "/externalscaler.ExternalScaler/";

/// KEDA's kinds of objects, as long as this lives.
pub(crate) struct KedaKinds<'a>(&'a ControlPlane);

impl<'a> KedaKinds<'a> {
    pub(crate) fn define(plane: &'a ControlPlane) -> Result<Self> {
        let defined = Self(plane);
        plane.kubectl_with_input(&["apply", "-f", "-"], &Self::definitions())?;
        Ok(defined)
    }

    fn definitions() -> String {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = |(kind, scope): (&str, &str)| {
            let (singular, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
            json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.keda.sh")},
                "spec": {
                    "group": "keda.sh",
                    "scope": scope,
                    "names": {"kind": kind, "plural": plural, "singular": singular},
                    "versions": [{
                        "name": "v1alpha1",
                        "served": true,
                        "storage": true,
                        "schema": {"openAPIV3Schema": schema},
                    }],
                },
            })
        };
        let kinds = [
            ("ScaledObject", "Namespaced"),
            ("ScaledJob", "Namespaced"),
            ("TriggerAuthentication", "Namespaced"),
            ("ClusterTriggerAuthentication", "Cluster"),
        ];
        let kinds = kinds.map(definition);
        json!({"apiVersion": "v1", "kind": "List", "items": kinds}).to_string()
    }
}

impl Drop for KedaKinds<'_> {
    fn drop(&mut self) {
        let args = ["delete", "--ignore-not-found", "--wait=false", "-f", "-"];
        let _ = self.0.kubectl_with_input(&args, &Self::definitions());
    }
}

/// KEDA's metrics server for one Kafka trigger whose value stays the same. It stops when dropped.
pub(crate) struct KafkaTriggerServer {
    pub(crate) port: u16,
    _runtime: tokio::runtime::Runtime,
}

impl KafkaTriggerServer {
    pub(crate) fn start(certificate: &ServingCertificate, value: u64) -> Result<Self> {
        let router = Router::new().fallback(async move |request: Request| {
            let name = metric_name(&request);
            if !name.starts_with("s0-") {
                return json_response(&discovery());
            }
            let item = json!({
                "metricName": name,
                "metricLabels": null,
                "timestamp": "2026-01-01T00:00:00Z",
                "value": value.to_string(),
            });
            json_response(&value_list(vec![item]))
        });
        let (runtime, port) = serve(certificate, router)?;
        Ok(Self {
            port,
            _runtime: runtime,
        })
    }

    /// The HPA that KEDA keeps for a ScaledObject with one Kafka trigger.
    pub(crate) fn hpa(scaled_object: &Value, metric: &str) -> Value {
        let metadata = &scaled_object["spec"]["triggers"][0]["metadata"];
        keda_hpa(scaled_object, metric, &metadata["lagThreshold"])
    }
}

#[derive(Clone, PartialEq, Message)]
struct ScaledObjectRef {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(map = "string, string", tag = "3")]
    scaler_metadata: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct IsActiveResponse {
    #[prost(bool, tag = "1")]
    pub(crate) result: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "2")]
    whole: i64,
    #[prost(double, tag = "3")]
    float: f64,
}

/// Metric specs, or metric values.
#[derive(Clone, PartialEq, Message)]
struct NamedList {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct GetMetricsRequest {
    #[prost(message, optional, tag = "1")]
    object: Option<ScaledObjectRef>,
    #[prost(string, tag = "2")]
    metric_name: String,
}

/// KEDA's settings for the scaler: address, trusted CA and client certificate.
#[derive(Clone)]
pub(crate) struct ScalerAddress {
    pub(crate) port: u16,
    pub(crate) ca_pem: String,
    pub(crate) client_pem: String,
    pub(crate) client_key_pem: String,
}

/// The server. It stops when dropped.
pub(crate) struct Keda {
    pub(crate) port: u16,
    scaler: Arc<Scaler>,
    runtime: tokio::runtime::Runtime,
}

struct Scaler {
    address: ScalerAddress,
    object: ScaledObjectRef,
}

type Client = tonic::client::Grpc<Connection>;

#[derive(Clone)]
struct Connection(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

impl tower::Service<axum::http::Request<tonic::body::Body>> for Connection {
    type Response = axum::http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: axum::http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl ScaledObjectRef {
    /// What KEDA sends about the first trigger of this ScaledObject.
    fn new(scaled_object: &Value) -> Result<Self> {
        let metadata = &scaled_object["spec"]["triggers"][0]["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = metadata.as_object().context("no metadata")?;
        let metadata = metadata
            .iter()
            .map(|(key, value)| (key.clone(), text(value)));
        Ok(Self {
            name: text(&scaled_object["metadata"]["name"]),
            namespace: text(&scaled_object["metadata"]["namespace"]),
            scaler_metadata: metadata.collect(),
        })
    }
}

/// One connection to an external scaler, which KEDA has for all ScaledObjects.
pub(crate) struct ScalerConnection {
    runtime: tokio::runtime::Runtime,
    client: Client,
    object: ScaledObjectRef,
}

impl ScalerConnection {
    /// Connects for ScaledObjects with the first trigger of this one.
    pub(crate) fn open(address: ScalerAddress, scaled_object: &Value) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let object = ScaledObjectRef::new(scaled_object)?;
        let client = runtime.block_on(connect(&address))?;
        Ok(Self {
            runtime,
            client,
            object,
        })
    }

    /// Opens a stream about activation for a ScaledObject of this name.
    pub(crate) fn stream(&self, name: String) -> Result<Streaming<IsActiveResponse>> {
        let object = ScaledObjectRef {
            name,
            ..self.object.clone()
        };
        self.runtime.block_on(stream(self.client.clone(), object))
    }

    /// The next item of a stream.
    pub(crate) fn next(
        &self,
        stream: &mut Streaming<IsActiveResponse>,
        timeout: Duration,
    ) -> Result<Option<bool>> {
        let next = async { tokio::time::timeout(timeout, stream.message()).await };
        let next = self.runtime.block_on(next).context("nothing was sent")?;
        Ok(next?.map(|active| active.result))
    }
}

impl Keda {
    /// Serves the external metrics API for this ScaledObject.
    pub(crate) fn start(
        certificate: &ServingCertificate,
        address: ScalerAddress,
        scaled_object: &Value,
    ) -> Result<Self> {
        let object = ScaledObjectRef::new(scaled_object)?;
        let scaler = Arc::new(Scaler { address, object });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&scaler));
        let (runtime, port) = serve(certificate, router)?;
        Ok(Self {
            port,
            scaler,
            runtime,
        })
    }

    /// The HPA that KEDA maintains for the ScaledObject with this UID.
    pub(crate) fn hpa(&self, scaled_object: &Value) -> Result<Value> {
        let specs = self.runtime.block_on(self.scaler.specs())?;
        let spec = specs.all.first().context("no metric spec")?;
        let metric = format!("s0-{}", spec.name);
        Ok(keda_hpa(scaled_object, &metric, &json!(in_milli(spec))))
    }

    /// Opens a stream about activation.
    pub(crate) fn stream(&self) -> Result<Streaming<IsActiveResponse>> {
        self.runtime.block_on(self.scaler.stream())
    }

    /// The next item of a stream.
    pub(crate) fn next(&self, stream: &mut Streaming<IsActiveResponse>) -> Result<Option<bool>> {
        let next = self.runtime.block_on(stream.message())?;
        Ok(next.map(|active| active.result))
    }
}

/// Serves this over TLS on a free port.
fn serve(
    certificate: &ServingCertificate,
    router: Router,
) -> Result<(tokio::runtime::Runtime, u16)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let files = (certificate.cert_file.clone(), certificate.key_file.clone());
    let tls = runtime.block_on(RustlsConfig::from_pem_file(files.0, files.1))?;
    let server = {
        let _inside = runtime.enter();
        axum_server::from_tcp_rustls(listener, tls)?
    };
    runtime.spawn(server.serve(router.into_make_service()));
    Ok((runtime, port))
}

/// The HPA that KEDA keeps for a ScaledObject with one trigger, which has this metric and target.
fn keda_hpa(scaled_object: &Value, metric: &str, target: &Value) -> Value {
    let (of, wanted) = (&scaled_object["metadata"], &scaled_object["spec"]);
    let name = of["name"].as_str().unwrap_or_default();
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": format!("keda-hpa-{name}"),
            "labels": {"app.kubernetes.io/managed-by": "keda-operator"},
            "ownerReferences": [{
                "apiVersion": scaled_object["apiVersion"],
                "kind": scaled_object["kind"],
                "name": of["name"],
                "uid": of["uid"],
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "minReplicas": wanted["minReplicaCount"],
            "maxReplicas": wanted["maxReplicaCount"],
            "behavior": wanted["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": wanted["scaleTargetRef"]["name"],
            },
            "metrics": [{"type": "External", "external": {
                "metric": {
                    "name": metric,
                    "selector": {"matchLabels": {"scaledobject.keda.sh/name": of["name"]}},
                },
                "target": {"type": "AverageValue", "averageValue": target},
            }}],
        },
    })
}

/// The last part of a request's path.
fn metric_name(request: &Request) -> String {
    let name = request.uri().path().rsplit('/').next();
    name.unwrap_or_default().to_owned()
}

/// Discovery, by which the API server sees that the API is there.
fn discovery() -> Value {
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": [],
    })
}

fn value_list(items: Vec<Value>) -> Value {
    json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": items,
    })
}

/// A quantity as KEDA formats it: whole thousandths, and the floating-point field where there is one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "as KEDA does it"
)]
fn in_milli(named: &Named) -> String {
    let value = if named.float > 0.0 {
        named.float
    } else {
        named.whole as f64
    };
    format!("{}m", (value * 1000.0) as i64)
}

async fn connect(address: &ScalerAddress) -> Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(address.ca_pem.as_bytes())?)?;
    let certificate = CertificateDer::from_pem_slice(address.client_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(address.client_key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", address.port)).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(ServerName::try_from("localhost")?, stream)
        .await?;
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    let origin = "https://localhost".parse()?;
    let mut client = Client::with_origin(Connection(sender), origin);
    client.ready().await?;
    Ok(client)
}

async fn stream(
    mut client: Client,
    object: ScaledObjectRef,
) -> Result<Streaming<IsActiveResponse>> {
    let path = PathAndQuery::try_from(format!("{SERVICE}StreamIsActive"))?;
    client.ready().await?;
    let streamed =
        client.server_streaming(tonic::Request::new(object), path, ProstCodec::default());
    Ok(streamed.await?.into_inner())
}

impl Scaler {
    async fn specs(&self) -> Result<NamedList> {
        let path = PathAndQuery::try_from(format!("{SERVICE}GetMetricSpec"))?;
        let request = tonic::Request::new(self.object.clone());
        let mut client = connect(&self.address).await?;
        Ok(client
            .unary(request, path, ProstCodec::default())
            .await?
            .into_inner())
    }

    async fn metrics(&self, metric_name: &str) -> Result<NamedList> {
        let path = PathAndQuery::try_from(format!("{SERVICE}GetMetrics"))?;
        let request = tonic::Request::new(GetMetricsRequest {
            object: Some(self.object.clone()),
            metric_name: metric_name.to_owned(),
        });
        let mut client = connect(&self.address).await?;
        Ok(client
            .unary(request, path, ProstCodec::default())
            .await?
            .into_inner())
    }

    async fn stream(&self) -> Result<Streaming<IsActiveResponse>> {
        stream(connect(&self.address).await?, self.object.clone()).await
    }
}

async fn answer(State(scaler): State<Arc<Scaler>>, request: Request) -> Response {
    let name = metric_name(&request);
    let Some(metric) = name.strip_prefix("s0-") else {
        return json_response(&discovery());
    };
    match scaler.metrics(metric).await {
        Ok(values) => {
            let item = |value: &Named| {
                json!({
                    "metricName": name,
                    "metricLabels": null,
                    "timestamp": "2026-01-01T00:00:00Z",
                    "value": in_milli(value),
                })
            };
            json_response(&value_list(values.all.iter().map(item).collect()))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

fn json_response(body: &Value) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, body.to_string()).into_response()
}
