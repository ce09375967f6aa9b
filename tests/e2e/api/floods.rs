//! Floods of requests by authenticated callers, and of TLS handshakes: other callers still get responses.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::Scene;
use super::flood_measurement::{FLOOD_DURATION, FloodMeasurement};
use super::unauthorized::{AnyServer, sent_reviews};
use crate::background::BackgroundTasks;
use crate::testbed::Testbed;
use crate::testbed::pki::Authority;

/// Maximum memory of the daemon: the memory limit of the chart.
const MAX_MEMORY_KB: u64 = 256 * 1024;

const TOKENS: usize = 40;
/// Concurrent tasks of the flood of requests, and of the flood of handshakes.
const REQUEST_TASKS: usize = 150;
const HANDSHAKE_TASKS: usize = 200;
/// Pause between two requests of a task.
const PAUSE: Duration = Duration::from_millis(100);
/// Rate of the reviews of each kind for one account: burst, and number per second. All service accounts of a namespace
/// count as one account.
const BURST: u64 = 1000;
const PER_SECOND: u64 = 50;

/// The service accounts of one namespace, each with a separate token, send requests for made-up namespaces.
pub(super) fn floods_of_tokens_leave_reviews_to_others(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let tokens = scene.tokens_of(&scene.other, TOKENS)?;
    let reader = scene.token("reader")?;
    let metric = scene.metric(&scene.namespace);
    let runtime = tokio::runtime::Runtime::new()?;
    let measurement = FloodMeasurement::begin(&runtime, &scene, &reader)?;
    let (before, begun) = (sent_reviews(&scene)?, Instant::now());
    let effect = runtime.block_on(async {
        let flood = BackgroundTasks::start(REQUEST_TASKS, |task, control| {
            let (base, metric) = (scene.daemon.url(""), metric.clone());
            let token = tokens[task % TOKENS].clone();
            async move {
                let client = reqwest::Client::builder()
                    .danger_accept_invalid_certs(true)
                    .timeout(Duration::from_secs(30))
                    .build()?;
                while !control.is_stopped() {
                    let n = control.count_round();
                    let path = metric.replace("/namespaces/", &format!("/namespaces/t{n}-"));
                    let request = client.get(format!("{base}{path}")).bearer_auth(&token);
                    let _ = request.send().await;
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(())
            }
        });
        measurement.end(flood).await
    })?;
    let reviews = sent_reviews(&scene)? - before;
    // TokenReviews and SubjectAccessReviews: those of the flood, and at most one of each for each other request.
    let of_tokens = 2 * (BURST + PER_SECOND * begun.elapsed().as_secs().saturating_add(1));
    let most = of_tokens + u64::try_from(effect.sent)? * 2;
    println!(
        "{} requests with {TOKENS} tokens of one namespace in {FLOOD_DURATION:?}, {reviews} reviews (limit {most}), {}",
        effect.rounds, effect.figures
    );
    effect.check()?;
    ensure!(reviews <= most, "{reviews} reviews, at most {most}");
    Ok(())
}

/// Clients at several addresses open TLS connections with untrusted certificate chains: some as long as the daemon
/// accepts, and some longer.
pub(super) fn floods_of_handshakes_do_not_delay_others(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let reader = scene.token("reader")?;
    let [(short, short_key), (long, long_key)] = [chain(700, 8)?, chain(2_000, 12)?];
    let connectors = [connector(short, short_key)?, connector(long, long_key)?];
    let addresses = [2, 3, 4, 5].map(|last| SocketAddr::from(([127, 0, 0, last], 0)));
    let runtime = tokio::runtime::Runtime::new()?;
    let measurement = FloodMeasurement::begin(&runtime, &scene, &reader)?;
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.daemon.api_port));
    let effect = runtime.block_on(async {
        let flood = BackgroundTasks::start(HANDSHAKE_TASKS, |task, control| {
            let connector = connectors[task % connectors.len()].clone();
            let address = addresses[task % addresses.len()];
            async move {
                let mut kept = Vec::new();
                while !control.is_stopped() {
                    let socket = TcpSocket::new_v4()?;
                    socket.bind(address)?;
                    // The daemon may close the connection because it has too many, or because the chain is too long.
                    if let Ok(stream) = socket.connect(api).await {
                        let name = ServerName::try_from("localhost")?;
                        kept.extend(connector.connect(name, stream).await.ok());
                    }
                    kept.truncate(4);
                    control.count_round();
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(())
            }
        });
        measurement.end(flood).await
    })?;
    let memory = scene.daemon.process.memory("VmHWM")?;
    println!(
        "{} handshakes with long chains in {FLOOD_DURATION:?}; memory at most {memory} kB (limit {MAX_MEMORY_KB} kB); {}",
        effect.rounds, effect.figures
    );
    effect.check()?;
    ensure!(memory < MAX_MEMORY_KB, "{memory} kB");
    Ok(())
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An untrusted client certificate with `issuers` CA certificates behind it. The name of the CA has `name_length`
/// characters.
fn chain(name_length: usize, issuers: usize) -> Result<Chain> {
    let authority = Authority::new(&"a".repeat(name_length))?;
    let identity = authority.client("stranger", None)?;
    let issuer = CertificateDer::from_pem_slice(authority.pem.as_bytes())?;
    let mut chain = vec![CertificateDer::from_pem_slice(
        identity.certificate.as_bytes(),
    )?];
    chain.extend(vec![issuer; issuers]);
    Ok((
        chain,
        PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
    ))
}

fn connector(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_auth_cert(chain, key)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Scene<'_> {
    /// Creates this number of service accounts in a namespace, and signs a token for each.
    fn tokens_of(&self, namespace: &str, count: usize) -> Result<Vec<String>> {
        let accounts: Vec<_> = (0..count)
            .map(|i| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": format!("many{i}")}}))
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": accounts});
        self.plane.apply(namespace, &list.to_string())?;
        let args = [
            "get",
            "serviceaccounts",
            "--namespace",
            namespace,
            "--output",
            "json",
        ];
        let found: Value = serde_json::from_str(&self.plane.kubectl(&args)?)?;
        let accounts = found["items"].as_array().context("no accounts")?;
        let many = accounts.iter().filter(|account| {
            let name = account["metadata"]["name"].as_str();
            name.is_some_and(|name| name.starts_with("many"))
        });
        many.map(|account| self.forge_of(account, 600)).collect()
    }
}
