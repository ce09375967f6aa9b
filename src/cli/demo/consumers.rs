//! The consumers: real clients, one a thread, each as fast as a slow pod. They stand for the pods of
//! a Deployment whose replicas the HPA sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};

/// The longest that a consumer waits before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What each consumer does.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) bootstrap: String,
    pub(super) group: &'static str,
    pub(super) topic: &'static str,
    /// Records handled in a second.
    pub(super) per_second: u32,
}

/// What the consumers did.
#[derive(Debug, Default)]
pub(super) struct ConsumerWork {
    /// Records handled; those handled again after a rebalance count again.
    pub(super) handled: AtomicU64,
    /// Assignments that the first consumer got: one for each rebalance, since it never leaves.
    pub(super) rebalances: AtomicU64,
}

/// The consumers that run.
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
    /// Nobody yet.
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

    /// Starts and stops consumers until `count` of them run; the newest go first. Waits for nobody.
    ///
    /// # Errors
    /// A client that cannot be made.
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

    /// Tells everybody to leave and gives the threads that are still at it.
    pub(super) fn disband(mut self) -> Vec<JoinHandle<()>> {
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
        let context = Watched {
            work: Arc::clone(&self.work),
            is_first,
        };
        let consumer: BaseConsumer<Watched> = ClientConfig::new()
            .set("bootstrap.servers", &self.job.bootstrap)
            .set("group.id", self.job.group)
            .set("auto.offset.reset", "earliest")
            .set("auto.commit.interval.ms", "500")
            .set("fetch.wait.max.ms", "100")
            // The embedded broker lets a rebalance take the session's time less one second,
            // however soon everybody has joined.
            .set("session.timeout.ms", "3000")
            .set("heartbeat.interval.ms", "300")
            .set("partition.assignment.strategy", "range")
            .create_with_context(context)
            .context("cannot make a consumer")?;
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

/// Handles records until told to stop. Work is simulated by time, so that a consumer handles so many
/// records a second whatever the machine.
fn consume(job: &Job, consumer: BaseConsumer<Watched>, work: &ConsumerWork, stop: &AtomicBool) {
    let pause = Duration::from_secs(1) / job.per_second.max(1);
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            thread::sleep(early.min(LOOK));
            continue;
        }
        // What goes wrong here goes away by itself: the client tries again.
        if let Some(Ok(_)) = consumer.poll(LOOK) {
            work.handled.fetch_add(1, Ordering::Relaxed);
            // Time lost to a busy machine is made up for, time without records is not.
            let made_up = Instant::now().checked_sub(LOOK).unwrap_or(due);
            due = due.max(made_up) + pause;
        }
    }
    // Dropped, it commits what it has handled and leaves the group, which may take a while.
    drop(consumer);
}

struct Watched {
    work: Arc<ConsumerWork>,
    is_first: bool,
}

impl ClientContext for Watched {}

impl ConsumerContext for Watched {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if self.is_first && matches!(rebalance, Rebalance::Assign(_)) {
            self.work.rebalances.fetch_add(1, Ordering::Relaxed);
        }
    }
}
