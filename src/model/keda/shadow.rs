//! Compares KEDA's replicas with lagwise's, for workloads that KEDA scales.
//!
//! Each ScaledObject becomes the HPA that lagwise would have in its place ([`objects`]). With its metrics, KEDA's own
//! HPA is a target like any other: tenancy and budgets apply, and it has a status and an explanation. At each sample
//! the [`ledger`] computes both numbers from the same readings and sums them up ([`report`]).

pub mod ledger;
mod merge;
pub mod objects;
mod observed_set;
pub mod report;
mod samples;
mod virtual_scale;

use std::collections::BTreeSet;

use crate::model::findings::{Finding, FindingCode, FindingSubject};

pub use ledger::ShadowLedger;
pub use merge::ShadowMerge;
pub use objects::{ComparedObject, ConvertedSpecs, ShadowObject};
pub use observed_set::ObservedSet;
pub use report::{ShadowReport, ShadowRow, ShadowTotals};

/// A finding for each reason why KEDA's objects cannot be read.
#[must_use]
pub fn find_unread_objects(problems: &[String]) -> BTreeSet<Finding> {
    let finding = |problem: &String| {
        let setting = FindingSubject::Setting("kubernetes.mode".to_owned());
        Finding::new(FindingCode::KedaUnread, setting, problem)
    };
    problems.iter().map(finding).collect()
}
