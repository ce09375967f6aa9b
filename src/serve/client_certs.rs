//! Passes client certificates from the TLS handshake to the requests of the connection.

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

/// Adds the client's certificate chain to each request of a TLS connection, as
/// `Arc<PresentedChain>`; nothing if the client presented none.
#[derive(Clone, Debug)]
pub(super) struct ClientCertAcceptor<A>(pub(super) A);

impl<A, I, S> Accept<TcpStream, S> for ClientCertAcceptor<A>
where
    A: Accept<TcpStream, S, Stream = TlsStream<I>>,
    A::Future: Send + 'static,
{
    type Stream = TlsStream<I>;
    type Service = ClientCertService<A::Service>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, inner) = accepting.await?;
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
            let presented = (!chain.is_empty()).then(|| Arc::new(PresentedChain::new(chain)));
            Ok((stream, ClientCertService { inner, presented }))
        })
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(super) struct ClientCertService<S> {
    inner: S,
    presented: Option<Arc<PresentedChain>>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for ClientCertService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if let Some(presented) = &self.presented {
            request.extensions_mut().insert(Arc::clone(presented));
        }
        self.inner.call(request)
    }
}
