//! Bounds the connections of a listener, and closes those whose peer does not read its responses.
//!
//! A full listener still accepts new connections: it closes the one that matters least. That is a connection of the
//! address with most connections; among these, one without valid credentials if there is any; among these, the one on
//! which the daemon has sent nothing for longest. Connections of the front proxy and of other replicas are never closed
//! for this reason. So a caller that opens many connections only loses its own. The owner of an IPv6 network can use
//! any number of its addresses, so the network with most connections is chosen first, then the address within it.

mod network;
mod table;

use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum_server::accept::Accept;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use self::table::{
    ConnectionTable, MAX_HANDSHAKES, TOO_MANY, TOO_MANY_HANDSHAKES, TOO_MANY_OF_ADDRESS,
};
use crate::telemetry::api::{ConnectionCut, ConnectionLimitReached, ConnectionsChanged};
use crate::telemetry::log_interval::LogInterval;

pub(super) use self::network::network;
pub(super) use self::table::{ConnectionSlot, PeerRank};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// Name of the listener, for metrics and log lines.
    pub(super) listener: &'static str,
    /// Maximum number of connections.
    pub(super) connections: usize,
    /// Maximum number of connections of one address, those of the front proxy and of other replicas not counted.
    pub(super) per_address: usize,
    /// Time without progress after which a response is aborted.
    pub(super) write_stall: Duration,
    /// Size of the kernel's send buffer, in bytes; `None` leaves it to the kernel, which takes up to
    /// several megabytes for a peer that does not read.
    pub(super) send_buffer: Option<usize>,
    /// TCP keepalive time.
    pub(super) keepalive: Duration,
}

/// Admits and counts connections.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimiter(Arc<ListenerConnections>);

#[derive(Debug)]
struct ListenerConnections {
    limits: ConnectionLimits,
    open: Mutex<ConnectionTable>,
    log: LogInterval,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self(Arc::new(ListenerConnections {
            limits,
            open: Mutex::new(ConnectionTable::new(limits.connections, limits.per_address)),
            log: LogInterval::default(),
        }))
    }

    fn open(&self) -> MutexGuard<'_, ConnectionTable> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, stream: TcpStream) -> io::Result<Connection> {
        let peer = stream.peer_addr()?.ip().to_canonical();
        let admitted = {
            let mut table = self.open();
            let admitted = table.admit(peer);
            self.report_open(&table);
            admitted
        };
        let (slot, evicted) = admitted.ok_or_else(|| {
            self.report_limit(TOO_MANY, peer, true);
            io::Error::other(TOO_MANY)
        })?;
        // Created before anything that may fail, so that every path releases the slot.
        let permit = ConnectionPermit {
            connections: self.clone(),
            slot,
        };
        if let Some(reason) = evicted {
            self.report_limit(reason, peer, false);
        }
        let limits = &self.0.limits;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(limits.keepalive);
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        if let Some(bytes) = limits.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(Connection {
            stream,
            permit,
            stalled: None,
        })
    }

    /// Sets the gauge. The caller holds the lock, so that an older count cannot replace a newer one.
    fn report_open(&self, table: &ConnectionTable) {
        let listener = self.0.limits.listener;
        let open = table.len();
        ConnectionsChanged { listener, open }.emit();
    }

    fn report_cut(&self, reason: &'static str) {
        let listener = self.0.limits.listener;
        ConnectionCut { listener, reason }.emit();
    }

    /// Counts a connection that was refused or closed for lack of room for one of `peer`, and logs it once in a while.
    fn report_limit(&self, reason: &'static str, peer: IpAddr, is_refused: bool) {
        self.report_cut(reason);
        if self.0.log.is_due(Instant::now()) {
            self.limit_reached(reason, peer, is_refused).emit();
        }
    }

    fn limit_reached(
        &self,
        reason: &'static str,
        peer: IpAddr,
        is_refused: bool,
    ) -> ConnectionLimitReached {
        let limits = &self.0.limits;
        let (max, address) = match reason {
            TOO_MANY_OF_ADDRESS => (limits.per_address, Some(peer)),
            TOO_MANY_HANDSHAKES => (MAX_HANDSHAKES, None),
            _ => (limits.connections, None),
        };
        ConnectionLimitReached {
            listener: limits.listener,
            reason,
            max,
            address,
            is_refused,
        }
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
    slot: Arc<ConnectionSlot>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.connections.open();
        table.release(&self.slot);
        self.connections.report_open(&table);
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
    pub(super) fn slot(&self) -> &Arc<ConnectionSlot> {
        &self.permit.slot
    }

    /// The result of a poll, or an error once the connection is evicted for another.
    fn check_evicted<T>(
        &self,
        context: &Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        // Registered before the flag is read, so that no eviction is missed.
        if polled.is_pending() {
            self.slot().wake_when_evicted(context.waker());
        }
        match self.slot().is_evicted() {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            false => polled,
        }
    }

    /// Fails if a write has stalled for too long.
    fn check_stall<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            self.slot().touch();
            return written;
        }
        let stall = self.permit.connections.0.limits.write_stall;
        let limit = || Box::pin(tokio::time::sleep(stall));
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
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.check_evicted(context, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        let written = self.check_stall(context, written);
        self.check_evicted(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        let written = self.check_stall(context, written);
        self.check_evicted(context, written)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        listener: "test",
        connections: 2,
        per_address: 2,
        write_stall: Duration::from_secs(20),
        send_buffer: None,
        keepalive: Duration::from_secs(30),
    };

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn closes_connection_of_peer_that_does_not_read() {
        let connections = ConnectionLimiter::new(LIMITS);
        let (client, server) = pair().await;
        let mut connection = connections.admit(server).unwrap();
        assert_eq!(connections.open().len(), 1);
        // The kernel takes some megabytes; then time passes.
        tokio::time::pause();
        let bytes = vec![0; 64 << 20];
        let error = connection.write_all(&bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert_eq!(connections.open().len(), 0);
        drop(client);
    }

    #[test]
    fn reports_the_limit_that_was_reached() {
        let connections = ConnectionLimiter::new(ConnectionLimits {
            connections: 20,
            per_address: 12,
            ..LIMITS
        });
        let peer = IpAddr::from([10, 0, 0, 1]);
        for (reason, max, address) in [(TOO_MANY, 20, None), (TOO_MANY_OF_ADDRESS, 12, Some(peer))]
        {
            let reached = connections.limit_reached(reason, peer, false);
            assert_eq!((reached.max, reached.address), (max, address), "{reason}");
        }
    }

    #[tokio::test]
    async fn an_evicted_connection_stops_waiting() {
        let connections = ConnectionLimiter::new(LIMITS);
        let (_first, server) = pair().await;
        let mut oldest = connections.admit(server).unwrap();
        let waiting = tokio::spawn(async move { oldest.read_u8().await });
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (client, server) = pair().await;
            kept.push((client, connections.admit(server).unwrap()));
        }
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(connections.open().len(), 2);
        drop(kept);
        assert_eq!(connections.open().len(), 0);
    }
}
