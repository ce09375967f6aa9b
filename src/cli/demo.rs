//! `lagwise demo`: the daemon, an embedded Kafka, a surging load and an HPA in one process.
//!
//! The daemon, its API over HTTPS, the Kafka clients and their group are real. The brokers
//! (librdkafka's mock cluster), the HPA (its arithmetic, [`hpa`]) and its pods (threads) are
//! simulated.

mod api;
mod consumers;
mod hpa;
mod plan;
mod producer;
mod reading;
mod report;
mod screen;
mod setup;
mod terminal;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::ApiClient;
use clap::Args;
use consumers::{ConsumerWork, Fleet, Job};
use hpa::SimulatedHpa;
use plan::Plan;
use producer::Producer;
use reading::{DemoReading, DemoTopic};
use report::Report;
use screen::{Frame, Links};
use setup::{config, hpas};
use terminal::View;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::run::Signals;
use super::{Output, duration_within};
use crate::config::LogConfig;
use crate::daemon::{self, App, HpaSource};
use crate::kafka::embedded::EmbeddedCluster;
use crate::model::hpa::facts::HpaMap;
use crate::model::hpa::selector::Selector;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;

const CLUSTER: &str = "embedded";
const NAMESPACE: &str = "demo";
const TOPIC: &str = "orders";
const GROUP: &str = "orders-workers";
const SELECTOR: &str = "group=orders-workers,topic=orders";

/// Timeout for the first consumer to join its group; about 3 s on an idle machine.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Response delay of the brokers. The mock broker rejects a member that requests its assignment just after the leader
/// sent it, which costs one more rebalance. A leader requests metadata first, so with a delay its request is the last,
/// even on a busy machine.
const BROKER_LATENCY: Duration = Duration::from_millis(100);

/// Time limit for shutting everything down.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// The arguments of `lagwise demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lagwise demo --for 45s\n\n\
    Needs neither Kafka nor Kubernetes. Ctrl-C ends it with a summary; a second one ends it at once.")]
pub struct DemoArgs {
    /// Length of the demo, 20s to 30m; everything in it scales with that
    #[arg(long = "for", value_name = "DURATION", default_value = "90s", value_parser = length, allow_hyphen_values = true)]
    length: Duration,
    /// Output format
    #[arg(short, long, default_value = "table", value_parser = terminal::output())]
    output: Output,
    /// Partitions of the topic, and so the maximum of useful consumers
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=24))]
    partitions: u32,
    /// Log filter, to standard error: a level, or directives such as lagwise=debug
    #[arg(
        long,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "error,librdkafka=off,rdkafka=off",
        value_parser = LogConfig::parse_filter
    )]
    log: String,
}

fn length(text: &str) -> Result<Duration, String> {
    let range = "20s to 30m: scaling up and down again takes that long";
    duration_within(text, plan::MIN_LENGTH, plan::MAX_LENGTH, range)
}

/// Runs the demo.
///
/// # Errors
/// What ended it early.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    daemon::init_logging(&LogConfig {
        filter: args.log.clone(),
        ..LogConfig::default()
    });
    let mut signals = Signals::new()?;
    let mut view = View::open(args.output);
    let demo = tokio::select! {
        demo = RunningDemo::start(args.length, args.partitions) => demo?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let ended = demo.run(&mut view, &mut signals).await;
    view.close();
    ended
}

/// The running parts of the demo.
struct RunningDemo {
    plan: Plan,
    start: Instant,
    embedded: EmbeddedCluster,
    reader: SnapshotReader,
    query: HpaQuery,
    links: Links,
    producer: Producer,
    work: Arc<ConsumerWork>,
    scaling: watch::Receiver<ScalingDecision>,
    daemon: DemoPart<()>,
    controller: DemoPart<Fleet>,
}

/// A task that runs until it is stopped.
struct DemoPart<T> {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<T>>,
}

/// The HPA's latest decision.
#[derive(Clone, Copy, Debug)]
struct ScalingDecision {
    replicas: u32,
    desired: u32,
}

/// The HPA as the daemon sees it.
struct ScaledHpa {
    selector: Selector,
    facts: watch::Sender<Option<HpaMap>>,
}

/// The HPA's metric query, for evaluating it without a request.
struct HpaQuery {
    selector: Selector,
    demo_topic: DemoTopic,
}

impl RunningDemo {
    /// Starts everything; the demo's clock starts when the first consumer has its partitions.
    async fn start(length: Duration, partitions: u32) -> anyhow::Result<Self> {
        let plan = Plan { length, partitions };
        let embedded = EmbeddedCluster::start(CLUSTER, 1)?;
        embedded.create_topic(TOPIC, i32::try_from(partitions)?)?;
        embedded.set_latency(BROKER_LATENCY)?;
        let config = config(&embedded);
        let selector = Selector::parse(SELECTOR).map_err(|error| anyhow::anyhow!("{error}"))?;
        // The sender is kept by the daemon's task: without it, the poller would see a closed
        // channel.
        let (facts_in, facts) = watch::channel(Some(hpas(&selector, &plan, 1)));
        let app = App::start(&config, HpaSource::Channel(facts)).await?;
        let reader = app.reader.clone();
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{LAG_METRIC}?labelSelector={}",
            SELECTOR.replace('=', "%3D")
        );
        let external = app
            .external
            .context("the daemon serves no external metrics")?;
        let links = Links {
            page: format!("http://{}/", app.admin),
            metric: format!("https://{external}{path}"),
            metrics: format!("http://{}/metrics", app.metrics),
            group: GROUP.into(),
        };
        let trust = app
            .ca_pem
            .clone()
            .context("the daemon has no self-signed certificate")?;
        let api = ApiClient::new(external, path, &trust)?;
        let kept = facts_in.clone();
        let daemon = DemoPart::start(|stopped| async move {
            app.run_until(async { drop(stopped.await) }).await?;
            drop(kept);
            Ok(())
        });

        let mut fleet = Fleet::new(Job {
            bootstrap: embedded.bootstrap(),
            group: GROUP,
            topic: TOPIC,
            per_second: plan::RECORDS_PER_SECOND,
        });
        let work = fleet.work();
        fleet.scale_to(1)?;
        let deadline = Instant::now() + JOIN_TIMEOUT;
        while work.rebalances.load(Ordering::Relaxed) == 0 {
            if Instant::now() > deadline {
                bail!(
                    "the first consumer was not assigned any partitions within {} s",
                    JOIN_TIMEOUT.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let start = Instant::now();
        let producer = Producer::start(&embedded.bootstrap(), TOPIC, plan, start)?;
        let (scaling_in, scaling) = watch::channel(ScalingDecision {
            replicas: 1,
            desired: 1,
        });
        let scaled_hpa = ScaledHpa {
            selector: selector.clone(),
            facts: facts_in,
        };
        let controller =
            DemoPart::start(|stopped| control(plan, api, fleet, scaling_in, scaled_hpa, stopped));
        let query = HpaQuery {
            selector,
            demo_topic: DemoTopic {
                cluster: CLUSTER.into(),
                group: GROUP.into(),
                topic: TOPIC.into(),
            },
        };
        Ok(Self {
            plan,
            start,
            embedded,
            reader,
            query,
            links,
            producer,
            work,
            scaling,
            daemon,
            controller,
        })
    }

    /// Displays the demo until its time is over or a signal arrives, then shuts it down.
    async fn run(mut self, view: &mut View, signals: &mut Signals) -> anyhow::Result<ExitCode> {
        let mut report = Report::new(self.plan, self.links.clone());
        let mut wanted = view.begin(&self.links)?;
        let mut ticks = tokio::time::interval(view.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = tokio::time::sleep_until((self.start + self.plan.length).into());
        tokio::pin!(end);
        while wanted {
            tokio::select! {
                _ = ticks.tick() => wanted = view.show(&self.record_frame(&mut report))?,
                () = &mut end => break,
                () = signals.next() => break,
                ended = &mut self.daemon.task => {
                    ended??;
                    bail!("the daemon ended");
                }
                ended = &mut self.controller.task => {
                    ended??;
                    bail!("the HPA ended");
                }
            }
        }
        let last = self.record_frame(&mut report);
        let summary = report.summary(
            self.producer.produced(),
            self.work.handled.load(Ordering::Relaxed),
            self.work.rebalances.load(Ordering::Relaxed),
        );
        view.finish(&last, &summary)?;
        self.shut_down().await;
        Ok(ExitCode::SUCCESS)
    }

    fn record_frame(&self, report: &mut Report) -> Frame {
        let ScalingDecision { replicas, desired } = *self.scaling.borrow();
        report.record(self.start.elapsed(), self.read(), replicas, desired)
    }

    fn read(&self) -> DemoReading {
        let HpaQuery {
            selector,
            demo_topic,
        } = &self.query;
        let query = MetricQuery {
            namespace: NAMESPACE,
            metric: LAG_METRIC,
            selector,
        };
        let partitions = usize::try_from(self.plan.partitions).unwrap_or(usize::MAX);
        let snapshot = self.reader.latest();
        reading::read(&snapshot, demo_topic, &query, &Moment::now(), partitions)
    }

    /// Shuts everything down in bounded time; the rest ends with the process.
    async fn shut_down(self) {
        let _ = self.daemon.stop.send(());
        let _ = self.controller.stop.send(());
        let mut threads = vec![self.producer.stop()];
        let embedded = self.embedded;
        let orderly = async move {
            if let Ok(Ok(fleet)) = self.controller.task.await {
                threads.extend(fleet.stop_all());
            }
            let _ = self.daemon.task.await;
            while threads.iter().any(|thread| !thread.is_finished()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, orderly).await;
        drop(embedded);
    }
}

impl<T: Send + 'static> DemoPart<T> {
    fn start<F>(run: impl FnOnce(oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: tokio::spawn(run(stopped)),
        }
    }
}

/// The HPA controller: reads the metric, decides, and scales the fleet; returns the fleet when
/// stopped.
async fn control(
    plan: Plan,
    api: ApiClient,
    mut fleet: Fleet,
    scaling: watch::Sender<ScalingDecision>,
    scaled_hpa: ScaledHpa,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Fleet> {
    let mut hpa = SimulatedHpa::new(plan.hpa(), std::time::Instant::now());
    let mut syncs = tokio::time::interval(plan.sync_period());
    syncs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = tokio::select! {
            now = syncs.tick() => now,
            _ = &mut stopped => return Ok(fleet),
        };
        let value = match api.read().await {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(%error, "cannot read the metric: keeping the replicas");
                None
            }
        };
        let current = scaling.borrow().replicas;
        // Measured from the tick, not from the response, so that a period of the HPA's behavior is
        // a whole number of syncs.
        let decision = hpa.sync(now.into_std(), current, value);
        fleet.scale_to(decision.replicas)?;
        if decision.replicas != current {
            let ScaledHpa { selector, facts } = &scaled_hpa;
            facts.send_replace(Some(hpas(selector, &plan, decision.replicas)));
        }
        scaling.send_replace(ScalingDecision {
            replicas: decision.replicas,
            desired: decision.desired,
        });
    }
}
