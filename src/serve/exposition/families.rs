//! Metric families that are written from a snapshot.

use std::borrow::Cow;

use super::activity;
use crate::telemetry::family::{COUNTER, Family, GAUGE, UNTYPED};

/// All families.
pub(crate) const ALL: &[&Family] = &[
    &GROUP_LAG,
    &GROUP_LAG_SUM,
    &GROUP_CURRENT_OFFSET,
    &GROUP_CURRENT_OFFSET_SUM,
    &GROUP_LAG_SECONDS,
    &GROUP_LAG_SECONDS_IS_LOWER_BOUND,
    &GROUP_PARTITION_LAG_SECONDS,
    &GROUP_PARTITIONS,
    &GROUP_STUCK,
    &GROUP_MEMBERS,
    &TOPIC_PARTITIONS,
    &TOPIC_PARTITION_CURRENT_OFFSET,
    &TOPIC_PARTITION_OLDEST_OFFSET,
    &activity::GROUP_PRODUCED_PER_SECOND,
    &activity::GROUP_CONSUMED_PER_SECOND,
    &activity::GROUP_LAG_VELOCITY,
    &activity::GROUP_DRAIN_SECONDS,
    &activity::GROUP_SINCE_COMMIT_SECONDS,
    &activity::GROUP_RETENTION_USED,
    &activity::GROUP_STATE,
    &activity::GROUP_REBALANCES_TOTAL,
    &activity::TOPIC_HOT_PARTITION_SHARE,
    &DATA_AGE_SECONDS,
    &MAX_STALENESS_SECONDS,
    &PRESENT_FINDINGS,
    &OVER_BUDGET,
    &PARTITION_SERIES_OMITTED,
    &PARTITION_FAULTS,
    &CLUSTER_UP,
    &BROKERS_UNREACHABLE,
    &CLUSTER_FAULT,
    &KAFKA_REQUESTS_TOTAL,
    &KAFKA_RECEIVED_BYTES_TOTAL,
    &KAFKA_CONNECTIONS,
    &KAFKA_THROTTLED_SECONDS_TOTAL,
    &KAFKA_CERTIFICATE_EXPIRY,
    &GROUP_USEFUL_PARALLELISM,
    &TARGET_VALUE,
    &TARGET_DESIRED_REPLICAS,
    &TARGET_UNCAPPED_REPLICAS,
    &TARGET_CEILING,
    &TARGET_FALLBACK,
    &TARGET_RATE_REPLICAS,
    &TARGET_LAG_REPLICAS,
    &TARGET_HELD_REPLICAS,
    &TARGET_CAPACITY,
    &TARGET_PROJECTED_AGE_SECONDS,
    &TARGET_COMMIT_INTERVAL_SECONDS,
    &TARGET_COST,
    &TARGET_EXPECTED_DRAIN_SECONDS,
    &TARGET_ACTUAL_DRAIN_SECONDS,
    &TARGET_DRAINS_TOTAL,
    &TARGET_REPLICA_MINUTES_TOTAL,
    &TARGET_SCALE_CHANGES_TOTAL,
    &TARGET_MESSAGES_TOTAL,
    &TARGET_LATE_MESSAGES_TOTAL,
    &BUILD_INFO,
];

pub(super) const BUILD_INFO: Family = Family {
    name: "lagwise_build_info",
    kind: GAUGE,
    help: "Version of lagwise and of librdkafka; always 1",
    labels: Cow::Borrowed(&["version", "librdkafka"]),
};
pub(super) const GROUP_LAG: Family = Family {
    name: "kafka_consumergroup_lag",
    kind: GAUGE,
    help: "Messages that the group has yet to read on the partition",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic", "partition"]),
};
// kafka_exporter says gauge; but a gauge whose name ends in _sum fails Prometheus's own lint,
// since histograms have such names. The name is what queries use. So too for the sum of offsets.
pub(super) const GROUP_LAG_SUM: Family = Family {
    name: "kafka_consumergroup_lag_sum",
    kind: UNTYPED,
    help: "Messages that the group has yet to read on the topic; absent while a partition is unknown",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic"]),
};
pub(super) const GROUP_CURRENT_OFFSET: Family = Family {
    name: "kafka_consumergroup_current_offset",
    kind: GAUGE,
    help: "Committed offset of the group on the partition; absent if it has none",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic", "partition"]),
};
pub(super) const GROUP_CURRENT_OFFSET_SUM: Family = Family {
    name: "kafka_consumergroup_current_offset_sum",
    kind: UNTYPED,
    help: "Sum of the group's committed offsets on the topic; absent while a partition is unknown, and if it has none",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic"]),
};
pub(super) const GROUP_LAG_SECONDS: Family = Family {
    name: "lagwise_consumergroup_lag_seconds",
    kind: GAUGE,
    help: "Age of the oldest message of the topic that the group has yet to read; absent while a partition is unknown",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic"]),
};
pub(super) const GROUP_LAG_SECONDS_IS_LOWER_BOUND: Family = Family {
    name: "lagwise_consumergroup_lag_seconds_is_lower_bound",
    kind: GAUGE,
    help: "1 while the lag in seconds is a lower bound, as it is after a start; otherwise 0",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic"]),
};
pub(super) const GROUP_PARTITION_LAG_SECONDS: Family = Family {
    name: "lagwise_consumergroup_partition_lag_seconds",
    kind: GAUGE,
    help: "Age of the oldest message of the partition that the group has yet to read, or a lower bound of it",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic", "partition"]),
};
pub(super) const GROUP_PARTITIONS: Family = Family {
    name: "lagwise_consumergroup_partitions",
    kind: GAUGE,
    help: "Partitions of the topic, by the rule that made the group's lag on them",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic", "rule"]),
};
pub(super) const GROUP_STUCK: Family = Family {
    name: "lagwise_consumergroup_stuck",
    kind: GAUGE,
    help: "1 while no partition on which the group is behind makes progress; absent otherwise",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const GROUP_MEMBERS: Family = Family {
    name: "kafka_consumergroup_members",
    kind: GAUGE,
    help: "Members of the group, as its coordinator last reported; absent if it never did",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const TOPIC_PARTITIONS: Family = Family {
    name: "kafka_topic_partitions",
    kind: GAUGE,
    help: "Partitions of the topic",
    labels: Cow::Borrowed(&["cluster", "topic"]),
};
pub(super) const TOPIC_PARTITION_CURRENT_OFFSET: Family = Family {
    name: "kafka_topic_partition_current_offset",
    kind: GAUGE,
    help: "Log-end offset: the offset that the next message of the partition gets",
    labels: Cow::Borrowed(&["cluster", "topic", "partition"]),
};
pub(super) const TOPIC_PARTITION_OLDEST_OFFSET: Family = Family {
    name: "kafka_topic_partition_oldest_offset",
    kind: GAUGE,
    help: "Log start offset: the offset of the oldest message of the partition",
    labels: Cow::Borrowed(&["cluster", "topic", "partition"]),
};
pub(super) const DATA_AGE_SECONDS: Family = Family {
    name: "lagwise_data_age_seconds",
    kind: GAUGE,
    help: "Age of the last complete reading of the group on the topic, from which values are served",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic"]),
};
pub(super) const MAX_STALENESS_SECONDS: Family = Family {
    name: "lagwise_max_staleness_seconds",
    kind: GAUGE,
    help: "Age from which lag is no longer served: poll.max_staleness",
    labels: Cow::Borrowed(&[]),
};
pub(super) const OVER_BUDGET: Family = Family {
    name: "lagwise_over_budget",
    kind: GAUGE,
    help: "HPAs (resource partitions: groups) that are not read because a budget is exceeded, by budget; absent if there is none",
    labels: Cow::Borrowed(&["scope", "resource"]),
};
pub(super) const PARTITION_SERIES_OMITTED: Family = Family {
    name: "lagwise_partition_series_omitted",
    kind: GAUGE,
    help: "Partitions, counted for each group that reads them, without series of their own, by budgets.partition_series",
    labels: Cow::Borrowed(&[]),
};
pub(super) const PARTITION_FAULTS: Family = Family {
    name: "lagwise_partition_faults",
    kind: GAUGE,
    help: "Partitions whose lag is unknown, by cause; a topic or group that was never read counts once. Topics and groups that only requests to the API name do not count",
    labels: Cow::Borrowed(&["cluster", "kind"]),
};
pub(super) const CLUSTER_UP: Family = Family {
    name: "lagwise_cluster_up",
    kind: GAUGE,
    help: "Whether any broker of the Kafka cluster answered the last sweep; absent before the first",
    labels: Cow::Borrowed(&["cluster"]),
};
pub(super) const BROKERS_UNREACHABLE: Family = Family {
    name: "lagwise_brokers_unreachable",
    kind: GAUGE,
    help: "Brokers of the Kafka cluster that lagwise needs and cannot reach; absent before the first sweep",
    labels: Cow::Borrowed(&["cluster"]),
};
pub(super) const PRESENT_FINDINGS: Family = Family {
    name: "lagwise_present_findings",
    kind: GAUGE,
    help: "Present findings about HPAs, groups, workloads and settings, by kind and severity; absent if there is none",
    labels: Cow::Borrowed(&["kind", "severity"]),
};
pub(super) const CLUSTER_FAULT: Family = Family {
    name: "lagwise_cluster_fault",
    kind: GAUGE,
    help: "1 while this fault keeps the Kafka cluster from answering",
    labels: Cow::Borrowed(&["cluster", "kind", "reason"]),
};
pub(super) const KAFKA_REQUESTS_TOTAL: Family = Family {
    name: "lagwise_kafka_requests_total",
    kind: COUNTER,
    help: "Requests sent to the Kafka cluster, without logins; wire client only",
    labels: Cow::Borrowed(&["cluster"]),
};
pub(super) const KAFKA_RECEIVED_BYTES_TOTAL: Family = Family {
    name: "lagwise_kafka_received_bytes_total",
    kind: COUNTER,
    help: "Bytes of the Kafka cluster's responses, before encryption; wire client only",
    labels: Cow::Borrowed(&["cluster"]),
};
pub(super) const KAFKA_CONNECTIONS: Family = Family {
    name: "lagwise_kafka_connections",
    kind: GAUGE,
    help: "Open connections to the Kafka cluster; wire client only",
    labels: Cow::Borrowed(&["cluster"]),
};
pub(super) const KAFKA_THROTTLED_SECONDS_TOTAL: Family = Family {
    name: "lagwise_kafka_throttled_seconds_total",
    kind: COUNTER,
    help: "Total time that brokers asked this client to throttle; wire client only",
    labels: Cow::Borrowed(&["cluster"]),
};
pub(super) const KAFKA_CERTIFICATE_EXPIRY: Family = Family {
    name: "lagwise_kafka_certificate_expiry_timestamp_seconds",
    kind: GAUGE,
    help: "Time at which a certificate of the Kafka cluster's connections expires, in seconds since 1970: lagwise's own (client), or the first one that a broker presents (broker; wire client only)",
    labels: Cow::Borrowed(&["cluster", "certificate"]),
};
pub(super) const GROUP_USEFUL_PARALLELISM: Family = Family {
    name: "lagwise_consumergroup_useful_parallelism",
    kind: GAUGE,
    help: "Largest number of members of the group that can have work, by the rule that decided it; +Inf without a limit",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "rule"]),
};
pub(super) const TARGET_VALUE: Family = Family {
    name: "lagwise_target_value",
    kind: GAUGE,
    help: "Value served for the HPA's metric, by the rule that made it; absent while the answer is an error",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "rule"]),
};
pub(super) const TARGET_DESIRED_REPLICAS: Family = Family {
    name: "lagwise_target_desired_replicas",
    kind: GAUGE,
    help: "Replicas wanted for the HPA's metric, at most its ceiling",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_UNCAPPED_REPLICAS: Family = Family {
    name: "lagwise_target_uncapped_replicas",
    kind: GAUGE,
    help: "Replicas that the lag of the HPA's metric is worth, without its ceiling; absent while lag is unknown",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_CEILING: Family = Family {
    name: "lagwise_target_ceiling",
    kind: GAUGE,
    help: "Largest number of replicas that can have work for the HPA's metric, by the rule of its useful parallelism; +Inf without a limit",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "rule"]),
};
pub(super) const TARGET_FALLBACK: Family = Family {
    name: "lagwise_target_fallback",
    kind: GAUGE,
    help: "1 while lag has been unknown for so long that the HPA's fallback is served; otherwise 0",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_RATE_REPLICAS: Family = Family {
    name: "lagwise_target_rate_replicas",
    kind: GAUGE,
    help: "Replicas that the rate policy wants for the HPA's metric, by the rule that decided; absent without the policy, and while it observes too little",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "rule"]),
};
pub(super) const TARGET_LAG_REPLICAS: Family = Family {
    name: "lagwise_target_lag_replicas",
    kind: GAUGE,
    help: "Replicas that lag wants for an HPA's metric that has the rate policy or a hold; absent while lag is unknown",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_HELD_REPLICAS: Family = Family {
    name: "lagwise_target_held_replicas",
    kind: GAUGE,
    help: "Replicas that the annotation lagwise.dev/hold keeps; absent without a hold",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_CAPACITY: Family = Family {
    name: "lagwise_target_member_capacity",
    kind: GAUGE,
    help: "Messages per second that a member processes, as the rate policy estimates it",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_PROJECTED_AGE_SECONDS: Family = Family {
    name: "lagwise_target_projected_age_seconds",
    kind: GAUGE,
    help: "Age that the oldest unprocessed message will have when a change of the replicas would take effect, as the rate policy expects it",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_COMMIT_INTERVAL_SECONDS: Family = Family {
    name: "lagwise_target_commit_interval_seconds",
    kind: GAUGE,
    help: "Usual time between two commits of a partition of the HPA's group, as the rate policy measures it",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_COST: Family = Family {
    name: "lagwise_target_cost",
    kind: GAUGE,
    help: "Cost of up to the last 24 hours: the sum of the replicas in percent of all, 5 for each percent of late messages, and 0.2 times the changes of the replicas in 3 hours; by the rate policy, or if all replicas had always run",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "by"]),
};
pub(super) const TARGET_EXPECTED_DRAIN_SECONDS: Family = Family {
    name: "lagwise_target_expected_drain_seconds",
    kind: GAUGE,
    help: "How long the last backlog whose duration was compared was expected to last, by the estimates of the rate policy",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_ACTUAL_DRAIN_SECONDS: Family = Family {
    name: "lagwise_target_actual_drain_seconds",
    kind: GAUGE,
    help: "How long the last backlog whose duration was compared lasted",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_DRAINS_TOTAL: Family = Family {
    name: "lagwise_target_drains_total",
    kind: COUNTER,
    help: "Backlogs whose expected duration was compared with the actual one",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector"]),
};
pub(super) const TARGET_REPLICA_MINUTES_TOTAL: Family = Family {
    name: "lagwise_target_replica_minutes_total",
    kind: COUNTER,
    help: "Replicas times minutes; by is rate for a simulation that applies the recommendation, and actual for what happened; only with policy recommend",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "by"]),
};
pub(super) const TARGET_SCALE_CHANGES_TOTAL: Family = Family {
    name: "lagwise_target_scale_changes_total",
    kind: COUNTER,
    help: "Changes of the number of replicas, each at least one rebalance; by is rate for a simulation that applies the recommendation, and actual for what happened; only with policy recommend",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "by"]),
};
pub(super) const TARGET_MESSAGES_TOTAL: Family = Family {
    name: "lagwise_target_messages_total",
    kind: COUNTER,
    help: "Messages processed; by is rate for a simulation that applies the recommendation, and actual for what happened; only with policy recommend",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "by"]),
};
pub(super) const TARGET_LATE_MESSAGES_TOTAL: Family = Family {
    name: "lagwise_target_late_messages_total",
    kind: COUNTER,
    help: "Messages that were older than the objective when they were processed; by is rate for a simulation that applies the recommendation, and actual for what happened; only with policy recommend",
    labels: Cow::Borrowed(&["namespace", "hpa", "metric", "selector", "by"]),
};
