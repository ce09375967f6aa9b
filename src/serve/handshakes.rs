//! TLS handshakes on separate threads. A handshake takes some hundred microseconds of CPU time. So peers that open very
//! many connections keep these threads busy instead of those that answer requests.

use std::io;

use axum_server::accept::Accept;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Accepts connections on other threads.
#[derive(Clone, Debug)]
pub(super) struct HandshakeAcceptor<A> {
    acceptor: A,
    /// Threads for handshakes; `None`: those of the caller.
    threads: Option<Handle>,
}

impl<A> HandshakeAcceptor<A> {
    pub(super) fn new(acceptor: A, threads: Option<Handle>) -> Self {
        Self { acceptor, threads }
    }
}

impl<A, S> Accept<TcpStream, S> for HandshakeAcceptor<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
    A::Stream: Send + 'static,
    A::Service: Send + 'static,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(A::Stream, A::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.acceptor.accept(stream, service);
        match &self.threads {
            Some(threads) => {
                // Cancels the handshake if the server drops this future, as it does at shutdown.
                let mut handshake = JoinSet::new();
                handshake.spawn_on(accepting, threads);
                Box::pin(async move {
                    let accepted = handshake.join_next().await;
                    let accepted = accepted.ok_or(io::ErrorKind::ConnectionAborted)?;
                    accepted.map_err(io::Error::other)?
                })
            }
            None => Box::pin(accepting),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::worker_threads::WorkerThreads;

    /// A handshake that computes until a message comes.
    #[derive(Clone)]
    struct LongHandshake(Arc<Mutex<Receiver<()>>>);

    impl Accept<TcpStream, ()> for LongHandshake {
        type Stream = TcpStream;
        type Service = ();
        type Future = BoxFuture<'static, io::Result<(TcpStream, ())>>;

        fn accept(&self, stream: TcpStream, (): ()) -> Self::Future {
            let message = Arc::clone(&self.0);
            Box::pin(async move {
                let message = message.lock().unwrap();
                let deadline = Duration::from_secs(20);
                message.recv_timeout(deadline).map_err(io::Error::other)?;
                Ok((stream, ()))
            })
        }
    }

    /// A handshake that never ends.
    #[derive(Clone)]
    struct EndlessHandshake;

    impl Accept<TcpStream, ()> for EndlessHandshake {
        type Stream = TcpStream;
        type Service = ();
        type Future = BoxFuture<'static, io::Result<(TcpStream, ())>>;

        fn accept(&self, stream: TcpStream, (): ()) -> Self::Future {
            Box::pin(async move {
                std::future::pending::<()>().await;
                Ok((stream, ()))
            })
        }
    }

    /// Both ends of a connection: the client's, and the server's.
    async fn connect() -> io::Result<(TcpStream, TcpStream)> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (stream, _) = listener.accept().await?;
        Ok((client, stream))
    }

    async fn accept(acceptor: &HandshakeAcceptor<LongHandshake>) -> io::Result<()> {
        let (_client, stream) = connect().await?;
        acceptor.accept(stream, ()).await.map(|_| ())
    }

    // One thread runs the test and what it spawns: a handshake on it would wait for a message that is never sent.
    #[tokio::test]
    async fn others_go_on_during_a_handshake() {
        let threads = WorkerThreads::start("handshakes", 1).unwrap();
        let (sender, receiver) = channel();
        let handshake = LongHandshake(Arc::new(Mutex::new(receiver)));
        let acceptor = HandshakeAcceptor::new(handshake, Some(threads.handle()));
        let others = async {
            tokio::task::yield_now().await;
            sender.send(()).unwrap();
        };
        let (accepted, ()) = tokio::join!(accept(&acceptor), others);
        accepted.unwrap();
    }

    #[tokio::test]
    async fn a_handshake_ends_when_the_server_drops_it() {
        let threads = WorkerThreads::start("handshakes", 1).unwrap();
        for threads in [None, Some(threads.handle())] {
            let acceptor = HandshakeAcceptor::new(EndlessHandshake, threads);
            let (mut client, stream) = connect().await.unwrap();
            let mut accepting = acceptor.accept(stream, ());
            let waited = tokio::time::timeout(Duration::from_millis(20), &mut accepting).await;
            assert!(waited.is_err());
            drop(accepting);
            let mut byte = [0; 1];
            let read = tokio::time::timeout(Duration::from_secs(20), client.read(&mut byte)).await;
            assert_eq!(read.unwrap().unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn handshakes_fail_one_by_one() {
        let threads = WorkerThreads::start("handshakes", 1).unwrap();
        for threads in [None, Some(threads.handle())] {
            let (sender, receiver) = channel();
            let handshake = LongHandshake(Arc::new(Mutex::new(receiver)));
            let acceptor = HandshakeAcceptor::new(handshake, threads);
            sender.send(()).unwrap();
            accept(&acceptor).await.unwrap();
            drop(sender);
            accept(&acceptor).await.unwrap_err();
            accept(&acceptor).await.unwrap_err();
        }
    }
}
