//! `bootstrap.servers`: the addresses of a cluster's brokers.

/// Checks the addresses, separated by commas.
///
/// # Errors
/// The problem with the first invalid address. It is quoted, unless `secret` is set: then only its position is given.
pub(super) fn check(servers: &str, secret: bool) -> Result<(), String> {
    if servers.trim().is_empty() {
        return Err("empty".into());
    }
    for (index, server) in servers.split(',').map(str::trim).enumerate() {
        let about = |problem: &str| match secret {
            true => format!("entry {} {problem}", index + 1),
            false => format!("{server:?} {problem}"),
        };
        // librdkafka allows a protocol prefix, and a missing port (9092).
        let address = server
            .split_once("://")
            .map_or(server, |(_, address)| address);
        if address.contains(|c: char| c.is_whitespace() || c == '/' || c == ';') {
            return Err(about("is not a single HOST:PORT"));
        }
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        if host.is_empty() {
            return Err(about("has no host"));
        }
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err(about("has no port from 1 to 65535"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_with_ports() {
        for good in [
            "kafka:9092",
            "a:1,b:2, c:65535",
            "kafka",
            "SSL://kafka:9093",
            "[::1]:9092",
            "::1",
            "10.0.0.1:9092",
        ] {
            assert_eq!(check(good, false), Ok(()), "{good}");
        }
        for bad in [
            "",
            " ",
            "a:9092,",
            ":9092",
            "a:0",
            "a:x",
            "a:65536",
            "a:9092 b:9092",
            "http://a:9092/x",
            "a:9092;b:9092",
        ] {
            assert!(check(bad, false).is_err(), "{bad}");
        }
        let hidden = check("ok:9092,hunter2:x", true).unwrap_err();
        assert_eq!(hidden, "entry 2 has no port from 1 to 65535");
    }
}
