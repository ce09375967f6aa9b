//! Broker addresses: host and port as configured or advertised, resolved again on every connect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::handshake::ConnectError;
use super::options::{AddressFamily, WireOptions};
use crate::model::kafka::fault::Fault;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// The address a broker advertises; `None` if host or port is not usable.
    pub(super) fn advertised(host: &str, port: i32) -> Option<Self> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| Self {
            host: host.into(),
            port,
        })
    }

    /// Parses an entry of `bootstrap.servers`. As in librdkafka, a leading protocol is ignored and
    /// the port defaults to 9092.
    pub(super) fn parse(entry: &str) -> Option<Self> {
        let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
        let entry = entry.trim();
        let (host, port) = match entry.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            // More than one colon: an IPv6 address without brackets.
            None if entry.matches(':').count() > 1 => (entry, None),
            None => match entry.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (entry, None),
            },
        };
        let port = port.map_or(Some(9092), |port| port.parse().ok())?;
        Self::advertised(host, port)
    }

    /// Connects to the first of the host's addresses that accepts a connection, by the deadline.
    pub(super) async fn connect(
        &self,
        options: &WireOptions,
        deadline: Instant,
    ) -> Result<TcpStream, ConnectError> {
        let unresolved = |error: &dyn fmt::Display| {
            let reason = format!("failed to resolve {}: {error}", self.host);
            ConnectError::new(Fault::NameResolution, reason)
        };
        let resolving = tokio::net::lookup_host((self.host.as_ref(), self.port));
        let found = match tokio::time::timeout_at(deadline, resolving).await {
            Err(_) => return Err(unresolved(&"no answer")),
            Ok(Err(error)) => return Err(unresolved(&error)),
            Ok(Ok(found)) => found,
        };
        let suits = |address: &SocketAddr| match options.family {
            AddressFamily::Any => true,
            AddressFamily::V4 => address.is_ipv4(),
            AddressFamily::V6 => address.is_ipv6(),
        };
        let addresses: Vec<_> = found.filter(suits).collect();
        if addresses.is_empty() {
            return Err(unresolved(
                &"no address of the family that broker.address.family selects",
            ));
        }
        let stream = connect_first(&addresses, deadline).await?;
        // A connection is usable without these options.
        let _ = stream.set_nodelay(true);
        let _ = options.keepalive.then(|| set_keepalive(&stream));
        Ok(stream)
    }
}

/// Connects to the first address that accepts.
async fn connect_first(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, ConnectError> {
    let late = || ConnectError::new(Fault::Unreachable, "connecting timed out");
    let mut last = late();
    for (tried, address) in addresses.iter().enumerate() {
        // Each address gets an equal share of the remaining time, so that one that drops packets
        // leaves some for the next.
        let waiting = addresses.len().saturating_sub(tried);
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(waiting).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Err(_) => last = late(),
            Ok(Err(error)) => last = ConnectError::new(Fault::Unreachable, without_os_code(&error)),
            Ok(Ok(stream)) => return Ok(stream),
        }
    }
    Err(last)
}

/// The error's text without the "(os error N)" at its end.
fn without_os_code(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Enables TCP keepalive, which detects peers that vanished and keeps load balancers from dropping
/// idle connections.
fn set_keepalive(stream: &TcpStream) -> io::Result<()> {
    let every = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    SockRef::from(stream).set_tcp_keepalive(&every)
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[tokio::test]
    async fn all_addresses_of_a_name_are_tried() {
        let local = || SocketAddr::from(([127, 0, 0, 1], 0));
        let good = tokio::net::TcpListener::bind(local()).await.unwrap();
        let good = (good.local_addr().unwrap(), good);
        let gone = tokio::net::TcpListener::bind(local()).await.unwrap();
        let refusing = gone.local_addr().unwrap();
        drop(gone);
        // One that drops packets, as a full queue does.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&local().into()).unwrap();
        silent.listen(0).unwrap();
        let silent_at = silent.local_addr().unwrap().as_socket().unwrap();
        let try_it = || TcpStream::connect(silent_at);
        let mut filling = Vec::new();
        while let Ok(taken) = tokio::time::timeout(Duration::from_millis(300), try_it()).await {
            filling.push(taken.unwrap());
            assert!(filling.len() < 100, "its queue does not get full");
        }
        let soon = || Instant::now() + Duration::from_secs(3);
        let all = [refusing, silent_at, good.0];
        let stream = connect_first(&all, soon()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.0);
        let refused = connect_first(&[silent_at, refusing], soon())
            .await
            .err()
            .unwrap();
        assert_eq!(
            refused,
            ConnectError::new(Fault::Unreachable, "Connection refused")
        );
        let late = Instant::now() + Duration::from_millis(300);
        let timed_out = connect_first(&[silent_at], late).await.err().unwrap();
        assert_eq!(timed_out.reason, "connecting timed out");
    }

    #[test]
    fn addresses_parse_and_print_as_written() {
        for (written, expected) in [
            ("kafka:9093", "kafka:9093"),
            ("kafka", "kafka:9092"),
            ("SASL_SSL://b-1.example.com:9096", "b-1.example.com:9096"),
            (" 10.0.0.1:1 ", "10.0.0.1:1"),
            ("[::1]:9092", "[::1]:9092"),
            ("[::1]", "[::1]:9092"),
            ("fe80::1", "[fe80::1]:9092"),
        ] {
            assert_eq!(
                Address::parse(written).unwrap().to_string(),
                expected,
                "{written}"
            );
        }
        for written in [
            "",
            ":9092",
            "kafka:0",
            "kafka:x",
            "kafka:99999",
            "[::1",
            "[]:1",
        ] {
            assert_eq!(Address::parse(written), None, "{written}");
        }
        assert_eq!(Address::advertised("", -1), None);
        assert_eq!(Address::advertised("h", 70_000), None);
    }
}
