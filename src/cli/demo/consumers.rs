//! Consumers: real clients, one per thread, each as slow as a slow pod. They simulate the pods of a Deployment scaled
//! by the HPA.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};

/// How often a consumer checks whether to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Settings of the consumers.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) bootstrap: String,
    pub(super) group: &'static str,
    pub(super) topic: &'static str,
    /// Records handled per second.
    pub(super) per_second: u32,
}

/// Counters over all consumers.
#[derive(Debug, Default)]
pub(super) struct ConsumerWork {
    /// Records handled, including repeats after a rebalance.
    pub(super) handled: AtomicU64,
    /// Assignments of the first consumer: one per rebalance, since it never leaves.
    pub(super) rebalances: AtomicU64,
}

/// The running consumers.
pub(super) struct Fleet {
    job: Job,
    work: Arc<ConsumerWork>,
    running: Vec<Worker>,
    leaving: Vec<Worker>,
}

struct Worker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Fleet {
    /// A fleet without consumers.
    pub(super) fn new(job: Job) -> Self {
        Self {
            job,
            work: Arc::default(),
            running: Vec::new(),
            leaving: Vec::new(),
        }
    }

    pub(super) fn work(&self) -> Arc<ConsumerWork> {
        Arc::clone(&self.work)
    }

    /// Starts or stops consumers until `count` run; the newest are stopped first. Does not wait.
    ///
    /// # Errors
    /// A client that cannot be created.
    pub(super) fn scale_to(&mut self, count: u32) -> anyhow::Result<()> {
        let count = usize::try_from(count)?;
        while self.running.len() < count {
            let worker = self.start(self.running.is_empty())?;
            self.running.push(worker);
        }
        for worker in self.running.drain(count..) {
            worker.stop.store(true, Ordering::Relaxed);
            self.leaving.push(worker);
        }
        self.leaving.retain(|worker| !worker.thread.is_finished());
        Ok(())
    }

    /// Stops all consumers and returns the threads that are still running.
    pub(super) fn stop_all(mut self) -> Vec<JoinHandle<()>> {
        self.leaving.append(&mut self.running);
        for worker in &self.leaving {
            worker.stop.store(true, Ordering::Relaxed);
        }
        self.leaving
            .into_iter()
            .map(|worker| worker.thread)
            .collect()
    }

    fn start(&self, is_first: bool) -> anyhow::Result<Worker> {
        let context = RebalanceCounter {
            work: Arc::clone(&self.work),
            is_first,
        };
        let consumer: BaseConsumer<RebalanceCounter> = ClientConfig::new()
            .set("bootstrap.servers", &self.job.bootstrap)
            .set("group.id", self.job.group)
            .set("auto.offset.reset", "earliest")
            .set("auto.commit.interval.ms", "500")
            .set("fetch.wait.max.ms", "100")
            // The mock broker lets a rebalance take the session timeout less one second, even if
            // all members have joined.
            .set("session.timeout.ms", "3000")
            .set("heartbeat.interval.ms", "300")
            .set("partition.assignment.strategy", "range")
            .create_with_context(context)
            .context("cannot create a consumer")?;
        consumer.subscribe(&[self.job.topic])?;
        let stop = Arc::new(AtomicBool::new(false));
        let (job, work, stopping) = (self.job.clone(), self.work(), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("demo-consumer".into())
            .spawn(move || consume(&job, consumer, &work, &stopping))
            .context("cannot start a thread")?;
        Ok(Worker { stop, thread })
    }
}

/// Handles records until stopped. Work is simulated by sleeping, so that the rate is independent of
/// the machine.
fn consume(
    job: &Job,
    consumer: BaseConsumer<RebalanceCounter>,
    work: &ConsumerWork,
    stop: &AtomicBool,
) {
    let pause = Duration::from_secs(1) / job.per_second.max(1);
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            thread::sleep(early.min(POLL_INTERVAL));
            continue;
        }
        // Errors are retried by the client.
        if let Some(Ok(_)) = consumer.poll(POLL_INTERVAL) {
            work.handled.fetch_add(1, Ordering::Relaxed);
            // Catch up on time lost to a busy machine, but not on time without records.
            let made_up = Instant::now().checked_sub(POLL_INTERVAL).unwrap_or(due);
            due = due.max(made_up) + pause;
        }
    }
    // Dropping commits handled records and leaves the group, which may take a while.
    drop(consumer);
}

struct RebalanceCounter {
    work: Arc<ConsumerWork>,
    is_first: bool,
}

impl ClientContext for RebalanceCounter {}

impl ConsumerContext for RebalanceCounter {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if self.is_first && matches!(rebalance, Rebalance::Assign(_)) {
            self.work.rebalances.fetch_add(1, Ordering::Relaxed);
        }
    }
}
