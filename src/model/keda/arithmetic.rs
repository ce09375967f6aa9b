//! The value of a Kafka trigger, as KEDA computes it from offsets, and the replicas that follow from it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::trigger::{KafkaTrigger, TriggerKind};
use super::version::KedaVersion;
use crate::model::hpa::controller::stage::{Proposal, proposals};
use crate::model::hpa::controller::{
    Behavior, HpaSpec, MetricReading, MetricSource, ObservedScale, ScalingRules,
};
use crate::model::hpa::facts::MetricTarget;
use crate::model::units::newtypes::{OffsetReset, TopicName};
use crate::model::units::quantity::Milli;

/// Why a broker did not report an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetFault;

/// Offsets of one partition, as KEDA's clients read them: not at one moment, and without the log start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The committed offset; `None` without one.
    pub committed: Result<Option<i64>, OffsetFault>,
    /// The high watermark, also for consumers that read committed records only.
    pub end: Result<i64, OffsetFault>,
}

/// What KEDA reads of a group and of its Kafka cluster.
#[derive(Clone, Debug, Default)]
pub struct KedaOffsets {
    /// The partitions of topics, in order. Without a topic in the trigger: `apache-kafka` reads all topics of the Kafka
    /// cluster, `kafka` those on which the group has committed.
    pub topics: BTreeMap<TopicName, Vec<PartitionOffsets>>,
    /// Whether the group has members.
    pub has_members: bool,
}

/// Committed offsets at the reading before, of triggers with `excludePersistentLag`.
pub type PreviousOffsets = BTreeMap<(TopicName, u32), i64>;

/// KEDA's result of one reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KedaReading {
    /// Lag over all partitions that count. Negative if offsets moved between KEDA's two requests.
    pub lag: i64,
    /// The same with the lag that `excludePersistentLag` leaves out. It decides on activity.
    pub lag_with_persistent: i64,
    /// Partitions over all topics.
    pub partitions: u64,
    /// Partitions with lag above zero.
    pub partitions_with_lag: u64,
    /// Partitions by which the value is limited; `None` if it is not.
    pub bound: Option<u64>,
    /// The metric's value.
    pub value: i64,
    pub rule: KedaRule,
    /// Whether the trigger is active, so that the workload has at least one replica.
    pub active: bool,
}

/// How the value follows from the lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KedaRule {
    Lag,
    /// It is the bound times the threshold.
    Bounded,
    /// It is a divisor of the number of partitions times the threshold.
    Even,
}

/// Why KEDA's trigger fails, so that the HPA gets an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KedaFailure {
    #[error("topic {0} does not exist")]
    TopicMissing(TopicName),
    #[error("no partition of topic {0} is selected by partitionLimitation")]
    NoPartition(TopicName),
    #[error("the group has no members")]
    NoMembers,
    #[error("the offset of topic {topic}, partition {partition} is unknown")]
    Unknown { topic: TopicName, partition: u32 },
}

/// Computes the value of a trigger. `previous` has the committed offsets that the reading before left behind.
///
/// # Errors
/// Why KEDA's trigger fails.
pub fn read(
    trigger: &KafkaTrigger,
    offsets: &KedaOffsets,
    previous: &mut PreviousOffsets,
    version: KedaVersion,
) -> Result<KedaReading, KedaFailure> {
    let counted = count_partitions(trigger, offsets)?;
    let mut sum = KedaReading {
        lag: 0,
        lag_with_persistent: 0,
        partitions: 0,
        partitions_with_lag: 0,
        bound: None,
        value: 0,
        rule: KedaRule::Lag,
        active: false,
    };
    for (topic, partition, offsets) in counted {
        let unknown = |_| KedaFailure::Unknown {
            topic: topic.clone(),
            partition,
        };
        let (committed, end) = match trigger.kind {
            TriggerKind::Kafka => (
                offsets.committed.map_err(unknown)?,
                offsets.end.map_err(unknown)?,
            ),
            // kafka-go reports the fault together with an offset of -1 or 0, and KEDA only reads the offset.
            TriggerKind::ApacheKafka => (
                offsets.committed.unwrap_or(None),
                offsets.end.unwrap_or_default(),
            ),
        };
        let memory = (&mut *previous, (topic, partition));
        let (lag, with_persistent) = partition_lag(trigger, committed, end, memory, version);
        sum.lag = sum.lag.saturating_add(lag);
        sum.lag_with_persistent = sum.lag_with_persistent.saturating_add(with_persistent);
        sum.partitions = sum.partitions.saturating_add(1);
        let has_lag = u64::from(lag > 0);
        sum.partitions_with_lag = sum.partitions_with_lag.saturating_add(has_lag);
    }
    Ok(limited(trigger, sum))
}

/// The partitions that count, each with its topic.
fn count_partitions<'a>(
    trigger: &KafkaTrigger,
    offsets: &'a KedaOffsets,
) -> Result<Vec<(&'a TopicName, u32, PartitionOffsets)>, KedaFailure> {
    if trigger.kind == TriggerKind::ApacheKafka && trigger.topics.is_empty() && !offsets.has_members
    {
        return Err(KedaFailure::NoMembers);
    }
    let is_kafka = trigger.kind == TriggerKind::Kafka;
    if let Some(missing) = trigger
        .topics
        .iter()
        .find(|t| !offsets.topics.contains_key(*t))
        && is_kafka
    {
        return Err(KedaFailure::TopicMissing(missing.clone()));
    }
    let mut counted = Vec::new();
    for (topic, partitions) in &offsets.topics {
        let has_commit = || {
            partitions
                .iter()
                .any(|p| matches!(p.committed, Ok(Some(_))))
        };
        let is_counted = match trigger.topics.is_empty() {
            // `apache-kafka` counts every topic of the Kafka cluster, whether or not the group reads it.
            true => !is_kafka || has_commit(),
            false => trigger.topics.contains(topic),
        };
        if !is_counted {
            continue;
        }
        let before = counted.len();
        let numbered = (0u32..).zip(partitions).filter(|(partition, _)| {
            let limitation = trigger.partitions.as_ref();
            limitation.is_none_or(|limitation| limitation.contains(*partition))
        });
        counted.extend(numbered.map(|(partition, offsets)| (topic, partition, *offsets)));
        if is_kafka && counted.len() == before {
            return Err(KedaFailure::NoPartition(topic.clone()));
        }
    }
    Ok(counted)
}

/// The lag of one partition, without and with the lag that `excludePersistentLag` leaves out.
pub(super) fn partition_lag(
    trigger: &KafkaTrigger,
    committed: Option<i64>,
    end: i64,
    (previous, (topic, partition)): (&mut PreviousOffsets, (&TopicName, u32)),
    version: KedaVersion,
) -> (i64, i64) {
    let is_zero = trigger.scale_to_zero_on_invalid_offset;
    let Some(committed) = committed else {
        let lag = match trigger.offset_reset {
            OffsetReset::Latest => i64::from(!is_zero),
            OffsetReset::Earliest if is_zero && version.has_zero_for_earliest() => 0,
            // From offset 0 on, even if the log starts later.
            OffsetReset::Earliest => end,
        };
        return (lag, lag);
    };
    let lag = end.saturating_sub(committed);
    if trigger.exclude_persistent_lag {
        let before = previous.insert((topic.clone(), partition), committed);
        if before == Some(committed) {
            return (0, lag);
        }
    }
    (lag, lag)
}

/// Limits the value by partitions, and rounds it to a divisor of their number.
fn limited(trigger: &KafkaTrigger, sum: KedaReading) -> KedaReading {
    let threshold = i64::try_from(trigger.lag_threshold).unwrap_or(i64::MAX);
    let of_partitions = |partitions: u64| {
        let partitions = i64::try_from(partitions).unwrap_or(i64::MAX);
        (partitions, partitions.saturating_mul(threshold))
    };
    let bound = match trigger {
        _ if trigger.limit_to_partitions_with_lag => Some(sum.partitions_with_lag),
        _ if trigger.even || !trigger.allow_idle_consumers => Some(sum.partitions),
        _ => None,
    };
    let (mut value, mut rule) = (sum.lag, KedaRule::Lag);
    if trigger.even {
        let even = even_divisor(value, sum.partitions, threshold);
        (value, rule) = (of_partitions(even).1, KedaRule::Even);
    }
    if let Some((partitions, most)) = bound.map(of_partitions) {
        // Rounded down, while the HPA rounds up: the bound lets almost one threshold more pass.
        if value.checked_div(threshold).unwrap_or_default() > partitions {
            (value, rule) = (most, KedaRule::Bounded);
        }
    }
    let activation = i64::try_from(trigger.activation_lag_threshold).unwrap_or(i64::MAX);
    KedaReading {
        bound,
        value,
        rule,
        active: sum.lag_with_persistent > activation,
        ..sum
    }
}

/// The number of replicas by `ensureEvenDistributionOfPartitions`: the smallest divisor of the number of partitions
/// that is enough for the lag, or that number if none is.
#[must_use]
pub fn even_divisor(lag: i64, partitions: u64, threshold: i64) -> u64 {
    let most_lag = |replicas: u64| {
        let replicas = i64::try_from(replicas).unwrap_or(i64::MAX);
        replicas.saturating_mul(threshold)
    };
    let enough = divisors(partitions).find(|divisor| most_lag(*divisor) >= lag);
    enough.unwrap_or(partitions)
}

/// The divisors of a number, ascending.
fn divisors(number: u64) -> impl Iterator<Item = u64> {
    (1..=number).filter(move |divisor| number.checked_rem(*divisor) == Some(0))
}

/// Replica bounds of a ScaledObject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaBounds {
    /// `minReplicaCount`, 0 by default.
    pub min: u32,
    /// `maxReplicaCount`, 100 by default.
    pub max: u32,
    /// `idleReplicaCount`.
    pub idle: Option<u32>,
}

impl Default for ReplicaBounds {
    fn default() -> Self {
        Self {
            min: 0,
            max: 100,
            idle: None,
        }
    }
}

/// The replicas that KEDA and its HPA set for these readings of a ScaledObject's triggers, once its `cooldownPeriod`
/// has passed, without the limits of the HPA's behavior. `tolerances` are those for scaling down and up, in
/// thousandths.
#[must_use]
pub fn replicas(
    readings: &[(&KafkaTrigger, &KedaReading)],
    bounds: ReplicaBounds,
    current: u32,
    tolerances: (u64, u64),
) -> u32 {
    if !readings.iter().any(|(_, reading)| reading.active) {
        return bounds.idle.unwrap_or(bounds.min);
    }
    // KEDA starts an idle workload with this number, and from there on its HPA decides.
    let least = bounds.min.max(1);
    let current = current.max(least);
    let wanted = readings
        .iter()
        .map(|(trigger, reading)| hpa_replicas(trigger, reading, current, tolerances));
    wanted
        .max()
        .unwrap_or(least)
        .clamp(least, bounds.max.max(least))
}

/// The replicas that an HPA with `current` replicas proposes for the value of one trigger with `metricType:
/// AverageValue`.
#[must_use]
pub fn hpa_replicas(
    trigger: &KafkaTrigger,
    reading: &KedaReading,
    current: u32,
    (down, up): (u64, u64),
) -> u32 {
    let thousandths = |rules: ScalingRules, thousandths: u64| ScalingRules {
        tolerance: Some(Milli::MIN_POSITIVE.scaled(thousandths, 1)),
        ..rules
    };
    let threshold = Milli::from_units(trigger.lag_threshold);
    let spec = HpaSpec {
        min: 1,
        max: u32::MAX,
        metrics: vec![MetricSource::External(MetricTarget::AverageValue(
            threshold,
        ))],
        behavior: Some(Behavior {
            up: thousandths(ScalingRules::up(), up),
            down: thousandths(ScalingRules::down(), down),
        }),
    };
    // The HPA rounds a negative ratio up to zero or below, which it raises to its minimum.
    let value = Milli::from_units(u64::try_from(reading.value).unwrap_or(0));
    let seen = ObservedScale {
        spec_replicas: current,
        status_replicas: current,
        pods: None,
        readings: vec![MetricReading::Value(value)],
        scaled_to_zero: false,
    };
    match proposals(&spec, &seen).first() {
        Some(Proposal::Replicas { replicas, .. }) => *replicas,
        _ => current,
    }
}

#[cfg(test)]
mod tests;
