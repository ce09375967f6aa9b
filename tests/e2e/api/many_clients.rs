//! Many idle or slow connections, and a client that must get its responses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::BASE;
use crate::background::apart;
use crate::bystander::Bystander;
use crate::daemon::{Daemon, Options};
use crate::latencies::Latencies;
use crate::testbed::Testbed;
use crate::testbed::pki::Authority;
use crate::testbed::ports::free_port;

const IDLE: usize = 500;
const SLOW: usize = 200;
const REQUESTS: usize = 300;

/// 500 idle connections, and 200 that send a header byte by byte: another client still gets every response.
pub(super) fn many_clients_do_not_delay_another_one(testbed: &Testbed) -> Result<()> {
    let authority = Authority::new("the daemon's authority")?;
    let folder = testbed.folder("crowd")?;
    let (cert, key) = authority
        .server(&["localhost", "127.0.0.1"])?
        .write(&folder, "tls")?;
    let external = json!({"auth": "none", "tls": {"cert_file": cert, "key_file": key}});
    let options = Options::main(&format!("127.0.0.1:{}", free_port()?));
    let daemon = Daemon::start(testbed, &options, external, json!({"enabled": false}), None)?;
    tokio::runtime::Runtime::new()?.block_on(ask_in_a_crowd(&daemon, &authority))
}

async fn ask_in_a_crowd(daemon: &Daemon, authority: &Authority) -> Result<()> {
    let usual = latencies(daemon).await?;
    let bystander = Bystander::start(usual.p50())?;
    let alone = latencies(daemon).await?;
    let bystander_alone = bystander.take();
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(
        authority.pem.as_bytes(),
    )?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut stream = connect(&connector, daemon.api_port).await?;
        // It sent one request, so that it is idle and not new.
        stream
            .write_all(format!("GET {BASE} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .await?;
        idle.push(stream);
    }
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..SLOW {
        let mut stream = connect(&connector, daemon.api_port).await?;
        slow.spawn(async move {
            // Until it is cut.
            let endless = b"GET / HTTP/1.1\r\nhost: x\r\nslow: "
                .iter()
                .chain(std::iter::repeat(&b'x'));
            for byte in endless {
                if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    let open = open_connections(daemon)?;
    ensure!(open >= IDLE + SLOW, "{open} connections are open");
    bystander.take();
    let crowded = apart(latencies(daemon))?;
    println!(
        "{REQUESTS} requests beside {open} connections: {}",
        crowded.beside_bystander(&alone, (&bystander.take(), &bystander_alone))?
    );
    // They are cut after their time, and the places come free.
    let cut = tokio::time::timeout(Duration::from_secs(90), async {
        while slow.join_next().await.is_some() {}
    });
    ensure!(cut.await.is_ok(), "slow clients are not cut");
    let left = open_connections(daemon)?;
    ensure!(
        left < open - SLOW / 2,
        "{left} of {open} connections are left"
    );
    drop(idle);
    Ok(())
}

async fn connect(connector: &TlsConnector, port: u16) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost")?;
    Ok(connector.connect(name, stream).await?)
}

fn open_connections(daemon: &Daemon) -> Result<usize> {
    let metrics = daemon.metrics()?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("lagwise_connections{listener=\"api\"} "));
    Ok(line.context("no number of connections")?.parse()?)
}

/// Half on one connection, half on a new one each; all must be answered.
async fn latencies(daemon: &Daemon) -> Result<Latencies> {
    let client = || {
        reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(30))
            .build()
    };
    let url = daemon.url(BASE);
    let mut one = client()?;
    let mut latencies = Latencies::default();
    for request in 0..REQUESTS {
        if request > REQUESTS / 2 {
            one = client()?;
        }
        let began = Instant::now();
        let answer = one.get(&url).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        answer.bytes().await?;
        latencies.add(began.elapsed());
    }
    Ok(latencies)
}
