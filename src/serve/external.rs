//! The external metrics API, for the HPA controller and the API aggregator.
//!
//! Every response comes from the evaluations of the latest snapshot. Only a request for a group that was never
//! read waits for a first read, and only briefly, because the HPA controller has just five workers by default.

mod leader_routing;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tower::service_fn;

use super::access_log::{AccessLog, AccessLogSampler};
use super::admission::RequestAdmission;
use super::api_error::ApiFailure;
use super::auth::RequestAuth;
use super::discovery::DiscoveryDocuments;
use super::external_scaler::TriggerAnswers;
use super::first_read::FirstReadLimiter;
use super::forward::{self, Forwarder};
use super::health::Readiness;
use super::history::HpaHistoryHandle;
use super::leader_router::LeaderRouter;
use super::request::{Parameters, require_get, require_json};
use super::route::Route;
use super::upstream::{Upstream, UpstreamRequest};
use super::{BuildInfo, discovery};
use crate::authentication::access::Caller;
use crate::leader_election::Leading;
use crate::model::evaluation::MetricValue;
use crate::model::hpa::selector::Selector;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::WatchKey;
use crate::model::targets::lookup::resolve;
use crate::model::targets::metric_query::{AdHocQuery, MetricQuery};
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::tenancy::Tenancy;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;
use crate::telemetry::api::ApiAnswered;

/// How long a request waits for a first read.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Dependencies and settings of the API.
#[derive(Debug)]
pub struct ExternalOptions {
    pub reader: SnapshotReader,
    /// Which namespaces may use which groups.
    pub tenancy: Tenancy,
    /// Whether this daemon leads, and who else does.
    pub leading: Leading,
    /// Forwards requests to the leader if that is another daemon; `None` without leader election.
    pub forwarder: Option<Arc<Forwarder>>,
    /// Answers followers' requests about triggers of KEDA; `None` without external scaler.
    pub triggers: Option<Arc<TriggerAnswers>>,
    /// The history of HPAs, for other replicas, which may lead next.
    pub history: HpaHistoryHandle,
    /// Answers requests for metrics that are not lagwise's.
    pub upstream: Option<Upstream>,
    /// Receives the groups that requests name. Sending never blocks.
    pub watch_keys: mpsc::Sender<WatchKey>,
    /// Receives answered queries that belong to no HPA. Sending never blocks.
    pub queries: mpsc::Sender<AdHocQuery>,
    pub auth: RequestAuth,
    pub access_log: AccessLog,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/version`.
    pub build: BuildInfo,
}

#[derive(Debug)]
struct ExternalMetricsApi {
    router: LeaderRouter,
    triggers: Option<Arc<TriggerAnswers>>,
    history: HpaHistoryHandle,
    tenancy: Tenancy,
    upstream: Option<Upstream>,
    /// Discovery documents without the metrics of an upstream.
    discovery: DiscoveryDocuments,
    first_reads: FirstReadLimiter,
    admission: RequestAdmission,
    sampler: AccessLogSampler,
    readiness: Readiness,
    build: BuildInfo,
}

/// Router of the API. It expects the client certificate in the request's extensions, where the TLS listener
/// puts it.
pub fn router(options: ExternalOptions) -> Router {
    let api = Arc::new(ExternalMetricsApi {
        router: LeaderRouter {
            reader: options.reader,
            leading: options.leading,
            forwarder: options.forwarder,
        },
        triggers: options.triggers,
        history: options.history,
        tenancy: options.tenancy,
        upstream: options.upstream,
        discovery: DiscoveryDocuments::new(&[]),
        first_reads: FirstReadLimiter::new(options.watch_keys, options.queries),
        admission: RequestAdmission::new(options.auth),
        sampler: AccessLogSampler::new(options.access_log),
        readiness: options.readiness,
        build: options.build,
    });
    // One handler for all paths, so that an unknown path also gets a Status object.
    Router::new().fallback_service(service_fn(move |request: Request| {
        let (api, (parts, _)) = (Arc::clone(&api), request.into_parts());
        async move { Ok::<_, Infallible>(respond(&api, &parts).await) }
    }))
}

/// Answers a request and logs it.
async fn respond(api: &ExternalMetricsApi, parts: &Parts) -> Response {
    let began = Instant::now();
    let path = parts.uri.path();
    let route = Route::parse(path);
    let parameters = Parameters::parse(parts.uri.query());
    let verb = route.verb(&parts.method, parameters.watch);
    let request = ApiRequest {
        route,
        verb,
        parameters,
        parts,
    };
    let mut caller = None;
    let answered = api.respond(&request, &mut caller).await;
    let response = answered.unwrap_or_else(ApiFailure::into_response);
    let (code, took) = (response.status(), began.elapsed());
    let logged = match request.route {
        Route::Live | Route::Ready => None,
        _ => api.sampler.sample(code.as_u16(), began + took),
    };
    ApiAnswered {
        request: request.route.label(),
        verb,
        metric: request.route.metric_label(),
        code,
        path,
        user: caller.as_ref().map(|caller| caller.user.as_str()),
        took,
        logged,
    }
    .emit();
    response
}

/// A parsed request.
struct ApiRequest<'a> {
    route: Route<'a>,
    verb: &'static str,
    parameters: Parameters<'a>,
    parts: &'a Parts,
}

impl ExternalMetricsApi {
    async fn respond(
        &self,
        request: &ApiRequest<'_>,
        caller: &mut Option<Arc<Caller>>,
    ) -> Result<Response, ApiFailure> {
        let (route, method) = (&request.route, &request.parts.method);
        match route {
            Route::Live => {
                require_get(method)?;
                return Ok("ok".into_response());
            }
            Route::Ready => {
                require_get(method)?;
                return match self.readiness.check(Instant::now()) {
                    Ok(()) => Ok("ok".into_response()),
                    Err(reason) => Err(ApiFailure::unavailable(reason.to_string())),
                };
            }
            // On any other status than 404 the aggregator retries these documents forever.
            Route::OpenApi => return Err(no_such_path()),
            // There is no access review for paths that do not exist, because their number is unlimited.
            Route::Nothing => {
                require_get(method)?;
                return Err(no_such_path());
            }
            route if route.is_for_replicas() && !forward::is_forwarded(&request.parts.headers) => {
                return Err(no_such_path());
            }
            Route::Metric { namespace, metric }
                if Metric::from_name(metric).is_none()
                    && !(self.upstream.is_some() && Upstream::may_have(namespace, metric)) =>
            {
                require_get(method)?;
                let metric = metric.clone().into_owned();
                return Err(NoValueReason::UnknownMetric { metric }.into());
            }
            _ => {}
        }
        let authenticated = self.admission.authenticate(request.parts).await?;
        let caller = caller.insert(Arc::clone(authenticated.caller()));
        let is_forwarded = self.is_forwarded(caller, request).await?;
        if is_forwarded {
            authenticated.trust();
        }
        if route.is_for_replicas() && !is_forwarded {
            return Err(no_such_path());
        }
        // The follower that forwards a request has authorized its caller.
        if !is_forwarded || self.admission.is_open() {
            let action = route.action(request.verb, request.parts.uri.path());
            self.admission.authorize(&authenticated, &action).await?;
        }
        require_get(method)?;
        require_json(&request.parts.headers)?;
        match route {
            Route::Version => Ok(discovery::version(&self.build.version)),
            Route::GroupList => Ok(match &self.upstream {
                None => self.discovery.group_list(&request.parts.headers),
                Some(upstream) => upstream
                    .discovery()
                    .await
                    .group_list(&request.parts.headers),
            }),
            Route::Group => Ok(discovery::group_document()),
            Route::ResourceList => Ok(match &self.upstream {
                None => self.discovery.resource_list(),
                Some(upstream) => upstream.discovery().await.resource_list(),
            }),
            Route::Metric { namespace, metric } => {
                if request.parameters.watch {
                    return Err(ApiFailure::not_allowed(
                        "external metrics cannot be watched",
                    ));
                }
                if let Some(upstream) = &self.upstream
                    && Metric::from_name(metric).is_none()
                {
                    let request = UpstreamRequest {
                        namespace,
                        metric,
                        query: request.parts.uri.query(),
                        headers: &request.parts.headers,
                        rank: authenticated.identity.rank,
                    };
                    return Ok(Box::pin(upstream.pass_on(&request)).await?);
                }
                let selector = Selector::parse(&request.parameters.label_selector)
                    .map_err(|error| ApiFailure::bad_request(error.to_string()))?;
                let query = MetricQuery {
                    namespace,
                    metric,
                    selector: &selector,
                };
                self.metric(&query, request, is_forwarded).await
            }
            Route::Trigger => self.forwarded_trigger(request).await,
            Route::History => self.history_part(request).await,
            Route::Live | Route::Ready | Route::OpenApi | Route::Nothing => Err(no_such_path()),
        }
    }

    /// The value at `now`, after a first read if a group was never read.
    async fn value(
        &self,
        query: &MetricQuery<'_>,
        is_forwarded: bool,
        snapshot: &LagSnapshot,
        now: &Moment,
    ) -> Result<MetricValue, ApiFailure> {
        let first_read = match self.look_up(query, snapshot, now)? {
            Lookup::Value(value) => return Ok(value),
            // Rare and large: boxed, so that the futures of the other requests stay small.
            Lookup::Unread(unread) => {
                Box::pin(self.first_read(query, is_forwarded, unread, snapshot))
            }
        };
        first_read.await
    }

    fn look_up(
        &self,
        query: &MetricQuery<'_>,
        snapshot: &LagSnapshot,
        now: &Moment,
    ) -> Result<Lookup, ApiFailure> {
        let evaluations = &snapshot.evaluations;
        let of_hpa = evaluations.of_hpa(query);
        let known = of_hpa.or_else(|| evaluations.of_ad_hoc(query));
        let resolved = match known {
            Some(evaluation) => evaluation.resolved.clone().map_err(|reason| *reason)?,
            None => Arc::new(resolve(query, &snapshot.targets)?),
        };
        self.tenancy
            .check(query.namespace, resolved.watch_keys())
            .map_err(|error| ApiFailure::forbidden(error.to_string()))?;
        let evaluations = snapshot.at(now);
        let value = match known {
            Some(evaluation) => evaluations.value(evaluation),
            None => {
                let evaluation = snapshot.evaluations.evaluate(query, Arc::clone(&resolved));
                evaluations.value(&evaluation)
            }
        };
        match value {
            Err(NoValueReason::NotYetRead(unread)) => Ok(Lookup::Unread(unread)),
            value => {
                self.first_reads
                    .keep_watched(resolved.watch_keys(), snapshot);
                if of_hpa.is_none() {
                    self.first_reads.keep_evaluated(query, resolved.metric);
                }
                Ok(Lookup::Value(value?))
            }
        }
    }

    /// Requests the poller to read these groups, and waits for the value for at most [`FIRST_READ_TIMEOUT`].
    async fn first_read(
        &self,
        query: &MetricQuery<'_>,
        is_forwarded: bool,
        mut unread: Vec<WatchKey>,
        snapshot: &LagSnapshot,
    ) -> Result<MetricValue, ApiFailure> {
        let _permit = self.first_reads.acquire(query.namespace, is_forwarded)?;
        self.first_reads
            .request(query.namespace, &unread, snapshot)?;
        let deadline = tokio::time::Instant::now() + FIRST_READ_TIMEOUT;
        let mut reader = self.router.reader.clone();
        while let Ok(true) = timeout_at(deadline, reader.changed()).await {
            let snapshot = reader.latest();
            // Check each snapshot: a new HPA may have mapped the selector to another group since.
            match self.look_up(query, &snapshot, &Moment::now())? {
                Lookup::Value(value) => return Ok(value),
                Lookup::Unread(remaining) => unread = remaining,
            }
        }
        Err(unread_cause(unread, &self.router.reader.latest()).into())
    }
}

/// Result of looking up a query in a snapshot.
enum Lookup {
    Value(MetricValue),
    /// These groups must be read first.
    Unread(Vec<WatchKey>),
}

/// Why a first read did not finish in time: the fault of the cluster, if it has one.
fn unread_cause(unread: Vec<WatchKey>, snapshot: &LagSnapshot) -> NoValueReason {
    let cause = unread.iter().find_map(|watch_key| {
        let cluster = snapshot.clusters.get(&watch_key.cluster)?;
        Some((watch_key, cluster.connection.as_ref()?))
    });
    match cause {
        Some((watch_key, fault)) => NoValueReason::Unknown {
            group: watch_key.group.clone(),
            cluster: watch_key.cluster.clone(),
            cause: fault.reason.to_string(),
        },
        None => NoValueReason::NotYetRead(unread),
    }
}

fn no_such_path() -> ApiFailure {
    ApiFailure::not_found("the server could not find the requested resource")
}

#[cfg(test)]
mod tests;
