//! Findings: mistakes and risks in HPAs, consumer groups, workloads and settings that a person should know about.
//!
//! To add a finding, add a row to the table in `table.rs` and create it with [`Finding::new`] where the
//! mistake is detected.

mod advice;
mod code;
mod code_properties;
mod severity;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::units::hpa_key::HpaKey;
use super::units::newtypes::{ClusterName, GroupId};
use super::units::untrusted_text::cut_message;

pub use self::severity::Severity;
pub use self::table::FindingCode;

/// One mistake or risk. `Display` gives the subject and the message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    pub code: FindingCode,
    pub subject: FindingSubject,
    /// What is wrong, as a sentence about the subject without a full stop. A finding is reported once while it
    /// lasts, so the message must not contain anything that changes from sweep to sweep. Long messages are cut, because
    /// many findings may quote the same name of 16 KiB.
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
            message: cut_message(message.into()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// Findings that other components report to the poller, which publishes them together with its own. They come from the
/// HPA reconciler, the KEDA observer, the upstream server of external metrics and the certificate manager.
pub type ReportedFindings = Arc<BTreeSet<Finding>>;

/// Findings about one HPA. Its author decides how many mistakes it has, so only some findings of each kind are kept,
/// and the others are counted.
#[derive(Debug, Default)]
pub struct BoundedFindings {
    kept: BTreeSet<Finding>,
    omitted: BTreeMap<FindingCode, usize>,
}

/// Maximum number of findings with the same code that are kept for an HPA.
const MAX_FINDINGS_PER_CODE: usize = 8;

impl BoundedFindings {
    /// Adds a finding, or counts it as omitted if there are enough of its kind.
    pub fn insert(&mut self, finding: Finding) {
        let of_code = self.kept.iter().filter(|kept| kept.code == finding.code);
        if self.kept.contains(&finding) {
            return;
        }
        if of_code.count() < MAX_FINDINGS_PER_CODE {
            self.kept.insert(finding);
        } else {
            let omitted = self.omitted.entry(finding.code).or_default();
            *omitted = omitted.saturating_add(1);
        }
    }

    /// Returns the findings, and for each code with omitted findings one that counts them.
    pub fn into_findings(self, hpa: &HpaKey) -> impl Iterator<Item = Finding> {
        let omitted = self.omitted.into_iter().map(move |(code, count)| {
            let message = format!("{count} more findings of this kind are omitted");
            Finding::new(code, hpa, message)
        });
        self.kept.into_iter().chain(omitted)
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
    /// A key of the configuration, such as `clusters[0].properties.security.protocol`.
    Setting(String),
    /// An object of KEDA in a manifest.
    Keda {
        /// Its kind, such as `ScaledObject`.
        kind: &'static str,
        /// Its namespace and name.
        object: HpaKey,
    },
}

impl FindingSubject {
    /// A path such as `hpa/shop/billing`, `group/main/orders`, `config/clusters[0].token` or
    /// `scaledobject/shop/billing`, for machines and for sorting.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            FindingSubject::Hpa(hpa) => format!("hpa/{hpa}"),
            FindingSubject::Group { cluster, group } => format!("group/{cluster}/{group}"),
            FindingSubject::Setting(key) => format!("config/{key}"),
            FindingSubject::Keda { kind, object } => {
                format!("{}/{object}", kind.to_ascii_lowercase())
            }
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
            FindingSubject::Setting(key) => f.write_str(key),
            FindingSubject::Keda { kind, object } => write!(f, "{kind} {object}"),
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

/// The end ` (did you mean X?)` of a message, or an empty text without a suggestion.
#[must_use]
pub fn suggestion(prefix: &str, meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| {
        format!(" (did you mean {prefix}{meant}?)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut() {
        let hpa = HpaKey::new("shop", "billing");
        let finding = Finding::new(FindingCode::NoGroup, &hpa, "g".repeat(16_384));
        assert_eq!(
            finding.message.len(),
            1_000 + "... (15384 more characters)".len()
        );
    }

    #[test]
    fn keeps_some_findings_of_each_kind_and_counts_the_others() {
        let hpa = HpaKey::new("shop", "billing");
        let mut findings = BoundedFindings::default();
        for i in 0..100 {
            let message = format!("unknown annotation {i:03}");
            findings.insert(Finding::new(FindingCode::UnknownAnnotation, &hpa, message));
            findings.insert(Finding::new(FindingCode::NoGroup, &hpa, "no group"));
        }
        let messages: Vec<_> = findings.into_findings(&hpa).map(|f| f.message).collect();
        assert_eq!(messages.len(), 10);
        assert_eq!(messages[0], "no group");
        assert_eq!(messages[8], "unknown annotation 007");
        assert_eq!(messages[9], "92 more findings of this kind are omitted");
    }
}
