//! Derives from the committed offsets of a sweep whether any broker answered, and which logs to read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::kafka::fault::{BrokerFault, ConnectionFault, Fault};
use crate::model::kafka::observation::{
    CertificateExpiry, GroupObservation, Observation, TopicOffsets,
};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::newtypes::{ClusterName, Isolation, Moment, TopicName};

/// Whether a cluster answered during a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// No request was sent: there are no groups, or only groups whose topics have no partitions.
    NotAsked,
    /// No broker answered.
    NoAnswer,
    /// At least one broker answered, if only to deny access to a group.
    Answered,
}

/// Classifies the answers about all groups together.
pub(super) fn classify_answers(groups: &[GroupObservation]) -> Reachability {
    // The last two faults arise in this process without a request to a broker.
    let is_silence = |fault: &Fault| {
        fault.is_connection() || matches!(fault, Fault::Client | Fault::TooManyGroups)
    };
    let mut all = Reachability::NotAsked;
    for group in groups {
        let (whole, readings) = match &group.committed {
            Err(fault) => (Some(is_silence(fault)), None),
            Ok(topics) => (None, Some(topics.values().flat_map(CommittedOffsets::iter))),
        };
        let readings = readings.into_iter().flatten();
        let silences = readings.map(|committed| committed.is_err_and(|fault| is_silence(&fault)));
        for silence in whole.into_iter().chain(silences) {
            if !silence {
                return Reachability::Answered;
            }
            all = Reachability::NoAnswer;
        }
    }
    all
}

/// Whether anything is unknown that may be due to a broker which cannot be reached.
pub(super) fn lacks_connection(
    groups: &[GroupObservation],
    topics: &BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>,
) -> bool {
    let of_group = |group: &GroupObservation| match &group.committed {
        Err(fault) => fault.is_connection(),
        Ok(topics) => topics
            .values()
            .flat_map(CommittedOffsets::iter)
            .any(|committed| committed.is_err_and(Fault::is_connection)),
    };
    let of_topic = |topic: &Result<Arc<TopicOffsets>, Fault>| match topic {
        Err(fault) => fault.is_connection(),
        Ok(log) => {
            let mut columns = log.ends.iter().chain(&log.starts);
            columns.any(|offset| offset.is_err_and(Fault::is_connection))
        }
    };
    groups.iter().any(of_group) || topics.values().any(of_topic)
}

/// The observation of a cluster to which no request could be sent: every group has the same fault.
pub(super) fn unreachable_observation(
    cluster: ClusterName,
    plan: SweepPlan,
    started: Moment,
    fault: Fault,
    connection: ConnectionFault,
    unreachable_brokers: Vec<BrokerFault>,
) -> Observation {
    let unknown = |plan| GroupObservation {
        plan,
        committed: Err(fault),
        description: Err(fault),
        reported_lags: None,
        refused_partitions: None,
    };
    Observation {
        cluster,
        started,
        finished: Moment::now(),
        topics: BTreeMap::new(),
        groups: plan.groups.into_iter().map(unknown).collect(),
        connection: Some(connection),
        unreachable_brokers,
        traffic: None,
        listings: BTreeMap::new(),
        group_names: None,
        certificates: CertificateExpiry::default(),
    }
}

/// What to read of a topic's log besides its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogRequest<'a> {
    /// Committed offsets of the groups that read the topic.
    pub(super) commits: Vec<&'a CommittedOffsets>,
    /// Whether some group reads committed records only and so needs the last stable offset.
    pub(super) stable: bool,
}

/// The topics whose log offsets are needed, from the groups' committed offsets.
pub(super) fn logs_to_read(groups: &[GroupObservation]) -> BTreeMap<&TopicName, LogRequest<'_>> {
    // Collected by hash, because there is an entry for every topic of every group.
    let mut wanted: HashMap<_, LogRequest<'_>> = HashMap::new();
    for group in groups {
        let stable = group.plan.isolation == Isolation::ReadCommitted;
        for (topic, column) in group.committed.as_ref().ok().into_iter().flatten() {
            let wanted = wanted.entry(topic).or_default();
            wanted.commits.push(column);
            wanted.stable |= stable;
        }
    }
    wanted.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kafka::sweep_plan::GroupPlan;
    use crate::model::units::newtypes::Offset;

    fn group(committed: Result<Vec<Result<Option<Offset>, Fault>>, Fault>) -> GroupObservation {
        GroupObservation {
            plan: GroupPlan::new("g", ["t".into()].into()),
            committed: committed.map(|column| [("t".into(), column.into_iter().collect())].into()),
            description: Err(Fault::Unsupported),
            reported_lags: None,
            refused_partitions: None,
        }
    }

    #[test]
    fn groups_without_partitions_do_not_count_as_silent() {
        assert_eq!(classify_answers(&[]), Reachability::NotAsked);
        let missing = || group(Ok(Vec::new()));
        assert_eq!(classify_answers(&[missing()]), Reachability::NotAsked);
        let silent = || group(Ok(vec![Err(Fault::NoAnswer); 2]));
        assert_eq!(
            classify_answers(&[missing(), silent()]),
            Reachability::NoAnswer
        );
        assert_eq!(
            classify_answers(&[group(Err(Fault::Unreachable))]),
            Reachability::NoAnswer
        );
        let answer = group(Ok(vec![Err(Fault::NoAnswer), Ok(Some(Offset(1)))]));
        assert_eq!(
            classify_answers(&[silent(), answer]),
            Reachability::Answered
        );
        let denied = group(Err(Fault::GroupDenied));
        assert_eq!(
            classify_answers(&[silent(), denied]),
            Reachability::Answered
        );
    }
}
