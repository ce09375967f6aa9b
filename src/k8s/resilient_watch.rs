//! Watches that continue after an outage of the API server, and log it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::core::Status;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::api_error::text_with_causes;
use super::client::WATCH_SECONDS;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::{WatchLost, WatchRestored};

/// Timeout for the next page or event of a listing. Afterwards only changes are awaited, and silence is
/// no failure.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a watch must run after a failure before that counts as over: an API server may answer every
/// listing and then refuse the watch.
const RESTORED_AFTER: Duration = Duration::from_secs(5);

/// Events of a watch that never ends. After a failure it lists everything again, with kube's default
/// backoff. A watch that was merely resumed would stay silent until something changes; a listing shows at
/// once that the API server is back.
pub(super) fn events<K>(
    api: Api<K>,
    config: watcher::Config,
    watched: &'static str,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let start = ResilientWatch {
        api,
        config: config.timeout(WATCH_SECONDS),
        watched,
        stream: None,
        is_listing: false,
        backoff: DefaultBackoff::default(),
        failures: FailureLog::default(),
        failing_since: None,
    };
    stream::unfold(start, |mut watching| async move {
        let event = watching.next().await;
        Some((event, watching))
    })
}

struct ResilientWatch<K> {
    api: Api<K>,
    config: watcher::Config,
    watched: &'static str,
    stream: Option<BoxStream<'static, watcher::Result<Event<K>>>>,
    /// Whether the listing is not complete yet.
    is_listing: bool,
    backoff: DefaultBackoff,
    failures: FailureLog<FailureKind>,
    failing_since: Option<Instant>,
}

/// What kind of failure it is. The text of one kind may differ each time, and is logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureKind {
    /// The API server answers with this HTTP status code.
    Refused(u16),
    /// The API server does not answer.
    NoAnswer,
}

impl<K> ResilientWatch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Event<K> {
        loop {
            let stream = self.stream.get_or_insert_with(|| {
                self.is_listing = true;
                watcher(self.api.clone(), self.config.clone()).boxed()
            });
            let timeout = match (self.is_listing, self.failures.is_failing()) {
                (true, _) => Some(LIST_TIMEOUT),
                (false, true) => Some(RESTORED_AFTER),
                (false, false) => None,
            };
            let next = match timeout {
                Some(timeout) => tokio::time::timeout(timeout, stream.next()).await,
                None => Ok(stream.next().await),
            };
            match next {
                Ok(Some(Ok(event))) => {
                    self.observe_event(&event);
                    return event;
                }
                Ok(Some(Err(error))) if is_expired(&error) => self.list_again().await,
                Ok(Some(Err(error))) => self.report_failure(kind(&error), &reason(&error)).await,
                Ok(None) => self.list_again().await,
                Err(_) if self.is_listing => {
                    let reason = "the API server did not answer in time";
                    self.report_failure(FailureKind::NoAnswer, reason).await;
                }
                Err(_) => self.report_recovery(),
            }
        }
    }

    fn observe_event(&mut self, event: &Event<K>) {
        self.is_listing = matches!(event, Event::Init | Event::InitApply(_));
        // These come from the watch itself, so it works.
        if matches!(event, Event::Apply(_) | Event::Delete(_)) {
            self.report_recovery();
        }
    }

    fn report_recovery(&mut self) {
        self.backoff = DefaultBackoff::default();
        self.failures.record_success();
        if let Some(since) = self.failing_since.take() {
            WatchRestored {
                watched: self.watched,
                after: since.elapsed(),
            }
            .emit();
        }
    }

    /// Starts over with a listing after the backoff, which also limits the requests to an API server that expires every
    /// listing.
    async fn list_again(&mut self) {
        self.stream = None;
        let backoff = self.backoff.next().unwrap_or(LIST_TIMEOUT);
        tokio::time::sleep(backoff).await;
    }

    /// Logs a failure of a new kind, and lists again.
    async fn report_failure(&mut self, kind: FailureKind, reason: &str) {
        if self.failures.record_failure(kind).is_some() {
            WatchLost {
                watched: self.watched,
                reason,
            }
            .emit();
        }
        self.failing_since.get_or_insert_with(Instant::now);
        self.list_again().await;
    }
}

/// Whether the API server no longer keeps the changes since the last event. That happens to every watch occasionally
/// and is not a failure: the watch lists again.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(kind(error), FailureKind::Refused(410))
}

fn kind(error: &watcher::Error) -> FailureKind {
    status(error).map_or(FailureKind::NoAnswer, |status| {
        FailureKind::Refused(status.code)
    })
}

/// The API server's message if it answered; otherwise every cause.
fn reason(error: &watcher::Error) -> String {
    if let Some(status) = status(error).filter(|status| !status.message.is_empty()) {
        return status.message.clone();
    }
    text_with_causes(error)
}

fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::{Request, Response, StatusCode};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// Behaviour of the API server for one request.
    #[derive(Clone, Copy, Debug)]
    enum WatchStep {
        Refuse(u16),
        /// Lists one object of this name.
        List(&'static str),
        /// Watches, reports one object of this name, and ends the stream.
        Change(&'static str),
        /// Watches, and says that what happened since is no longer kept.
        Expire,
        /// Never answers.
        Hang,
    }

    fn map(name: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "n", "resourceVersion": "7"},
        })
    }

    fn refusal(code: u16) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "not now", "reason": "Because", "code": code,
        })
    }

    /// A client of an API server that takes these steps, then hangs.
    fn client(steps: &'static [WatchStep]) -> Client {
        let next = Arc::new(AtomicUsize::new(0));
        let serve = move |request: Request<Body>| {
            let step = steps.get(next.fetch_add(1, Ordering::SeqCst)).copied();
            let watches = request.uri().query().is_some_and(|q| q.contains("watch="));
            async move {
                let (code, body) = match step.unwrap_or(WatchStep::Hang) {
                    WatchStep::Refuse(code) => (code, refusal(code)),
                    WatchStep::List(name) => {
                        assert!(!watches);
                        let list = json!({
                            "kind": "ConfigMapList", "apiVersion": "v1",
                            "metadata": {"resourceVersion": "7"}, "items": [map(name)],
                        });
                        (200, list)
                    }
                    WatchStep::Change(name) => {
                        assert!(watches);
                        (200, json!({"type": "MODIFIED", "object": map(name)}))
                    }
                    WatchStep::Expire => {
                        assert!(watches);
                        (200, json!({"type": "ERROR", "object": refusal(410)}))
                    }
                    WatchStep::Hang => std::future::pending().await,
                };
                let mut response = Response::new(Body::from(format!("{body}\n").into_bytes()));
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok::<_, Infallible>(response)
            }
        };
        Client::new(tower::service_fn(serve), "n")
    }

    /// The first events, in short.
    async fn first(steps: &'static [WatchStep], count: usize) -> Vec<String> {
        let api: Api<ConfigMap> = Api::namespaced(client(steps), "n");
        let events = events(api, watcher::Config::default(), "test");
        let short = |event| match event {
            Event::Init => "init".to_owned(),
            Event::InitApply(map) => format!("listed {}", name(&map)),
            Event::InitDone => "done".to_owned(),
            Event::Apply(map) => format!("changed {}", name(&map)),
            Event::Delete(map) => format!("deleted {}", name(&map)),
        };
        events.map(short).take(count).collect().await
    }

    fn name(map: &ConfigMap) -> String {
        map.metadata.name.clone().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn continues_after_every_kind_of_failure() {
        let listed_anew = ["init", "listed a", "done", "init", "listed b", "done"];
        for steps in [
            &[
                WatchStep::List("a"),
                WatchStep::Refuse(500),
                WatchStep::List("b"),
            ] as &'static [WatchStep],
            &[
                WatchStep::List("a"),
                WatchStep::Refuse(403),
                WatchStep::List("b"),
            ],
            &[
                WatchStep::List("a"),
                WatchStep::Expire,
                WatchStep::List("b"),
            ],
        ] {
            assert_eq!(first(steps, 6).await, listed_anew, "{steps:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_before_listing_again() {
        let began = tokio::time::Instant::now();
        let steps = &[
            WatchStep::Refuse(410),
            WatchStep::Refuse(410),
            WatchStep::List("a"),
        ];
        assert_eq!(first(steps, 4).await, ["init", "init", "init", "listed a"]);
        assert!(
            began.elapsed() > Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_while_a_watch_is_refused() {
        let steps = &[
            WatchStep::List("a"),
            WatchStep::Refuse(429),
            WatchStep::List("a"),
            WatchStep::Refuse(429),
            WatchStep::List("a"),
            WatchStep::Refuse(429),
            WatchStep::List("a"),
            WatchStep::Refuse(429),
            WatchStep::List("b"),
        ];
        let began = tokio::time::Instant::now();
        let events = first(steps, 15).await;
        assert_eq!(
            &events[9..],
            ["init", "listed a", "done", "init", "listed b", "done"]
        );
        // At 0.8 s each time it would be 3.2 s, give or take.
        let took = began.elapsed();
        assert!(took > Duration::from_secs(7), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_a_refused_listing() {
        let steps = &[
            WatchStep::Refuse(403),
            WatchStep::Refuse(429),
            WatchStep::List("a"),
        ];
        assert_eq!(first(steps, 4).await, ["init", "init", "init", "listed a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_a_listing_that_never_ends() {
        let steps = &[
            WatchStep::Hang,
            WatchStep::List("a"),
            WatchStep::Change("a"),
        ];
        let events = first(steps, 5).await;
        assert_eq!(events, ["init", "init", "listed a", "done", "changed a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn resumes_a_watch_that_ended_normally() {
        let steps = &[
            WatchStep::List("a"),
            WatchStep::Change("b"),
            WatchStep::Change("c"),
        ];
        let events = first(steps, 5).await;
        assert_eq!(
            events,
            ["init", "listed a", "done", "changed b", "changed c"]
        );
    }

    #[test]
    fn failure_reason_is_the_servers_message_or_every_cause() {
        let answered = |code| serde_json::from_value::<Status>(refusal(code)).unwrap();
        let refused = watcher::Error::WatchError(Box::new(answered(403)));
        assert_eq!(kind(&refused), FailureKind::Refused(403));
        assert_eq!(reason(&refused), "not now");
        let cause = std::io::Error::other("connection refused");
        let silent = watcher::Error::WatchFailed(kube::Error::Service(Box::new(cause)));
        assert_eq!(kind(&silent), FailureKind::NoAnswer);
        assert!(
            reason(&silent).ends_with("connection refused"),
            "{}",
            reason(&silent)
        );
    }
}
