//! Why something is unknown. An unknown is never a number: wherever a reading can fail, the type
//! is a `Result` with one of these as its error.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::model::units::newtypes::Moment;

/// The cause of an unknown reading. Small and `Copy`, so that a column of readings stays a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The answer had not come when the poll's deadline passed.
    NoAnswer,
    /// No broker of the cluster can be reached.
    Unreachable,
    /// A broker refused the login.
    Login,
    /// The TLS handshake with a broker failed.
    Tls,
    /// A broker's host name could not be resolved.
    NameResolution,
    /// The partition has no leader at present.
    LeaderUnknown,
    /// The group's coordinator is not available at present.
    CoordinatorUnavailable,
    /// The topic does not exist.
    TopicMissing,
    /// The partition does not exist (any more).
    PartitionMissing,
    /// The login lacks `Describe` on the topic.
    TopicDenied,
    /// The login lacks `Describe` on the group.
    GroupDenied,
    /// The committed offset lies beyond the log's end: the topic was recreated or truncated.
    CommitBeyondEnd,
    /// The topic was recreated or truncated, and what the group committed belongs to the log before.
    LogReplaced,
    /// The client for this cluster reads no more groups than its limit.
    TooManyGroups,
    /// The client itself failed (a setting it refuses, a resource it lacks).
    Client,
    /// Broker or client has no way to tell.
    Untold,
    /// Any other error code of a broker or of the client library.
    Code(i32),
}

impl Fault {
    /// Every named fault's label, for tables and for metrics that list all kinds.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Fault::NoAnswer => "no_answer",
            Fault::Unreachable => "unreachable",
            Fault::Login => "login",
            Fault::Tls => "tls",
            Fault::NameResolution => "name_resolution",
            Fault::LeaderUnknown => "leader_unknown",
            Fault::CoordinatorUnavailable => "coordinator_unavailable",
            Fault::TopicMissing => "topic_missing",
            Fault::PartitionMissing => "partition_missing",
            Fault::TopicDenied => "topic_denied",
            Fault::GroupDenied => "group_denied",
            Fault::CommitBeyondEnd => "commit_beyond_end",
            Fault::LogReplaced => "log_replaced",
            Fault::TooManyGroups => "too_many_groups",
            Fault::Client => "client",
            Fault::Untold => "untold",
            Fault::Code(_) => "error_code",
        }
    }

    /// Whether the fault says that a connection is missing, so that the cluster's connection
    /// fault, where there is one, tells more than this does.
    #[must_use]
    pub fn is_connection(self) -> bool {
        matches!(
            self,
            Fault::NoAnswer
                | Fault::Unreachable
                | Fault::Login
                | Fault::Tls
                | Fault::NameResolution
                | Fault::LeaderUnknown
                | Fault::CoordinatorUnavailable
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoAnswer => f.write_str("no answer within the poll's deadline"),
            Fault::Unreachable => f.write_str("no broker can be reached"),
            Fault::Login => f.write_str("a broker refused the login"),
            Fault::Tls => f.write_str("the TLS handshake with a broker failed"),
            Fault::NameResolution => f.write_str("a broker's host name could not be resolved"),
            Fault::LeaderUnknown => f.write_str("a partition has no leader"),
            Fault::CoordinatorUnavailable => f.write_str("the group's coordinator is not available"),
            Fault::TopicMissing => f.write_str("the topic does not exist"),
            Fault::PartitionMissing => f.write_str("the partition does not exist"),
            Fault::TopicDenied => f.write_str("the login lacks Describe on the topic"),
            Fault::GroupDenied => f.write_str("the login lacks Describe on the group"),
            Fault::CommitBeyondEnd => f.write_str(
                "the committed offset lies beyond the log's end: the topic was recreated or truncated",
            ),
            Fault::LogReplaced => f.write_str(
                "the topic was recreated or truncated, and the group has not committed since",
            ),
            Fault::TooManyGroups => f.write_str(
                "the cluster's client reads no more groups: raise max_groups of the cluster",
            ),
            Fault::Client => f.write_str("the Kafka client could not be set up"),
            Fault::Untold => f.write_str("the broker or the client has no way to tell"),
            Fault::Code(code) => write!(f, "Kafka error code {code}"),
        }
    }
}

/// What keeps a whole cluster from answering, in the words of the broker or of the client library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFault {
    /// The kind, for labels.
    pub kind: Fault,
    /// The reason as given, without secrets, constant while the cause is the same.
    pub reason: Arc<str>,
    /// When this cause was first seen.
    pub since: Moment,
}
