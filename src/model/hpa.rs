//! HorizontalPodAutoscalers: their fields, their selectors and their controller's arithmetic.

pub mod controller;
pub mod facts;
pub mod key;
pub mod selector;

/// The label keys that a selector may use; anything else selects nothing.
pub mod label {
    /// The consumer group; a request must name it, or a configured target.
    pub const GROUP: &str = "group";
    /// A topic; absent = those that the group's members read, or else those it has committed on.
    pub const TOPIC: &str = "topic";
    /// The Kafka cluster's configured name; absent = the only one.
    pub const CLUSTER: &str = "cluster";
    /// The HPA that asks, where two of them select alike.
    pub const HPA: &str = "hpa";
    /// A configured target's name, instead of a group whose name is no label value.
    pub const TARGET: &str = "target";
    /// All of them.
    pub const ALL: [&str; 5] = [GROUP, TOPIC, CLUSTER, HPA, TARGET];
}
