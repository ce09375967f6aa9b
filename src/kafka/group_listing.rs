//! When to list the names of a cluster's groups: while a group of a sweep may be misspelled.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::kafka::observation::{GroupObservation, MAX_GROUP_NAME_BYTES, MAX_GROUP_NAMES};
use crate::model::units::newtypes::GroupId;

/// Shortest time between two listings. Each requests all groups from every coordinator.
const LIST_INTERVAL: Duration = Duration::from_secs(120);

/// Waiting for the lists may take the remaining time of the sweep divided by this number.
const SWEEP_TIME_DIVISOR: u32 = 5;

/// When the groups were last listed.
#[derive(Debug, Default)]
pub(super) struct GroupListing(Mutex<Option<Instant>>);

impl GroupListing {
    /// Until when to wait for the lists of the groups, in a sweep that ends at `sweep_deadline`; `None` if they are not
    /// needed or not due. They are needed if a group has no committed offset, since such a group may not exist.
    /// Remembers a returned deadline as a listing.
    pub(super) fn deadline(
        &self,
        groups: &[GroupObservation],
        sweep_deadline: Instant,
    ) -> Option<Instant> {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= LIST_INTERVAL);
        if !is_due || !groups.iter().any(GroupObservation::has_no_commit) {
            return None;
        }
        *last = Some(now);
        Some(now + sweep_deadline.saturating_duration_since(now) / SWEEP_TIME_DIVISOR)
    }
}

/// The names to report; `None` if no broker has listed any. If there are too many, the first ones by name.
pub(super) fn reported_names(names: impl IntoIterator<Item = GroupId>) -> Option<Vec<GroupId>> {
    let names = names.into_iter();
    let mut names: Vec<_> = names
        .filter(|name| name.as_str().len() <= MAX_GROUP_NAME_BYTES)
        .collect();
    names.sort_unstable();
    names.truncate(MAX_GROUP_NAMES);
    names.shrink_to_fit();
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::kafka::fault::Fault;
    use crate::model::kafka::sweep_plan::GroupPlan;
    use crate::model::units::newtypes::Offset;

    fn group(committed: &[Result<Option<i64>, Fault>]) -> GroupObservation {
        let column = committed.iter().map(|c| c.map(|c| c.map(Offset)));
        GroupObservation {
            plan: GroupPlan::new("g", BTreeSet::new()),
            committed: Ok([("t".into(), column.collect())].into()),
            description: Err(Fault::Unsupported),
            reported_lags: None,
            refused_partitions: None,
        }
    }

    #[test]
    fn groups_are_listed_once_in_a_while_for_groups_without_commits() {
        let later = Instant::now() + Duration::from_secs(10);
        let mut failed = group(&[]);
        failed.committed = Err(Fault::NoAnswer);
        for (groups, is_listed) in [
            (vec![], false),
            (vec![group(&[Ok(Some(3)), Ok(None)])], false),
            (vec![group(&[Ok(None), Err(Fault::NoAnswer)])], false),
            (vec![failed], false),
            (vec![group(&[Ok(Some(3))]), group(&[Ok(None); 2])], true),
            (vec![group(&[])], true),
        ] {
            let listing = GroupListing::default();
            let until = listing.deadline(&groups, later);
            assert_eq!(until.is_some(), is_listed, "{groups:?}");
            assert!(until.is_none_or(|until| until < later));
            assert_eq!(listing.deadline(&groups, later), None);
        }
    }

    #[test]
    fn the_names_of_many_groups_are_bounded() {
        let long = "x".repeat(MAX_GROUP_NAME_BYTES + 1);
        assert_eq!(reported_names([GroupId::from(long.clone())]), None);
        let many = (0..=MAX_GROUP_NAMES).rev();
        let many = many.map(|i| GroupId::from(format!("g{i:05}")));
        let names = reported_names(many.chain([long.into()])).unwrap();
        assert_eq!(names.len(), MAX_GROUP_NAMES);
        assert_eq!(names[0], "g00000".into());
    }
}
