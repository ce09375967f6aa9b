//! Framing: encodes requests with their header and splits a stream into responses.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::cursor::ResponseCursor;
use super::response_memory::{ResponseMemory, Room};
use super::versions::ApiKey;
use crate::kafka::peer_protocol::PeerProtocol;

/// Position of the correlation ID in a frame: after length, API key and version.
const CORRELATION: std::ops::Range<usize> = 8..12;

/// Maximum size of a frame without its client ID and body.
const MAX_HEADER_BYTES: usize = 32;

/// Maximum number of bytes per read.
const MAX_READ_BYTES: usize = 64 * 1024;

/// An encoded request, complete except for its correlation ID.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    api: ApiKey,
    version: i16,
}

/// A request that cannot be encoded in the negotiated version, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode a Kafka request: {0}")]
pub(super) struct EncodeError(String);

impl Request {
    pub(super) fn new<R: Encodable + HeaderVersion>(
        api: ApiKey,
        version: i16,
        client_id: &str,
        body: &R,
    ) -> Result<Self, EncodeError> {
        let codec_version = api.codec_version(version);
        // At once, since a vector that grows to the size of a long request is copied many times.
        let body_bytes = body.compute_size(codec_version).unwrap_or(0);
        let expected = body_bytes.saturating_add(client_id.len());
        let mut bytes: Vec<u8> = Vec::with_capacity(expected.saturating_add(MAX_HEADER_BYTES));
        bytes.extend([0; 4]);
        let header = RequestHeader::default()
            .with_request_api_key(api.key())
            .with_request_api_version(version)
            .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
        header
            .encode(&mut bytes, R::header_version(version))
            .and_then(|()| body.encode(&mut bytes, codec_version))
            .map_err(|error| EncodeError(format!("{api:?} {version}: {error}")))?;
        let length = u32::try_from(bytes.len().saturating_sub(4))
            .map_err(|_| EncodeError(format!("{api:?} {version}: request is too long")))?;
        for (to, from) in bytes.iter_mut().zip(length.to_be_bytes()) {
            *to = from;
        }
        Ok(Self {
            bytes,
            api,
            version,
        })
    }

    pub(super) fn api(&self) -> ApiKey {
        self.api
    }

    pub(super) fn version(&self) -> i16 {
        self.version
    }

    /// Takes out the frame, with this correlation ID.
    pub(super) fn take_frame(&mut self, correlation: i32) -> Bytes {
        if let Some(place) = self.bytes.get_mut(CORRELATION) {
            place.copy_from_slice(&correlation.to_be_bytes());
        }
        std::mem::take(&mut self.bytes).into()
    }
}

/// Why no response could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the broker closed the connection")]
    Closed,
    #[error(
        "the response is {length} bytes long, over the limit of {limit} bytes for what was asked \
         (never more than receive.message.max.bytes)"
    )]
    TooLong { length: i64, limit: usize },
    #[error("{0}")]
    OtherProtocol(PeerProtocol),
    #[error("malformed Kafka response: {0}")]
    NotKafka(&'static str),
}

/// Reads the responses of one connection. A partly read response is kept between calls, so that
/// [`next`](Self::next) is cancel-safe.
pub(super) struct Responses {
    buffer: BytesMut,
    memory: ResponseMemory,
    /// The room for the response that is being read, if it is long.
    room: Option<Room>,
    waiting: Option<WaitForRoom>,
}

type WaitForRoom = Pin<Box<dyn Future<Output = Option<Room>> + Send>>;

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.buffer.len();
        f.debug_struct("Responses")
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

impl Responses {
    pub(super) fn new(memory: ResponseMemory) -> Self {
        Self {
            buffer: BytesMut::new(),
            memory,
            room: None,
            waiting: None,
        }
    }

    /// Waits for room for a response of this length, unless it is short or has room.
    async fn make_room(&mut self, length: usize) {
        if self.room.is_some() || !ResponseMemory::is_long(length) {
            return;
        }
        let memory = &self.memory;
        // Kept over a cancelled call, or the response would lose its place among those that wait.
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(memory.clone().take(length)));
        self.room = waiting.await;
        self.waiting = None;
    }

    /// Reads the next response, starting at its correlation ID. One that is longer than `limit` is
    /// an error before it is read.
    pub(super) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
        limit: usize,
    ) -> Result<Bytes, FrameError> {
        loop {
            let mut wanted = MAX_READ_BYTES;
            if let Some(announced) = self.buffer.first_chunk::<4>() {
                let length = i32::from_be_bytes(*announced);
                let usable = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= limit);
                let Some(length) = usable else {
                    if let Some(other) = PeerProtocol::of(*announced) {
                        return Err(FrameError::OtherProtocol(other));
                    }
                    let length = i64::from(length);
                    return Err(FrameError::TooLong { length, limit });
                };
                let whole = length.saturating_add(4);
                self.make_room(whole).await;
                if self.buffer.len() >= whole {
                    let mut frame = self.buffer.split_to(whole);
                    frame.advance(4);
                    if self.buffer.is_empty() {
                        // Otherwise an idle connection would keep the memory of its longest
                        // response.
                        self.buffer = BytesMut::new();
                    }
                    let frame = frame.freeze();
                    return Ok(match self.room.take() {
                        Some(room) => room.hold(frame),
                        None => frame,
                    });
                }
                // Reserve memory only as bytes arrive, up to four times as much; a claimed length takes only its
                // room in `ResponseMemory`.
                let arrived = self.buffer.len();
                wanted = whole
                    .saturating_sub(arrived)
                    .min(MAX_READ_BYTES.max(arrived.saturating_mul(3)));
            }
            self.buffer.reserve(wanted);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(FrameError::Closed);
            }
        }
    }
}

/// Checks the correlation ID and returns the response's body.
pub(super) fn body(
    mut response: Bytes,
    correlation: i32,
    api: ApiKey,
    version: i16,
) -> Result<Bytes, FrameError> {
    let flexible = api.has_flexible_header(version);
    let mut cursor = ResponseCursor::new(&response, flexible);
    let found = cursor
        .i32()
        .map_err(|_| FrameError::NotKafka("too short"))?;
    if found != correlation {
        return Err(FrameError::NotKafka(
            "its correlation ID belongs to another request",
        ));
    }
    cursor
        .skip_tags()
        .map_err(|_| FrameError::NotKafka("its header is truncated"))?;
    let header = response.len().saturating_sub(cursor.remaining());
    response.advance(header);
    Ok(response)
}
