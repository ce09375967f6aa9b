//! Finds out what ports wait for that accept connections and send nothing back, and which property to set.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use kafka_protocol::messages::ApiVersionsRequest;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::broker::ClusterContext;
use super::frame::Request;
use super::handshake::{self, ConnectError, ReadyConnection};
use super::options::WireOptions;
use super::versions::ApiKey;
use crate::crypto::provider;
use crate::kafka::peer_protocol::{TLS_HERE, no_tls_here};
use crate::model::kafka::fault::Fault;

/// How long a port may send nothing before it is probed in another protocol, if the setup timeout is long enough.
const SILENT_AFTER: Duration = Duration::from_secs(2);

/// How long the answer may take then.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum size of the response to the request for API versions.
const MAX_RESPONSE_BYTES: i32 = 256 * 1024;

/// A correlation ID that no other protocol sends by chance.
const CORRELATION: i32 = 0x1a90_115e;

/// A step of setting up a connection, during which an answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SetupStep {
    /// Host name and TCP, which have separate errors.
    Connect,
    TlsHandshake,
    ApiVersions,
    Login,
}

impl SetupStep {
    /// The most likely cause of the missing response, and what to do; `None` while there is no connection.
    fn explain_silence(self, options: &WireOptions) -> Option<String> {
        let has_login = options.login.is_configured();
        let text = match self {
            Self::Connect => return None,
            Self::TlsHandshake => {
                let plain = match has_login {
                    true => "SASL_PLAINTEXT",
                    false => "PLAINTEXT",
                };
                format!(
                    "the port accepts connections, but sends nothing back to a TLS handshake: probably a firewall or load \
                     balancer without a broker behind it. Check the address; if its listener has no TLS, set \
                     security.protocol: {plain}"
                )
            }
            Self::ApiVersions if options.tls.is_some() => {
                "the TLS handshake succeeded, but nothing comes back to a Kafka request: probably another service with TLS, \
                 or an overloaded broker. Check that this is the port of a Kafka broker"
                    .to_owned()
            }
            Self::ApiVersions => {
                let encrypted = match has_login {
                    true => "SASL_SSL",
                    false => "SSL",
                };
                format!(
                    "the port accepts connections, but sends nothing back: probably it waits for a TLS handshake (set \
                     security.protocol: {encrypted}), or it is a firewall or load balancer without a broker behind it"
                )
            }
            Self::Login => {
                "the broker answers, but not to the login: probably it, or the service by which it checks logins, is \
                 overloaded"
                    .to_owned()
            }
        };
        Some(text)
    }
}

/// How far the setup of a connection has come.
#[derive(Debug, Default)]
pub(super) struct SetupProgress(AtomicU8);

impl SetupProgress {
    pub(super) fn reach(&self, step: SetupStep) {
        self.0.store(step as u8, Ordering::Relaxed);
    }

    fn step(&self) -> SetupStep {
        match self.0.load(Ordering::Relaxed) {
            0 => SetupStep::Connect,
            1 => SetupStep::TlsHandshake,
            2 => SetupStep::ApiVersions,
            _ => SetupStep::Login,
        }
    }

    /// The error that the current step gets no answer; `None` while there is no connection.
    pub(super) fn no_answer(&self, options: &WireOptions) -> Option<ConnectError> {
        let reason = self.step().explain_silence(options)?;
        Some(ConnectError::new(Fault::NoAnswer, reason))
    }
}

/// Connects and logs in to a broker by the deadline. A port that sends nothing is probed in the other protocol.
pub(super) async fn connect(
    address: &Address,
    options: &WireOptions,
    cluster: &ClusterContext,
    deadline: Instant,
) -> Result<ReadyConnection, ConnectError> {
    let progress = SetupProgress::default();
    let opening = handshake::open(address, options, &cluster.memory, deadline, &progress);
    let target = SetupTarget {
        address,
        options,
        cluster,
        progress: &progress,
    };
    let report = |silent: ConnectError| {
        let reason = format!("{address}: {}", silent.reason);
        let now = std::time::Instant::now();
        cluster.health.report(silent.kind, &reason, now);
    };
    target.watch(opening, report).await
}

/// A broker to which a connection is being set up.
#[derive(Clone, Copy)]
pub(super) struct SetupTarget<'a> {
    pub(super) address: &'a Address,
    pub(super) options: &'a WireOptions,
    pub(super) cluster: &'a ClusterContext,
    pub(super) progress: &'a SetupProgress,
}

impl SetupTarget<'_> {
    /// Waits for the setup. If the port sends nothing, reports that, and probes it in the other protocol over another
    /// connection. If the probe is answered, the setup ends with an error that says what to set.
    pub(super) async fn watch<T>(
        self,
        setup: impl Future<Output = Result<T, ConnectError>>,
        report: impl FnOnce(ConnectError),
    ) -> Result<T, ConnectError> {
        let mut setup = pin!(setup);
        let silent_after = SILENT_AFTER.min(self.options.setup_timeout / 4);
        if let Ok(ended) = timeout(silent_after, &mut setup).await {
            return ended;
        }
        let Some(silent) = self.progress.no_answer(self.options) else {
            return setup.await;
        };
        report(silent);
        let probe = async {
            self.cluster.pace.wait().await;
            self.identify().await
        };
        tokio::select! {
            ended = &mut setup => ended,
            Some(error) = probe => Err(error),
        }
    }

    /// What to set, if the port answers in another protocol than that of the properties.
    async fn identify(self) -> Option<ConnectError> {
        let step = self.progress.step();
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let wrong = |reason| Some(ConnectError::new(Fault::Tls, reason));
        match (step, &self.options.tls) {
            (SetupStep::ApiVersions, None) => {
                let speaks = timeout_at(deadline, self.speaks_tls(deadline)).await;
                wrong(TLS_HERE.to_owned()).filter(|_| speaks == Ok(Some(true)))
            }
            (SetupStep::TlsHandshake, Some(_)) => {
                let speaks = timeout_at(deadline, self.speaks_plaintext(deadline)).await;
                let has_login = self.options.login.is_configured();
                wrong(no_tls_here(has_login)).filter(|_| speaks == Ok(Some(true)))
            }
            _ => None,
        }
    }

    async fn connect(self, deadline: Instant) -> Option<TcpStream> {
        self.address.connect(self.options, deadline).await.ok()
    }

    /// Whether the port answers a TLS handshake; its certificate does not matter.
    async fn speaks_tls(self, deadline: Instant) -> Option<bool> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(self.address.host.to_string())
            .or_else(|_| ServerName::try_from("localhost"))
            .ok()?;
        let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
        let mut hello = Vec::new();
        client.write_tls(&mut hello).ok()?;
        let first: [u8; 2] = self.first_bytes_after(&hello, deadline).await?;
        // A record of the handshake (22) or an alert (21), of any version of TLS.
        Some(matches!(first, [21 | 22, 3]))
    }

    /// Whether the port answers a Kafka request without TLS.
    async fn speaks_plaintext(self, deadline: Instant) -> Option<bool> {
        let body = ApiVersionsRequest::default();
        let client = &self.options.client_id;
        let mut request = Request::new(ApiKey::ApiVersions, 0, client, &body).ok()?;
        let frame = request.take_frame(CORRELATION);
        let first: [u8; 8] = self.first_bytes_after(&frame, deadline).await?;
        let (length, correlation) = first.split_at(4);
        let length = i32::from_be_bytes(length.try_into().ok()?);
        Some(correlation == CORRELATION.to_be_bytes() && (4..MAX_RESPONSE_BYTES).contains(&length))
    }

    /// Opens a connection, sends `request`, and returns the first bytes of the response.
    async fn first_bytes_after<const N: usize>(
        self,
        request: &[u8],
        deadline: Instant,
    ) -> Option<[u8; N]> {
        let mut tcp = self.connect(deadline).await?;
        tcp.write_all(request).await.ok()?;
        let mut first = [0; N];
        tcp.read_exact(&mut first).await.ok()?;
        Some(first)
    }
}
