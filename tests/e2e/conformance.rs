//! Conformance: every client reads the same from the same Kafka cluster, and reads it correctly.
//!
//! Each case sets up a state of the cluster, and compares what every client reads with it ([`Sources::expect`]). While
//! brokers restart, a client may be a poll or so late, but must never report anything wrong ([`crate::faults`]).
//!
//! [`capabilities`] lists what a client cannot see by design. Nothing else may differ.

pub(crate) mod capabilities;
mod described;
mod groups;
mod outage;
mod permissions;
mod records;
mod topics;

use anyhow::{Context, Result};

use crate::Test;
use crate::testbed::Testbed;
use crate::testbed::applications;
use crate::testbed::kafka::{KafkaCluster, KafkaOptions, Version};

/// A case of one cluster.
type Case = fn(&KafkaCluster) -> Result<()>;

/// Runs a case on the shared brokers.
macro_rules! shared {
    ($part:ident :: $case:ident) => {
        (
            concat!("conformance::", stringify!($case)),
            |testbed: &Testbed| $part::$case(testbed.kafka()?),
        )
    };
}

/// Cases that need several brokers.
pub(crate) const BROKERS: &[(&str, Test)] = &[(
    "conformance::a_stopped_broker_makes_only_its_own_data_unknown",
    |testbed| outage::a_stopped_broker_makes_only_its_own_data_unknown(testbed.three_brokers()?),
)];

/// The cases of every run, on any cluster.
pub(crate) const CASES: &[(&str, Test)] = &[
    shared!(groups::plain_commits),
    shared!(groups::partitions_without_a_commit),
    shared!(groups::discovery),
    shared!(groups::many_groups),
    shared!(groups::odd_names),
    shared!(groups::live_classic_group),
    shared!(groups::live_group_of_the_consumer_protocol),
    shared!(topics::missing_topic_is_not_created),
    shared!(topics::topic_deleted_and_recreated),
    shared!(topics::partitions_added),
    shared!(records::records_deleted),
    shared!(records::compacted_topic),
    shared!(records::transactions),
    shared!(records::last_stable_offsets),
    shared!(records::ends_of_a_while_ago),
    shared!(records::offsets_in_a_transaction),
    shared!(described::classic_groups),
    shared!(described::groups_of_the_consumer_protocol),
    shared!(described::empty_and_unknown_groups),
    ("conformance::share_groups", |testbed| {
        described::share_groups(testbed.preview_kafka()?)
    }),
    ("conformance::streams_groups", |testbed| {
        described::streams_groups(testbed.preview_kafka()?)
    }),
    (
        "conformance::denied_groups_and_topics_are_named",
        |testbed| permissions::denied_groups_and_topics_are_named(testbed.secured_kafka()?),
    ),
];

/// Long cases.
pub(crate) const LONG: &[(&str, Test)] = &[
    shared!(records::a_moved_log_start_is_seen_within_its_time),
    ("conformance::kafka_2_8", |testbed| {
        on(testbed, Version::V2_8, &[OLD])
    }),
    ("conformance::kafka_3_9", |testbed| {
        on(testbed, Version::V3_9, &[OLD])
    }),
    ("conformance::kafka_4_3", |testbed| {
        on(testbed, Version::V4_3, &[OLD, NEW])
    }),
];

/// Cases for brokers of every version.
const OLD: &[(&str, Case)] = &[
    ("plain commits", groups::plain_commits),
    (
        "partitions without a commit",
        groups::partitions_without_a_commit,
    ),
    ("discovery", groups::discovery),
    ("many groups", groups::many_groups),
    ("odd names", groups::odd_names),
    ("live group", groups::live_classic_group),
    ("classic groups", described::classic_groups),
    (
        "empty and unknown groups",
        described::empty_and_unknown_groups,
    ),
    ("missing topic", topics::missing_topic_is_not_created),
    (
        "topic deleted and recreated",
        topics::topic_deleted_and_recreated,
    ),
    ("partitions added", topics::partitions_added),
    ("records deleted", records::records_deleted),
    ("compacted topic", records::compacted_topic),
    ("transactions", records::transactions),
    ("last stable offsets", records::last_stable_offsets),
    (
        "offsets in a transaction",
        records::offsets_in_a_transaction,
    ),
    ("ends of a while ago", records::ends_of_a_while_ago),
];

/// Further cases for brokers of Kafka 4.
const NEW: &[(&str, Case)] = &[
    (
        "live group of the consumer protocol",
        groups::live_group_of_the_consumer_protocol,
    ),
    (
        "groups of the consumer protocol",
        described::groups_of_the_consumer_protocol,
    ),
    ("share groups", described::share_groups),
    ("streams groups", described::streams_groups),
];

/// Runs cases on one broker of that version.
fn on(testbed: &Testbed, version: Version, cases: &[&[(&str, Case)]]) -> Result<()> {
    let options = match version {
        Version::V4_3 => applications::newest(),
        _ => KafkaOptions {
            version,
            ..KafkaOptions::default()
        },
    };
    let kafka = testbed.start_kafka(&crate::testbed::unique("version"), &options)?;
    let mut cases = cases.iter().copied().flatten();
    cases.try_for_each(|(name, case)| case(&kafka).with_context(|| format!("{version:?}: {name}")))
}
