//! HorizontalPodAutoscalers: their fields, their selectors and their controller's arithmetic.

pub mod bounded_facts;
pub mod controller;
pub mod facts;
pub mod facts_budget;
pub mod limits;
pub mod manifest;
pub mod selector;
pub mod write_scopes;

/// Label keys that a selector may use. Any other key matches nothing.
pub mod label {
    /// Consumer group; required unless `target` is given.
    pub const GROUP: &str = "group";
    /// Topic; if absent, the topics that the members read, or else those with committed offsets.
    pub const TOPIC: &str = "topic";
    /// Name of the Kafka cluster in the configuration; may be absent if there is only one.
    pub const CLUSTER: &str = "cluster";
    /// Name of the HPA, to distinguish HPAs whose selectors are otherwise equal.
    pub const HPA: &str = "hpa";
    /// Name of a configured target, for groups whose ID is not a valid label value.
    pub const TARGET: &str = "target";
    /// All keys.
    pub const ALL: [&str; 5] = [GROUP, TOPIC, CLUSTER, HPA, TARGET];
}
