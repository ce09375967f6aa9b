//! Reads the messages of requests. Each connection may have a bounded number of unread messages; further requests wait.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;
use tonic::Status;

use super::{MAX_REQUEST_BYTES, MAX_STREAMS};
use crate::serve::connection_peer::ConnectionPeer;
use crate::serve::connections::network;
use crate::serve::holder_permits::HolderPermits;

/// Timeout for the message of a request, from the arrival of its headers on. KEDA sends both at once.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Size of the prefix of a gRPC message: a flag and the length.
const FRAME_BYTES: usize = 5;

/// Maximum number of requests that wait until their message may be read. KEDA opens all of its streams at once when it
/// starts, so as many may wait as there may be streams. One address may have half of them, as with streams.
pub(super) const MAX_WAITING: usize = MAX_STREAMS;

/// Lets requests wait until their message may be read.
#[derive(Debug)]
pub(super) struct MessageTurns {
    waiting: HolderPermits,
}

impl MessageTurns {
    pub(super) fn new() -> Self {
        Self {
            waiting: HolderPermits::new(MAX_WAITING),
        }
    }

    /// Reads the message of a request. An incomplete message takes memory, so a connection may have few of them.
    /// Further requests wait, at most [`MAX_WAITING`] of all connections.
    pub(super) async fn read(
        &self,
        body: Body,
        peer: Option<&ConnectionPeer>,
    ) -> Result<Bytes, Status> {
        let Some(unread) = peer.map(|peer| &peer.unread_requests) else {
            return read_message(body).await;
        };
        let permit = match unread.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let waiting = self.waiting.try_acquire(&network_of(peer));
                let _waiting = waiting.ok_or_else(|| {
                    Status::resource_exhausted(format!(
                        "at most {MAX_WAITING} requests may wait, and half of them from one address"
                    ))
                })?;
                // An error would mean that the semaphore is closed, which never happens.
                unread.acquire().await.ok()
            }
        };
        let message = read_message(body).await;
        drop(permit);
        message
    }
}

/// The network of a connection, as text: the holder of its permits.
pub(super) fn network_of(peer: Option<&ConnectionPeer>) -> String {
    let network = peer.map(|peer| network(peer.slot.peer()).to_string());
    network.unwrap_or_default()
}

/// Refuses compressed messages. tonic would do so, but does not get the headers.
pub(super) fn refuse_compression(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => Err(Status::unimplemented(
            "lagwise does not read compressed messages",
        )),
        _ => Ok(()),
    }
}

/// Reads the message of a request, within [`MESSAGE_TIMEOUT`].
pub(super) async fn read_message(body: Body) -> Result<Bytes, Status> {
    let limited = Limited::new(body, FRAME_BYTES + MAX_REQUEST_BYTES);
    let collected = timeout(MESSAGE_TIMEOUT, limited.collect()).await;
    let collected = collected.map_err(|_| {
        Status::deadline_exceeded("the message of the request did not arrive in time")
    })?;
    let body = collected.map_err(|error| match error.is::<LengthLimitError>() {
        true => Status::out_of_range(format!("a request has at most {MAX_REQUEST_BYTES} bytes")),
        false => Status::cancelled("the request ended before its message was complete"),
    })?;
    Ok(body.to_bytes())
}
