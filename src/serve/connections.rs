//! Limits connections, in total and per address, and closes those whose peer does not read its
//! responses.

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

/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 1024;

/// Maximum per address, so that one client leaves room for others, above all for the API server,
/// which needs one or two.
const MAX_PER_ADDRESS: usize = 768;

/// How long a write may stall before the connection is closed.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Admits and counts connections.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimiter(Arc<ConnectionCounts>);

#[derive(Debug)]
struct ConnectionCounts {
    listener: &'static str,
    keepalive: Duration,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl OpenConnections {
    /// Takes a slot, or returns why there is none.
    fn admit(&mut self, peer: IpAddr) -> Result<(), &'static str> {
        if self.all >= MAX_CONNECTIONS {
            return Err("too many");
        }
        let of_peer = self.by_address.entry(peer).or_default();
        if *of_peer >= MAX_PER_ADDRESS {
            return Err("too many of one address");
        }
        *of_peer += 1;
        self.all += 1;
        Ok(())
    }

    fn release(&mut self, peer: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(of_peer) = self.by_address.get_mut(&peer) {
            *of_peer = of_peer.saturating_sub(1);
            if *of_peer == 0 {
                self.by_address.remove(&peer);
            }
        }
    }
}

impl ConnectionLimiter {
    /// A limiter for the listener of this name; `keepalive` is the TCP keepalive time.
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

    fn admit(&self, stream: TcpStream) -> io::Result<Connection> {
        let peer = stream.peer_addr()?.ip().to_canonical();
        let admitted = {
            let mut open = self.open();
            open.admit(peer).map(|()| open.all)
        };
        let open = admitted.map_err(|reason| {
            self.report_cut(reason);
            io::Error::other(reason)
        })?;
        // Created before anything that may fail, so that every path releases the slot.
        let permit = ConnectionPermit {
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
            permit,
            stalled: None,
        })
    }

    fn report_cut(&self, reason: &'static str) {
        let listener = self.0.listener;
        ConnectionCut { listener, reason }.emit();
    }
}

impl<S> Accept<TcpStream, S> for ConnectionLimiter {
    type Stream = Connection;
    type Service = S;
    type Future = Ready<io::Result<(Connection, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.admit(stream).map(|connection| (connection, service)))
    }
}

#[derive(Debug)]
struct ConnectionPermit {
    connections: ConnectionLimiter,
    peer: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let open = {
            let mut open = self.connections.open();
            open.release(self.peer);
            open.all
        };
        let listener = self.connections.0.listener;
        ConnectionsChanged { listener, open }.emit();
    }
}

/// An admitted connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    permit: ConnectionPermit,
    /// Runs while a write is stalled.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Fails if a write has stalled for too long.
    fn check_stall<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = || Box::pin(tokio::time::sleep(WRITE_STALL_TIMEOUT));
        ready!(
            self.stalled
                .get_or_insert_with(limit)
                .as_mut()
                .poll(context)
        );
        self.permit.connections.report_cut("does not read");
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
        self.check_stall(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.check_stall(context, written)
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
    fn limits_connections_in_total_and_per_address() {
        let mut open = OpenConnections::default();
        let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let admitted = (0..2000).filter(|_| open.admit(address(1)).is_ok()).count();
        assert_eq!(admitted, MAX_PER_ADDRESS);
        assert_eq!(open.admit(address(1)), Err("too many of one address"));
        let admitted = (0..2000).filter(|_| open.admit(address(2)).is_ok()).count();
        assert_eq!(admitted, MAX_CONNECTIONS - MAX_PER_ADDRESS);
        assert_eq!(open.admit(address(3)), Err("too many"));
        open.release(address(1));
        assert_eq!(open.admit(address(3)), Ok(()));
        open.release(address(3));
        for _ in 0..2000 {
            open.release(address(1));
            open.release(address(2));
        }
        assert_eq!((open.all, open.by_address.len()), (0, 0));
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn closes_connection_of_peer_that_does_not_read() {
        let connections = ConnectionLimiter::new("test", Duration::from_secs(30));
        let (client, server) = pair().await;
        let mut connection = connections.admit(server).unwrap();
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
