//! Listeners: bound before anything else starts, and ended within seconds.

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

use super::client_certs::ClientCertAcceptor;
use super::connections::Connections;
use super::tls::ServerTls;

/// How long requests under way may still take once the listener is to end. Longer than a first
/// read may wait, shorter than a pod is given.
const GRACE: Duration = Duration::from_secs(3);

/// How long a TLS handshake may take, and then a connection's first request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How long the next request's headers may take; an idle HTTP/1 connection counts as reading them.
const HEADERS_WITHIN: Duration = Duration::from_secs(60);

/// The most bytes of a request's headers.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// The most headers of a request. Each group of a user is one, and some have hundreds. Room for all
/// of them is cleared for each request, so it is no larger than that.
const MAX_HEADERS: usize = 512;

/// The most requests under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;

/// How often a silent peer is asked whether it is still there, and how long it has to say so.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A listener that has its address and accepts nobody yet.
#[derive(Debug)]
pub struct BoundListener {
    listener: TcpListener,
    address: SocketAddr,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({config_key}): {source}")]
pub struct BindError {
    address: SocketAddr,
    config_key: &'static str,
    source: io::Error,
}

/// Takes `address`; port 0 takes a free one. `config_key` is where the address was configured.
///
/// # Errors
/// An address that is not this machine's, or taken.
pub fn bind(address: SocketAddr, config_key: &'static str) -> Result<BoundListener, BindError> {
    TcpListener::bind(address)
        .and_then(|listener| {
            let address = listener.local_addr()?;
            Ok(BoundListener { listener, address })
        })
        .map_err(|source| BindError {
            address,
            config_key,
            source,
        })
}

impl BoundListener {
    /// The address, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves over plain HTTP until some seconds after `shutdown`.
    ///
    /// # Errors
    /// A listener that cannot be used.
    pub async fn serve_plain(
        self,
        router: Router,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let connections = Connections::new("http", KEEPALIVE_EVERY);
        serve(self.listener, connections, router, shutdown).await
    }

    /// Serves over TLS until some seconds after `shutdown`. Requests carry the certificates that
    /// their connection's client presented, not verified.
    ///
    /// # Errors
    /// A listener that cannot be used.
    pub async fn serve_tls(
        self,
        router: Router,
        tls: &ServerTls,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let acceptor = RustlsAcceptor::new(tls.config())
            .handshake_timeout(FIRST_REQUEST_WITHIN)
            .acceptor(Connections::new("api", KEEPALIVE_EVERY));
        serve(
            self.listener,
            ClientCertAcceptor(acceptor),
            router,
            shutdown,
        )
        .await
    }
}

async fn serve<A>(
    listener: TcpListener,
    acceptor: A,
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
        .first_request_timeout(FIRST_REQUEST_WITHIN);
    let builder = server.http_builder();
    builder
        .http1()
        .header_read_timeout(HEADERS_WITHIN)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
        .http2()
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_ANSWER_WITHIN);
    let mut serving = pin!(server.serve(router.into_make_service()));
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown => handle.graceful_shutdown(Some(GRACE)),
    }
    serving.await
}

#[cfg(test)]
mod tests;
