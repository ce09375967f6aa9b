//! The daemon: builds every part from the configuration, wires them by channels, runs them as
//! tasks of one set, and drains. A task that ends by itself ends the process: a daemon that lost a
//! part must not look alive.

pub(crate) mod answers;
mod certificate;
pub(crate) mod clusters;
mod kubernetes;
mod leader;
mod logging;
mod state_store;
mod terms;
mod writers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{AccessLogMode, Config};
use crate::k8s;
use crate::k8s::write_guard::WriteGuard;
use crate::kafka::librdkafka_version;
use crate::leader_election::Leading;
use crate::model::hpa::facts::HpaFacts;
use crate::poller::Inputs;
use crate::serve::access_log::AccessLog;
use crate::serve::{self, BuildInfo};
use crate::snapshot_channel::{self, SnapshotReader};

pub use logging::init_logging;

/// Requests' interests that may wait for the poller.
const INTERESTS_WAITING: usize = 256;

/// Queries that may wait for the poller.
const QUERIES_WAITING: usize = 64;

/// How long the parts may take to end after they were told to. With the time a sweep may still
/// hold a thread, the process is gone within five seconds.
const DRAIN: Duration = Duration::from_secs(4);

/// What of that the poller may take to have kept what it remembers, and then the Lease to be given back.
const KEPT_WITHIN: Duration = Duration::from_millis(1500);
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(1);

/// For how long at least one of several daemons goes on to be asked: for a moment, a Service sends requests
/// to a pod that is no longer ready.
const LINGERS: Duration = Duration::from_secs(1);

/// The parts that end in order when told to.
const EXTERNAL: &str = "external metrics API";
const SIDE: &str = "HTTP server";
const POLLER: &str = "poller";
const LEASE: &str = "keeper of the Lease";

/// A running daemon.
pub struct App {
    /// Where the external metrics API listens.
    pub external: SocketAddr,
    /// Where /metrics, /livez and /readyz are served.
    pub http: SocketAddr,
    /// The certificate (PEM) that vouches for the API's own, where that is self-signed.
    pub ca_pem: Option<String>,
    /// The snapshots.
    pub reader: SnapshotReader,
    tasks: Tasks,
    is_elected: bool,
    stop: watch::Sender<bool>,
    step_down: watch::Sender<bool>,
    close: watch::Sender<bool>,
}

type Tasks = JoinSet<(&'static str, anyhow::Result<()>)>;

/// Where the HPAs come from.
pub enum Hpas {
    /// The Kubernetes cluster of the configuration, if that is enabled.
    Cluster,
    /// This channel: for the demo, which has no Kubernetes.
    Given(watch::Receiver<Option<Vec<Arc<HpaFacts>>>>),
}

impl App {
    /// Starts every part. Neither Kafka nor Kubernetes has to be reachable.
    ///
    /// # Errors
    /// What cannot work however long one waits: a property that librdkafka refuses, an address
    /// that is taken, a certificate that cannot be read, no kubeconfig.
    pub async fn start(config: &Config, hpas: Hpas) -> anyhow::Result<Self> {
        // Bind first: a port that is taken is the likeliest mistake, and the cheapest to find.
        let external = serve::listen::bind(
            config.server.external_metrics.listen,
            "server.external_metrics.listen",
        )?;
        let http = serve::listen::bind(config.server.http.listen, "server.http.listen")?;
        // Whoever does not lead has no client: what is made now only shows that it can be.
        let sources = clusters::sources(config)?;
        tokio::task::spawn_blocking(move || drop(sources));
        let mut tasks = JoinSet::new();
        let (hpas, auth, client) = kubernetes::connect(config, hpas, &mut tasks).await?;
        let (stop, stopping) = watch::channel(false);
        let (step_down, stepping_down) = watch::channel(false);
        let (close, closing) = watch::channel(false);
        let listens = external.address();
        let elected = leader::elect(config, client.as_ref(), listens, stepping_down, &mut tasks);
        let is_elected = elected.is_some();
        let leading = elected.unwrap_or_else(Leading::alone);
        let tls = certificate::of(config, client.as_ref(), &leading.own, &mut tasks)?;
        let forwarder = match is_elected {
            true => Some(leader::forwarder(config, &tls).await?),
            false => None,
        };
        let (publisher, reader) = snapshot_channel::channel(terms::unknown(config));
        let (interests, interests_in) = mpsc::channel(INTERESTS_WAITING);
        let (queries, queries_in) = mpsc::channel(QUERIES_WAITING);
        if let Some(client) = client.clone() {
            let (notices, told) = k8s::events::channel();
            let writing = WriteGuard {
                client,
                reader: reader.clone(),
                hpas: hpas.clone(),
                leadership: leading.own.clone(),
                rules: answers::rules(config),
                from: Arc::default(),
                notices,
            };
            writers::spawn(writing, told, config.cap.read_only, &mut tasks);
        }
        let polling = terms::Terms {
            config: config.clone(),
            leadership: leading.own.clone(),
            store: state_store::Store::of(config, client.as_ref()),
            publisher,
            inputs: Inputs {
                hpas,
                interests: interests_in,
                queries: queries_in,
            },
            stop: stopping.clone(),
        };
        tasks.spawn(async move { (POLLER, polling.poll().await) });

        let readiness = serve::health::Readiness::new(reader.clone(), Instant::now(), stopping)
            .led(leading.clone());
        let build = BuildInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            librdkafka: librdkafka_version(),
        };
        let app = Self {
            external: external.address(),
            http: http.address(),
            ca_pem: tls.ca_pem(),
            reader: reader.clone(),
            tasks: JoinSet::new(),
            is_elected,
            stop,
            step_down,
            close,
        };
        let api = serve::external::router(serve::external::ExternalOptions {
            reader: reader.clone(),
            leading: leading.clone(),
            forwarder,
            interests,
            queries,
            tenancy: answers::tenancy(config),
            auth,
            access_log: match config.log.access {
                AccessLogMode::Sampled => AccessLog::Sampled,
                AccessLogMode::All => AccessLog::All,
                AccessLogMode::Off => AccessLog::Off,
            },
            readiness: readiness.clone(),
            build: build.clone(),
        });
        let side = serve::admin::router(serve::admin::HttpOptions {
            reader,
            leadership: leading.own,
            readiness,
            build,
        });
        let fresh = tls.clone().keep_fresh(SystemTime::now);
        tasks.spawn(async move {
            ("upkeep of the certificate", {
                fresh.await;
                Ok(())
            })
        });
        let stopped = wait_for_stop(closing.clone());
        tasks.spawn(async move {
            (
                EXTERNAL,
                external
                    .serve_tls(api, &tls, stopped)
                    .await
                    .map_err(Into::into),
            )
        });
        let stopped = wait_for_stop(closing);
        tasks.spawn(async move {
            (
                SIDE,
                http.serve_plain(side, stopped).await.map_err(Into::into),
            )
        });
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            librdkafka = librdkafka_version(),
            clusters = config.clusters.len(),
            external_metrics = %app.external,
            http = %app.http,
            "lagwise started"
        );
        Ok(Self { tasks, ..app })
    }

    /// Runs until `shutdown` resolves, then drains.
    ///
    /// # Errors
    /// A part that ended by itself.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(Ok((part, Ok(())))) => bail!("the {part} ended"),
                Some(Ok((part, Err(error)))) => Err(error.context(format!("the {part} ended"))),
                Some(Err(panic)) => Err(panic).context("a part of the daemon panicked"),
                None => bail!("no part is running"),
            },
            () = shutdown => {
                self.drain().await;
                Ok(())
            }
        }
    }

    /// In this order: the poller says for the last time what it remembers, and that is kept; then the
    /// Lease is given back, and whoever leads next reads what was kept; then the servers, which until
    /// then pass on what they are asked, end when their last answer is out. Everything else is dropped.
    async fn drain(mut self) {
        tracing::info!("stopping");
        let stopped = tokio::time::Instant::now();
        self.stop.send_replace(true);
        self.ended(&[POLLER], KEPT_WITHIN).await;
        self.step_down.send_replace(true);
        if self.is_elected {
            self.ended(&[LEASE], GIVEN_BACK_WITHIN).await;
            // Who is not told yet that this one ends still asks it, and is answered by the next leader.
            tokio::time::sleep_until(stopped + LINGERS).await;
        }
        self.close.send_replace(true);
        let left = DRAIN.saturating_sub(stopped.elapsed());
        self.ended(&[EXTERNAL, SIDE], left).await;
    }

    /// Waits until these have ended, for so long at most.
    async fn ended(&mut self, parts: &[&'static str], within: Duration) {
        let mut left = parts.to_vec();
        let ending = async {
            while !left.is_empty() {
                let Some(ended) = self.tasks.join_next().await else {
                    break;
                };
                left.retain(|part| !matches!(&ended, Ok((ended, _)) if ended == part));
            }
        };
        if tokio::time::timeout(within, ending).await.is_err() {
            tracing::warn!(parts = left.join(", "), "going on before these had ended");
        }
    }
}

/// Whether this is a pod: every pod has the variable, and hardly anything else.
fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

async fn wait_for_stop(mut stopping: watch::Receiver<bool>) {
    // An error means that the daemon itself is gone, which is a reason to stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}
