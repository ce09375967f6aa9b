//! Ports with another protocol than the properties say. Each pair has its own reason, which names the property to
//! correct.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use kafka_protocol::messages::ApiKey;
use lagwise::kafka::KafkaSource;
use lagwise::model::kafka::fault::{ConnectionFault, Fault};

use super::fake::{Fake, Twist};
use super::{group, observe, settings_with, two_halves};

/// Behaviour of a server for each connection.
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

fn first(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.read(&mut [0; 1024])
}

fn tls(stream: &mut TcpStream) -> std::io::Result<()> {
    first(stream)?;
    // A fatal alert: unexpected message.
    stream.write_all(&[21, 3, 3, 0, 2, 2, 10])
}

fn http(stream: &mut TcpStream) -> std::io::Result<()> {
    first(stream)?;
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
}

fn page(stream: &mut TcpStream) -> std::io::Result<()> {
    first(stream)?;
    stream.write_all(b"<!DOCTYPE HTML><title>Error response</title>")
}

/// A server that speaks first.
fn ssh(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n")
}

/// As a Kafka listener without TLS does with a TLS handshake.
fn closing(stream: &mut TcpStream) -> std::io::Result<()> {
    first(stream).map(drop)
}

/// As a proxy that waits for the name of a host in a TLS handshake: it answers that, and nothing else.
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

/// As a Kafka listener without TLS that takes the length of a TLS handshake for that of a request.
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

/// As a load balancer without a server behind it.
fn silent(stream: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink()).map(drop)
}

/// Whether security.protocol begins with SASL, and ends in SSL.
const PROTOCOLS: [(&str, bool, bool); 4] = [
    ("PLAINTEXT", false, false),
    ("SSL", false, true),
    ("SASL_PLAINTEXT", true, false),
    ("SASL_SSL", true, true),
];

async fn refused(bootstrap: &str, protocol: &str) -> ConnectionFault {
    let fake = Fake::start(1);
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
    let observation = observe(&source, &[group("ga", &["a"])]).await;
    let fault = observation.connection.unwrap();
    assert!(fault.reason.starts_with("127.0.0.1:"), "{fault:?}");
    assert!(!fault.reason.contains("hunter2"), "{fault:?}");
    fault
}

#[tokio::test]
async fn each_pair_of_protocols_names_the_property_to_correct() {
    let servers: [(&str, Server); 5] = [
        ("tls", tls),
        ("http", http),
        ("page", page),
        ("ssh", ssh),
        ("closing", closing),
    ];
    for (name, serve) in servers {
        for (protocol, has_login, has_tls) in PROTOCOLS {
            let fault = refused(&server(serve), protocol).await;
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
                // An alert is what TLS has to say of a handshake that it does not accept.
                ("tls", true) => (Fault::Tls, "received fatal alert"),
                ("http" | "page", false) => (Fault::Unreachable, "the port of an HTTP server"),
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
async fn a_port_that_never_answers_is_asked_what_it_speaks() {
    let servers: [(&str, Server); 3] = [
        ("tls", waits_for_tls),
        ("kafka", waits_for_kafka),
        ("nothing", silent),
    ];
    let pairs = servers
        .into_iter()
        .flat_map(|server| PROTOCOLS.map(|set| (server, set)));
    let asked = pairs.map(async |((name, serve), (protocol, has_login, has_tls))| {
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
            // These belong together: what fails is something else.
            _ => return,
        };
        let fault = refused(&server(serve), protocol).await;
        let case = format!("{protocol} to {name}: {fault:?}");
        assert_eq!(fault.kind, kind, "{case}");
        assert!(fault.reason.contains(&advice), "{case}");
    });
    futures::future::join_all(asked).await;
}

#[tokio::test]
async fn a_listener_that_requires_a_login_is_told_from_one_that_is_broken() {
    let (fake, groups) = two_halves();
    for node in [1, 2] {
        fake.twist(node, ApiKey::Metadata, Twist::Close, usize::MAX);
    }
    fake.world.lock().unwrap().iterations = 4096;
    let source = KafkaSource::connect(settings_with(&fake, &[])).unwrap();
    let fault = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(fault.kind, Fault::Login, "{fault:?}");
    let expected = "requires a SASL login (SCRAM-SHA-256); set security.protocol: SASL_PLAINTEXT";
    assert!(fault.reason.contains(expected), "{fault:?}");

    // A listener without logins says so, and then the connection was closed for another reason.
    let (fake, groups) = two_halves();
    for node in [1, 2] {
        fake.twist(node, ApiKey::Metadata, Twist::Close, usize::MAX);
    }
    let source = KafkaSource::connect(settings_with(&fake, &[])).unwrap();
    let fault = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(fault.kind, Fault::Unreachable, "{fault:?}");
    assert!(fault.reason.contains("closed the connection"), "{fault:?}");
}

#[tokio::test]
async fn a_login_on_a_listener_without_one_names_the_property_to_correct() {
    let (fake, groups) = two_halves();
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
async fn a_port_without_metadata_is_not_a_brokers() {
    let (fake, groups) = two_halves();
    fake.world.lock().unwrap().missing = vec![ApiKey::Metadata];
    let source = KafkaSource::connect(settings_with(&fake, &[])).unwrap();
    let fault = observe(&source, &groups).await.connection.unwrap();
    assert_eq!(fault.kind, Fault::Unreachable, "{fault:?}");
    assert!(fault.reason.contains("KRaft controller"), "{fault:?}");
}
