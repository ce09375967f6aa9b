//! Passes what is known of a TLS connection to its requests: the client's certificate, and the connection's
//! place among others.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::Request;
use axum_server::accept::Accept;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::auth::PresentedChain;
use super::connections::{Connection, ConnectionSlot};

/// What is known of the TLS connection of a request.
#[derive(Debug)]
pub(super) struct TlsPeer {
    pub(super) slot: Arc<ConnectionSlot>,
    /// The client's certificate chain, if it presented one.
    pub(super) presented: Option<PresentedChain>,
}

/// Adds to each request of a TLS connection its `Arc<TlsPeer>`.
#[derive(Clone, Debug)]
pub(super) struct ClientCertAcceptor<A>(pub(super) A);

impl<A, S> Accept<TcpStream, S> for ClientCertAcceptor<A>
where
    A: Accept<TcpStream, S, Stream = TlsStream<Connection>>,
    A::Future: Send + 'static,
{
    type Stream = TlsStream<Connection>;
    type Service = ClientCertService<A::Service>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, inner) = accepting.await?;
            let (connection, session) = stream.get_ref();
            let slot = Arc::clone(connection.slot());
            let chain = session.peer_certificates().unwrap_or_default();
            let presented = (!chain.is_empty()).then(|| PresentedChain::new(chain.to_vec()));
            let peer = Arc::new(TlsPeer { slot, presented });
            Ok((stream, ClientCertService { inner, peer }))
        })
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(super) struct ClientCertService<S> {
    inner: S,
    peer: Arc<TlsPeer>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for ClientCertService<S> {
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
