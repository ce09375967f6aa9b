//! Floods by callers without valid credentials: they neither block the API server's connections, nor cause unlimited
//! reviews, nor delay authenticated callers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::Scene;
use super::flood_measurement::{FLOOD_DURATION, FloodMeasurement};
use crate::background::BackgroundTasks;
use crate::testbed::Testbed;
use crate::testbed::pki::{Authority, Identity};
use crate::testbed::poll::poll_until;

/// Idle connections: more than the listener keeps for one address, and in all.
const IDLE_OF_ONE: usize = 800;
const IDLE_OF_SEVERAL: usize = 1100;
const FLOOD: usize = 150;
/// Pause between two requests of one caller. The test is about the limits of the daemon, not about the speed of the
/// machine.
const PAUSE: Duration = Duration::from_millis(100);

/// With many idle TLS connections without a certificate, a restarted API server can still connect.
pub(super) fn unauthorized_clients_do_not_block_the_api_server(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let runtime = tokio::runtime::Runtime::new()?;
    let idle = runtime.block_on(open_tls(&scene, None, IDLE_OF_ONE))?;
    scene.plane.kill_api_server();
    scene.plane.start_api_server()?;
    let began = Instant::now();
    let path = scene.metric(&scene.namespace);
    poll_until(
        Duration::from_secs(20),
        "the metric by the API server",
        || {
            let body = scene.plane.get_raw(&path)?;
            ensure!(crate::daemon::value_of(&body)? == 7, "{body}");
            Ok(())
        },
    )?;
    println!(
        "the restarted API server was let in after {:?}",
        began.elapsed()
    );
    check_reports(&scene)?;
    drop(idle);
    Ok(())
}

/// With many silent connections from several addresses, and some with an untrusted certificate, a new connection of the
/// front proxy still gets a response.
pub(super) fn unauthorized_clients_do_not_block_the_front_proxy(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let runtime = tokio::runtime::Runtime::new()?;
    let unknown = Authority::new("an authority that nobody knows")?;
    let identity = unknown.client("front-proxy-client", None)?;
    let handshaken = runtime.block_on(open_tls(&scene, Some(&identity), 20))?;
    let silent = runtime.block_on(open_tcp(&scene, IDLE_OF_SEVERAL))?;
    let callers = scene.callers()?;
    let mut callers = callers.iter();
    let proxy = callers.find(|caller| caller.name == "front proxy for the reader");
    let proxy = proxy.context("no such caller")?;
    let began = Instant::now();
    let url = scene.daemon.url(&scene.metric(&scene.namespace));
    let (code, body) = proxy.send("GET", &url)?;
    println!("the front proxy was answered after {:?}", began.elapsed());
    ensure!(code == 200, "{code}: {body}");
    check_reports(&scene)?;
    drop((handshaken, silent));
    Ok(())
}

/// Checks that the cut connections are in the log, once or twice, and counted.
fn check_reports(scene: &Scene<'_>) -> Result<()> {
    let log = scene.daemon.process.log();
    let lines = log.matches("too many connections").count();
    ensure!((1..=2).contains(&lines), "{lines} lines about connections");
    let cut = count(scene, "lagwise_connections_cut_total{listener=\"api\"")?;
    ensure!(cut > 0, "no connection is counted as cut");
    Ok(())
}

/// Sum of the samples with this prefix.
fn count(scene: &Scene<'_>, prefix: &str) -> Result<u64> {
    let metrics = scene.daemon.metrics()?;
    let samples = metrics.lines().filter(|line| line.starts_with(prefix));
    let counts = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// Opens TLS connections without a request.
async fn open_tls(
    scene: &Scene<'_>,
    identity: Option<&Identity>,
    number: usize,
) -> Result<Vec<tokio_rustls::client::TlsStream<TcpStream>>> {
    let connector = connector(identity)?;
    let mut open = Vec::new();
    for _ in 0..number {
        open.push(connect(&connector, scene.daemon.api_port).await?);
    }
    Ok(open)
}

/// Opens connections from four addresses, without a TLS handshake.
async fn open_tcp(scene: &Scene<'_>, number: usize) -> Result<Vec<TcpStream>> {
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.daemon.api_port));
    let mut open = Vec::new();
    for (_, last) in (0..number).zip((2..6).cycle()) {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
        open.push(socket.connect(api).await?);
    }
    Ok(open)
}

async fn connect(
    connector: &TlsConnector,
    port: u16,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost")?;
    Ok(connector.connect(name, stream).await?)
}

fn connector(identity: Option<&Identity>) -> Result<TlsConnector> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(
                identity.certificate.as_bytes(),
            )?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Requests for random paths, which do not exist.
pub(super) fn unauthorized_clients_on_random_paths_do_not_delay_others(
    testbed: &Testbed,
) -> Result<()> {
    flood(testbed, |n, _| (format!("/{n}/{n:x}"), None))
}

/// Requests for random namespaces with random tokens, each of which would need reviews by the API server.
pub(super) fn unauthorized_clients_in_random_namespaces_do_not_delay_others(
    testbed: &Testbed,
) -> Result<()> {
    flood(testbed, |n, metric| {
        let path = metric.replace("/namespaces/", &format!("/namespaces/n{n}-"));
        (path, (n % 2 == 0).then(|| format!("token-{n}")))
    })
}

/// Number of reviews that the daemon requested from the API server.
pub(super) fn sent_reviews(scene: &Scene<'_>) -> Result<u64> {
    let mut sent = 0;
    for kind in ["access", "token"] {
        for outcome in ["answered", "no_answer", "refused", "no_right"] {
            let series = format!("{{kind=\"{kind}\",outcome=\"{outcome}\"}}");
            sent += count(scene, &format!("lagwise_api_reviews_total{series}"))?;
        }
    }
    Ok(sent)
}

/// Makes the path and the token of a request, from its number and the path of the metric.
type MakeRequest = fn(usize, &str) -> (String, Option<String>);

fn flood(testbed: &Testbed, make_request: MakeRequest) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let reader = scene.token("reader")?;
    let metric = scene.metric(&scene.namespace);
    let runtime = tokio::runtime::Runtime::new()?;
    let measurement = FloodMeasurement::begin(&runtime, &scene, &reader)?;
    let before = sent_reviews(&scene)?;
    let effect = runtime.block_on(async {
        let strangers = BackgroundTasks::start(FLOOD, |_, control| {
            let (base, metric) = (scene.daemon.url(""), metric.clone());
            async move {
                let client = reqwest::Client::builder()
                    .danger_accept_invalid_certs(true)
                    .timeout(Duration::from_secs(30))
                    .build()?;
                while !control.is_stopped() {
                    let n = control.count_round();
                    let (path, token) = make_request(n, &metric);
                    let mut request = client.get(format!("{base}{path}"));
                    if let Some(token) = token {
                        request = request.bearer_auth(token);
                    }
                    // The daemon may close the connection because the listener is full.
                    let _ = request.send().await;
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(())
            }
        });
        measurement.end(strangers).await
    })?;
    let reviews = sent_reviews(&scene)?;
    let reviews = reviews.checked_sub(before).context("fewer than before")?;
    println!(
        "{} requests of strangers in {FLOOD_DURATION:?}, {reviews} reviews, {}",
        effect.rounds, effect.figures
    );
    effect.check()?;
    // The reviews of the valid requests, and a bounded number for the flood.
    let most = u64::try_from(effect.sent)? * 2 + 300;
    ensure!(reviews <= most, "{reviews} reviews, at most {most}");
    Ok(())
}

/// Accepts every certificate, because the server is not tested here.
#[derive(Debug)]
pub(super) struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
