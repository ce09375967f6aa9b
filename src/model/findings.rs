//! Findings: mistakes and risks in HPAs, consumer groups and workloads that a person should know about.
//!
//! To add a finding, add a row to the table in `code.rs` and create it with [`Finding::new`] where the
//! mistake is detected.

mod code;

use std::fmt;

use super::units::hpa_key::HpaKey;
use super::units::newtypes::{ClusterName, GroupId};

pub use self::code::{FindingCode, Severity};

/// One mistake or risk. `Display` gives the subject and the message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    pub code: FindingCode,
    pub subject: FindingSubject,
    /// What is wrong, as a sentence about the subject without a full stop. A finding is reported once while it
    /// lasts, so the message must not contain anything that changes from sweep to sweep.
    pub message: String,
}

impl Finding {
    #[must_use]
    pub fn new(
        code: FindingCode,
        subject: impl Into<FindingSubject>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            subject: subject.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// The object that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingSubject {
    Hpa(HpaKey),
    Group {
        cluster: ClusterName,
        group: GroupId,
    },
}

impl FindingSubject {
    /// A path such as `hpa/shop/billing` or `group/main/orders`, for machines and for sorting.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            FindingSubject::Hpa(hpa) => format!("hpa/{hpa}"),
            FindingSubject::Group { cluster, group } => format!("group/{cluster}/{group}"),
        }
    }
}

impl fmt::Display for FindingSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FindingSubject::Hpa(hpa) => write!(f, "HPA {hpa}"),
            FindingSubject::Group { cluster, group } => {
                write!(f, "group {group:?} on Kafka cluster {cluster:?}")
            }
        }
    }
}

impl From<HpaKey> for FindingSubject {
    fn from(hpa: HpaKey) -> Self {
        FindingSubject::Hpa(hpa)
    }
}

impl From<&HpaKey> for FindingSubject {
    fn from(hpa: &HpaKey) -> Self {
        FindingSubject::Hpa(hpa.clone())
    }
}

impl From<(&ClusterName, &GroupId)> for FindingSubject {
    fn from((cluster, group): (&ClusterName, &GroupId)) -> Self {
        FindingSubject::Group {
            cluster: cluster.clone(),
            group: group.clone(),
        }
    }
}

/// The words ` (did you mean X?)` to end a message with, or nothing without a suggestion.
#[must_use]
pub fn suggestion(prefix: &str, meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| {
        format!(" (did you mean {prefix}{meant}?)")
    })
}
