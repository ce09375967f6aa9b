//! Passes facts about a connection to its requests: its slot in the table, and the client's certificate.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::Request;
use axum_server::accept::Accept;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::auth::PresentedChain;
use super::connections::{Connection, ConnectionSlot};

/// Maximum number of requests of a connection whose bodies are being read.
const MAX_UNREAD_REQUESTS: usize = 64;

/// Facts about the connection of a request.
#[derive(Debug)]
pub(super) struct ConnectionPeer {
    pub(super) slot: Arc<ConnectionSlot>,
    /// The client's certificate chain, if it presented one.
    pub(super) presented: Option<PresentedChain>,
    /// Permits for requests whose bodies are being read.
    pub(super) unread_requests: Semaphore,
}

impl ConnectionPeer {
    pub(super) fn new(slot: Arc<ConnectionSlot>, presented: Option<PresentedChain>) -> Self {
        Self {
            slot,
            presented,
            unread_requests: Semaphore::new(MAX_UNREAD_REQUESTS),
        }
    }
}

/// A connection that can describe its peer.
pub(super) trait PeerConnection {
    fn peer(&self) -> ConnectionPeer;
}

impl PeerConnection for Connection {
    fn peer(&self) -> ConnectionPeer {
        ConnectionPeer::new(Arc::clone(self.slot()), None)
    }
}

impl PeerConnection for TlsStream<Connection> {
    fn peer(&self) -> ConnectionPeer {
        let (connection, session) = self.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let presented = (!chain.is_empty()).then(|| PresentedChain::new(chain.to_vec()));
        ConnectionPeer::new(Arc::clone(connection.slot()), presented)
    }
}

/// Adds to each request of a connection its `Arc<ConnectionPeer>`.
#[derive(Clone, Debug)]
pub(super) struct PeerAcceptor<A>(pub(super) A);

impl<A, S> Accept<TcpStream, S> for PeerAcceptor<A>
where
    A: Accept<TcpStream, S, Stream: PeerConnection>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = PeerService<A::Service>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, inner) = accepting.await?;
            let peer = Arc::new(stream.peer());
            peer.slot.end_handshake();
            Ok((stream, PeerService { inner, peer }))
        })
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(super) struct PeerService<S> {
    inner: S,
    peer: Arc<ConnectionPeer>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for PeerService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(Arc::clone(&self.peer));
        self.inner.call(request)
    }
}
