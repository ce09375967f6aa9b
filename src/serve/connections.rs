//! Connections: bounded in number, all together and of one address, and cut where the other side
//! does not read what it asked for.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::telemetry::api::{ConnectionCut, ConnectionsChanged};

/// Connections at the same time at most.
const MOST: usize = 1024;

/// Those of one address, so that one client leaves room for others: above all for the API server,
/// which needs one or two.
const MOST_OF_ONE: usize = 768;

/// How long the other side may take to make room for more of an answer.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// Lets connections in, and counts them.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<ConnectionCounts>);

#[derive(Debug)]
struct ConnectionCounts {
    listener: &'static str,
    keepalive: Duration,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

impl OpenConnections {
    /// Takes a place, where there is one.
    fn enter(&mut self, peer: IpAddr) -> Result<(), &'static str> {
        if self.all >= MOST {
            return Err("too many");
        }
        let of = self.of.entry(peer).or_default();
        if *of >= MOST_OF_ONE {
            return Err("too many of one address");
        }
        *of += 1;
        self.all += 1;
        Ok(())
    }

    fn leave(&mut self, peer: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(of) = self.of.get_mut(&peer) {
            *of = of.saturating_sub(1);
            if *of == 0 {
                self.of.remove(&peer);
            }
        }
    }
}

impl Connections {
    /// For a listener of this name; a silent peer is asked after `keepalive` whether it is there.
    pub(super) fn new(listener: &'static str, keepalive: Duration) -> Self {
        Self(Arc::new(ConnectionCounts {
            listener,
            keepalive,
            open: Mutex::default(),
        }))
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stream: TcpStream) -> io::Result<Connection> {
        let peer = stream.peer_addr()?.ip().to_canonical();
        let entered = {
            let mut open = self.open();
            open.enter(peer).map(|()| open.all)
        };
        let open = entered.map_err(|reason| {
            self.cut(reason);
            io::Error::other(reason)
        })?;
        // From here on, so that whatever goes wrong gives the place back.
        let place = ConnectionPermit {
            connections: self.clone(),
            peer,
        };
        let listener = self.0.listener;
        ConnectionsChanged { listener, open }.emit();
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(self.0.keepalive);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Connection {
            stream,
            place,
            stalled: None,
        })
    }

    fn cut(&self, reason: &'static str) {
        let listener = self.0.listener;
        ConnectionCut { listener, reason }.emit();
    }
}

impl<S> Accept<TcpStream, S> for Connections {
    type Stream = Connection;
    type Service = S;
    type Future = Ready<io::Result<(Connection, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.enter(stream).map(|connection| (connection, service)))
    }
}

#[derive(Debug)]
struct ConnectionPermit {
    connections: Connections,
    peer: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let open = {
            let mut open = self.connections.open();
            open.leave(self.peer);
            open.all
        };
        let listener = self.connections.0.listener;
        ConnectionsChanged { listener, open }.emit();
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    place: ConnectionPermit,
    /// Runs while the other side makes no room.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Fails where a write has waited for too long.
    fn progress<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = || Box::pin(tokio::time::sleep(READ_WITHIN));
        ready!(
            self.stalled
                .get_or_insert_with(limit)
                .as_mut()
                .poll(context)
        );
        self.place.connections.cut("does not read");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn places_are_bounded_together_and_for_each() {
        let mut open = OpenConnections::default();
        let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let entered = (0..2000).filter(|_| open.enter(address(1)).is_ok()).count();
        assert_eq!(entered, MOST_OF_ONE);
        assert_eq!(open.enter(address(1)), Err("too many of one address"));
        let entered = (0..2000).filter(|_| open.enter(address(2)).is_ok()).count();
        assert_eq!(entered, MOST - MOST_OF_ONE);
        assert_eq!(open.enter(address(3)), Err("too many"));
        open.leave(address(1));
        assert_eq!(open.enter(address(3)), Ok(()));
        open.leave(address(3));
        for _ in 0..2000 {
            open.leave(address(1));
            open.leave(address(2));
        }
        assert_eq!((open.all, open.of.len()), (0, 0));
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut() {
        let connections = Connections::new("test", Duration::from_secs(30));
        let (client, server) = pair().await;
        let mut connection = connections.enter(server).unwrap();
        assert_eq!(connections.open().all, 1);
        // The kernel takes some megabytes; then time passes.
        tokio::time::pause();
        let bytes = vec![0; 64 << 20];
        let error = connection.write_all(&bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert_eq!(connections.open().all, 0);
        drop(client);
    }
}
