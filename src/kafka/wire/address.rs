//! Where brokers are: host and port as written or as advertised, resolved anew at each connect.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::options::{Family, Options};
use super::setup::Broken;
use crate::model::fault::Fault;

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
        options: &Options,
        deadline: Instant,
    ) -> Result<TcpStream, Broken> {
        let late = || Broken::new(Fault::Unreachable, "connecting timed out");
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
        let mut last = late();
        for (tried, address) in addresses.iter().enumerate() {
            // Each gets its share of what is left, so that one that drops packets leaves some for
            // the next.
            let waiting = addresses.len().saturating_sub(tried);
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(waiting).unwrap_or(u32::MAX);
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Err(_) => last = late(),
                Ok(Err(error)) => last = Broken::new(Fault::Unreachable, words(&error)),
                Ok(Ok(stream)) => {
                    // Neither is worth a connection.
                    let _ = stream.set_nodelay(true);
                    let _ = options.keepalive.then(|| keep_alive(&stream));
                    return Ok(stream);
                }
            }
        }
        Err(last)
    }
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
    use super::*;

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
