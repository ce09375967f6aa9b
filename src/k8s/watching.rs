//! Watches that outlive the API server's outages, and say so in the log.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::telemetry::{WatchLost, WatchRestored};

/// How long the API server may take for the next page or event while everything is listed. Once
/// only changes are awaited, silence is no fault.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// Events of a watch that never ends. After a failure everything is listed anew, with the default
/// backoff: the listing is what shows that the API server is back, where a watch that was merely
/// resumed would keep silent until something changes.
pub(super) fn events<K>(
    api: Api<K>,
    config: watcher::Config,
    watched: &'static str,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let start = Watching {
        api,
        config,
        watched,
        stream: None,
        listing: false,
        backoff: DefaultBackoff::default(),
        lost: None,
    };
    stream::unfold(start, |mut watching| async move {
        let event = watching.next().await;
        Some((event, watching))
    })
}

struct Watching<K> {
    api: Api<K>,
    config: watcher::Config,
    watched: &'static str,
    stream: Option<BoxStream<'static, watcher::Result<Event<K>>>>,
    listing: bool,
    backoff: DefaultBackoff,
    lost: Option<Lost>,
}

/// An outage.
struct Lost {
    since: Instant,
    kind: Kind,
}

/// What kind of failure it is. The text of one kind may differ each time, and is logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The API server answers with this HTTP status code.
    Refused(u16),
    /// No answer.
    NoAnswer,
}

impl<K> Watching<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Event<K> {
        loop {
            let stream = self.stream.get_or_insert_with(|| {
                self.listing = true;
                watcher(self.api.clone(), self.config.clone()).boxed()
            });
            let next = if self.listing {
                tokio::time::timeout(LISTED_WITHIN, stream.next()).await
            } else {
                Ok(stream.next().await)
            };
            match next {
                Ok(Some(Ok(event))) => {
                    self.see(&event);
                    return event;
                }
                Ok(Some(Err(error))) if is_expired(&error) => self.stream = None,
                Ok(Some(Err(error))) => self.fail(kind(&error), &error.to_string()).await,
                Ok(None) => self.stream = None,
                Err(_) => self.fail(Kind::NoAnswer, "no answer in time").await,
            }
        }
    }

    fn see(&mut self, event: &Event<K>) {
        self.listing = matches!(event, Event::Init | Event::InitApply(_));
        if self.listing {
            return;
        }
        if let Some(lost) = self.lost.take() {
            WatchRestored {
                watched: self.watched,
                after: lost.since.elapsed(),
            }
            .emit();
        }
        self.backoff = DefaultBackoff::default();
    }

    async fn fail(&mut self, kind: Kind, reason: &str) {
        self.stream = None;
        if self.lost.as_ref().is_none_or(|lost| lost.kind != kind) {
            WatchLost {
                watched: self.watched,
                reason,
            }
            .emit();
        }
        let since = self.lost.as_ref().map_or_else(Instant::now, |l| l.since);
        self.lost = Some(Lost { since, kind });
        let pause = self.backoff.next().unwrap_or(LISTED_WITHIN);
        tokio::time::sleep(pause).await;
    }
}

/// The API server no longer keeps what happened since the last event: every watch meets that now
/// and then, and listing anew is the answer.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(kind(error), Kind::Refused(410))
}

fn kind(error: &watcher::Error) -> Kind {
    match error {
        watcher::Error::WatchError(status) => Kind::Refused(status.code),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Kind::Refused(status.code),
        _ => Kind::NoAnswer,
    }
}
