//! TCP listeners: bound before anything else starts, shut down within seconds.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::service::SendService;
use axum_server::tls_rustls::RustlsAcceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime;

use super::connection_peer::PeerAcceptor;
use super::connections::{ConnectionLimiter, ConnectionLimits};
use super::handshakes::HandshakeAcceptor;
use super::tls::ServerTls;

/// Grace period of running requests at shutdown. Longer than a first read may wait, shorter than a
/// pod's termination grace period.
const GRACE: Duration = Duration::from_secs(3);

/// Timeout of the TLS handshake, and then of a connection's first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for the headers of the next request; an idle HTTP/1 connection counts as reading them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum size of a request's headers.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Maximum number of headers. The front proxy sends one per group of the user, and some users have
/// hundreds. hyper reserves and clears room for all of them per request, so this is not larger.
const MAX_HEADERS: usize = 512;

/// Keepalive: interval and timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of the headers of a call of the external scaler. KEDA sends some hundred bytes.
const MAX_SCALER_HEADER_BYTES: u32 = 16 * 1024;

/// Maximum number of streams of the external scaler that one address may have open: as many as KEDA opens for 1,024
/// triggers of type `external-push`.
pub(super) const MAX_SCALER_STREAMS_OF_ADDRESS: u32 = 2048;

/// Maximum number of other calls on a connection in addition to its streams.
const MAX_SCALER_CALLS: u32 = 256;

/// Maximum concurrent requests on a connection to the external metrics API. The front proxy sends all of its requests
/// on one, and so does another replica.
pub(super) const MAX_API_STREAMS: u32 = 250;

/// Kind of a listener, which determines its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// The external metrics API.
    Api,
    /// `/metrics`.
    Metrics,
    /// The probes of Kubernetes.
    Probes,
    /// The admin endpoints.
    Admin,
    /// The external scaler for KEDA, for callers with a client certificate.
    Scaler,
    /// The external scaler for KEDA, without authentication.
    OpenScaler,
}

impl ListenerKind {
    fn limits(self) -> ConnectionLimits {
        let small = |listener, connections, per_address| ConnectionLimits {
            listener,
            connections,
            per_address,
            write_stall: Duration::from_secs(5),
            // Bounds the kernel memory of a peer that does not read.
            send_buffer: Some(256 * 1024),
            keepalive: KEEPALIVE_INTERVAL,
        };
        match self {
            // Clients may keep idle connections; the front proxy has one or two.
            Self::Api => ConnectionLimits {
                listener: "api",
                connections: 1024,
                per_address: 768,
                write_stall: Duration::from_secs(20),
                send_buffer: None,
                keepalive: KEEPALIVE_INTERVAL,
            },
            // KEDA has one for all ScaledObjects with the same address and certificates.
            Self::Scaler => ConnectionLimits {
                write_stall: Duration::from_secs(20),
                ..small("scaler", 256, 192)
            },
            // Everybody may open as many streams as KEDA, so that fewer connections are needed to fill the memory.
            Self::OpenScaler => ConnectionLimits {
                write_stall: Duration::from_secs(20),
                ..small("scaler", 32, 24)
            },
            // Each may read a long response; a few Prometheus servers scrape.
            Self::Metrics => small("metrics", 64, 48),
            // Kubernetes opens one for each probe and closes it at once.
            Self::Probes => small("probes", 64, 48),
            Self::Admin => small("admin", 32, 32),
        }
    }

    /// Maximum concurrent requests per HTTP/2 connection.
    fn max_streams(self) -> u32 {
        match self {
            Self::Api => MAX_API_STREAMS,
            // Streams, which stay open, and other calls.
            Self::Scaler | Self::OpenScaler => MAX_SCALER_STREAMS_OF_ADDRESS + MAX_SCALER_CALLS,
            Self::Metrics | Self::Probes | Self::Admin => 4,
        }
    }

    fn max_header_bytes(self) -> u32 {
        match self {
            Self::Scaler | Self::OpenScaler => MAX_SCALER_HEADER_BYTES,
            Self::Api | Self::Metrics | Self::Probes | Self::Admin => MAX_HEADER_BYTES,
        }
    }
}

/// A bound listener that accepts no connections yet.
#[derive(Debug)]
pub struct BoundListener {
    listener: TcpListener,
    address: SocketAddr,
    /// Threads for TLS handshakes; `None`: those that serve requests.
    handshakes: Option<runtime::Handle>,
}

/// A failure to bind an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({config_key}): {source}")]
pub struct BindError {
    address: SocketAddr,
    config_key: &'static str,
    source: io::Error,
}

/// Binds `address`; port 0 selects a free port. `config_key` is the setting that holds the address,
/// for errors.
///
/// # Errors
/// The address is in use or not local.
pub fn bind(address: SocketAddr, config_key: &'static str) -> Result<BoundListener, BindError> {
    TcpListener::bind(address)
        .and_then(|listener| {
            let address = listener.local_addr()?;
            Ok(BoundListener {
                listener,
                address,
                handshakes: None,
            })
        })
        .map_err(|source| BindError {
            address,
            config_key,
            source,
        })
}

impl BoundListener {
    /// The bound address, with the actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does TLS handshakes on these threads.
    #[must_use]
    pub fn with_handshakes_on(self, threads: runtime::Handle) -> Self {
        Self {
            handshakes: Some(threads),
            ..self
        }
    }

    /// Serves plain HTTP until shortly after `shutdown`.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve_plain(
        self,
        kind: ListenerKind,
        router: Router,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let connections = ConnectionLimiter::new(kind.limits());
        serve(
            self.listener,
            PeerAcceptor(connections),
            kind,
            router,
            shutdown,
        )
        .await
    }

    /// Serves TLS until shortly after `shutdown`. Requests carry their client's certificate chain,
    /// not verified unless `tls` does that.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve_tls(
        self,
        kind: ListenerKind,
        router: Router,
        tls: &ServerTls,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let acceptor = RustlsAcceptor::new(tls.config())
            .handshake_timeout(FIRST_REQUEST_TIMEOUT)
            .acceptor(ConnectionLimiter::new(kind.limits()));
        let acceptor = HandshakeAcceptor::new(acceptor, self.handshakes);
        serve(
            self.listener,
            PeerAcceptor(acceptor),
            kind,
            router,
            shutdown,
        )
        .await
    }
}

async fn serve<A>(
    listener: TcpListener,
    acceptor: A,
    kind: ListenerKind,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    A: Accept<TcpStream, Router> + Clone + Send + Sync + 'static,
    A::Stream: AsyncRead + AsyncWrite + Unpin + Send,
    A::Service: SendService<axum::http::Request<hyper::body::Incoming>> + Send,
    A::Future: Send,
{
    let handle = Handle::new();
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(acceptor)
        .handle(handle.clone())
        .first_request_timeout(FIRST_REQUEST_TIMEOUT);
    let builder = server.http_builder();
    builder
        .http1()
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
        .http2()
        .max_header_list_size(kind.max_header_bytes())
        .max_concurrent_streams(kind.max_streams())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let mut serving = pin!(server.serve(router.into_make_service()));
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown => handle.graceful_shutdown(Some(GRACE)),
    }
    serving.await
}

#[cfg(test)]
mod tests;
