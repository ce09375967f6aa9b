//! Whether topics have as many partitions as HPAs may use replicas, and what adding partitions means.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::decisions::cap::HpaFields;
use crate::model::evaluation::parallelism::Limit;
use crate::model::evaluation::{EvaluationsAt, HpaMetric};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Replicas;

/// How a topic compares with an HPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicFit {
    /// The lag is worth more replicas than the partitions allow.
    TooFewPartitions,
    /// `maxReplicas` is above the limit of the partitions, but the lag is not worth more replicas.
    MaxAbovePartitions,
    /// `maxReplicas` is below the number of partitions.
    MaxBelowPartitions,
    Equal,
    /// Other topics decide how many replicas have work, or nothing limits them: the members of a share group share
    /// partitions.
    NotDeciding,
    Unknown,
}

/// A topic and an HPA that scales on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicComparison {
    pub cluster: String,
    pub topic: String,
    pub group: String,
    /// Namespace and name of the HPA.
    pub namespace: String,
    pub hpa: String,
    /// `None` if it is unknown.
    pub partitions: Option<u32>,
    /// The user's `maxReplicas`.
    pub max_replicas: u32,
    /// Replicas that the lag is worth without the ceiling, now or in the history; `None` if that is unknown.
    pub wanted_replicas: Option<u32>,
    /// Partitions for as many replicas as are wanted, but not more than `maxReplicas`; `None` if that is unknown.
    pub wanted_partitions: Option<u32>,
    pub fit: TopicFit,
}

/// Compares the topics of each HPA, sorted by cluster and topic. `known` has the replicas that the lag of an HPA is or
/// was worth by the report of a running daemon, which takes precedence over a single reading. It is not per metric, so
/// it counts only where there is one.
#[must_use]
pub fn compare_topics(
    evaluations: EvaluationsAt<'_>,
    known: impl Fn(&HpaKey) -> Option<u32>,
) -> Vec<TopicComparison> {
    let mut rows = Vec::new();
    let metrics = evaluations.hpa_metrics();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for metric in &metrics {
        let count = counts.entry((metric.namespace, metric.hpa)).or_default();
        *count = count.saturating_add(1);
    }
    for metric in &metrics {
        let key = HpaKey::new(metric.namespace, metric.hpa);
        let Some(facts) = evaluations.targets().facts().get(&key) else {
            continue;
        };
        let value = metric.outcome.as_ref().ok();
        let threads = value
            .and_then(|value| value.ceiling)
            .map_or(1, |ceiling| ceiling.threads.get());
        let is_only = counts.get(&(metric.namespace, metric.hpa)) == Some(&1);
        let known = is_only.then(|| known(&key)).flatten();
        let wanted = known.or_else(|| value.and_then(|value| value.uncapped));
        let max = HpaFields::of(facts).user_max(None);
        rows.extend(rows_of(metric, max, wanted, threads));
    }
    rows.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    rows.dedup();
    rows
}

fn sort_key(row: &TopicComparison) -> [&str; 5] {
    [
        &row.cluster,
        &row.topic,
        &row.group,
        &row.namespace,
        &row.hpa,
    ]
}

fn rows_of(
    metric: &HpaMetric<'_>,
    max: u32,
    wanted: Option<u32>,
    threads: u32,
) -> Vec<TopicComparison> {
    let mut rows = Vec::new();
    for group in &metric.evaluation.groups {
        let key = &group.query.key;
        let topics: Vec<_> = group
            .topics()
            .map(|topic| {
                let partitions = topic.read.latest.as_ref().ok();
                let count = partitions.and_then(|lag| u32::try_from(lag.lags.len()).ok());
                (topic.topic.clone(), count)
            })
            .collect();
        let most = topics.iter().filter_map(|(_, count)| *count).max();
        let measure = group.measure.as_ref().ok();
        let useful = measure.map(|measure| measure.ceiling.useful.limit);
        for (topic, partitions) in topics {
            let known = partitions.zip(most);
            let elsewhere = known.map(|(own, most)| members_elsewhere(useful, own, most));
            // Of several topics that add up, the largest is the one to grow.
            let wanted_partitions = elsewhere
                .flatten()
                .zip(wanted.filter(|_| partitions == most))
                .map(|(elsewhere, wanted)| {
                    let members = wanted.min(max).saturating_mul(threads);
                    members.saturating_sub(elsewhere)
                });
            let fit = match elsewhere {
                None => TopicFit::Unknown,
                Some(None) => TopicFit::NotDeciding,
                Some(Some(elsewhere)) => {
                    let max = max.saturating_mul(threads).saturating_sub(elsewhere);
                    fit(partitions, wanted_partitions, max)
                }
            };
            rows.push(TopicComparison {
                cluster: key.cluster.to_string(),
                topic: topic.to_string(),
                group: key.group.to_string(),
                namespace: metric.namespace.to_owned(),
                hpa: metric.hpa.to_owned(),
                partitions,
                max_replicas: max,
                wanted_replicas: wanted,
                wanted_partitions,
                fit,
            });
        }
    }
    rows
}

/// How many members of a group have work on other topics than one with `own` partitions, if the largest has `most`;
/// `None` if that topic does not limit the members.
fn members_elsewhere(useful: Option<Limit>, own: u32, most: u32) -> Option<u32> {
    match useful {
        Some(Limit::Unbounded) => None,
        // The assignor deals out the partitions of all topics, or tasks.
        Some(Limit::Bounded(Replicas(useful))) if useful > most => Some(useful.saturating_sub(own)),
        _ => (own == most).then_some(0),
    }
}

fn fit(partitions: Option<u32>, wanted: Option<u32>, max: u32) -> TopicFit {
    match (partitions, wanted) {
        (None, _) => TopicFit::Unknown,
        (Some(partitions), Some(wanted)) if wanted > partitions => TopicFit::TooFewPartitions,
        (Some(partitions), _) if max > partitions => TopicFit::MaxAbovePartitions,
        (Some(partitions), _) if max < partitions => TopicFit::MaxBelowPartitions,
        _ => TopicFit::Equal,
    }
}

/// Facts about a topic to which partitions are to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicToGrow {
    pub topic: String,
    pub partitions: u32,
    /// Whether records are kept by key (`cleanup.policy`); `None` if the broker does not report it.
    pub is_compacted: Option<bool>,
}

/// Whether the latest records of a topic have keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKeys {
    /// At least one has.
    Found,
    /// None of those that were read, which may be no records at all.
    NoneFound {
        records: u32,
    },
    Unknown(UnknownKeys),
}

/// Why it is unknown whether records have keys, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKeys {
    pub reason: String,
    /// In the imperative.
    pub remedy: &'static str,
}

impl UnknownKeys {
    /// Without a remedy by which the command could read them.
    pub fn unreadable(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: "look at some records with kafka-console-consumer.sh --property print.key=true",
        }
    }
}

/// Maximum number of partitions to grow a topic to: beyond that a typing mistake is more likely.
pub const MAX_PARTITIONS: u32 = 10_000;

/// Why a topic is not grown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrowRefusal {
    #[error(
        "topic {topic} has {partitions} partitions, and Kafka cannot remove any; ask for more than that, or create a \
         new topic with {wanted}"
    )]
    Shrinks {
        topic: String,
        partitions: u32,
        wanted: u32,
    },
    #[error(
        "topic {topic} is compacted: after new partitions are added, new records of a key may go to another partition \
         than the old ones, which then are never compacted away. Create a new topic and copy the records, or use \
         --force if consumers can live with that"
    )]
    Compacted { topic: String },
    #[error(
        "whether topic {topic} is compacted is unknown, since the broker does not show its configuration: allow \
         DescribeConfigs on the topic, or use --force if it is not compacted"
    )]
    UnknownPolicy { topic: String },
    #[error(
        "records of topic {topic} have keys: after new partitions are added, new records of a key may go to another \
         partition than the old ones, and are then processed out of order. Stop the producers and let the consumers \
         read everything before, or create a new topic; or use --force if consumers can live with that"
    )]
    Keyed { topic: String },
    #[error(
        "whether records of topic {topic} have keys is unknown: {reason}. If producers set keys, new records of a key may \
         go to another partition than the old ones after new partitions are added, and are then processed out of order. \
         To find out, {remedy}. Use --force if producers set no keys, or if consumers can live with that"
    )]
    UnknownKeys {
        topic: String,
        reason: String,
        remedy: &'static str,
    },
}

/// Whether partitions are missing; an error if the topic is not grown, whatever its records are.
///
/// # Errors
/// Why it is not grown.
pub fn needs_growth(
    topic: &TopicToGrow,
    wanted: u32,
    is_forced: bool,
) -> Result<bool, GrowRefusal> {
    let (name, partitions) = (topic.topic.clone(), topic.partitions);
    if wanted < partitions {
        return Err(GrowRefusal::Shrinks {
            topic: name,
            partitions,
            wanted,
        });
    }
    match topic.is_compacted {
        _ if wanted == partitions => Ok(false),
        Some(true) if !is_forced => Err(GrowRefusal::Compacted { topic: name }),
        None if !is_forced => Err(GrowRefusal::UnknownPolicy { topic: name }),
        _ => Ok(true),
    }
}

/// What growing a topic changes, in sentences. `keys` is `None` if it is forced, so that no records were read.
///
/// # Errors
/// [`GrowRefusal::Keyed`] or [`GrowRefusal::UnknownKeys`].
pub fn plan_growth(
    topic: &TopicToGrow,
    wanted: u32,
    keys: Option<&RecordKeys>,
) -> Result<String, GrowRefusal> {
    let (name, partitions) = (topic.topic.clone(), topic.partitions);
    let keys = match keys {
        None => String::new(),
        Some(RecordKeys::Found) => return Err(GrowRefusal::Keyed { topic: name }),
        Some(RecordKeys::NoneFound { records: 0 }) => {
            "It has no records that would show whether producers set keys.\n".to_owned()
        }
        Some(RecordKeys::NoneFound { records }) => {
            format!("None of its latest records has a key ({records} were read).\n")
        }
        Some(RecordKeys::Unknown(UnknownKeys { reason, remedy })) => {
            return Err(GrowRefusal::UnknownKeys {
                topic: name,
                reason: reason.clone(),
                remedy,
            });
        }
    };
    let added = wanted.saturating_sub(partitions);
    Ok(format!(
        "topic {name}: {partitions} -> {wanted} partitions ({added} more)\n\
         {keys}\
         If producers set keys, new records of a key may go to another partition than the old ones, and records of one \
         key are out of order while consumers still read the old ones.\n\
         Partitions cannot be removed again.\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(partitions: u32, is_compacted: Option<bool>) -> TopicToGrow {
        TopicToGrow {
            topic: "orders".into(),
            partitions,
            is_compacted,
        }
    }

    #[test]
    fn partitions_are_only_added() {
        let topic = topic(12, Some(false));
        assert_eq!(needs_growth(&topic, 18, false), Ok(true));
        assert_eq!(needs_growth(&topic, 12, false), Ok(false));
        let planned = plan_growth(&topic, 18, Some(&RecordKeys::NoneFound { records: 120 }));
        insta::assert_snapshot!(planned.unwrap());
        for is_forced in [false, true] {
            let refused = needs_growth(&topic, 6, is_forced).unwrap_err();
            let expected = "topic orders has 12 partitions, and Kafka cannot remove any; ask for more than that, or create a new topic with 6";
            assert_eq!(refused.to_string(), expected);
        }
    }

    #[test]
    fn compacted_topics_are_grown_by_force_only() {
        let refused = |is_compacted| {
            let topic = topic(12, is_compacted);
            assert_eq!(needs_growth(&topic, 18, true), Ok(true));
            assert_eq!(needs_growth(&topic, 12, false), Ok(false));
            needs_growth(&topic, 18, false).unwrap_err().to_string()
        };
        let compacted = refused(Some(true));
        assert!(
            compacted.contains("is compacted") && compacted.contains("--force"),
            "{compacted}"
        );
        let unknown = refused(None);
        assert!(unknown.contains("DescribeConfigs"), "{unknown}");
    }

    #[test]
    fn topics_whose_records_have_keys_are_grown_by_force_only() {
        let topic = topic(12, Some(false));
        let planned = |keys: Option<RecordKeys>| {
            plan_growth(&topic, 18, keys.as_ref()).map_err(|refusal| refusal.to_string())
        };
        let keyed = planned(Some(RecordKeys::Found)).unwrap_err();
        assert!(
            keyed.contains("have keys") && keyed.contains("--force"),
            "{keyed}"
        );
        for (keys, part) in [
            (None, "12 -> 18 partitions"),
            (Some(RecordKeys::NoneFound { records: 0 }), "no records"),
            (Some(RecordKeys::NoneFound { records: 7 }), "7 were read"),
        ] {
            let planned = planned(keys).unwrap();
            assert!(
                planned.contains(part) && planned.contains("out of order"),
                "{planned}"
            );
        }
    }

    #[test]
    fn topics_whose_records_cannot_be_read_are_grown_by_force_only() {
        let topic = topic(12, Some(false));
        let denied = UnknownKeys {
            reason: "the login may not read them".into(),
            remedy: "allow Read on the topic",
        };
        for (unknown, remedy) in [
            (denied, "To find out, allow Read on the topic. "),
            (
                UnknownKeys::unreadable("they are compressed"),
                "print.key=true. ",
            ),
        ] {
            let reason = unknown.reason.clone();
            let refused = plan_growth(&topic, 18, Some(&RecordKeys::Unknown(unknown)));
            let refused = refused.unwrap_err().to_string();
            for part in [&*format!("is unknown: {reason}. "), remedy, "--force"] {
                assert!(refused.contains(part), "{refused}");
            }
        }
        let planned = plan_growth(&topic, 18, None).unwrap();
        assert!(planned.contains("12 -> 18 partitions"), "{planned}");
    }

    #[test]
    fn a_topic_is_compared_with_the_wanted_replicas_and_the_maximum() {
        for (partitions, wanted, max, expected) in [
            (Some(12), Some(18), 20, TopicFit::TooFewPartitions),
            (Some(12), Some(12), 20, TopicFit::MaxAbovePartitions),
            (Some(12), None, 20, TopicFit::MaxAbovePartitions),
            (Some(12), Some(3), 6, TopicFit::MaxBelowPartitions),
            (Some(12), Some(3), 12, TopicFit::Equal),
            (None, Some(3), 12, TopicFit::Unknown),
        ] {
            assert_eq!(
                fit(partitions, wanted, max),
                expected,
                "{partitions:?} {wanted:?} {max}"
            );
        }
    }

    #[test]
    fn the_assignor_decides_which_topics_count() {
        let useful = |useful: u32| Some(Limit::Bounded(Replicas(useful)));
        for (useful, own, expected) in [
            // One topic, or the largest of several.
            (useful(12), 12, Some(0)),
            (useful(12), 4, None),
            // Those with few lagging partitions, and those whose parallelism is unknown.
            (useful(3), 12, Some(0)),
            (None, 12, Some(0)),
            // All topics together.
            (useful(16), 12, Some(4)),
            (useful(16), 4, Some(12)),
            // A share group.
            (Some(Limit::Unbounded), 12, None),
        ] {
            assert_eq!(
                members_elsewhere(useful, own, 12),
                expected,
                "{useful:?} {own}"
            );
        }
    }
}
