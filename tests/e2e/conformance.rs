//! Every client reads the same from the same Kafka, and what is really there.
//!
//! Each case sets something up and has every client look at it ([`Sources::expect`]): what they see is compared with
//! what was set up, word for word, and so with one another. Where brokers come and go, the clients may lag behind the
//! truth by a poll or so, but never say anything that is not so ([`crate::faults`]).
//!
//! # What librdkafka cannot see
//!
//! | fact | librdkafka | why |
//! |---|---|---|
//! | more groups than `max_groups` | a fault for those beyond it | a client for each group |
//! | a topic deleted and recreated between two polls, with the same number of partitions | only by its offsets | its metadata has no topic IDs |
//! | which generation of a leader has answered | no | `ListOffsets` of librdkafka sends no leader epoch that the caller may read |
//! | which members a group has, and of what type it is | no | `DescribeConsumerGroups` may crash, and groups of the consumer protocol read as dead |
//! | where a share group stands | no | no such request |
//! | what a streams group's tasks are | no | no such request |
//! | log starts that move by retention while every commit stands beyond | up to a minute late | asked for once a minute, as with the other client |
//!
//! None of it is part of an observation so far but the first.

mod groups;
mod outage;
mod permissions;
mod records;
mod topics;

use crate::Test;

/// The cases of every run.
pub(crate) const CASES: &[(&str, Test)] = &[
    ("conformance::plain_commits", groups::plain_commits),
    (
        "conformance::partitions_without_a_commit",
        groups::partitions_without_a_commit,
    ),
    ("conformance::discovery", groups::discovery),
    ("conformance::many_groups", groups::many_groups),
    ("conformance::odd_names", groups::odd_names),
    (
        "conformance::live_classic_group",
        groups::live_classic_group,
    ),
    (
        "conformance::live_group_of_the_consumer_protocol",
        groups::live_group_of_the_consumer_protocol,
    ),
    (
        "conformance::missing_topic_is_not_created",
        topics::missing_topic_is_not_created,
    ),
    (
        "conformance::topic_deleted_and_recreated",
        topics::topic_deleted_and_recreated,
    ),
    ("conformance::partitions_added", topics::partitions_added),
    ("conformance::records_deleted", records::records_deleted),
    ("conformance::compacted_topic", records::compacted_topic),
    ("conformance::transactions", records::transactions),
    (
        "conformance::offsets_in_a_transaction",
        records::offsets_in_a_transaction,
    ),
    (
        "conformance::what_one_broker_holds_goes_and_comes_with_it",
        outage::what_one_broker_holds_goes_and_comes_with_it,
    ),
    (
        "conformance::what_is_denied_is_named",
        permissions::what_is_denied_is_named,
    ),
];

/// The long ones.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "conformance::a_moved_log_start_is_seen_within_its_time",
    records::a_moved_log_start_is_seen_within_its_time,
)];
