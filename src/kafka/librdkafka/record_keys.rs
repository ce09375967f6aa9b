//! Reads the latest records of a topic, to see whether producers set keys.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::client::{self, code_of};
use super::faults::fault_of;
use crate::kafka::ClientSettings;
use crate::kafka::health::ConnectionHealth;
use crate::model::diagnostics::topic_growth::{RecordKeys, UnknownKeys};
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::{Moment, TopicName};

/// Maximum number of partitions to read.
const MAX_PARTITIONS: u32 = 16;

/// Maximum number of records to read of each partition.
const MAX_RECORDS_PER_PARTITION: u32 = 10;

/// Maximum wait for the next event.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// librdkafka assigns partitions only to a member of a group. No broker hears of the group but for the request that
/// looks for its coordinator: nothing is committed, and the client does not join.
const GROUP: &str = "lagwise-topics-grow";

/// librdkafka's code for a codec that is not built in (`RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED`).
const NOT_IMPLEMENTED: i32 = -170;

/// Properties of the client, besides those of the cluster.
const PROPERTIES: [(&str, &str); 4] = [
    // Where fewer records are left than are to be read.
    ("auto.offset.reset", "earliest"),
    ("enable.partition.eof", "true"),
    ("fetch.message.max.bytes", "65536"),
    // How long a broker waits at the end of a partition before it says so.
    ("fetch.wait.max.ms", "100"),
];

/// Reads the latest records of some partitions. Blocks until the deadline at most.
pub(super) fn sample(
    mut settings: ClientSettings,
    topic: &TopicName,
    partitions: u32,
    deadline: Instant,
) -> RecordKeys {
    let properties = PROPERTIES.map(|(name, value)| (name.to_owned(), value.to_owned()));
    settings.properties.extend(properties);
    let unreadable = |error: &dyn Display| unreadable(error.to_string());
    let health = Arc::new(ConnectionHealth::default());
    let consumer = match client::client(&settings, &health, Some(GROUP)) {
        Ok(consumer) => consumer,
        Err(error) => return unreadable(&error.reason),
    };
    // Records that are left to read of each partition.
    let mut unread: BTreeMap<i32, u32> = sampled_partitions(partitions)
        .map(|partition| (partition, MAX_RECORDS_PER_PARTITION))
        .collect();
    let mut list = TopicPartitionList::new();
    let latest = Offset::OffsetTail(i64::from(MAX_RECORDS_PER_PARTITION));
    let assigned = unread
        .keys()
        .try_for_each(|partition| list.add_partition_offset(topic.as_str(), *partition, latest))
        .and_then(|()| consumer.assign(&list));
    if let Err(error) = assigned {
        return unreadable(&error);
    }
    let mut records = 0_u32;
    while !unread.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let cause = health.record_silence(settings.bootstrap(), Moment::now());
            return RecordKeys::Unknown(UnknownKeys {
                reason: format!("they could not be read in time: {}", cause.reason),
                remedy: match cause.kind {
                    Fault::HostNotAllowed => {
                        "add the host to allowed_broker_hosts if it is one of the brokers"
                    }
                    _ => {
                        "see that lagwise reaches all brokers, and raise --timeout if they are slow"
                    }
                },
            });
        }
        match consumer.poll(left.min(POLL_INTERVAL)) {
            None => {}
            Some(Ok(record)) if record.key().is_some() => return RecordKeys::Found,
            Some(Ok(record)) => {
                records = records.saturating_add(1);
                // A partition that is written to all the time never ends.
                if let Some(left) = unread.get_mut(&record.partition()) {
                    *left = left.saturating_sub(1);
                }
                unread.retain(|_, left| *left > 0);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&partition);
            }
            Some(Err(error)) => {
                if let Some(unknown) = failure(code_of(&error)) {
                    return RecordKeys::Unknown(unknown);
                }
            }
        }
    }
    RecordKeys::NoneFound { records }
}

/// Partitions to read, evenly spread.
fn sampled_partitions(partitions: u32) -> impl Iterator<Item = i32> {
    let step = partitions.div_ceil(MAX_PARTITIONS).max(1);
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let all = (0..partitions).step_by(step);
    all.filter_map(|partition| i32::try_from(partition).ok())
}

fn unreadable(reason: String) -> RecordKeys {
    RecordKeys::Unknown(UnknownKeys::unreadable(reason))
}

/// Why records cannot be read by an error; `None` if librdkafka tries again after it.
fn failure(code: i32) -> Option<UnknownKeys> {
    match fault_of(code) {
        Fault::TopicDenied => Some(UnknownKeys {
            reason: "the login may not read them".to_owned(),
            remedy: "allow Read on the topic, or use a login that may read it",
        }),
        Fault::Code(NOT_IMPLEMENTED) => Some(UnknownKeys::unreadable(
            "they are compressed with a codec that is not built into lagwise, probably zstd",
        )),
        // Only the coordinator of the group is refused, and it is not needed.
        Fault::GroupDenied => None,
        fault if fault.is_connection() => None,
        fault => Some(UnknownKeys::unreadable(fault.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::kafka::embedded::EmbeddedCluster;
    use crate::model::units::host_pattern::HostPattern;

    /// Time for the embedded broker to answer, on busy cores.
    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn partitions_are_spread_evenly() {
        let sampled = |partitions| sampled_partitions(partitions).collect::<Vec<_>>();
        assert_eq!(sampled(3), [0, 1, 2]);
        assert_eq!(sampled(16).len(), 16);
        assert_eq!(sampled(40)[..3], [0, 3, 6]);
        assert!(sampled(10_000).len() <= 16 && sampled(0).is_empty());
    }

    #[test]
    fn one_record_with_a_key_is_enough() {
        let cluster = EmbeddedCluster::start("main", 1).unwrap();
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap())
            .create()
            .unwrap();
        let sampled = |topic: &str| {
            let deadline = Instant::now() + TIMEOUT;
            sample(cluster.settings(), &topic.into(), 2, deadline)
        };
        for topic in ["empty", "plain", "keyed"] {
            cluster.create_topic(topic, 2).unwrap();
        }
        for topic in ["plain", "keyed"] {
            for _ in 0..3 {
                let record = BaseRecord::<(), _>::to(topic).partition(0).payload("x");
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        let record = BaseRecord::to("keyed").partition(1).key("k").payload("x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(TIMEOUT).unwrap();
        assert_eq!(sampled("empty"), RecordKeys::NoneFound { records: 0 });
        assert_eq!(sampled("plain"), RecordKeys::NoneFound { records: 3 });
        assert_eq!(sampled("keyed"), RecordKeys::Found);
    }

    #[test]
    fn brokers_on_hosts_that_are_not_allowed_are_not_read() {
        let cluster = EmbeddedCluster::start("main", 1).unwrap();
        cluster.create_topic("keyed", 1).unwrap();
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap())
            .create()
            .unwrap();
        let record = BaseRecord::to("keyed").partition(0).key("k").payload("x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(TIMEOUT).unwrap();
        let sampled = |hosts: &[&str], bootstrap: String, timeout| {
            let mut settings = cluster.settings();
            settings.allowed_hosts = hosts
                .iter()
                .map(|host| HostPattern::parse(host).unwrap())
                .collect();
            let property = "bootstrap.servers".to_owned();
            settings.properties.insert(property, bootstrap);
            sample(settings, &"keyed".into(), 1, Instant::now() + timeout)
        };
        // The broker advertises an address, whatever the server is called.
        let by_name = cluster.bootstrap().replace("127.0.0.1", "localhost");
        for hosts in [&["127.0.0.1"][..], &["*.kafka.svc", "127.*"]] {
            let found = sampled(hosts, by_name.clone(), TIMEOUT);
            assert_eq!(found, RecordKeys::Found, "{hosts:?}");
        }
        // The host in bootstrap.servers needs no entry.
        let found = sampled(&["*.kafka.svc"], cluster.bootstrap(), TIMEOUT);
        assert_eq!(found, RecordKeys::Found);
        for hosts in [&["*.kafka.svc"][..], &["10.*", "127.0.0.2"]] {
            let refused = sampled(hosts, by_name.clone(), Duration::from_secs(3));
            let RecordKeys::Unknown(unknown) = refused else {
                panic!("{hosts:?}: {refused:?}");
            };
            assert!(
                unknown
                    .reason
                    .contains("127.0.0.1: a broker's host is not in"),
                "{unknown:?}"
            );
            let remedy = "add the host to allowed_broker_hosts";
            assert!(unknown.remedy.starts_with(remedy), "{unknown:?}");
        }
    }

    #[test]
    fn an_unreachable_broker_is_waited_for_until_the_deadline() {
        let cluster = EmbeddedCluster::start("main", 1).unwrap();
        let mut settings = cluster.settings();
        let nowhere = "127.0.0.1:1".to_owned();
        settings
            .properties
            .insert("bootstrap.servers".into(), nowhere);
        let deadline = Instant::now() + Duration::from_millis(500);
        let RecordKeys::Unknown(unknown) = sample(settings, &"orders".into(), 2, deadline) else {
            panic!("there is no broker");
        };
        assert!(unknown.reason.contains("in time"), "{unknown:?}");
        assert!(unknown.remedy.contains("--timeout"), "{unknown:?}");
    }

    #[test]
    fn only_connection_errors_are_waited_out() {
        // RD_KAFKA_RESP_ERR__TRANSPORT, and the error for a group that is denied.
        assert!(failure(-195).is_none() && failure(30).is_none());
        let denied = failure(29).unwrap();
        assert!(denied.remedy.contains("Read on the topic"), "{denied:?}");
        let codec = failure(NOT_IMPLEMENTED).unwrap();
        assert!(codec.reason.contains("zstd"), "{codec:?}");
        assert!(failure(-3).is_some());
    }
}
