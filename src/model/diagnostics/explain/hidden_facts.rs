//! Facts that neither Kafka nor the Kubernetes API exposes, as sentences.

use super::{Derivation, PartitionPart};
use crate::model::units::parallelism_rule::ParallelismRule;

/// State that the HPA controller does not expose.
pub(super) const HIDDEN_CONTROLLER_FACTS: [&str; 2] = [
    "earlier recommendations and scale events: the HPA controller keeps them in memory and shows them in no status",
    "the flags of the HPA controller: their defaults are assumed, a tolerance of 100m and a downscale stabilization of 300 s",
];

/// Facts about the consumers that Kafka does not expose.
pub(super) fn hidden_consumer_facts(metrics: &[Derivation]) -> Vec<String> {
    let parts = || metrics.iter().flat_map(|metric| &metric.groups);
    let mut all = Vec::new();
    if parts().any(|part| part.parallelism_rule == Some(ParallelismRule::AssignorUnknown)) {
        all.push("the assignor of the group: no member has been seen yet".to_owned());
    }
    let is_open = |partition: &PartitionPart| {
        matches!(&*partition.rule, "never_ran" | "from_start" | "since_seen")
    };
    let topics = || parts().flat_map(|part| &part.topics);
    if topics().any(|topic| topic.partitions.iter().any(is_open)) {
        all.push(
            "where consumers start without a commit: that is their own auto.offset.reset; tell lagwise by the annotation lagwise.dev/offset-reset"
                .to_owned(),
        );
    }
    let is_bound = |partition: &PartitionPart| partition.rule == "upper_bound";
    if topics().any(|topic| topic.partitions.iter().any(is_bound)) {
        all.push(
            "how many records of the share group are done beyond its start offset, so that its lag is an upper bound: brokers report that since Kafka 4.2"
                .to_owned(),
        );
    }
    all
}
