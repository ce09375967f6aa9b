//! Requests to an external scaler without authentication, whose messages never come: what they keep is bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::body::{Body, Bytes};
use axum::http::Request;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::daemon::{Daemon, Options};
use crate::probes::Probes;
use crate::testbed::Testbed;
use crate::testbed::http::http_get;
use crate::testbed::pki::Authority;
use crate::testbed::ports::free_port;

/// Maximum memory of the daemon: the memory limit of the chart.
const MAX_MEMORY_KB: u64 = 256 * 1024;
const CONNECTIONS: usize = 12;
/// As many as a connection may have.
const REQUESTS: usize = 2300;
/// Nearly as large as the headers of a call may be.
const HEADER_BYTES: usize = 14 * 1024;
/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

type Sender = SendRequest<Body>;

/// 27,600 requests with large headers, from one address.
pub(super) fn requests_that_wait_keep_little(testbed: &Testbed) -> Result<()> {
    let authority = Authority::new("the daemon's authority")?;
    let folder = testbed.folder("waiting")?;
    let identity = authority.server(&["localhost", "127.0.0.1"])?;
    let (cert, key) = identity.write(&folder, "tls")?;
    let external = json!({"auth": "none", "tls": {"cert_file": cert, "key_file": key}});
    let port = free_port()?;
    let options = Options {
        scaler: json!({"listen": format!("127.0.0.1:{port}"), "auth": "none"}),
        ..Options::main(&format!("127.0.0.1:{}", free_port()?))
    };
    let daemon = Daemon::start(testbed, &options, external, json!({"enabled": false}), None)?;
    let (done, begun) = (AtomicBool::new(false), Instant::now());
    let (refused, probes) = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let mut probes = Probes::default();
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let (code, body) = http_get(daemon.probe_port, "/livez")?;
                ensure!(code == 200, "{code}: {body}");
                probes.add(begun.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(probes)
        });
        let refused = flood(port, &authority);
        done.store(true, Ordering::Relaxed);
        let probes = probing.join();
        let probes = probes.map_err(|_| anyhow::anyhow!("the probes panicked"))?;
        anyhow::Ok((refused?, probes?))
    })?;
    let memory = daemon.process.memory("VmHWM")?;
    println!(
        "{} requests with headers of {HEADER_BYTES} bytes on {CONNECTIONS} connections in {:.1?}, {refused} refused at \
         once; memory at most {memory} kB (limit {MAX_MEMORY_KB} kB); {probes}",
        CONNECTIONS * REQUESTS,
        begun.elapsed(),
    );
    // How many are refused depends on how fast they come.
    ensure!(memory < MAX_MEMORY_KB, "{memory} kB");
    probes.check()
}

/// Sends all requests, and returns how many were refused for their number.
fn flood(port: u16, authority: &Authority) -> Result<usize> {
    let runtime = tokio::runtime::Runtime::new()?;
    let refused = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut sending = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let sender = connect(port, authority).await?;
            for number in 0..REQUESTS {
                let (sender, refused) = (sender.clone(), Arc::clone(&refused));
                sending.spawn(async move {
                    let code = send(sender, connection * REQUESTS + number).await?;
                    refused.fetch_add(usize::from(code == "8"), Ordering::Relaxed);
                    anyhow::Ok(())
                });
            }
        }
        let ended = tokio::time::timeout(WAIT_TIMEOUT, async {
            // A connection may be closed for lack of room.
            while sending.join_next().await.is_some() {}
        });
        ended.await.context("the requests did not end")
    })?;
    Ok(refused.load(Ordering::Relaxed))
}

/// Sends a request without its message. Returns the gRPC status.
async fn send(mut sender: Sender, number: usize) -> Result<String> {
    // Another text each time, since HTTP/2 sends a header that it knows as its number.
    let long = format!("{number:0>HEADER_BYTES$}");
    let body = futures::stream::pending::<Result<Bytes, Infallible>>();
    let request = Request::post("https://localhost/externalscaler.ExternalScaler/IsActive")
        .header("content-type", "application/grpc")
        .header("x-long", long)
        .body(Body::from_stream(body))?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let code = answer.headers().get("grpc-status").context("no status")?;
    Ok(code.to_str()?.to_owned())
}

async fn connect(port: u16, authority: &Authority) -> Result<Sender> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost")?;
    let io = TokioIo::new(connector.connect(name, stream).await?);
    let (sender, connection) = handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    Ok(sender)
}
