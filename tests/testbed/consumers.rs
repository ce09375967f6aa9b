//! Real consumers in separate processes: this test binary, started again in another role.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use super::process::Process;
use super::unique;

/// First argument with which the test binary runs as a consumer.
pub(crate) const CONSUMER_ROLE: &str = "consumer-of-the-testbed";

/// What each consumer of a fleet does.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerOptions {
    pub(crate) bootstrap: String,
    pub(crate) group: String,
    /// A topic, or several with commas between.
    pub(crate) topic: String,
    /// Records that one consumer handles in a second.
    pub(crate) per_second: u32,
    /// Further properties of the client, such as `group.protocol=consumer`. With `enable.auto.commit=false` each record
    /// is committed as it is handled; the client by itself also commits transaction markers behind it.
    pub(crate) properties: Vec<(String, String)>,
}

/// Consumers of one group. A test sets their number, as a Deployment does with pods.
pub(crate) struct ConsumerFleet {
    options: ConsumerOptions,
    folder: PathBuf,
    running: Vec<Process>,
}

impl ConsumerFleet {
    /// An empty fleet that logs into `folder`.
    pub(crate) fn new(folder: &Path, options: ConsumerOptions) -> Self {
        Self {
            options,
            folder: folder.to_owned(),
            running: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Starts or stops consumers until this number runs. Those that stop leave the group in order.
    pub(crate) fn scale_to(&mut self, count: usize) -> Result<()> {
        while self.running.len() < count {
            self.running.push(self.start()?);
        }
        let mut leaving = self.running.split_off(count);
        leaving
            .iter()
            .try_for_each(|process| process.signal("TERM"))?;
        leaving
            .iter_mut()
            .try_for_each(|process| process.stop(Duration::from_secs(20)).map(drop))
    }

    /// Kills one consumer. The group notices when its session times out.
    pub(crate) fn kill_one(&mut self) {
        self.running.pop();
    }

    fn start(&self) -> Result<Process> {
        let ConsumerOptions {
            bootstrap,
            group,
            topic,
            per_second,
            properties,
        } = &self.options;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            CONSUMER_ROLE,
            bootstrap,
            group,
            topic,
            &per_second.to_string(),
        ]);
        command.args(
            properties
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
        Process::start(
            // The name is that of a file, too.
            &unique(&format!("consumer-{}", group.replace('/', "-"))),
            &self.folder,
            &command,
        )
    }
}

/// Runs as a consumer, in its own process: BOOTSTRAP GROUP TOPIC PER_SECOND [KEY=VALUE]...
pub(crate) fn consume(args: &[String]) -> Result<()> {
    let [bootstrap, group, topic, per_second, properties @ ..] = args else {
        anyhow::bail!("a consumer needs BOOTSTRAP GROUP TOPIC PER_SECOND [KEY=VALUE]...");
    };
    let pause = Duration::from_secs(1) / per_second.parse::<u32>()?.max(1);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "500")
        .set("fetch.wait.max.ms", "100");
    if !properties.iter().any(|of| of == "group.protocol=consumer") {
        // With the consumer protocol this is up to the broker.
        config
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000");
    }
    for property in properties {
        let (key, value) = property
            .split_once('=')
            .with_context(|| format!("{property} is not KEY=VALUE"))?;
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&topic.split(',').collect::<Vec<_>>())?;
    let stopping = stop_signal()?;
    let mut due = Instant::now();
    while !stopping.load(Ordering::Relaxed) {
        // Work is simulated by sleeping, so that the rate of a consumer does not depend on the machine.
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait.min(Duration::from_millis(200)));
            continue;
        }
        if let Some(record) = consumer.poll(Duration::from_millis(200)) {
            let commits_itself = config.get("enable.auto.commit") == Some("false");
            let handled = record.and_then(|record| {
                if commits_itself {
                    consumer.commit_message(&record, CommitMode::Sync)?;
                }
                Ok(())
            });
            if let Err(error) = handled {
                report(&error);
                continue;
            }
            due = due.max(Instant::now().checked_sub(pause).unwrap_or(due)) + pause;
        }
    }
    // Dropped, the consumer commits what it has handled and leaves the group.
    drop(consumer);
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "a consumer's only voice is the log that its output goes to"
)]
fn report(error: &rdkafka::error::KafkaError) {
    eprintln!("consumer: {error}");
}

/// Becomes true at SIGTERM or SIGINT.
fn stop_signal() -> Result<Arc<AtomicBool>> {
    let stopping = Arc::new(AtomicBool::new(false));
    super::on_stop_signal({
        let stopping = Arc::clone(&stopping);
        move || stopping.store(true, Ordering::Relaxed)
    })?;
    Ok(stopping)
}
