//! The daemon: builds every part from the configuration, connects them by channels, runs them as
//! tasks of one set, and shuts them down in order. If any task ends by itself, the process exits: a
//! daemon that lost a part must not look alive.

mod certificate;
pub(crate) mod clusters;
mod external_scaler;
mod findings;
mod history;
mod kubernetes;
mod leader;
mod logging;
pub(crate) mod options;
mod otlp;
pub(crate) mod scope;
mod servers;
pub(crate) mod shadow;
mod state_store;
mod terms;
pub(crate) mod validation;
mod writers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{AccessLogMode, AuthMode, Config};
use crate::k8s::write_guard::WriteGuard;
use crate::kafka::librdkafka_version;
use crate::leader_election::Leading;
use crate::model::hpa::facts::HpaMap;
use crate::poller::Inputs;
use crate::serve::access_log::AccessLog;
use crate::serve::history::HISTORY_STEP;
use crate::serve::listen::{BoundListener, ListenerKind};
use crate::serve::shadow::ShadowReader;
use crate::serve::{self, BuildInfo};
use crate::snapshot_channel::{self, SnapshotReader};

use servers::ServerThreads;

pub use logging::init_logging;

/// Capacity of the channel of requested groups.
const MAX_PENDING_WATCH_KEYS: usize = 256;

/// Capacity of the channel of ad hoc queries.
const MAX_PENDING_QUERIES: usize = 64;

/// Total time for shutting down. Together with the time a sweep may still occupy a thread, the
/// process exits within five seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// Timeout for saving the poller's state at shutdown.
const SAVE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Timeout for releasing the Lease at shutdown.
const LEASE_RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a replica answers requests after it stops being ready: a Service still sends requests to
/// the pod for a moment.
const LINGER: Duration = Duration::from_secs(1);

/// Time between two points of the history in the demo, which is over in a minute or two.
const DEMO_HISTORY_STEP: Duration = Duration::from_secs(1);

/// Names of the parts that are shut down in order.
const EXTERNAL: &str = "external metrics API";
const METRICS: &str = "metrics server";
const PROBES: &str = "probe server";
const ADMIN: &str = "admin server";
const SCALER: &str = "external scaler";
const POLLER: &str = "poller";
const LEASE: &str = "leader election";

/// A running daemon.
pub struct App {
    /// Address of the external metrics API; `None` if the daemon only observes.
    pub external: Option<SocketAddr>,
    /// Address of `/metrics`.
    pub metrics: SocketAddr,
    /// Address of the external scaler, if it is enabled.
    pub scaler: Option<SocketAddr>,
    /// Address of the page and the other admin endpoints.
    pub admin: SocketAddr,
    /// CA certificate (PEM) of the API, if its certificate is self-signed.
    pub ca_pem: Option<String>,
    pub reader: SnapshotReader,
    tasks: Tasks,
    threads: ServerThreads,
    is_elected: bool,
    stop: watch::Sender<bool>,
    step_down: watch::Sender<bool>,
    close: watch::Sender<bool>,
}

type Tasks = JoinSet<(&'static str, anyhow::Result<()>)>;

/// The HPAs, as they change; `None` until they are listed.
pub type HpaReceiver = watch::Receiver<Option<HpaMap>>;

/// Source of the HPAs.
pub enum HpaSource {
    /// The configured Kubernetes cluster, if enabled.
    Cluster,
    /// A channel, for the demo without Kubernetes.
    Channel(HpaReceiver),
}

impl App {
    /// Starts every part. Neither Kafka nor Kubernetes has to be reachable.
    ///
    /// # Errors
    /// A permanent problem: an unsupported property, an address in use, an unreadable certificate,
    /// no kubeconfig.
    pub async fn start(config: &Config, hpas: HpaSource) -> anyhow::Result<Self> {
        // Bind first: a port in use is the most likely mistake, and the cheapest to detect.
        let server = &config.server;
        let observes = config.kubernetes.observes();
        let api_address = Some(server.external_metrics.listen).filter(|_| !observes);
        let external = api_address
            .map(|address| serve::listen::bind(address, "server.external_metrics.listen"))
            .transpose()?;
        let metrics = serve::listen::bind(server.metrics.listen, "server.metrics.listen")?;
        let probes = serve::listen::bind(server.probes.listen, "server.probes.listen")?;
        let admin = serve::listen::bind(server.admin.listen, "server.admin.listen")?;
        // Followers have no Kafka clients. These are created only to validate their settings, and
        // dropped on a blocking thread because that takes long.
        let sources = clusters::sources(config)?;
        tokio::task::spawn_blocking(move || drop(sources));
        let mut tasks = JoinSet::new();
        let history_step = match &hpas {
            HpaSource::Cluster => HISTORY_STEP,
            HpaSource::Channel(_) => DEMO_HISTORY_STEP,
        };
        let kubernetes::Connected {
            hpas,
            client,
            api_auth,
            metrics_auth,
        } = kubernetes::connect(config, hpas, &mut tasks).await?;
        let (stop, stopping) = watch::channel(false);
        let (step_down, stepping_down) = watch::channel(false);
        let (close, closing) = watch::channel(false);
        let listens = external.as_ref().map(BoundListener::address);
        let elected = leader::elect(config, client.as_ref(), listens, stepping_down, &mut tasks);
        let is_elected = elected.is_some();
        let leading = elected.unwrap_or_else(Leading::alone);
        let writer = client.as_ref().filter(|_| !observes);
        let (tls, slot) = certificate::server_tls(config, writer, &leading.own, &mut tasks)?;
        let forwarder = match is_elected {
            true => Some(Arc::new(leader::forwarder(config, &tls).await?)),
            false => None,
        };
        let scaler = external_scaler::bind(&config.server.external_scaler, &tls, &mut tasks)?;
        let (publisher, reader) = snapshot_channel::channel(terms::unknown_snapshot(config));
        let (watch_keys, watch_keys_in) = mpsc::channel(MAX_PENDING_WATCH_KEYS);
        let (queries, queries_in) = mpsc::channel(MAX_PENDING_QUERIES);
        let (reported_findings_in, mut reported_findings) = watch::channel(Arc::default());
        if let Some(client) = writer.cloned() {
            let guard = WriteGuard {
                client,
                reader: reader.clone(),
                hpas: hpas.clone(),
                leadership: leading.own.clone(),
                policy: options::serving_policy(config),
                from: Arc::default(),
            };
            writers::spawn(guard, config, reported_findings_in, &mut tasks);
        }
        // Only the poller gets the HPAs with KEDA's triggers added. The writers above have those of the API server.
        let (hpas, triggers) = match scaler.is_some() {
            true => {
                let (hpas, triggers) = external_scaler::add_triggers(hpas, &mut tasks);
                let forwarder = forwarder.as_ref();
                let answers = external_scaler::answers(&reader, &leading, forwarder, triggers);
                (hpas, Some(answers))
            }
            false => (hpas, None),
        };
        let mut reports = ShadowReader::none();
        let hpas = match client.clone().filter(|_| observes) {
            Some(client) => {
                let observed = shadow::observe(config, client, hpas, &reader, &mut tasks);
                (reports, reported_findings) = (observed.reports, observed.findings);
                observed.hpas
            }
            None => hpas,
        };
        let (upstream, reported_findings) =
            findings::open_upstream(config, reported_findings, &mut tasks)?;
        let reported_findings = findings::join(reported_findings, slot, &mut tasks);
        let polling = terms::TermInputs {
            config: config.clone(),
            leadership: leading.own.clone(),
            store: state_store::Store::from_config(config, client.as_ref()),
            publisher,
            inputs: Inputs {
                hpas,
                watch_keys: watch_keys_in,
                queries: queries_in,
                reported_findings,
            },
            stop: stopping.clone(),
        };
        tasks.spawn(async move { (POLLER, polling.poll().await) });

        let readiness =
            serve::health::Readiness::new(reader.clone(), Instant::now(), stopping.clone())
                .with_leadership(leading.clone());
        let build = BuildInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            librdkafka: librdkafka_version(),
        };
        let app = Self {
            external: listens,
            metrics: metrics.address(),
            scaler: scaler.as_ref().map(|scaler| scaler.listener.address()),
            admin: admin.address(),
            ca_pem: tls.ca_pem(),
            reader: reader.clone(),
            tasks: JoinSet::new(),
            threads: ServerThreads::start()?,
            is_elected,
            stop,
            step_down,
            close,
        };
        let history = history::start(
            &reader,
            &leading,
            forwarder.as_ref(),
            history_step,
            &mut tasks,
        );
        let api = api_auth.map(|auth| serve::external::ExternalOptions {
            reader: reader.clone(),
            leading: leading.clone(),
            forwarder,
            triggers: triggers.clone(),
            history: history.clone(),
            upstream,
            watch_keys,
            queries,
            tenancy: options::tenancy(config),
            auth,
            access_log: match config.log.access {
                AccessLogMode::Sampled => AccessLog::Sampled,
                AccessLogMode::All => AccessLog::All,
                AccessLogMode::Off => AccessLog::Off,
            },
            readiness: readiness.clone(),
            build: build.clone(),
        });
        let metrics_options = serve::metrics::MetricsOptions {
            reader: reader.clone(),
            leadership: leading.own.clone(),
            auth: metrics_auth,
            build,
            shadow: reports.clone(),
        };
        otlp::start(config, &metrics_options, &mut tasks)?;
        let metrics_router = serve::metrics::router(metrics_options);
        let scaler = scaler.zip(triggers).map(|(scaler, answers)| {
            let options = serve::external_scaler::ExternalScalerOptions {
                answers,
                auth: scaler.auth,
                readiness: readiness.clone(),
                poll_interval: config.poll.interval,
                closing: stopping,
            };
            let router = serve::external_scaler::router(options);
            (scaler.listener, scaler.kind, router, scaler.tls)
        });
        let probe_router = serve::probes::router(app.threads.liveness(), readiness);
        let admin_router = serve::admin::router(
            serve::admin::AdminEndpointOptions::new(reader, leading.own)
                .with_history(history, &leader::pod_name())
                .with_shadow(reports),
        );
        let renewal = tls.clone().keep_fresh(SystemTime::now);
        tasks.spawn(async move {
            renewal.await;
            ("certificate renewal", Ok(()))
        });
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            librdkafka = librdkafka_version(),
            clusters = config.clusters.len(),
            external_metrics = app.external.map(tracing::field::display),
            metrics = %app.metrics,
            probes = %probes.address(),
            admin = %admin.address(),
            external_scaler = app.scaler.map(tracing::field::display),
            "lagwise started"
        );
        // Kept for probes configured before server.probes existed.
        let (metrics_tls, metrics_router) = match server.metrics.auth {
            AuthMode::Kubernetes => (Some(tls.clone()), metrics_router),
            AuthMode::None => (None, metrics_router.merge(probe_router.clone())),
        };
        let scaler =
            scaler.map(|(listener, kind, router, tls)| (SCALER, kind, listener, router, Some(tls)));
        let api = external.zip(api).map(|(listener, options)| {
            let router = serve::external::router(options);
            (EXTERNAL, ListenerKind::Api, listener, router, Some(tls))
        });
        let kind = ListenerKind::Metrics;
        let servers = [
            (METRICS, kind, metrics, metrics_router, metrics_tls),
            (PROBES, ListenerKind::Probes, probes, probe_router, None),
            (ADMIN, ListenerKind::Admin, admin, admin_router, None),
        ];
        for server in servers.into_iter().chain(api).chain(scaler) {
            app.threads.serve(server, closing.clone(), &mut tasks);
        }
        Ok(Self { tasks, ..app })
    }

    /// Runs until `shutdown` resolves, then shuts down.
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

    /// Shuts down in this order: the poller's last state is saved; the Lease is released, so that the next leader loads
    /// that state; the servers, which still forward requests, finish their responses. Everything else is dropped.
    async fn drain(mut self) {
        tracing::info!("shutting down");
        let stopped = tokio::time::Instant::now();
        self.stop.send_replace(true);
        self.wait_for(&[POLLER], SAVE_TIMEOUT).await;
        self.step_down.send_replace(true);
        if self.is_elected {
            self.wait_for(&[LEASE], LEASE_RELEASE_TIMEOUT).await;
            // Callers that do not know yet that this pod is stopping still send requests; they are
            // forwarded to the next leader.
            tokio::time::sleep_until(stopped + LINGER).await;
        }
        self.close.send_replace(true);
        let left = DRAIN_TIMEOUT.saturating_sub(stopped.elapsed());
        let mut servers = vec![METRICS, PROBES, ADMIN];
        servers.extend(self.external.map(|_| EXTERNAL));
        servers.extend(self.scaler.map(|_| SCALER));
        self.wait_for(&servers, left).await;
    }

    /// Waits for these parts to end, up to a timeout.
    async fn wait_for(&mut self, parts: &[&'static str], timeout: Duration) {
        let mut left = parts.to_vec();
        let ending = async {
            while !left.is_empty() {
                let Some(ended) = self.tasks.join_next().await else {
                    break;
                };
                left.retain(|part| !matches!(&ended, Ok((ended, _)) if ended == part));
            }
        };
        if tokio::time::timeout(timeout, ending).await.is_err() {
            tracing::warn!(parts = left.join(", "), "these parts did not stop in time");
        }
    }
}

/// Whether this process runs in a pod, where Kubernetes always sets this variable.
pub(crate) fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

async fn wait_for_stop(mut stopping: watch::Receiver<bool>) {
    // An error means that the daemon has ended, so stop.
    let _ = stopping.wait_for(|stop| *stop).await;
}
