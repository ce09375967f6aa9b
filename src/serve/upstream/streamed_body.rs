//! The body of an answer that is passed on while it arrives, as fast as the caller reads it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use crate::serve::holder_permits::HolderPermit;
use crate::telemetry::upstream::AnswerUnread;

/// How long a caller may not read its answer. During that time the rest of the body is not polled, so neither the
/// timeouts of the client nor those of the connection end it: other requests keep an HTTP/2 connection busy. Longer
/// than the client waits for the upstream, so that only the caller can be the cause.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A body that counts as an answer in progress until it ends, or until its caller has read nothing of it for
/// [`UNREAD_TIMEOUT`]. Then it is dropped, and the caller gets an error if it reads on.
pub(super) struct StreamedBody(Arc<Mutex<AnswerProgress>>);

struct AnswerProgress {
    /// `None` once it was dropped.
    open: Option<OpenAnswer>,
    /// When the caller last polled the body.
    asked: Instant,
}

struct OpenAnswer {
    body: Body,
    _permit: HolderPermit,
}

/// The caller read nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the answer was given up, because the caller did not read it")]
struct AnswerGivenUp;

impl StreamedBody {
    pub(super) fn new(body: Body, permit: HolderPermit) -> Self {
        let open = Some(OpenAnswer {
            body,
            _permit: permit,
        });
        let asked = Instant::now();
        let stream = Arc::new(Mutex::new(AnswerProgress { open, asked }));
        let watched = Arc::downgrade(&stream);
        tokio::spawn(async move {
            // Ends with the body.
            while let Some(deadline) = watched.upgrade().and_then(|stream| give_up_unread(&stream))
            {
                sleep_until(deadline).await;
            }
        });
        Self(stream)
    }
}

/// Drops the body if its caller has not polled it in time. Otherwise returns when to check again.
fn give_up_unread(stream: &Mutex<AnswerProgress>) -> Option<Instant> {
    let mut stream = lock(stream);
    let deadline = stream.asked + UNREAD_TIMEOUT;
    if Instant::now() < deadline {
        return Some(deadline);
    }
    let given_up = stream.open.take()?;
    if !given_up.body.is_end_stream() {
        AnswerUnread.emit();
    }
    None
}

fn lock(stream: &Mutex<AnswerProgress>) -> MutexGuard<'_, AnswerProgress> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for StreamedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut stream = lock(&self.0);
        stream.asked = Instant::now();
        match &mut stream.open {
            Some(open) => Pin::new(&mut open.body).poll_frame(context),
            None => Poll::Ready(Some(Err(axum::Error::new(AnswerGivenUp)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let stream = lock(&self.0);
        let open = stream.open.as_ref();
        open.is_some_and(|open| open.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let stream = lock(&self.0);
        let open = stream.open.as_ref();
        open.map_or_else(SizeHint::new, |open| open.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use http_body_util::BodyExt;
    use tokio::time::advance;

    use super::*;
    use crate::serve::holder_permits::HolderPermits;

    /// A body of this number of frames, with the only permit of its namespace.
    fn passed_on(permits: &HolderPermits, frames: usize) -> StreamedBody {
        let frame = |_| Ok::<_, Infallible>(Bytes::from_static(b"frame"));
        let frames = futures::stream::iter(0..frames).map(frame);
        StreamedBody::new(
            Body::from_stream(frames),
            permits.try_acquire("shop").unwrap(),
        )
    }

    /// Lets that much time pass, with the tasks that wait for it.
    async fn pass(time: Duration) {
        tokio::task::yield_now().await;
        advance(time).await;
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_answer_makes_room_for_others() {
        for read_before in [0, 1, 5] {
            let permits = HolderPermits::new(2);
            let mut body = passed_on(&permits, 10);
            for _ in 0..read_before {
                assert!(body.frame().await.unwrap().is_ok());
                pass(Duration::from_secs(4)).await;
            }
            assert!(permits.try_acquire("shop").is_none());
            pass(UNREAD_TIMEOUT).await;
            assert!(permits.try_acquire("shop").is_some(), "after {read_before}");
            // Never taken for the end.
            assert!(!body.is_end_stream());
            assert!(body.frame().await.unwrap().is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_slowly_arrives_whole() {
        let permits = HolderPermits::new(2);
        let mut body = passed_on(&permits, 20);
        for _ in 0..20 {
            pass(Duration::from_secs(4)).await;
            assert!(permits.try_acquire("shop").is_none());
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.is_none());
        drop(body);
        assert!(permits.try_acquire("shop").is_some());
    }
}
