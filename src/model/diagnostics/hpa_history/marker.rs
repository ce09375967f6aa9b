//! What happened to an HPA, as marks in its history.

use std::fmt;

use crate::model::diagnostics::incidents::IncidentKind;
use crate::model::findings::FindingCode;

/// Something that happened to an HPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryMarker {
    /// Seconds since 1970. When lagwise saw it: at most one step of the history later than it happened.
    pub at: u32,
    pub kind: MarkerKind,
}

/// What happened. `Display` is a sentence without a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerKind {
    /// The current replicas changed.
    Scaled {
        from: u32,
        to: u32,
    },
    /// `spec.maxReplicas` changed, by the cap or by a user.
    MaxReplicasChanged {
        from: u32,
        to: u32,
    },
    /// The replica ceiling changed, for example since partitions were added.
    CeilingChanged {
        from: u32,
        to: u32,
    },
    /// A metric has no value any more.
    ValueLost,
    /// All metrics have a value, which one had not before.
    ValueFound,
    /// The user stopped the writes of lagwise.
    Paused,
    /// The user allowed them again.
    Resumed,
    FindingBegan(FindingCode),
    FindingEnded(FindingCode),
    /// A problem of a group that the HPA scales on.
    Incident(IncidentKind),
}

impl MarkerKind {
    /// The name in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Scaled { .. } => "scaled",
            Self::MaxReplicasChanged { .. } => "max_replicas_changed",
            Self::CeilingChanged { .. } => "ceiling_changed",
            Self::ValueLost => "value_lost",
            Self::ValueFound => "value_found",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::FindingBegan(_) => "finding_began",
            Self::FindingEnded(_) => "finding_ended",
            Self::Incident(_) => "incident",
        }
    }

    /// Whether it needs the attention of a person.
    #[must_use]
    pub fn is_problem(self) -> bool {
        match self {
            Self::ValueLost | Self::Incident(_) => true,
            Self::FindingBegan(code) => code.severity() > crate::model::findings::Severity::Info,
            _ => false,
        }
    }
}

impl fmt::Display for MarkerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scaled { from, to } => write!(f, "scaled from {from} to {to} replicas"),
            Self::MaxReplicasChanged { from, to } => {
                write!(f, "maxReplicas changed from {from} to {to}")
            }
            Self::CeilingChanged { from, to } => {
                write!(f, "replica ceiling changed from {from} to {to}")
            }
            Self::ValueLost => {
                f.write_str("the value became unknown, so the HPA keeps its replicas")
            }
            Self::ValueFound => f.write_str("the value became known"),
            Self::Paused => f.write_str("lagwise.dev/paused stopped the writes of lagwise"),
            Self::Resumed => f.write_str("lagwise may write again"),
            Self::FindingBegan(code) => write!(f, "finding {} began: {}", code.code(), code.what()),
            Self::FindingEnded(code) => write!(f, "finding {} ended", code.code()),
            Self::Incident(kind) => write!(f, "{kind}"),
        }
    }
}
