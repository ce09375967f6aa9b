//! Maps librdkafka's error codes and reasons to faults.

use std::time::Instant;

use crate::kafka::codes;
use crate::kafka::health::ConnectionHealth;
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
        health.report(
            fault_of_error(code, reason),
            without_timing(reason),
            Instant::now(),
        );
    }
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
