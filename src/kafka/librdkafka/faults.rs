//! Maps librdkafka's error codes and reasons to faults.

use std::time::Instant;

use crate::kafka::codes;
use crate::kafka::health::ConnectionHealth;
use crate::kafka::peer_protocol::PeerProtocol;
use crate::model::kafka::fault::Fault;

/// Maps an error code to a fault: a broker's code if positive, librdkafka's own if negative
/// (`rd_kafka_resp_err_t`).
pub(super) fn fault_of(code: i32) -> Fault {
    match code {
        -185 => Fault::NoAnswer,
        -195 | -187 => Fault::Unreachable,
        -169 => Fault::Login,
        -181 => Fault::Tls,
        -193 => Fault::NameResolution,
        -180 => Fault::CoordinatorUnavailable,
        -188 => Fault::TopicMissing,
        -190 => Fault::PartitionMissing,
        code => codes::fault_of(code),
    }
}

/// Records an error on a connection.
pub(super) fn report(health: &ConnectionHealth, code: i32, reason: &str) {
    // "All brokers are down" adds nothing to the errors of each broker.
    if code != -187 {
        let (fault, reason) = explain(code, reason);
        match broker_address(&reason) {
            Some(broker) if fault.is_connection() => {
                health.report_broker(broker, fault, &reason, Instant::now());
            }
            _ => health.report(fault, &reason, Instant::now()),
        }
    }
}

/// The broker's host and port in a reason that begins with its name, as in `k:9092/1: ...`,
/// `ssl://k:9093/bootstrap: ...` or `GroupCoordinator: k:9092: ...`.
fn broker_address(reason: &str) -> Option<&str> {
    let (name, rest) = reason.split_once(": ")?;
    let name = match name {
        "GroupCoordinator" => rest.split_once(": ")?.0,
        _ => name.split_once("://").map_or(name, |(_, name)| name),
    };
    let address = name.split('/').next()?;
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(address)
}

/// The length that librdkafka took from the first bytes of a response, in its messages about it.
const LENGTHS: [&str; 2] = ["Invalid response size ", "Invalid frame size "];

/// What to set, by a part of librdkafka's message. Where it has a guess, the message ends in it.
const ADVICE: [(&str, &str); 6] = [
    (
        "connecting to a PLAINTEXT broker listener?",
        "set security.protocol: PLAINTEXT or SASL_PLAINTEXT, or use the port of a listener with TLS",
    ),
    (
        "wrong version number",
        "this port does not speak TLS; set security.protocol: PLAINTEXT or SASL_PLAINTEXT, or use the port of a listener with TLS",
    ),
    (
        "connecting to a SSL listener?",
        "set security.protocol: SSL or SASL_SSL",
    ),
    (
        "broker might require SASL authentication",
        "set security.protocol: SASL_PLAINTEXT or SASL_SSL, sasl.mechanism and the login's properties",
    ),
    (
        "Send failed: Broken pipe",
        "if the listener requires a login, set security.protocol: SASL_PLAINTEXT or SASL_SSL",
    ),
    (
        "Request not valid in current SASL state",
        "this listener takes no SASL login; set security.protocol: PLAINTEXT or SSL, or use the port of a listener with SASL",
    ),
];

/// librdkafka's guess if a connection ends during the TLS handshake. If it ends at once, librdkafka leaves it out.
const NO_TLS_GUESS: &str = ": connecting to a PLAINTEXT broker listener?";

/// Maps an error on a connection to a fault, and adds to its reason which property to set. What changes every time is
/// left out.
fn explain(code: i32, given: &str) -> (Fault, String) {
    let mut reason = without_timing(given).to_owned();
    if given.contains("in state SSL_HANDSHAKE")
        && reason.contains("Disconnected: ")
        && !reason.contains(NO_TLS_GUESS)
    {
        reason.push_str(NO_TLS_GUESS);
    }
    let reason = reason.as_str();
    let fault = fault_of_error(code, reason);
    if let Some(other) = LENGTHS.iter().find_map(|text| other_protocol(reason, text)) {
        let fault = match other {
            PeerProtocol::Tls => Fault::Tls,
            PeerProtocol::Http | PeerProtocol::Text => Fault::Unreachable,
        };
        let (broker, _) = reason.split_once(": ").unwrap_or((reason, ""));
        return (fault, format!("{broker}: {other}"));
    }
    let advice = ADVICE.iter().find(|(part, _)| reason.contains(part));
    match advice {
        Some((_, advice)) => (fault, format!("{reason}; {advice}")),
        None => (fault, reason.to_owned()),
    }
}

/// Recognizes another protocol by its first bytes, which librdkafka takes for the length of a
/// response and repeats after `text`.
fn other_protocol(reason: &str, text: &str) -> Option<PeerProtocol> {
    let (_, rest) = reason.split_once(text)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let length: i32 = rest.get(..end)?.parse().ok()?;
    PeerProtocol::of(length.to_be_bytes())
}

/// Maps an error on a connection to a fault.
fn fault_of_error(code: i32, reason: &str) -> Fault {
    match fault_of(code) {
        // With TLS 1.3 a broker rejects a client certificate after the handshake, so its alert
        // appears as a failure to receive.
        Fault::Unreachable if reason.contains("SSL alert number") => Fault::Tls,
        fault => fault,
    }
}

/// Strips the part of a reason that changes every time ("after 3ms in state CONNECT").
fn without_timing(reason: &str) -> &str {
    let end = reason.find(" (after ").unwrap_or(reason.len());
    reason.get(..end).unwrap_or(reason).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_alert_is_a_refused_login() {
        let given = "ssl://k:9093/bootstrap: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42 (after 3ms in state APIVERSION_QUERY)";
        assert_eq!(fault_of_error(-195, given), Fault::Tls);
        let cut_off = "ssl://k:9093/1: Receive failed: error:0A000126:SSL routines::unexpected eof while reading";
        assert_eq!(fault_of_error(-195, cut_off), Fault::Unreachable);
    }

    #[test]
    fn reasons_say_which_property_to_set() {
        let sized = |length| {
            format!(
                "sasl_plaintext://k:9093/bootstrap: Receive failed: Invalid response size {length} (0..100000000): increase receive.message.max.bytes"
            )
        };
        for (code, given, fault, advice) in [
            (-199, sized(352_518_912), Fault::Tls, "set security.protocol: SSL or SASL_SSL"),
            (-199, sized(1_213_486_160), Fault::Unreachable, "the port of an HTTP server"),
            (
                -195,
                "ssl://k:9092/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?".to_owned(),
                Fault::Unreachable,
                "set security.protocol: PLAINTEXT or SASL_PLAINTEXT",
            ),
            (
                -195,
                "sasl_ssl://k:9092/bootstrap: Disconnected: SSL connection closed by peer (after 0ms in state SSL_HANDSHAKE)".to_owned(),
                Fault::Unreachable,
                "set security.protocol: PLAINTEXT or SASL_PLAINTEXT",
            ),
            (
                -181,
                "ssl://k:80/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number".to_owned(),
                Fault::Tls,
                "does not speak TLS",
            ),
        ] {
            let (found, reason) = explain(code, &given);
            assert_eq!(found, fault, "{given}");
            assert!(reason.contains(advice) && reason.contains("://k:"), "{reason}");
            assert!(!reason.contains("receive.message.max.bytes"), "{reason}");
            assert!(!reason.contains("(after "), "{reason}");
        }
        // An established connection that ends says nothing about the protocol.
        let closed =
            "ssl://k:9093/1: Disconnected: SSL connection closed by peer (after 9ms in state UP)";
        assert!(!explain(-195, closed).1.contains("security.protocol"));
        let too_long = sized(150_000_000);
        let (fault, reason) = explain(-199, &too_long);
        assert_eq!((fault, reason), (Fault::Code(-199), too_long));
    }

    #[test]
    fn a_reason_contains_the_address_of_the_broker() {
        for (reason, expected) in [
            ("k:9092/1: Failed to resolve", Some("k:9092")),
            ("ssl://k:9093/1: Failed to resolve", Some("k:9093")),
            (
                "sasl_ssl://[::1]:9093/bootstrap: refused",
                Some("[::1]:9093"),
            ),
            (
                "GroupCoordinator: k:9092: Connect to ipv4#1.2.3.4:9092 failed",
                Some("k:9092"),
            ),
            ("GroupCoordinator: Disconnected", None),
            ("token source oidc: http://h:1/token: refused", None),
            ("no colon", None),
        ] {
            assert_eq!(broker_address(reason), expected, "{reason}");
        }
    }

    #[test]
    fn reasons_contain_nothing_that_changes() {
        let given = "sasl_plaintext://k:9093/bootstrap: SASL authentication error: no (after 307ms in state AUTH_REQ, 5 identical error(s) suppressed)";
        assert_eq!(
            without_timing(given),
            "sasl_plaintext://k:9093/bootstrap: SASL authentication error: no"
        );
        assert_eq!(without_timing("as it is"), "as it is");
    }

    #[test]
    fn every_code_maps_to_a_fault() {
        for code in -300..200 {
            assert!(!fault_of(code).to_string().is_empty());
        }
    }
}
