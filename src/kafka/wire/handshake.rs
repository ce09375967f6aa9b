//! Setting up a connection: TCP, TLS, what the broker can do, the login.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::cursor::Malformed;
use super::frame::{self, Garbled, Request, Responses, Unwritable};
use super::options::WireOptions;
use super::responses;
use super::sasl::{self, Proof};
use super::tls::Tls;
use super::versions::{ApiVersions, Versions};
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;

/// Why there is no connection, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) kind: Fault,
    pub(super) reason: String,
}

impl Broken {
    pub(super) fn new(kind: Fault, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}

impl From<Malformed> for Broken {
    fn from(error: Malformed) -> Self {
        Self::new(Fault::Unreachable, error.to_string())
    }
}

impl From<Garbled> for Broken {
    fn from(error: Garbled) -> Self {
        // TLS 1.3 refuses a client's certificate only after the handshake.
        let refusal = match &error {
            Garbled::Io(error) => error
                .get_ref()
                .and_then(|e| e.downcast_ref::<rustls::Error>()),
            _ => None,
        };
        let kind = if refusal.is_some() {
            Fault::Tls
        } else {
            Fault::Unreachable
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Unwritable> for Broken {
    fn from(error: Unwritable) -> Self {
        Self::new(Fault::Client, error.to_string())
    }
}

/// A byte stream to a broker, encrypted or not.
pub(super) trait BrokerStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> BrokerStream for S {}

/// A connection that is ready for requests.
pub(super) struct Ready {
    pub(super) stream: Box<dyn BrokerStream>,
    pub(super) responses: Responses,
    pub(super) versions: Versions,
    /// How long the login lasts, where it does not last for ever (KIP-368).
    pub(super) lasts: Option<Duration>,
}

/// Connects to a broker, by the deadline.
pub(super) async fn open(
    address: &Address,
    options: &WireOptions,
    deadline: Instant,
) -> Result<Ready, Broken> {
    // Without a token there is nothing to connect for.
    let proof = options.login.proof(deadline).await?;
    let connecting = connect(address, options, &proof, deadline);
    match tokio::time::timeout_at(deadline, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(Broken::new(
            Fault::NoAnswer,
            "connected, and then no answer",
        )),
    }
}

async fn connect(
    address: &Address,
    options: &WireOptions,
    proof: &Proof,
    deadline: Instant,
) -> Result<Ready, Broken> {
    let tcp = address.connect(options, deadline).await?;
    let stream: Box<dyn BrokerStream> = match &options.tls {
        None => Box::new(tcp),
        Some(tls) => Box::new(encrypt(address, tls, tcp).await?),
    };
    let responses = Responses::new(options.max_response_bytes);
    let mut exchange = HandshakeExchange::new(stream, responses, &options.client_id);
    let versions = exchange.versions().await?;
    let lasts = sasl::log_in(proof, &mut exchange, &versions).await?;
    let (stream, responses) = exchange.into_parts();
    Ok(Ready {
        stream,
        responses,
        versions,
        lasts,
    })
}

async fn encrypt(
    address: &Address,
    tls: &Tls,
    tcp: tokio::net::TcpStream,
) -> Result<impl BrokerStream + use<>, Broken> {
    let failed = |reason: String| Broken::new(Fault::Tls, reason);
    let name = ServerName::try_from(address.host.to_string())
        .map_err(|_| failed("the host is no name that a certificate can bear".into()))?;
    TlsConnector::from(Arc::clone(&tls.config))
        .connect(name, tcp)
        .await
        .map_err(|error| failed(format!("TLS handshake: {error}")))
}

/// One request at a time: before the connection is ready, and while it logs in again.
pub(super) struct HandshakeExchange<'a> {
    stream: Box<dyn BrokerStream>,
    responses: Responses,
    client_id: &'a str,
    correlation: i32,
}

impl<'a> HandshakeExchange<'a> {
    pub(super) fn new(
        stream: Box<dyn BrokerStream>,
        responses: Responses,
        client_id: &'a str,
    ) -> Self {
        Self {
            stream,
            responses,
            client_id,
            correlation: 0,
        }
    }

    pub(super) fn into_parts(self) -> (Box<dyn BrokerStream>, Responses) {
        (self.stream, self.responses)
    }

    /// Sends a request and gives its response's body.
    pub(super) async fn ask<R: Encodable + HeaderVersion>(
        &mut self,
        api: ApiVersions,
        version: i16,
        body: &R,
    ) -> Result<Bytes, Broken> {
        let mut request = Request::new(api, version, self.client_id, body)?;
        self.correlation = self.correlation.wrapping_add(1);
        let io = |error: std::io::Error| Broken::from(Garbled::Io(error));
        self.stream
            .write_all(request.numbered(self.correlation))
            .await
            .map_err(io)?;
        self.stream.flush().await.map_err(io)?;
        let response = self.responses.next(&mut self.stream).await?;
        Ok(frame::body(response, self.correlation, api, version)?)
    }

    /// What the broker can do. One that does not know our version of the question says so in the
    /// form of version 0 (KIP-511), which every broker knows.
    async fn versions(&mut self) -> Result<Versions, Broken> {
        let asked = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("lagwise"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let body = self.ask(ApiVersions::ApiVersions, 3, &asked).await?;
        let refused = body.first_chunk() == Some(&codes::UNSUPPORTED_VERSION.to_be_bytes());
        let (code, ranges) = if refused {
            let body = self
                .ask(ApiVersions::ApiVersions, 0, &ApiVersionsRequest::default())
                .await?;
            responses::api_versions(&body, 0)?
        } else {
            responses::api_versions(&body, 3)?
        };
        if code != codes::NONE {
            let reason = format!("the broker does not say what it can do: error code {code}");
            return Err(Broken::new(codes::fault_of(i32::from(code)), reason));
        }
        Ok(Versions::new(&ranges))
    }
}
