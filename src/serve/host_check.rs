//! Refuses requests whose `Host` is not this machine, for listeners that trust every client on loopback.
//!
//! A web page can let its host name resolve to 127.0.0.1 (DNS rebinding) and then read ports of the machine that its
//! browser runs on, such as those that `kubectl port-forward` opens. The browser still sends the page's host name.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const OTHER_HOST: &str = "this listener only answers requests for localhost or a loopback address: \
                          use http://localhost:PORT, or set the header Host to localhost\n";

/// Passes on a request whose host is this machine.
pub(super) async fn require_local_host(request: Request, next: Next) -> Response {
    // HTTP/2 has the host in the URI. So may HTTP/1.1, in addition to the header.
    let of_uri = request.uri().authority().map(Authority::as_str);
    let hosts = request.headers().get_all(header::HOST);
    let mut hosts: Vec<_> = hosts.iter().map(|host| host.to_str().ok()).collect();
    hosts.extend(of_uri.map(Some));
    let is_local = !hosts.is_empty() && hosts.iter().all(|host| host.is_some_and(is_local_host));
    match is_local {
        true => next.run(request).await,
        false => (StatusCode::MISDIRECTED_REQUEST, OTHER_HOST).into_response(),
    }
}

/// Whether the value of a `Host` header, with or without a port, names this machine.
fn is_local_host(host: &str) -> bool {
    // A user name before the host is not allowed there.
    let Some(authority) = host
        .parse::<Authority>()
        .ok()
        .filter(|_| !host.contains('@'))
    else {
        return false;
    };
    let name = authority.host();
    if name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case("localhost.") {
        return true;
    }
    let address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = address.unwrap_or(name).parse::<IpAddr>();
    address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_hosts_are_localhost_and_loopback_addresses() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:8082", true),
            ("LocalHost:1", true),
            ("localhost.:8082", true),
            ("127.0.0.1", true),
            ("127.0.0.1:8082", true),
            ("127.9.9.9:8082", true),
            ("[::1]", true),
            ("[::1]:8082", true),
            ("[::ffff:127.0.0.1]:8082", true),
            ("", false),
            (":8082", false),
            ("evil.example", false),
            ("evil.example:8082", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example@localhost", false),
            ("localhost@evil.example", false),
            ("0.0.0.0:8082", false),
            ("10.0.0.1:8082", false),
            ("[::]:8082", false),
            ("[fd00::1]:8082", false),
            ("localhost,evil.example", false),
            ("localhost evil.example", false),
        ] {
            assert_eq!(is_local_host(host), expected, "{host:?}");
        }
    }
}
