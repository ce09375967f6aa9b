//! Which names of the host the admin listener answers for.

use super::*;
use crate::serve::admin::{self, AdminEndpointOptions};

#[tokio::test]
async fn admin_listener_answers_only_for_local_hosts() {
    let bound = bind(LOOPBACK, "server.admin.listen").unwrap();
    let address = bound.address();
    let (_publisher, reader) = snapshot_channel::channel(snapshot());
    let router = admin::router(AdminEndpointOptions::new(
        reader,
        crate::leader_election::Leadership::alone(),
    ));
    tokio::spawn(bound.serve_plain(ListenerKind::Admin, router, std::future::pending()));
    for (head, expected) in [
        ("GET /status HTTP/1.1\r\nhost: localhost:8082\r\n", "200"),
        ("GET /status HTTP/1.1\r\nhost: 127.0.0.1\r\n", "200"),
        ("GET /status HTTP/1.1\r\nhost: evil.example:8082\r\n", "421"),
        (
            "GET /explain?group=orders HTTP/1.1\r\nhost: evil.example\r\n",
            "421",
        ),
        (
            "GET /status HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n",
            "421",
        ),
        (
            "GET http://evil.example/status HTTP/1.1\r\nhost: localhost\r\n",
            "421",
        ),
        ("GET /status HTTP/1.0\r\n", "421"),
        ("GET / HTTP/1.1\r\nhost: localhost:8082\r\n", "200"),
        ("GET / HTTP/1.1\r\nhost: evil.example\r\n", "421"),
        ("GET /api/hpas HTTP/1.1\r\nhost: evil.example\r\n", "421"),
        ("GET /api/stream HTTP/1.1\r\nhost: evil.example\r\n", "421"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let code = answer.split(' ').nth(1);
        assert_eq!(code, Some(expected), "{head:?}: {answer}");
        let says_why = answer.contains("use http://localhost:PORT");
        assert_eq!(says_why, expected == "421", "{head:?}: {answer}");
    }
}
