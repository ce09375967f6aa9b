//! The external metrics API, as the HPA controller and the API aggregator ask it.
//!
//! Every answer comes from the latest snapshot. Only a group that nobody has asked about before
//! makes a request wait, for a first read, and not long: the HPA controller has five workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_server::tls::TlsInfo;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout_at;

use super::auth::{AuthMode, Authenticator, Caller};
use super::health::Readiness;
use super::route::{GROUP, Route, VERSION};
use super::status::{Failure, json};
use super::{BuildInfo, discovery};
use crate::model::query::{self, Answer, Question, Rules};
use crate::model::refusal::Refusal;
use crate::model::selector::Selector;
use crate::model::snapshot::LagSnapshot;
use crate::model::target::{Interest, label};
use crate::model::types::Moment;
use crate::publish::Reader;
use crate::telemetry::ApiAnswered;

/// The longest that a request waits for a first read.
const FIRST_READ_WITHIN: Duration = Duration::from_secs(2);

/// Requests that wait for a first read at the same time at most.
const MAX_WAITING: usize = 256;

/// Groups that one request may name at most, times clusters.
const MAX_INTERESTS: usize = 32;

/// What the API answers from and by which rules.
#[derive(Debug)]
pub struct ExternalOptions {
    /// The snapshots.
    pub reader: Reader,
    /// The rules that values follow.
    pub rules: Rules,
    /// Where to say which groups requests ask for. Never waited for.
    pub interests: mpsc::Sender<Interest>,
    /// Who may ask.
    pub auth: AuthMode,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/version`.
    pub build: BuildInfo,
}

#[derive(Debug)]
struct Api {
    reader: Reader,
    rules: Rules,
    interests: mpsc::Sender<Interest>,
    waiting: Semaphore,
    authenticator: Authenticator,
    readiness: Readiness,
    build: BuildInfo,
}

/// The API's router. It expects client certificates as the TLS listener leaves them.
pub fn router(options: ExternalOptions) -> Router {
    let api = Api {
        reader: options.reader,
        rules: options.rules,
        interests: options.interests,
        waiting: Semaphore::new(MAX_WAITING),
        authenticator: Authenticator::new(options.auth),
        readiness: options.readiness,
        build: options.build,
    };
    // One entry for every path, so that all the rest of the world is a Status object too.
    Router::new().fallback(respond).with_state(Arc::new(api))
}

async fn respond(State(api): State<Arc<Api>>, request: Request) -> Response {
    let began = Instant::now();
    let (parts, _body) = request.into_parts();
    let path = parts.uri.path();
    let route = Route::of(path);
    let response = match api.respond(&route, &parts).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    };
    ApiAnswered {
        request: route.label(),
        code: response.status().as_u16(),
        path,
        took: began.elapsed(),
    }
    .emit();
    response
}

impl Api {
    async fn respond(&self, route: &Route<'_>, request: &Parts) -> Result<Response, Failure> {
        match route {
            Route::Live | Route::Ready => only_get(&request.method)?,
            // The aggregator asks for these documents for ever where the answer is another.
            Route::OpenApi => return Err(no_such_path()),
            _ => {
                let tls = request.extensions.get::<Arc<TlsInfo>>();
                let Caller { user, .. } = self
                    .authenticator
                    .authenticate(tls.map(Arc::as_ref), &request.headers)
                    .map_err(|unknown| Failure::unauthorized(unknown.to_string()))?;
                tracing::trace!(user, "authenticated");
                only_get(&request.method)?;
            }
        }
        match route {
            Route::Live => Ok("ok".into_response()),
            Route::Ready => match self.readiness.check(Instant::now()) {
                Ok(()) => Ok("ok".into_response()),
                Err(reason) => Err(Failure::unavailable(reason.to_string())),
            },
            Route::Version => Ok(discovery::version(&self.build.version)),
            Route::GroupList => Ok(discovery::group_list(&request.headers)),
            Route::Group => Ok(discovery::group_document()),
            Route::ResourceList => Ok(discovery::resource_list()),
            Route::Metric { namespace, metric } => {
                let parameters = Parameters::of(request.uri.query());
                if parameters.watch {
                    return Err(Failure::not_allowed("external metrics cannot be watched"));
                }
                let selector = Selector::parse(&parameters.label_selector)
                    .map_err(|error| Failure::bad_request(error.to_string()))?;
                let question = Question {
                    namespace,
                    metric,
                    selector: &selector,
                };
                let answer = self.value(&question).await?;
                list(&question, &answer)
            }
            Route::OpenApi | Route::Nothing => Err(no_such_path()),
        }
    }

    /// The value, after a first read where there was none.
    async fn value(&self, question: &Question<'_>) -> Result<Answer, Failure> {
        let snapshot = self.reader.latest();
        let interests = query::interests(question, &snapshot.targets)?;
        if interests.len() > MAX_INTERESTS {
            return Err(Failure::bad_request(format!(
                "the selector names {} consumer groups: at most {MAX_INTERESTS} per metric",
                interests.len()
            )));
        }
        match query::answer(question, &snapshot, &Moment::now(), &self.rules) {
            Err(Refusal::NotYetRead(unread)) => self.first_read(question, unread, &snapshot).await,
            answered => {
                self.keep_watched(interests, &snapshot);
                Ok(answered?)
            }
        }
    }

    /// Asks for what no HPA and no configuration already has read.
    fn ask_for(&self, unread: &[Interest], snapshot: &LagSnapshot) -> Result<(), Failure> {
        let targets = &snapshot.targets.all;
        for interest in unread {
            if !targets.iter().any(|target| target.interest == *interest) {
                self.interests.try_send(interest.clone()).map_err(|_| {
                    Failure::unavailable("too many new consumer groups are asked for at once")
                })?;
            }
        }
        Ok(())
    }

    /// Says again that a group is asked for, so that it is not forgotten. These messages leave
    /// half of the channel to groups that are new.
    fn keep_watched(&self, interests: Vec<Interest>, snapshot: &LagSnapshot) {
        let has_room = || self.interests.capacity() > self.interests.max_capacity() / 2;
        for interest in interests {
            if snapshot.targets.interests.contains(&interest) && has_room() {
                // Full or closed: the next request says it again.
                let _ = self.interests.try_send(interest);
            }
        }
    }

    async fn first_read(
        &self,
        question: &Question<'_>,
        mut unread: Vec<Interest>,
        snapshot: &LagSnapshot,
    ) -> Result<Answer, Failure> {
        // Before anything is asked of Kafka, so that refused requests cost it nothing.
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(Failure::unavailable(
                "too many requests wait for a first read",
            ));
        };
        self.ask_for(&unread, snapshot)?;
        let deadline = tokio::time::Instant::now() + FIRST_READ_WITHIN;
        let mut reader = self.reader.clone();
        while let Ok(true) = timeout_at(deadline, reader.changed()).await {
            let snapshot = reader.latest();
            match query::answer(question, &snapshot, &Moment::now(), &self.rules) {
                Err(Refusal::NotYetRead(still)) => unread = still,
                answered => return Ok(answered?),
            }
        }
        Err(unread_cause(unread, &self.reader.latest()).into())
    }
}

/// Why a first read did not come: what keeps the cluster from answering, where that is known.
fn unread_cause(unread: Vec<Interest>, snapshot: &LagSnapshot) -> Refusal {
    let cause = unread.iter().find_map(|interest| {
        let cluster = snapshot.clusters.get(&interest.cluster)?;
        Some((interest, cluster.connection.as_ref()?))
    });
    match cause {
        Some((interest, fault)) => Refusal::Unknown {
            group: interest.group.clone(),
            cluster: interest.cluster.clone(),
            cause: fault.reason.to_string(),
        },
        None => Refusal::NotYetRead(unread),
    }
}

fn only_get(method: &Method) -> Result<(), Failure> {
    if method == Method::GET {
        Ok(())
    } else {
        Err(Failure::not_allowed("only GET is served here"))
    }
}

fn no_such_path() -> Failure {
    Failure::not_found("the server could not find the requested resource")
}

/// The query parameters that mean something here; `limit` and `continue` do not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    label_selector: String,
    watch: bool,
}

impl Parameters {
    /// Reads a query as Kubernetes does: the first of several counts, and a flag that is there is
    /// true unless it says `0` or `false`.
    fn of(query: Option<&str>) -> Self {
        let (mut label_selector, mut watch) = (None, None);
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "labelSelector" => {
                    label_selector.get_or_insert(value);
                }
                "watch" => {
                    watch.get_or_insert(value != "0" && !value.eq_ignore_ascii_case("false"));
                }
                _ => {}
            }
        }
        Self {
            label_selector: label_selector.unwrap_or_default().into_owned(),
            watch: watch.unwrap_or(false),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValueList<'a> {
    kind: &'static str,
    api_version: String,
    metadata: BTreeMap<&'static str, &'static str>,
    items: [ExternalMetricValue<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValue<'a> {
    metric_name: &'a str,
    metric_labels: BTreeMap<&'static str, &'a str>,
    timestamp: String,
    value: String,
}

fn list(question: &Question<'_>, answer: &Answer) -> Result<Response, Failure> {
    let keys = [
        label::GROUP,
        label::TOPIC,
        label::CLUSTER,
        label::HPA,
        label::TARGET,
    ];
    let pinned = |key: &'static str| match question.selector.values(key) {
        Some([value]) => Some((key, value.as_str())),
        _ => None,
    };
    let body = ExternalMetricValueList {
        kind: "ExternalMetricValueList",
        api_version: format!("{GROUP}/{VERSION}"),
        metadata: BTreeMap::new(),
        items: [ExternalMetricValue {
            metric_name: question.metric,
            metric_labels: keys.into_iter().filter_map(pinned).collect(),
            timestamp: humantime::format_rfc3339_seconds(answer.read.wall).to_string(),
            value: answer.value.to_string(),
        }],
    };
    let body = serde_json::to_vec(&body).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(json(StatusCode::OK, body))
}

#[cfg(test)]
#[path = "external_tests.rs"]
mod tests;
