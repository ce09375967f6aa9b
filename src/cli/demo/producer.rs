//! The producer: a thread that follows the plan's phases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::plan::Plan;

const STEP: Duration = Duration::from_millis(20);

/// A producer that runs.
pub(super) struct Producer {
    produced: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Producer {
    /// Produces following `plan` from `start` on.
    ///
    /// # Errors
    /// A client that cannot be created.
    pub(super) fn start(
        bootstrap: &str,
        topic: &'static str,
        plan: Plan,
        start: Instant,
    ) -> anyhow::Result<Self> {
        let client: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            // The mock broker returns one batch per fetch, so batches must be large.
            .set("linger.ms", "250")
            .create()
            .context("cannot create a producer")?;
        let (produced, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, stopping) = (Arc::clone(&produced), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("demo-producer".into())
            .spawn(move || produce(&client, topic, plan, start, &count, &stopping))
            .context("cannot start a thread")?;
        Ok(Self {
            produced,
            stop,
            thread,
        })
    }

    /// Records produced so far.
    pub(super) fn produced(&self) -> u64 {
        self.produced.load(Ordering::Relaxed)
    }

    /// Stops producing and returns the thread.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
    }
}

fn produce(
    client: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    plan: Plan,
    start: Instant,
    produced: &AtomicU64,
    stop: &AtomicBool,
) {
    let partitions = order(plan.partitions);
    let mut next = partitions.iter().cycle();
    let mut until = Duration::ZERO;
    // Thousandths of a record, so that slow rates are exact.
    let mut owed: u128 = 0;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(STEP);
        let now = start.elapsed();
        let rate = u128::from(plan.rate(plan.phase(now)));
        owed += rate * now.saturating_sub(until).as_millis();
        until = now;
        while owed >= 1000 {
            let Some(partition) = next.next() else { break };
            let record = BaseRecord::<(), str>::to(topic)
                .partition(*partition)
                .payload("an order");
            if client.send(record).is_err() {
                // The queue is full: send the rest later.
                break;
            }
            produced.fetch_add(1, Ordering::Relaxed);
            owed -= 1000;
        }
    }
    // Do not wait long for records in flight.
    let _ = client.flush(Duration::from_millis(500));
}

/// Order of partitions for records. Slightly uneven, as keys are: of 15 records, every three
/// partitions get 4, 6 and 5.
fn order(partitions: u32) -> Vec<i32> {
    let all = 0..i32::try_from(partitions).unwrap_or(i32::MAX);
    let weight = |partition: i32| [4, 6, 5][usize::try_from(partition % 3).unwrap_or(0)];
    (0..6)
        .flat_map(|round| {
            all.clone()
                .filter(move |partition| round < weight(*partition))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributes_records_over_partitions() {
        let order = order(12);
        assert_eq!(order.len(), 60);
        let of = |partition| order.iter().filter(|p| **p == partition).count();
        assert_eq!(
            (0..12).map(of).collect::<Vec<_>>(),
            [4, 6, 5, 4, 6, 5, 4, 6, 5, 4, 6, 5]
        );
        assert_eq!(super::order(1), [0; 4]);
    }
}
