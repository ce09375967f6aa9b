//! Ports whose protocol differs from `security.protocol`. The error for each combination names the property to correct.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use kafka_protocol::messages::ApiKey;
use lagwise::kafka::KafkaSource;
use lagwise::model::kafka::fault::{ConnectionFault, Fault};

use super::fake::{FakeCluster, Misbehavior};
use super::{group, observe, settings_with, two_brokers};

/// Handles one connection.
type Server = fn(&mut TcpStream) -> std::io::Result<()>;

/// Starts a server on its own port, until the process ends.
fn server(serve: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = serve(&mut stream);
                // The client must read what was sent before the connection ends.
                let _ = stream.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    address
}

fn read_request(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.read(&mut [0; 1024])
}

fn tls(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream)?;
    // A fatal alert: unexpected message.
    stream.write_all(&[21, 3, 3, 0, 2, 2, 10])
}

fn http(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream)?;
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
}

fn html(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream)?;
    stream.write_all(b"<!DOCTYPE HTML><title>Error response</title>")
}

/// A server that speaks first.
fn ssh(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n")
}

/// Closes the connection after the first bytes, as a Kafka listener without TLS does after a TLS handshake.
fn close_early(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream).map(drop)
}

/// Answers TLS handshakes only, as a proxy that needs the host name of the handshake.
fn waits_for_tls(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut first = [0; 1];
    stream.read_exact(&mut first)?;
    if first != [22] {
        return silent(stream);
    }
    // A record with the beginning of a handshake.
    stream.write_all(&[22, 3, 3, 0, 122, 2, 0, 0, 118])?;
    silent(stream)
}

/// Answers Kafka requests only. Reads the length field of a TLS handshake as the length of a request, as a Kafka
/// listener without TLS does.
fn waits_for_kafka(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if head.starts_with(&[22, 3]) {
        return silent(stream);
    }
    // The response to ApiVersions of version 0: no error, and no APIs.
    let mut response = vec![0, 0, 0, 10];
    response.extend(&head[8..]);
    response.extend([0; 6]);
    stream.write_all(&response)?;
    silent(stream)
}

/// Sends nothing back, as a load balancer without a server behind it.
fn silent(stream: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink()).map(drop)
}

/// Values of security.protocol: whether it has a SASL login, and whether it has TLS.
const PROTOCOLS: [(&str, bool, bool); 4] = [
    ("PLAINTEXT", false, false),
    ("SSL", false, true),
    ("SASL_PLAINTEXT", true, false),
    ("SASL_SSL", true, true),
];

async fn connection_fault(bootstrap: &str, protocol: &str) -> ConnectionFault {
    let fake = FakeCluster::start(1);
    let mut properties = vec![
        ("bootstrap.servers", bootstrap),
        ("security.protocol", protocol),
        ("enable.ssl.certificate.verification", "false"),
    ];
    if protocol.starts_with("SASL") {
        properties.extend([
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter2"),
        ]);
    }
    let source = KafkaSource::connect(settings_with(&fake, &properties)).unwrap();
    let mut observations = 0;
    let fault = loop {
        let observation = observe(&source, &[group("ga", &["a"])]).await;
        let fault = observation.connection.unwrap();
        observations += 1;
        // On busy cores one sweep may be too short to find out why nothing is sent back.
        if *fault.reason != format!("no answer from {bootstrap}") || observations == 5 {
            break fault;
        }
    };
    assert!(fault.reason.starts_with("127.0.0.1:"), "{fault:?}");
    assert!(!fault.reason.contains("hunter2"), "{fault:?}");
    fault
}

#[tokio::test]
async fn error_of_each_wrong_protocol_names_the_property_to_correct() {
    let servers: [(&str, Server); 5] = [
        ("tls", tls),
        ("http", http),
        ("html", html),
        ("ssh", ssh),
        ("closing", close_early),
    ];
    for (name, serve) in servers {
        for (protocol, has_login, has_tls) in PROTOCOLS {
            let fault = connection_fault(&server(serve), protocol).await;
            let plain = format!(
                "set security.protocol: {}, or use the port of a listener with TLS",
                if has_login {
                    "SASL_PLAINTEXT"
                } else {
                    "PLAINTEXT"
                }
            );
            let (kind, advice) = match (name, has_tls) {
                ("tls", false) => (Fault::Tls, "set security.protocol: SSL or SASL_SSL"),
                // A TLS server that rejects a handshake answers with an alert.
                ("tls", true) => (Fault::Tls, "received fatal alert"),
                ("http" | "html", false) => (Fault::Unreachable, "the port of an HTTP server"),
                ("ssh", false) => (Fault::Unreachable, "another service listens on this port"),
                ("closing", false) => (
                    Fault::Unreachable,
                    "security.protocol is that of its listener",
                ),
                (_, true) => (Fault::Tls, plain.as_str()),
                (other, false) => panic!("{other}"),
            };
            let case = format!("{protocol} to {name}: {fault:?}");
            assert_eq!(fault.kind, kind, "{case}");
            assert!(fault.reason.contains(advice), "{case}");
        }
    }
}

#[tokio::test]
async fn a_silent_port_is_probed_with_the_other_protocol() {
    let servers: [(&str, Server); 3] = [
        ("tls", waits_for_tls),
        ("kafka", waits_for_kafka),
        ("nothing", silent),
    ];
    let pairs = servers
        .into_iter()
        .flat_map(|server| PROTOCOLS.map(|set| (server, set)));
    let checks = pairs.map(async |((name, serve), (protocol, has_login, has_tls))| {
        let plain = ["PLAINTEXT", "SASL_PLAINTEXT"][usize::from(has_login)];
        let encrypted = ["SSL", "SASL_SSL"][usize::from(has_login)];
        let (kind, advice) = match (name, has_tls) {
            ("tls", false) => (
                Fault::Tls,
                "this port speaks TLS; set security.protocol: SSL or SASL_SSL".to_owned(),
            ),
            ("kafka", true) => (
                Fault::Tls,
                format!("this port does not speak TLS; set security.protocol: {plain}, "),
            ),
            ("nothing", true) => (
                Fault::NoAnswer,
                format!("a firewall or load balancer without a broker behind it. Check the address; if its listener has no TLS, set security.protocol: {plain}"),
            ),
            ("nothing", false) => (
                Fault::NoAnswer,
                format!("it waits for a TLS handshake (set security.protocol: {encrypted}), or it is a firewall"),
            ),
            // The protocols match, so something else fails.
            _ => return,
        };
        let fault = connection_fault(&server(serve), protocol).await;
        let case = format!("{protocol} to {name}: {fault:?}");
        assert_eq!(fault.kind, kind, "{case}");
        assert!(fault.reason.contains(&advice), "{case}");
    });
    futures::future::join_all(checks).await;
}

#[tokio::test]
async fn a_missing_login_and_a_closed_connection_have_different_errors() {
    let (fake, groups) = two_brokers();
    for node in [1, 2] {
        fake.misbehave(node, ApiKey::Metadata, Misbehavior::Close, usize::MAX);
    }
    fake.state.lock().unwrap().scram_iterations = 4096;
    let source = KafkaSource::connect(settings_with(&fake, &[])).unwrap();
    let fault = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(fault.kind, Fault::Login, "{fault:?}");
    let expected = "requires a SASL login (SCRAM-SHA-256); set security.protocol: SASL_PLAINTEXT";
    assert!(fault.reason.contains(expected), "{fault:?}");

    // A listener without logins reports that, so the connection was closed for another reason.
    let (fake, groups) = two_brokers();
    for node in [1, 2] {
        fake.misbehave(node, ApiKey::Metadata, Misbehavior::Close, usize::MAX);
    }
    let source = KafkaSource::connect(settings_with(&fake, &[])).unwrap();
    let fault = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(fault.kind, Fault::Unreachable, "{fault:?}");
    assert!(fault.reason.contains("closed the connection"), "{fault:?}");
}

#[tokio::test]
async fn error_of_a_login_on_a_listener_without_logins_names_the_property_to_correct() {
    let (fake, groups) = two_brokers();
    let login = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "u"),
        ("sasl.password", "hunter2"),
    ];
    let source = KafkaSource::connect(settings_with(&fake, &login)).unwrap();
    let fault = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(fault.kind, Fault::Login, "{fault:?}");
    let expected = "takes no SASL login; set security.protocol: PLAINTEXT";
    assert!(fault.reason.contains(expected), "{fault:?}");
}

#[tokio::test]
async fn a_port_that_rejects_metadata_requests_is_reported_as_a_controller() {
    let (fake, groups) = two_brokers();
    fake.state.lock().unwrap().missing_apis = vec![ApiKey::Metadata];
    let source = KafkaSource::connect(settings_with(&fake, &[])).unwrap();
    let fault = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(fault.kind, Fault::Unreachable, "{fault:?}");
    assert!(fault.reason.contains("KRaft controller"), "{fault:?}");
}
