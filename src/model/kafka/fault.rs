//! Reasons why a reading is unknown. Wherever a reading can fail, its type is a `Result` with a [`Fault`],
//! so that unknown is never a number.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::error_names::error_name;
use crate::model::units::newtypes::Moment;

/// Reason for an unknown reading. Small and `Copy`, because columns of readings hold one per partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No response before the deadline of the poll.
    NoAnswer,
    /// A broker that is needed cannot be reached.
    Unreachable,
    /// A broker refused the login.
    Login,
    /// The TLS handshake with a broker failed.
    Tls,
    /// A broker's host name could not be resolved.
    NameResolution,
    /// The host that a broker advertises is not among those that may get the login.
    HostNotAllowed,
    /// The partition has no leader.
    LeaderUnknown,
    /// The coordinator of the group is not available.
    CoordinatorUnavailable,
    /// The topic does not exist.
    TopicMissing,
    /// The partition does not exist.
    PartitionMissing,
    /// The principal lacks `Describe` on the topic.
    TopicDenied,
    /// The principal lacks `Describe` on the group.
    GroupDenied,
    /// The committed offset is beyond the log end: the topic was recreated or truncated.
    CommitBeyondEnd,
    /// The topic was recreated or truncated, and the committed offset belongs to the previous log.
    LogReplaced,
    /// The group exceeds the limit of groups of this cluster (`max_groups`).
    TooManyGroups,
    /// The group is not read, because its partitions would exceed a budget.
    OverBudget,
    /// The Kafka client could not be created.
    Client,
    /// The broker or the client does not support the request.
    Unsupported,
    /// Another error code of Kafka or of librdkafka.
    Code(i32),
}

/// Kafka's error code for a missing right on the cluster.
const CLUSTER_AUTHORIZATION_FAILED: i32 = 31;

impl Fault {
    /// Name in metric labels and JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Fault::NoAnswer => "no_answer",
            Fault::Unreachable => "unreachable",
            Fault::Login => "login",
            Fault::Tls => "tls",
            Fault::NameResolution => "name_resolution",
            Fault::HostNotAllowed => "host_not_allowed",
            Fault::LeaderUnknown => "leader_unknown",
            Fault::CoordinatorUnavailable => "coordinator_unavailable",
            Fault::TopicMissing => "topic_missing",
            Fault::PartitionMissing => "partition_missing",
            Fault::TopicDenied => "topic_denied",
            Fault::GroupDenied => "group_denied",
            Fault::CommitBeyondEnd => "commit_beyond_end",
            Fault::LogReplaced => "log_replaced",
            Fault::TooManyGroups => "too_many_groups",
            Fault::OverBudget => "over_budget",
            Fault::Client => "client",
            Fault::Unsupported => "unsupported",
            Fault::Code(_) => "error_code",
        }
    }

    /// Whether the login lacks a right in Kafka.
    #[must_use]
    pub fn is_missing_right(self) -> bool {
        matches!(
            self,
            Fault::GroupDenied | Fault::TopicDenied | Fault::Code(CLUSTER_AUTHORIZATION_FAILED)
        )
    }

    /// Whether it may be due to a lost connection, so that the cluster's connection fault says more.
    #[must_use]
    pub fn is_connection(self) -> bool {
        matches!(
            self,
            Fault::NoAnswer
                | Fault::Unreachable
                | Fault::Login
                | Fault::Tls
                | Fault::NameResolution
                | Fault::HostNotAllowed
                | Fault::LeaderUnknown
                | Fault::CoordinatorUnavailable
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoAnswer => f.write_str("no response before the deadline of the poll"),
            Fault::Unreachable => f.write_str("a broker that is needed cannot be reached"),
            Fault::Login => f.write_str("a broker refused the login"),
            Fault::Tls => f.write_str("the TLS handshake with a broker failed"),
            Fault::NameResolution => f.write_str("a broker's host name could not be resolved"),
            Fault::HostNotAllowed => {
                f.write_str("a broker's host is not in allowed_broker_hosts of the cluster")
            }
            Fault::LeaderUnknown => f.write_str("a partition has no leader"),
            Fault::CoordinatorUnavailable => {
                f.write_str("the group's coordinator is not available")
            }
            Fault::TopicMissing => f.write_str("the topic does not exist"),
            Fault::PartitionMissing => f.write_str("the partition does not exist"),
            Fault::TopicDenied => {
                f.write_str("not authorized: the principal lacks Describe on the topic")
            }
            Fault::GroupDenied => {
                f.write_str("not authorized: the principal lacks Describe on the group")
            }
            Fault::CommitBeyondEnd => f.write_str(
                "the committed offset is beyond the log end: the topic was recreated or truncated",
            ),
            Fault::LogReplaced => f.write_str(
                "the topic was recreated or truncated, and the group has not committed since",
            ),
            Fault::TooManyGroups => f.write_str(
                "the limit of groups of this cluster is reached: raise max_groups of the cluster",
            ),
            Fault::OverBudget => f.write_str(
                "it has more partitions than the budgets in the configuration of lagwise allow",
            ),
            Fault::Client => f.write_str("the Kafka client could not be set up"),
            Fault::Unsupported => {
                f.write_str("the broker or the client does not support the request")
            }
            Fault::Code(code) => match error_name(*code) {
                Some(name) => write!(f, "Kafka error code {code} ({name})"),
                None => write!(f, "Kafka error code {code}"),
            },
        }
    }
}

/// A broker that is needed and cannot be reached, while others may answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokerFault {
    /// Host and port, as configured or advertised.
    pub address: Arc<str>,
    pub kind: Fault,
    /// Reason as given by the broker or the client, beginning with the address, without secrets; constant while
    /// the cause is the same.
    pub reason: Arc<str>,
}

/// Why a whole cluster does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFault {
    /// Kind, for labels.
    pub kind: Fault,
    /// Reason as given by the broker or the client, without secrets; constant while the cause is the same.
    pub reason: Arc<str>,
    /// When the cause was first seen.
    pub since: Moment,
}
