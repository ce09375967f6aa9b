//! What connections and scrapes of one address leave to another.

use tokio::net::TcpSocket;

use super::*;
use crate::serve::exposition::WriterTurns;

/// A connection from this address of this machine.
async fn connect_from(local: &str, listener: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(local.parse().unwrap(), 0))
        .unwrap();
    socket.connect(listener).await.unwrap()
}

async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not so: {what}"));
}

#[tokio::test]
async fn scrapers_of_one_address_do_not_delay_another() {
    let bound = bind(LOOPBACK, "server.metrics.listen").unwrap();
    let address = bound.address();
    let (_publisher, reader) = snapshot_channel::channel(snapshot());
    let turns = WriterTurns::default();
    let router = metrics::router_with(metrics_options(reader), turns.clone());
    tokio::spawn(bound.serve_plain(ListenerKind::Metrics, router, std::future::pending()));
    let scrape = async |local: &str| {
        let mut stream = connect_from(local, address).await;
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        stream
    };
    let greedy = turns.at_address(Some("127.0.0.2".parse().unwrap()));
    let first = greedy.next().await;
    let mut open = Vec::new();
    for waiting in 1..=5 {
        open.push(scrape("127.0.0.2").await);
        wait_until("it waits", || turns.waiting() == waiting).await;
    }
    let sixth = greedy.next();
    let other = async {
        wait_until("the sixth one waits", || turns.waiting() == 6).await;
        open.push(scrape("127.0.0.3").await);
        wait_until("all wait", || turns.waiting() == 7).await;
        drop(first);
    };
    let (sixth, ()) = tokio::join!(sixth, other);
    assert!(turns.has_served("127.0.0.3".parse().unwrap()));
    drop(sixth);
}

/// How many of these connections the listener has not closed.
fn count_open(streams: &[TcpStream]) -> usize {
    let is_open = |stream: &&TcpStream| {
        let read = stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    };
    streams.iter().filter(is_open).count()
}

#[tokio::test]
async fn addresses_of_ipv4_on_a_listener_of_ipv6_are_counted_each() {
    let any = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0);
    let bound = bind(any, "server.metrics.listen").unwrap();
    let address = SocketAddr::new(LOOPBACK.ip(), bound.address().port());
    let router = Router::new();
    tokio::spawn(bound.serve_plain(ListenerKind::Metrics, router, std::future::pending()));
    let (mut honest, mut greedy) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        honest.push(connect_from("127.0.0.3", address).await);
    }
    for _ in 0..100 {
        greedy.push(connect_from("127.0.0.2", address).await);
    }
    wait_until("48 are left", || count_open(&greedy) == 48).await;
    assert_eq!(count_open(&honest), 3);
}
