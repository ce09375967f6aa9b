//! Recognizes by its first bytes what answers on a port that does not speak Kafka's protocol, and
//! says which property to correct.

use std::fmt;

/// Protocol of a port that is not a Kafka listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerProtocol {
    /// TLS, which rejects a plaintext request with an alert.
    Tls,
    Http,
    /// Another protocol that begins with text, such as SSH.
    Text,
}

impl PeerProtocol {
    /// Recognizes the protocol by the first four bytes of what the port sent; `None` if they are of
    /// no known kind. As the length of a Kafka response, each of these would be over 150 MB.
    pub(super) fn of(first: [u8; 4]) -> Option<Self> {
        let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
        match first {
            // An alert record (type 21) of any version.
            [21, 3, ..] => Some(Self::Tls),
            // Some servers answer malformed requests with only the body of a page.
            [b'H', b'T', b'T', b'P'] | [b'<', ..] => Some(Self::Http),
            _ if first.iter().all(is_text) => Some(Self::Text),
            _ => None,
        }
    }
}

/// Says what to set, since the port speaks TLS.
pub(super) const TLS_HERE: &str = "this port speaks TLS; set security.protocol: SSL or SASL_SSL";

impl fmt::Display for PeerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls => write!(
                f,
                "received a TLS alert instead of a Kafka response: {TLS_HERE}"
            ),
            Self::Http => f.write_str(
                "received an HTTP response instead of a Kafka response: this is the port of an HTTP server; \
                 use the port of a Kafka broker in bootstrap.servers",
            ),
            Self::Text => f.write_str(
                "received text instead of a Kafka response: another service listens on this port; \
                 use the port of a Kafka broker in bootstrap.servers",
            ),
        }
    }
}

/// Says what to set, since the port closes connections that begin with TLS or sends something else.
pub(super) fn no_tls_here(has_login: bool) -> String {
    let protocol = if has_login {
        "SASL_PLAINTEXT"
    } else {
        "PLAINTEXT"
    };
    format!(
        "this port does not speak TLS; set security.protocol: {protocol}, or use the port of a listener with TLS"
    )
}

/// Says what to set, since the listener takes no SASL login.
pub(super) fn no_login_here(has_tls: bool) -> String {
    let protocol = if has_tls { "SSL" } else { "PLAINTEXT" };
    format!(
        "this listener takes no SASL login; set security.protocol: {protocol}, or use the port of a listener with SASL"
    )
}

/// Says what to set, since the listener requires a SASL login by one of the mechanisms `offered`.
pub(super) fn login_required_here(has_tls: bool, offered: &[&str]) -> String {
    let protocol = if has_tls {
        "SASL_SSL"
    } else {
        "SASL_PLAINTEXT"
    };
    format!(
        "this listener requires a SASL login ({}); set security.protocol: {protocol}, sasl.mechanism and the login's properties",
        offered.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_recognized_by_their_first_bytes() {
        for (first, expected) in [
            ([21, 3, 3, 0], Some(PeerProtocol::Tls)),
            ([21, 3, 1, 0], Some(PeerProtocol::Tls)),
            (*b"HTTP", Some(PeerProtocol::Http)),
            (*b"<!DO", Some(PeerProtocol::Http)),
            (*b"<htm", Some(PeerProtocol::Http)),
            (*b"SSH-", Some(PeerProtocol::Text)),
            (*b"-ERR", Some(PeerProtocol::Text)),
            (*b"220 ", Some(PeerProtocol::Text)),
            ([0, 0, 0, 10], None),
            ([0x7f, 0xff, 0xff, 0xff], None),
            ([0xff; 4], None),
        ] {
            assert_eq!(PeerProtocol::of(first), expected, "{first:?}");
        }
    }
}
