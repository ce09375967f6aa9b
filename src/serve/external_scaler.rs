//! The gRPC service `externalscaler.ExternalScaler`, which KEDA calls for triggers of type `external` and
//! `external-push`: KEDA keeps the slot for external metrics, and lagwise supplies lag, cap and activation.
//!
//! tonic encodes and decodes; the listener and its bounds are those of all servers. KEDA sends the calls for all
//! ScaledObjects on one connection.

mod answers;
mod callers;
pub(super) mod forwarded;
mod messages;
mod reading;
mod reflection;
mod status;
mod streams;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tonic::server::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use self::messages::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, HealthCheckRequest,
    HealthCheckResponse, HealthStatus, IsActiveResponse, MetricSpec, ScaledObjectRef,
    ScalerMetricValue,
};
use self::reading::{MessageTurns, network_of, read_message};
use self::reflection::Reflection;
use self::streams::{ActivityStream, spec_stream};
use super::admission::RequestAdmission;
use super::auth::RequestAuth;
use super::connection_peer::ConnectionPeer;
use super::connections::PeerRank;
use super::health::Readiness;
use super::holder_permits::{HolderPermit, HolderPermits};
use super::listen::MAX_SCALER_STREAMS_OF_ADDRESS;
use crate::model::keda::external_trigger::{ExternalTrigger, MAX_METADATA_BYTES};
use crate::model::keda::external_value::{as_float, whole_target, whole_value};
use crate::model::units::untrusted_text::Printable;
use crate::telemetry::api::ScalerAnswered;

pub use self::answers::TriggerAnswers;
pub use self::callers::{ClientCa, ClientCaError};

/// Maximum bytes of a request: the metadata that is read, and what KEDA adds.
const MAX_REQUEST_BYTES: usize = 4 * MAX_METADATA_BYTES;

/// Time for reading and answering one request. A first read takes up to 2 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of open streams. KEDA opens two for each trigger of type `external-push`. One address may have half
/// of them, and so may all addresses of an IPv6 network together. The listener allows more concurrent requests on a
/// connection than that, so that streams leave room for other calls.
const MAX_STREAMS: usize = 2 * MAX_SCALER_STREAMS_OF_ADDRESS as usize;

/// Maximum number of health checks in progress. Their callers are not authenticated, and each takes memory until its
/// message is read.
const MAX_HEALTH_CHECKS: usize = 64;

/// Dependencies and settings of the external scaler.
#[derive(Debug)]
pub struct ExternalScalerOptions {
    pub answers: Arc<TriggerAnswers>,
    pub auth: RequestAuth,
    /// For the health service.
    pub readiness: Readiness,
    /// Time from one sweep of Kafka to the next.
    pub poll_interval: Duration,
    /// Becomes true at shutdown, which ends all streams.
    pub closing: watch::Receiver<bool>,
}

#[derive(Debug)]
struct ExternalScaler {
    answers: Arc<TriggerAnswers>,
    admission: RequestAdmission,
    readiness: Readiness,
    poll_interval: Duration,
    closing: watch::Receiver<bool>,
    namespace_streams: HolderPermits,
    network_streams: HolderPermits,
    turns: MessageTurns,
    reflection: Reflection,
    health_checks: Arc<Semaphore>,
}

/// The permit of an open stream.
#[derive(Debug)]
struct StreamPermit {
    _of_network: HolderPermit,
    _of_namespace: HolderPermit,
}

/// Router of the service.
pub fn router(options: ExternalScalerOptions) -> Router {
    let scaler = Arc::new(ExternalScaler {
        answers: options.answers,
        admission: RequestAdmission::new(options.auth),
        readiness: options.readiness,
        poll_interval: options.poll_interval,
        reflection: Reflection::new(options.closing.clone()),
        closing: options.closing,
        namespace_streams: HolderPermits::new(MAX_STREAMS),
        network_streams: HolderPermits::new(MAX_STREAMS),
        turns: MessageTurns::new(),
        health_checks: Arc::new(Semaphore::new(MAX_HEALTH_CHECKS)),
    });
    Router::new().fallback_service(service_fn(move |request: Request| {
        let scaler = Arc::clone(&scaler);
        async move { Ok::<_, Infallible>(scaler.respond(request).await) }
    }))
}

/// Handles a call of one method with a function from request to answer.
macro_rules! call {
    ($kind:ident, $request:expr, $answer:expr) => {
        Grpc::new(ProstCodec::default())
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .$kind(
                service_fn(move |message: tonic::Request<_>| {
                    let answer = $answer(message.into_inner());
                    async move { answer.await.map(tonic::Response::new) }
                }),
                $request,
            )
            .await
    };
}

impl ExternalScaler {
    /// Answers a call and counts it.
    async fn respond(self: Arc<Self>, request: Request) -> Response {
        let path = request.uri().path();
        let method = match path.strip_prefix(messages::SERVICE) {
            Some("IsActive") => "IsActive",
            Some("StreamIsActive") => "StreamIsActive",
            Some("GetMetricSpec") => "GetMetricSpec",
            Some("GetMetrics") => "GetMetrics",
            Some("StreamMetricSpec") => "StreamMetricSpec",
            _ if path == messages::HEALTH_CHECK => "Check",
            _ if reflection::PATHS.contains(&path) => "ServerReflectionInfo",
            _ => "other",
        };
        let called = timeout(REQUEST_TIMEOUT, self.call(method, request));
        let response = called
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the request took too long")))
            .unwrap_or_else(Status::into_http::<Body>);
        let code = response.headers().get(Status::GRPC_STATUS);
        let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        ScalerAnswered {
            method,
            code: status::label(code),
        }
        .emit();
        response
    }

    async fn call(self: Arc<Self>, method: &str, request: Request) -> Result<Response, Status> {
        if method == "other" {
            return Err(Status::unimplemented("lagwise has no such method"));
        }
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Arc<ConnectionPeer>>().cloned();
        if method == "ServerReflectionInfo" {
            self.authenticate(&parts).await?;
            let request = Request::from_parts(parts, body);
            return self
                .reflection
                .open(request, &network_of(peer.as_deref()))
                .await;
        }
        let health_check = match method {
            "Check" => Some(self.acquire_health_check()?),
            _ => {
                self.authenticate(&parts).await?;
                None
            }
        };
        reading::refuse_compression(&parts.headers)?;
        // The headers may be large, and the request may wait from here on.
        drop(parts);
        let message = match health_check.is_some() {
            true => read_message(body).await?,
            false => self.turns.read(body, peer.as_deref()).await?,
        };
        let request = Request::new(Body::from(message));
        let response = match method {
            "IsActive" => call!(unary, request, |object| Arc::clone(&self).is_active(object)),
            "GetMetricSpec" => call!(unary, request, |object| async move { spec(&object) }),
            "GetMetrics" => call!(unary, request, |message| Arc::clone(&self).metrics(message)),
            "StreamIsActive" => {
                let open = |object| Arc::clone(&self).stream_activity(object, peer.clone());
                call!(server_streaming, request, open)
            }
            "StreamMetricSpec" => {
                let open = |object| Arc::clone(&self).stream_spec(object, peer.clone());
                call!(server_streaming, request, open)
            }
            _ => call!(unary, request, |message| Arc::clone(&self).health(message)),
        };
        Ok(response.map(Body::new))
    }

    async fn authenticate(&self, parts: &axum::http::request::Parts) -> Result<(), Status> {
        let authenticated = self.admission.authenticate(parts).await;
        let authenticated = authenticated.map_err(|failure| match failure.code().as_u16() {
            401 => Status::unauthenticated(callers::UNAUTHENTICATED),
            _ => status::from_failure(&failure),
        })?;
        match authenticated.identity.rank {
            PeerRank::Unknown if !self.admission.is_open() => {
                Err(Status::unauthenticated(callers::UNAUTHENTICATED))
            }
            _ => Ok(()),
        }
    }

    async fn is_active(
        self: Arc<Self>,
        object: ScaledObjectRef,
    ) -> Result<IsActiveResponse, Status> {
        let trigger = parse(&object)?;
        let answer = self.answers.answer(&trigger).await.result?;
        let result = answer.is_active;
        Ok(IsActiveResponse { result })
    }

    async fn metrics(
        self: Arc<Self>,
        request: GetMetricsRequest,
    ) -> Result<GetMetricsResponse, Status> {
        let object = request.scaled_object_ref.unwrap_or_default();
        let trigger = parse(&object)?;
        let name = &trigger.external.name;
        if *name != request.metric_name && !request.metric_name.is_empty() {
            return Err(Status::invalid_argument(format!(
                "the metric of this trigger is {name:?}, and not {:?}; ask for its metric spec again",
                Printable::name(&request.metric_name).to_string()
            )));
        }
        let answer = self.answers.answer(&trigger).await.result?;
        Ok(GetMetricsResponse {
            metric_values: vec![ScalerMetricValue {
                metric_name: name.clone(),
                metric_value: whole_value(answer.value, trigger.target()),
                metric_value_float: as_float(answer.value),
            }],
        })
    }

    async fn stream_activity(
        self: Arc<Self>,
        object: ScaledObjectRef,
        peer: Option<Arc<ConnectionPeer>>,
    ) -> Result<BoxStream<'static, Result<IsActiveResponse, Status>>, Status> {
        let trigger = parse(&object)?;
        let permit = self.acquire_stream(&object, peer.as_deref())?;
        let stream = ActivityStream {
            answers: Arc::clone(&self.answers),
            trigger,
            poll_interval: self.poll_interval,
            closing: self.closing.clone(),
            last: None,
            was_leader: false,
            _permit: permit,
        };
        Ok(Box::pin(stream.into_stream()))
    }

    async fn stream_spec(
        self: Arc<Self>,
        object: ScaledObjectRef,
        peer: Option<Arc<ConnectionPeer>>,
    ) -> Result<BoxStream<'static, Result<GetMetricSpecResponse, Status>>, Status> {
        let spec = spec(&object)?;
        let permit = self.acquire_stream(&object, peer.as_deref())?;
        Ok(Box::pin(spec_stream(spec, self.closing.clone(), permit)))
    }

    fn acquire_stream(
        &self,
        object: &ScaledObjectRef,
        peer: Option<&ConnectionPeer>,
    ) -> Result<StreamPermit, Status> {
        let too_many = |whose| {
            Status::resource_exhausted(format!(
                "at most {MAX_STREAMS} streams may be open, and half of them for one {whose}; use triggers of type external instead of external-push"
            ))
        };
        let of_network = self.network_streams.try_acquire(&network_of(peer));
        let of_namespace = self.namespace_streams.try_acquire(&object.namespace);
        Ok(StreamPermit {
            _of_network: of_network.ok_or_else(|| too_many("address"))?,
            _of_namespace: of_namespace.ok_or_else(|| too_many("namespace"))?,
        })
    }

    fn acquire_health_check(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.health_checks).try_acquire_owned();
        permit.map_err(|_| Status::resource_exhausted("too many health checks are in progress"))
    }

    async fn health(
        self: Arc<Self>,
        request: HealthCheckRequest,
    ) -> Result<HealthCheckResponse, Status> {
        let own = messages::SERVICE.trim_matches('/');
        if !request.service.is_empty() && request.service != own {
            return Err(Status::not_found("lagwise has no such service"));
        }
        let serving = match self.readiness.check(std::time::Instant::now()) {
            Ok(()) => HealthStatus::Serving,
            Err(_) => HealthStatus::NotServing,
        };
        Ok(HealthCheckResponse {
            status: serving.into(),
        })
    }
}

fn parse(object: &ScaledObjectRef) -> Result<Arc<ExternalTrigger>, Status> {
    let metadata = object.scaler_metadata.iter();
    let metadata = metadata.map(|(key, value)| (key.as_str(), value.as_str()));
    ExternalTrigger::parse(&object.namespace, &object.name, metadata)
        .map(Arc::new)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

fn spec(object: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
    let trigger = parse(object)?;
    Ok(GetMetricSpecResponse {
        metric_specs: vec![MetricSpec {
            metric_name: trigger.external.name.clone(),
            target_size: whole_target(trigger.target()),
            target_size_float: as_float(trigger.target()),
        }],
    })
}

#[cfg(test)]
mod tests;
