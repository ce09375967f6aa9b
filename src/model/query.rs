//! One metric request -> its value, or why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fault::Fault;
use super::parallelism::useful_parallelism;
use super::quantity::Milli;
use super::selector::Selector;
use super::snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic, LagSnapshot};
use super::target::{
    Interest, LAG_METRIC, MetricTarget, Origin, Targets, UnpickedCluster, label, topics_of,
};
use super::types::{ClusterName, GroupId, Lag, Moment, Replicas, TopicName};

/// What is asked: one external metric, as an HPA of `namespace` asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The namespace of the request.
    pub namespace: &'a str,
    /// The metric's name.
    pub metric: &'a str,
    /// The label selector.
    pub selector: &'a Selector,
}

/// The rules that answers follow.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether the value served never exceeds ceiling x wanted lag per replica.
    pub clamp: bool,
    /// The oldest reading that is still served.
    pub max_staleness: Duration,
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is served.
    pub value: Milli,
    /// The lag behind it.
    pub lag: Lag,
    /// The most replicas that can be useful.
    pub ceiling: Replicas,
    /// The lag wanted per replica, where an HPA or the configuration says.
    pub wanted: Option<Milli>,
    /// What made the value differ from the lag.
    pub rule: ValueRule,
    /// When the oldest reading in it was made.
    pub read: Moment,
}

/// Which rule made the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRule {
    /// The lag as it is.
    AsMeasured,
    /// Cut to ceiling x wanted lag per replica.
    Clamped,
    /// One replica's worth: the group has never run, so that its lag of nothing says nothing.
    NeverRan,
}

/// Why a question has no value. `Display` is the text for the HPA's condition, so it stays the
/// same while the cause does: it tells since when, not for how long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No metric of ours.
    #[error("the metric {metric:?} is not served here: lagwise serves {LAG_METRIC}")]
    UnknownMetric {
        /// Its name.
        metric: String,
    },
    /// The selector names no group.
    #[error(
        "the selector {selector:?} names no consumer group: write for example \
         matchLabels: {{group: my-group, topic: my-topic}}"
    )]
    NoGroup {
        /// The selector.
        selector: String,
    },
    /// The selector names no target that is configured for the namespace.
    #[error("no target of the configuration matches {selector:?} for namespace {namespace:?}")]
    UnknownTarget {
        /// The selector.
        selector: String,
        /// The namespace.
        namespace: String,
    },
    /// The selector names a cluster that is not configured.
    #[error("the Kafka cluster {cluster:?} is not configured: known are {known}")]
    UnknownCluster {
        /// The name.
        cluster: String,
        /// The configured ones.
        known: String,
    },
    /// Several clusters are configured and the selector names none.
    #[error("several Kafka clusters are configured ({known}): name one with the label cluster")]
    AmbiguousCluster {
        /// The configured ones.
        known: String,
    },
    /// HPAs with the same selector want different lag per replica.
    #[error(
        "HPAs {hpas} of namespace {namespace:?} select {selector:?} with different targets: \
         give each selector the label hpa with the HPA's name"
    )]
    ConflictingTargets {
        /// Their names.
        hpas: String,
        /// Their namespace.
        namespace: String,
        /// The selector.
        selector: String,
    },
    /// Nothing was read for it yet.
    #[error("the first read of {} is not complete", shown(.0))]
    NotYetRead(Vec<Interest>),
    /// A topic that does not exist.
    #[error("topic {topic:?} does not exist on Kafka cluster {cluster:?}")]
    TopicMissing {
        /// The topic.
        topic: TopicName,
        /// The cluster.
        cluster: ClusterName,
    },
    /// No topic is named and the group has none.
    #[error(
        "group {group:?} has committed no offset on Kafka cluster {cluster:?}, so its topics are \
         not known: name them with the label topic"
    )]
    NothingCommitted {
        /// The group.
        group: GroupId,
        /// The cluster.
        cluster: ClusterName,
    },
    /// Never read completely.
    #[error("lag of group {group:?} on Kafka cluster {cluster:?} is unknown: {cause}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// The cluster.
        cluster: ClusterName,
        /// Why.
        cause: String,
    },
    /// Read completely, but too long ago.
    #[error(
        "lag of group {group:?} on Kafka cluster {cluster:?} is unknown since {since}: {cause}"
    )]
    Stale {
        /// The group.
        group: GroupId,
        /// The cluster.
        cluster: ClusterName,
        /// When it was last read completely, RFC 3339 in UTC.
        since: String,
        /// Why.
        cause: String,
    },
}

fn shown(interests: &[Interest]) -> String {
    let one = |i: &Interest| format!("group {:?} on Kafka cluster {:?}", i.group, i.cluster);
    interests.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn listed(clusters: &[ClusterName]) -> String {
    clusters
        .iter()
        .map(ClusterName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What has to be read to answer.
///
/// # Errors
/// A question that no reading answers.
pub fn interests(question: &Question<'_>, targets: &Targets) -> Result<Vec<Interest>, Refusal> {
    let Question {
        namespace,
        metric,
        selector,
    } = question;
    if *metric != LAG_METRIC {
        return Err(Refusal::UnknownMetric {
            metric: (*metric).to_owned(),
        });
    }
    if selector.mentions(label::TARGET) {
        let found: Vec<_> = targets
            .configured(namespace, selector)
            .map(|t| t.interest.clone())
            .collect();
        return if found.is_empty() {
            Err(Refusal::UnknownTarget {
                selector: selector.to_string(),
                namespace: (*namespace).to_owned(),
            })
        } else {
            Ok(found)
        };
    }
    let groups = selector
        .values(label::GROUP)
        .ok_or_else(|| Refusal::NoGroup {
            selector: selector.to_string(),
        })?;
    let clusters = targets
        .pick_clusters(selector)
        .map_err(|unpicked| match unpicked {
            UnpickedCluster::Unknown(cluster) => Refusal::UnknownCluster {
                cluster,
                known: listed(&targets.clusters),
            },
            UnpickedCluster::Ambiguous => Refusal::AmbiguousCluster {
                known: listed(&targets.clusters),
            },
        })?;
    let topics = topics_of(selector);
    let pairs = clusters
        .iter()
        .flat_map(|cluster| groups.iter().map(move |group| (cluster, group)));
    Ok(pairs
        .map(|(cluster, group)| Interest {
            cluster: cluster.clone(),
            group: GroupId::from(group.as_str()),
            topics: topics.clone(),
        })
        .collect())
}

/// The value for a question.
///
/// # Errors
/// Why there is none; never a zero instead.
pub fn answer(
    question: &Question<'_>,
    snapshot: &LagSnapshot,
    now: &Moment,
    rules: &Rules,
) -> Result<Answer, Refusal> {
    let interests = interests(question, &snapshot.targets)?;
    let wanted = wanted(question, &snapshot.targets)?;
    let unread: Vec<_> = interests
        .iter()
        .filter(|i| group_of(snapshot, i).is_none())
        .cloned()
        .collect();
    if !unread.is_empty() {
        return Err(Refusal::NotYetRead(unread));
    }
    let mut lag = Lag::default();
    let mut ceiling = Replicas(0);
    let mut read = *now;
    let mut never_ran = true;
    for interest in &interests {
        let Some((cluster, group)) = group_of(snapshot, interest) else {
            continue;
        };
        let mut partitions = Vec::new();
        for (topic, group_topic) in series(question.selector, interest, cluster, group)? {
            let complete = group_topic
                .fresh(now, rules.max_staleness)
                .ok_or_else(|| unknown(interest, cluster, topic, group_topic))?;
            // A complete reading has no unknown partition; were there one, it is never summed over.
            let total = complete
                .total()
                .map_err(|_| unknown(interest, cluster, topic, group_topic))?;
            lag = lag.plus(total);
            partitions.push(complete.partitions());
            never_ran &= complete.never_ran();
            if complete.read.monotonic < read.monotonic {
                read = complete.read;
            }
        }
        ceiling = ceiling.max(useful_parallelism(partitions));
    }
    let measured = Milli::from_units(lag.0);
    let (value, rule) = match wanted {
        Some(MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted)) if never_ran => {
            (wanted, ValueRule::NeverRan)
        }
        Some(MetricTarget::AverageValue(wanted))
            if rules.clamp && measured > wanted.times(ceiling.0) =>
        {
            (wanted.times(ceiling.0), ValueRule::Clamped)
        }
        _ => (measured, ValueRule::AsMeasured),
    };
    let wanted =
        wanted.map(|(MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted))| wanted);
    Ok(Answer {
        value,
        lag,
        ceiling,
        wanted,
        rule,
        read,
    })
}

fn group_of<'a>(
    snapshot: &'a LagSnapshot,
    interest: &Interest,
) -> Option<(&'a ClusterSnapshot, &'a GroupSnapshot)> {
    let cluster = snapshot.clusters.get(&interest.cluster)?;
    let group = cluster.groups.get(&interest.group)?;
    let covered = if interest.topics.is_empty() {
        group.discovered || group.fault.is_some()
    } else {
        interest
            .topics
            .iter()
            .all(|topic| group.topics.contains_key(topic))
    };
    covered.then_some((cluster, group))
}

/// The group's topics that the selector picks.
fn series<'a>(
    selector: &Selector,
    interest: &'a Interest,
    cluster: &ClusterSnapshot,
    group: &'a GroupSnapshot,
) -> Result<Vec<(&'a TopicName, &'a GroupTopic)>, Refusal> {
    let pinned = |key: &str| {
        selector
            .values(key)
            .and_then(|values| values.first())
            .map(String::as_str)
    };
    let picked: Vec<_> = group
        .topics
        .iter()
        .filter(|(topic, group_topic)| {
            let wanted = if interest.topics.is_empty() {
                group_topic.may_have_commits()
            } else {
                interest.topics.contains(*topic)
            };
            wanted
                && selector.matches(|key| match key {
                    label::GROUP => Some(interest.group.as_str()),
                    label::TOPIC => Some(topic.as_str()),
                    label::CLUSTER => Some(interest.cluster.as_str()),
                    label::HPA | label::TARGET => pinned(key),
                    _ => None,
                })
        })
        .collect();
    match (picked.is_empty(), group.fault) {
        (false, _) => Ok(picked),
        (true, Some(fault)) => Err(Refusal::Unknown {
            group: interest.group.clone(),
            cluster: interest.cluster.clone(),
            cause: cluster.cause(fault),
        }),
        (true, None) => Err(Refusal::NothingCommitted {
            group: interest.group.clone(),
            cluster: interest.cluster.clone(),
        }),
    }
}

fn unknown(
    interest: &Interest,
    cluster: &ClusterSnapshot,
    topic: &TopicName,
    group_topic: &GroupTopic,
) -> Refusal {
    let fault = group_topic.fault().unwrap_or(Fault::NoAnswer);
    let (group, name) = (interest.group.clone(), interest.cluster.clone());
    if fault == Fault::TopicMissing {
        return Refusal::TopicMissing {
            topic: topic.clone(),
            cluster: name,
        };
    }
    let cause = cluster.cause(fault);
    match &group_topic.complete {
        Some(complete) => Refusal::Stale {
            group,
            cluster: name,
            since: humantime::format_rfc3339_seconds(complete.read.wall).to_string(),
            cause,
        },
        None => Refusal::Unknown {
            group,
            cluster: name,
            cause,
        },
    }
}

/// What the asking HPA compares with: found by its selector, since a request does not say who asks.
fn wanted(question: &Question<'_>, targets: &Targets) -> Result<Option<MetricTarget>, Refusal> {
    let named = question.selector.values(label::HPA);
    let mut by_hpa: BTreeMap<&str, MetricTarget> = BTreeMap::new();
    for target in &targets.all {
        if let (Origin::Hpa { namespace, name }, Some(wanted)) = (&target.origin, target.wanted)
            && **namespace == *question.namespace
            && target.selector.as_ref() == Some(question.selector)
            && named.is_none_or(|names| names.iter().any(|n| **n == **name))
        {
            by_hpa.insert(name, wanted);
        }
    }
    let different: BTreeSet<_> = by_hpa
        .values()
        .map(|wanted| format!("{wanted:?}"))
        .collect();
    if different.len() > 1 {
        return Err(Refusal::ConflictingTargets {
            hpas: by_hpa.keys().copied().collect::<Vec<_>>().join(", "),
            namespace: question.namespace.to_owned(),
            selector: question.selector.to_string(),
        });
    }
    let configured = || {
        targets
            .configured(question.namespace, question.selector)
            .find_map(|t| t.wanted)
    };
    Ok(by_hpa.into_values().next().or_else(configured))
}
