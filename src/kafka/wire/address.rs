//! Where brokers are: host and port as written or as advertised, resolved anew at each connect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::handshake::Broken;
use super::options::{Family, WireOptions};
use crate::model::kafka::fault::Fault;

/// A broker's host and port.
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
    /// As a broker advertises it; `None` where there is none.
    pub(super) fn advertised(host: &str, port: i32) -> Option<Self> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| Self {
            host: host.into(),
            port,
        })
    }

    /// One entry of `bootstrap.servers`: a protocol in front is passed over, and the port is 9092
    /// where there is none, as in librdkafka.
    pub(super) fn written(entry: &str) -> Option<Self> {
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

    /// A TCP connection to the first of the name's addresses that takes one, by the deadline.
    pub(super) async fn connect(
        &self,
        options: &WireOptions,
        deadline: Instant,
    ) -> Result<TcpStream, Broken> {
        let unresolved = |error: &dyn fmt::Display| {
            let reason = format!("failed to resolve {}: {error}", self.host);
            Broken::new(Fault::NameResolution, reason)
        };
        let resolving = tokio::net::lookup_host((self.host.as_ref(), self.port));
        let found = match tokio::time::timeout_at(deadline, resolving).await {
            Err(_) => return Err(unresolved(&"no answer")),
            Ok(Err(error)) => return Err(unresolved(&error)),
            Ok(Ok(found)) => found,
        };
        let suits = |address: &SocketAddr| match options.family {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        };
        let addresses: Vec<_> = found.filter(suits).collect();
        if addresses.is_empty() {
            return Err(unresolved(&"no address of the family asked for"));
        }
        let stream = first_of(&addresses, deadline).await?;
        // Neither is worth a connection.
        let _ = stream.set_nodelay(true);
        let _ = options.keepalive.then(|| keep_alive(&stream));
        Ok(stream)
    }
}

/// A connection to the first address that takes one.
async fn first_of(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Broken> {
    let late = || Broken::new(Fault::Unreachable, "connecting timed out");
    let mut last = late();
    for (tried, address) in addresses.iter().enumerate() {
        // Each gets its share of what is left, so that one that drops packets leaves some for the
        // next.
        let waiting = addresses.len().saturating_sub(tried);
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(waiting).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Err(_) => last = late(),
            Ok(Err(error)) => last = Broken::new(Fault::Unreachable, words(&error)),
            Ok(Ok(stream)) => return Ok(stream),
        }
    }
    Err(last)
}

/// The system's words without its number, "Connection refused".
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Has the system find out when the other side is gone without a word, and keeps load balancers from
/// forgetting the connection.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
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
        let stream = first_of(&all, soon()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.0);
        let refused = first_of(&[silent_at, refusing], soon())
            .await
            .err()
            .unwrap();
        assert_eq!(
            refused,
            Broken::new(Fault::Unreachable, "Connection refused")
        );
        let late = Instant::now() + Duration::from_millis(300);
        let timed_out = first_of(&[silent_at], late).await.err().unwrap();
        assert_eq!(timed_out.reason, "connecting timed out");
    }

    #[test]
    fn addresses_as_written() {
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
                Address::written(written).unwrap().to_string(),
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
            assert_eq!(Address::written(written), None, "{written}");
        }
        assert_eq!(Address::advertised("", -1), None);
        assert_eq!(Address::advertised("h", 70_000), None);
    }
}
