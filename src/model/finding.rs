//! What is odd about an HPA or the configuration, for people.

use std::fmt;

use super::target::LAG_METRIC;

/// Something about an HPA or the configuration that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A metric of ours whose selector names neither a group nor a configured target.
    NoGroup {
        /// `namespace/name` of the HPA.
        hpa: String,
    },
    /// A metric of ours that names a cluster which is not configured.
    UnknownCluster {
        /// `namespace/name` of the HPA.
        hpa: String,
        /// The name.
        cluster: String,
    },
    /// A metric of ours that names no cluster, where several are configured.
    AmbiguousCluster {
        /// `namespace/name` of the HPA.
        hpa: String,
    },
    /// A metric of ours with a `Value` target, which multiplies at every sync.
    ValueTarget {
        /// `namespace/name` of the HPA.
        hpa: String,
    },
}

impl Finding {
    /// The kind, for labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Finding::NoGroup { .. } => "no_group",
            Finding::UnknownCluster { .. } => "unknown_cluster",
            Finding::AmbiguousCluster { .. } => "ambiguous_cluster",
            Finding::ValueTarget { .. } => "value_target",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::NoGroup { hpa } => write!(
                f,
                "HPA {hpa}: the selector of {LAG_METRIC} names no consumer group: add matchLabels.group"
            ),
            Finding::UnknownCluster { hpa, cluster } => {
                write!(
                    f,
                    "HPA {hpa}: the Kafka cluster {cluster:?} is not configured"
                )
            }
            Finding::AmbiguousCluster { hpa } => write!(
                f,
                "HPA {hpa}: several Kafka clusters are configured: add matchLabels.cluster"
            ),
            Finding::ValueTarget { hpa } => write!(
                f,
                "HPA {hpa}: a target of type Value multiplies lag by the ready pods at every sync: use AverageValue"
            ),
        }
    }
}
