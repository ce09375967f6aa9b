//! What the commits of a sweep say beyond themselves: whether anybody answered, and which logs to
//! ask about.

use std::collections::BTreeMap;

use crate::model::kafka::fault::{ConnectionFault, Fault};
use crate::model::kafka::observation::{CommittedColumn, GroupObservation, Observation};
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::newtypes::{ClusterName, Isolation, Moment, TopicName};

/// What a sweep's commits say of the cluster as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// Nobody was asked anything: there are no groups, or of topics that have no partitions only.
    NothingAsked,
    /// Nobody answered.
    Silence,
    /// A broker said something, if only that a group may not be read.
    Something,
}

/// What the brokers said of the groups, taken together.
pub(super) fn heard(groups: &[GroupObservation]) -> Reachability {
    // Nor do the two faults of our own that no broker was asked for.
    let is_silence = |fault: &Fault| {
        fault.is_connection() || matches!(fault, Fault::Client | Fault::TooManyGroups)
    };
    let mut all = Reachability::NothingAsked;
    for group in groups {
        let (whole, readings) = match &group.committed {
            Err(fault) => (Some(is_silence(fault)), None),
            Ok(topics) => (None, Some(topics.values().flatten())),
        };
        let readings = readings.into_iter().flatten();
        let silences = readings.map(|committed| committed.as_ref().is_err_and(is_silence));
        for silence in whole.into_iter().chain(silences) {
            if !silence {
                return Reachability::Something;
            }
            all = Reachability::Silence;
        }
    }
    all
}

/// The observation of a cluster that could not be asked: nothing can be said of any group.
pub(super) fn unheard(
    cluster: ClusterName,
    plan: SweepPlan,
    started: Moment,
    fault: Fault,
    connection: ConnectionFault,
) -> Observation {
    let unknown = |plan| GroupObservation {
        plan,
        committed: Err(fault),
        description: Err(fault),
    };
    Observation {
        cluster,
        started,
        finished: Moment::now(),
        topics: BTreeMap::new(),
        groups: plan.groups.into_iter().map(unknown).collect(),
        connection: Some(connection),
        traffic: None,
    }
}

/// What is needed of a topic's log besides its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AwaitedAnswer<'a> {
    /// What its groups have committed.
    pub(super) commits: Vec<&'a CommittedColumn>,
    /// Its last stable offset.
    pub(super) stable: bool,
}

/// The topics whose log offsets are needed.
pub(super) fn wanted(groups: &[GroupObservation]) -> BTreeMap<&TopicName, AwaitedAnswer<'_>> {
    let mut wanted: BTreeMap<_, AwaitedAnswer<'_>> = BTreeMap::new();
    for group in groups {
        let stable = group.plan.isolation == Isolation::ReadCommitted;
        for (topic, column) in group.committed.as_ref().ok().into_iter().flatten() {
            let wanted = wanted.entry(topic).or_default();
            wanted.commits.push(column);
            wanted.stable |= stable;
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kafka::sweep_plan::GroupPlan;
    use crate::model::units::newtypes::Offset;

    fn group(committed: Result<CommittedColumn, Fault>) -> GroupObservation {
        GroupObservation {
            plan: GroupPlan::new("g", ["t".into()].into()),
            committed: committed.map(|column| [("t".into(), column)].into()),
            description: Err(Fault::Untold),
        }
    }

    #[test]
    fn who_was_not_asked_is_not_silent() {
        assert_eq!(heard(&[]), Reachability::NothingAsked);
        let missing = || group(Ok(Vec::new()));
        assert_eq!(heard(&[missing()]), Reachability::NothingAsked);
        let silent = || group(Ok(vec![Err(Fault::NoAnswer); 2]));
        assert_eq!(heard(&[missing(), silent()]), Reachability::Silence);
        assert_eq!(
            heard(&[group(Err(Fault::Unreachable))]),
            Reachability::Silence
        );
        let answer = group(Ok(vec![Err(Fault::NoAnswer), Ok(Some(Offset(1)))]));
        assert_eq!(heard(&[silent(), answer]), Reachability::Something);
        let denied = group(Err(Fault::GroupDenied));
        assert_eq!(heard(&[silent(), denied]), Reachability::Something);
    }
}
