//! The daemon: builds every part from the configuration, wires them by channels, runs them as
//! tasks of one set, and drains. A task that ends by itself ends the process: a daemon that lost a
//! part must not look alive.

mod clusters;
mod kubernetes;
mod leader;
mod logging;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::{AccessLogMode, CapDefault, Config, StaticTarget, TenancyGrant};
use crate::k8s;
use crate::k8s::state::StateConfigMap;
use crate::k8s::writing::Writing;
use crate::kafka::{Settings, Source, librdkafka_version};
use crate::leading::Leadership;
use crate::model::cap::CapMode;
use crate::model::history::memory::Memory;
use crate::model::quantity::Milli;
use crate::model::query::Rules;
use crate::model::snapshot::LagSnapshot;
use crate::model::target::{self, HpaFacts};
use crate::model::tenancy::{Grant, Pattern, Tenancy};
use crate::poller::{Cadence, Inputs, Poller, Remembering};
use crate::publish::{self, Reader};
use crate::serve::access_log::AccessLog;
use crate::serve::{self, BuildInfo};
use crate::state::{self, StateFile, StateStore};

pub use logging::init_logging;

/// The ConfigMap of the state, where the configuration names none.
const STATE_CONFIG_MAP: &str = "lagwise-state";

/// Requests' interests that may wait for the poller.
const INTERESTS_WAITING: usize = 256;

/// How long the parts may take to end after they were told to. With the time a sweep may still
/// hold a thread, the process is gone within five seconds.
const DRAIN: Duration = Duration::from_secs(4);

/// The parts that end in order when told to.
const EXTERNAL: &str = "external metrics API";
const SIDE: &str = "HTTP server";
const STATE: &str = "keeper of the state";
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
    pub reader: Reader,
    tasks: Tasks,
    draining: Vec<&'static str>,
    stop: watch::Sender<bool>,
    step_down: watch::Sender<bool>,
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
        let tls = match &config.server.external_metrics.tls {
            Some(files) => serve::tls::ServerTls::from_files(&files.cert_file, &files.key_file)?,
            None => serve::tls::ServerTls::self_signed(&certificate_names())?,
        };
        let mut sources = Vec::new();
        for cluster in &config.clusters {
            sources.push((
                cluster.name.clone(),
                Source::connect(Settings::from(cluster))?,
            ));
        }

        let mut tasks = JoinSet::new();
        let (hpas, auth, client) = kubernetes::connect(config, hpas, &mut tasks).await?;
        let (stop, stopping) = watch::channel(false);
        let (step_down, stepping_down) = watch::channel(false);
        let leadership = leader::elect(config, client.as_ref(), stepping_down, &mut tasks);
        let is_elected = leadership.is_some();
        let leadership = leadership.unwrap_or_else(Leadership::alone);
        let (publisher, reader) = publish::channel(LagSnapshot::default());
        let (interests, interests_in) = mpsc::channel(INTERESTS_WAITING);
        let fixed = config.targets.iter().map(fixed_target).collect();
        let cadence = Cadence {
            interval: config.poll.interval,
            deadline: config.poll.deadline,
        };
        let rules = Rules {
            clamp: config.cap.clamp,
            cap: match config.cap.default {
                CapDefault::Advise => CapMode::Advise,
                CapDefault::Enforce => CapMode::Enforce,
            },
            max_staleness: config.poll.max_staleness,
            namespaces: if config.kubernetes.enabled {
                config.kubernetes.namespaces.clone()
            } else {
                Vec::new()
            },
        };
        let mut poller = Poller::new(sources, fixed, cadence, publisher)
            .with_rules(config.lag.rules())
            .with_answers(rules.clone());
        if let Some(client) = client.clone().filter(|_| !config.cap.read_only) {
            spawn_writers(
                Writing {
                    client,
                    reader: reader.clone(),
                    hpas: hpas.clone(),
                    leadership: leadership.clone(),
                    rules: rules.clone(),
                },
                &mut tasks,
            );
        }
        let mut draining = vec![EXTERNAL, SIDE];
        if is_elected {
            draining.push(LEASE);
        }
        let remembering = remember(
            config,
            client,
            stopping.clone(),
            leadership.clone(),
            &mut tasks,
        );
        if let Some(remembering) = remembering {
            poller = poller.with_memory(remembering);
            draining.push(STATE);
        }
        tasks.spawn(async move {
            let ended = poller
                .run(Inputs {
                    hpas,
                    interests: interests_in,
                })
                .await;
            ("poller", ended.context("a sweep panicked"))
        });

        let readiness =
            serve::health::Readiness::new(reader.clone(), Instant::now(), stopping.clone());
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
            draining,
            stop,
            step_down,
        };
        let api = serve::external::router(serve::external::ExternalOptions {
            reader: reader.clone(),
            rules: rules.clone(),
            interests,
            tenancy: Tenancy(config.tenancy.iter().map(grant).collect()),
            auth,
            access_log: match config.log.access {
                AccessLogMode::Sampled => AccessLog::Sampled,
                AccessLogMode::All => AccessLog::All,
                AccessLogMode::Off => AccessLog::Off,
            },
            readiness: readiness.clone(),
            build: build.clone(),
        });
        let side = serve::metrics::router(serve::metrics::HttpOptions {
            reader,
            rules,
            leadership,
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
        let stopped = told(stopping.clone());
        tasks.spawn(async move {
            (
                EXTERNAL,
                external
                    .serve_tls(api, &tls, stopped)
                    .await
                    .map_err(Into::into),
            )
        });
        let stopped = told(stopping);
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

    async fn drain(mut self) {
        tracing::info!("stopping");
        self.stop.send_replace(true);
        // The servers end when their last answer is out, and the state when the poller has said for
        // the last time what it is; everything else is just dropped.
        let mut left = self.draining;
        let drained = async {
            while !left.is_empty() {
                // Whoever leads next reads what was kept: the Lease is given back after that.
                self.step_down.send_replace(!left.contains(&STATE));
                let Some(ended) = self.tasks.join_next().await else {
                    break;
                };
                left.retain(|part| !matches!(&ended, Ok((ended, _)) if ended == part));
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(parts = left.join(", "), "stopped before these had ended");
        }
    }
}

async fn told(mut stopping: watch::Receiver<bool>) {
    // An error means that the daemon itself is gone, which is a reason to stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn grant(grant: &TenancyGrant) -> Grant {
    let patterns = |texts: &[String]| texts.iter().map(Pattern::new).collect();
    Grant {
        namespaces: patterns(&grant.namespaces),
        clusters: patterns(&grant.clusters),
        groups: patterns(&grant.groups),
        topics: patterns(&grant.topics),
    }
}

/// Whether this is a pod: every pod has the variable, and hardly anything else.
fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// Keeps what has to survive a restart, where the configuration says or a pod is expected to.
fn remember(
    config: &Config,
    client: Option<k8s::client::Client>,
    stop: watch::Receiver<bool>,
    leadership: Leadership,
    tasks: &mut Tasks,
) -> Option<Remembering> {
    let (recall, recalled) = oneshot::channel();
    let (keep, memories) = watch::channel(None);
    let config_map = config.state.config_map.clone();
    let config_map = config_map.or_else(|| in_pod().then(|| STATE_CONFIG_MAP.to_owned()));
    if let Some(file) = &config.state.file {
        // A file is this daemon's own, whoever leads.
        let alone = Leadership::alone();
        spawn_keeper(StateFile::new(file), recall, memories, alone, tasks);
    } else {
        let store = StateConfigMap::new(client?, config_map?);
        spawn_keeper(store, recall, memories, leadership, tasks);
    }
    Some(Remembering {
        recalled,
        keep,
        stop,
    })
}

/// Starts what writes to HPAs and to what they scale.
fn spawn_writers(writing: Writing, tasks: &mut Tasks) {
    let (capping, zeroing) = (writing.clone(), writing);
    tasks.spawn(async move {
        k8s::cap::keep(capping).await;
        ("writer of the cap", Ok(()))
    });
    tasks.spawn(async move {
        k8s::zero::keep(zeroing).await;
        ("keeper of what sleeps", Ok(()))
    });
}

fn spawn_keeper<S: StateStore>(
    store: S,
    recall: oneshot::Sender<Memory>,
    memories: watch::Receiver<Option<Arc<Memory>>>,
    leadership: Leadership,
    tasks: &mut Tasks,
) {
    tasks.spawn(async move {
        state::keep(store, recall, memories, leadership).await;
        (STATE, Ok(()))
    });
}

/// The names a self-signed certificate is for: those that the aggregator and a person ask by.
fn certificate_names() -> Vec<String> {
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "lagwise".into());
    [
        format!("lagwise.{namespace}.svc").as_str(),
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .map(String::from)
    .into()
}

fn fixed_target(target: &StaticTarget) -> target::StaticTarget {
    target::StaticTarget {
        name: target.name.as_str().into(),
        namespaces: target.namespaces.clone(),
        cluster: target.cluster.clone(),
        group: target.group.clone(),
        per_replica: target.lag_per_replica.map(Milli::from_units),
        settings: target.settings(),
    }
}
