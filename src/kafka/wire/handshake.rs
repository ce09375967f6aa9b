//! Sets up a connection: TCP, TLS, API versions, login.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Address;
use super::cursor::Malformed;
use super::first_bytes::FirstBytes;
use super::frame::{self, EncodeError, FrameError, Request, Responses};
use super::options::WireOptions;
use super::response_memory::ResponseMemory;
use super::responses;
use super::sasl;
use super::silence::{SetupProgress, SetupStep};
use super::tls::{self, Tls};
use super::versions::{ApiKey, BrokerVersions};
use crate::kafka::client_certificate::first_expiry;
use crate::kafka::codes;
use crate::kafka::peer_protocol::{PeerProtocol, no_tls_here};
use crate::model::kafka::fault::Fault;

/// Maximum size of a response before the login and of one to it.
const MAX_SETUP_BYTES: usize = 256 * 1024;

/// Why a connection failed. Never contains secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectError {
    pub(super) kind: Fault,
    pub(super) reason: String,
}

impl ConnectError {
    pub(super) fn new(kind: Fault, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}

impl From<Malformed> for ConnectError {
    fn from(error: Malformed) -> Self {
        Self::new(Fault::Unreachable, error.to_string())
    }
}

impl From<FrameError> for ConnectError {
    fn from(error: FrameError) -> Self {
        // With TLS 1.3 a broker rejects a client certificate only after the handshake.
        let refusal = match &error {
            FrameError::Io(error) => tls_error(error),
            _ => None,
        };
        match (refusal, &error) {
            (Some(refusal), _) => Self::new(Fault::Tls, tls::explain(refusal)),
            (None, FrameError::OtherProtocol(PeerProtocol::Tls)) => {
                Self::new(Fault::Tls, error.to_string())
            }
            (None, _) => Self::new(Fault::Unreachable, error.to_string()),
        }
    }
}

/// The TLS error inside an I/O error, if any.
fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl From<EncodeError> for ConnectError {
    fn from(error: EncodeError) -> Self {
        Self::new(Fault::Client, error.to_string())
    }
}

/// A byte stream to a broker, plain or encrypted.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A connection that is ready for requests.
pub(super) struct ReadyConnection {
    pub(super) stream: Box<dyn ByteStream>,
    pub(super) responses: Responses,
    pub(super) versions: BrokerVersions,
    /// Lifetime of the login, if limited (KIP-368).
    pub(super) session_lifetime: Option<Duration>,
    /// When the first certificate that the broker presented expires; `None` without TLS.
    pub(super) first_expiry: Option<SystemTime>,
}

/// Connects to a broker by the deadline.
pub(super) async fn open(
    address: &Address,
    options: &WireOptions,
    memory: &ResponseMemory,
    deadline: Instant,
    progress: &SetupProgress,
) -> Result<ReadyConnection, ConnectError> {
    if !options.allows_host(&address.host) {
        let reason = "refused to connect and to log in: the host is not in allowed_broker_hosts of this Kafka cluster; \
                      add it if it is one of its brokers";
        return Err(ConnectError::new(Fault::HostNotAllowed, reason));
    }
    // Get the token first: without one there is no point in connecting.
    let credentials = options.login.credentials(deadline).await?;
    let connecting = async {
        let greeting = greet(address, options, memory, deadline, progress);
        let (mut exchange, versions) = greeting.await?;
        progress.reach(SetupStep::Login);
        let session_lifetime = sasl::log_in(&credentials, &mut exchange, &versions).await?;
        let first_expiry = first_expiry(&exchange.peer_certificates);
        let (stream, responses) = exchange.into_parts();
        Ok(ReadyConnection {
            stream,
            responses,
            versions,
            session_lifetime,
            first_expiry,
        })
    };
    let connected = tokio::time::timeout_at(deadline, connecting).await;
    connected.unwrap_or_else(|_| {
        let silent = progress.no_answer(options);
        Err(silent.unwrap_or_else(|| ConnectError::new(Fault::Unreachable, "connecting timed out")))
    })
}

/// Connects without a login, and requests the broker's API versions.
pub(super) async fn greet<'a>(
    address: &Address,
    options: &'a WireOptions,
    memory: &ResponseMemory,
    deadline: Instant,
    progress: &SetupProgress,
) -> Result<(SetupExchange<'a>, BrokerVersions), ConnectError> {
    let tcp = address.connect(options, deadline).await?;
    let mut peer_certificates = Vec::new();
    let stream: Box<dyn ByteStream> = match &options.tls {
        None => Box::new(tcp),
        Some(tls) => {
            progress.reach(SetupStep::TlsHandshake);
            let encrypted = encrypt(address, options, tls, tcp).await?;
            let (_, connection) = encrypted.get_ref();
            peer_certificates = connection.peer_certificates().unwrap_or(&[]).to_vec();
            Box::new(encrypted)
        }
    };
    let responses = Responses::new(memory.clone());
    let mut exchange = SetupExchange {
        peer_certificates,
        ..SetupExchange::new(stream, responses, options)
    };
    progress.reach(SetupStep::ApiVersions);
    let versions = exchange.versions().await?;
    if versions.highest_common(ApiKey::Metadata).is_err() {
        let reason = "this port answers no requests for metadata, as that of a KRaft controller; \
                      use the port of a broker's listener in bootstrap.servers";
        return Err(ConnectError::new(Fault::Unreachable, reason));
    }
    Ok((exchange, versions))
}

/// Finds out why a broker closes connections without a login at the first request: opens another connection, and asks
/// whether the broker requires a login. If so, returns the error that says what to set.
pub(super) async fn find_required_login(
    address: &Address,
    options: &WireOptions,
    memory: &ResponseMemory,
    deadline: Instant,
) -> Option<ConnectError> {
    let probe = async {
        let progress = SetupProgress::default();
        let greeting = greet(address, options, memory, deadline, &progress);
        let (mut exchange, versions) = greeting.await?;
        sasl::find_required_login(&mut exchange, &versions).await
    };
    tokio::time::timeout_at(deadline, probe).await.ok()?.ok()?
}

async fn encrypt(
    address: &Address,
    options: &WireOptions,
    tls: &Tls,
    tcp: tokio::net::TcpStream,
) -> Result<TlsStream<FirstBytes>, ConnectError> {
    let failed = |reason: String| ConnectError::new(Fault::Tls, reason);
    let name = ServerName::try_from(address.host.to_string()).map_err(|_| {
        failed("the broker's host is not a valid name for a TLS certificate".into())
    })?;
    let connecting = TlsConnector::from(Arc::clone(&tls.config))
        .connect(name, FirstBytes::new(tcp))
        .into_fallible();
    connecting.await.map_err(|(error, stream)| {
        let received = stream.received();
        let other = received
            .first_chunk()
            .and_then(|first| PeerProtocol::of(*first));
        match (other, tls_error(&error)) {
            (Some(PeerProtocol::Http | PeerProtocol::Text), _) => failed(format!(
                "TLS handshake failed: {}",
                no_tls_here(options.login.is_configured())
            )),
            (_, Some(refusal)) => {
                failed(format!("TLS handshake failed: {}", tls::explain(refusal)))
            }
            // The port closed the connection, as a Kafka listener without TLS does.
            (_, None) if received.is_empty() => failed(format!(
                "TLS handshake failed: the connection was closed without an answer; probably {}",
                no_tls_here(options.login.is_configured())
            )),
            (_, None) => failed(format!("TLS handshake failed: {error}")),
        }
    })
}

/// Sends one request at a time: during setup and reauthentication.
pub(super) struct SetupExchange<'a> {
    stream: Box<dyn ByteStream>,
    responses: Responses,
    options: &'a WireOptions,
    correlation: i32,
    /// The chain that the broker has sent; empty without TLS.
    pub(super) peer_certificates: Vec<CertificateDer<'static>>,
}

impl<'a> SetupExchange<'a> {
    pub(super) fn new(
        stream: Box<dyn ByteStream>,
        responses: Responses,
        options: &'a WireOptions,
    ) -> Self {
        Self {
            stream,
            responses,
            options,
            correlation: 0,
            peer_certificates: Vec::new(),
        }
    }

    pub(super) fn has_tls(&self) -> bool {
        self.options.tls.is_some()
    }

    /// The turns for steps of a login.
    pub(super) fn login_turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.options.login_turns)
    }

    pub(super) fn into_parts(self) -> (Box<dyn ByteStream>, Responses) {
        (self.stream, self.responses)
    }

    /// Sends a request and returns the response's body.
    pub(super) async fn send_request<R: Encodable + HeaderVersion>(
        &mut self,
        api: ApiKey,
        version: i16,
        body: &R,
    ) -> Result<Bytes, ConnectError> {
        let request = Request::new(api, version, &self.options.client_id, body)?;
        Ok(self.exchange(request).await?)
    }

    async fn exchange(&mut self, mut request: Request) -> Result<Bytes, FrameError> {
        self.correlation = self.correlation.wrapping_add(1);
        self.stream
            .write_all(&request.take_frame(self.correlation))
            .await?;
        self.stream.flush().await?;
        let response = self
            .responses
            .next(&mut self.stream, MAX_SETUP_BYTES)
            .await?;
        let (api, version) = (request.api(), request.version());
        frame::body(response, self.correlation, api, version)
    }

    /// Requests the broker's API versions. A broker that does not support our version of the request answers in the
    /// format of version 0 (KIP-511), which every broker supports.
    async fn versions(&mut self) -> Result<BrokerVersions, ConnectError> {
        let body = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("lagwise"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let request = Request::new(ApiKey::ApiVersions, 3, &self.options.client_id, &body)?;
        let body = self.exchange(request).await.map_err(|error| match error {
            FrameError::Closed => ConnectError::new(
                Fault::Unreachable,
                "the connection was closed without an answer: check that this is the port of a Kafka broker, \
                 and that security.protocol is that of its listener",
            ),
            error => error.into(),
        })?;
        let refused = body.first_chunk() == Some(&codes::UNSUPPORTED_VERSION.to_be_bytes());
        let (code, ranges) = if refused {
            let body = self
                .send_request(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default())
                .await?;
            responses::api_versions(&body, 0)?
        } else {
            responses::api_versions(&body, 3)?
        };
        if code != codes::NONE {
            let reason = format!("the broker refused ApiVersions with error code {code}");
            return Err(ConnectError::new(codes::fault_of(i32::from(code)), reason));
        }
        Ok(BrokerVersions::new(&ranges))
    }
}
