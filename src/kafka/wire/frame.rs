//! Frames: a request with its header, and the responses of one connection as they come in.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::cursor::FrameCursor;
use super::versions::ApiVersions;

/// The bytes that a request's correlation id takes in its frame: after the length, the API's key and
/// the version.
const CORRELATION: std::ops::Range<usize> = 8..12;

/// The most that is read at once.
const READ: usize = 64 * 1024;

/// A request, ready but for its correlation id.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    api: ApiVersions,
    version: i16,
}

/// A request that the library cannot write in this version: a defect.
#[derive(Debug, thiserror::Error)]
#[error("a request that cannot be written: {0}")]
pub(super) struct Unwritable(String);

impl Request {
    pub(super) fn new<R: Encodable + HeaderVersion>(
        api: ApiVersions,
        version: i16,
        client_id: &str,
        body: &R,
    ) -> Result<Self, Unwritable> {
        let mut bytes = vec![0; 4];
        let header = RequestHeader::default()
            .with_request_api_key(api.key())
            .with_request_api_version(version)
            .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
        header
            .encode(&mut bytes, R::header_version(version))
            .and_then(|()| body.encode(&mut bytes, version))
            .map_err(|error| Unwritable(format!("{api:?} {version}: {error}")))?;
        let length = u32::try_from(bytes.len().saturating_sub(4))
            .map_err(|_| Unwritable(format!("{api:?} {version}: too long")))?;
        for (to, from) in bytes.iter_mut().zip(length.to_be_bytes()) {
            *to = from;
        }
        Ok(Self {
            bytes,
            api,
            version,
        })
    }

    pub(super) fn api(&self) -> ApiVersions {
        self.api
    }

    pub(super) fn version(&self) -> i16 {
        self.version
    }

    /// The frame under this correlation id.
    pub(super) fn numbered(&mut self, correlation: i32) -> &[u8] {
        if let Some(place) = self.bytes.get_mut(CORRELATION) {
            place.copy_from_slice(&correlation.to_be_bytes());
        }
        &self.bytes
    }
}

/// Why a connection's bytes make no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Garbled {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the broker closed the connection")]
    Closed,
    #[error("a response of {length} bytes is announced, over the limit of {limit}")]
    TooLong { length: i64, limit: usize },
    #[error("an answer that is none of Kafka's: {0}")]
    NoKafka(&'static str),
}

/// The responses of one connection. What was read of one is kept between calls, so that waiting for
/// the next may be given up and taken up again.
#[derive(Debug)]
pub(super) struct Responses {
    buffer: BytesMut,
    limit: usize,
}

impl Responses {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// The next response from its correlation id on.
    pub(super) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
    ) -> Result<Bytes, Garbled> {
        loop {
            let mut wanted = READ;
            if let Some(announced) = self.buffer.first_chunk::<4>() {
                let length = i32::from_be_bytes(*announced);
                let usable = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= self.limit);
                let Some(length) = usable else {
                    let (length, limit) = (i64::from(length), self.limit);
                    return Err(Garbled::TooLong { length, limit });
                };
                let whole = length.saturating_add(4);
                if self.buffer.len() >= whole {
                    let mut frame = self.buffer.split_to(whole);
                    frame.advance(4);
                    if self.buffer.is_empty() {
                        // Else it would keep the memory of the longest response until the next one.
                        self.buffer = BytesMut::new();
                    }
                    return Ok(frame.freeze());
                }
                // Room is made as bytes come: an announcement alone costs no memory.
                wanted = whole.saturating_sub(self.buffer.len()).min(READ);
            }
            self.buffer.reserve(wanted);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Garbled::Closed);
            }
        }
    }
}

/// The body of a response, once its correlation id is the expected one.
pub(super) fn body(
    mut response: Bytes,
    correlation: i32,
    api: ApiVersions,
    version: i16,
) -> Result<Bytes, Garbled> {
    let flexible = api.has_flexible_header(version);
    let mut cursor = FrameCursor::new(&response, flexible);
    let found = cursor.i32().map_err(|_| Garbled::NoKafka("too short"))?;
    if found != correlation {
        return Err(Garbled::NoKafka("it answers another request"));
    }
    cursor
        .tags()
        .map_err(|_| Garbled::NoKafka("its header ends early"))?;
    let header = response.len().saturating_sub(cursor.left());
    response.advance(header);
    Ok(response)
}
