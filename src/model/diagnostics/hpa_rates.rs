//! How fast the groups of an HPA read, and how fast their topics grow, from one point of the history to the next. Only
//! the topics and partitions of the HPA count. `SummedRates` are those of whole groups, averaged.

use std::sync::Arc;
use std::time::Duration;

use super::earlier_readings::EarlierReadings;
use crate::model::evaluation::{EvaluationsAt, GroupEvaluation};
use crate::model::lag::cluster_snapshot::TopicLag;
use crate::model::lag::throughput::Throughput;
use crate::model::units::hpa_key::HpaKey;

/// Messages per second over all groups and topics of an HPA, between two readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HpaRates {
    pub produced_per_second: f64,
    pub consumed_per_second: f64,
    /// Time until no partition has lag, at the rates of each; `None` if the lag of one does not shrink.
    pub time_to_drain: Option<Duration>,
}

/// Rates of an HPA, from two snapshots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateReading {
    /// A group was not read again, so the last rates still hold.
    Unchanged,
    /// A partition is unknown in one of the readings, or its offsets went backwards.
    Unknown,
    Known(HpaRates),
}

/// The rates of an HPA since the readings in `before`. Partitions without a committed offset are left out.
#[must_use]
pub fn rates_since(
    evaluations: EvaluationsAt<'_>,
    hpa: &HpaKey,
    before: &EarlierReadings,
) -> RateReading {
    let mut seen: Vec<(&Arc<_>, _)> = Vec::new();
    let mut all: Option<Throughput> = None;
    let mut time_to_drain = Some(Duration::ZERO);
    for (target, evaluation) in evaluations.targets_of(hpa) {
        // Several metrics may use the same groups and topics.
        let key = (&target.key, target.settings.partitions.as_ref());
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let group = &evaluation.group;
        let known = before.group(&target.key.cluster, &target.key.group);
        for topic in group.topics() {
            let earlier = known.and_then(|known| known.offsets(topic.topic));
            let Some((earlier, reading)) = earlier.zip(topic.reading) else {
                return RateReading::Unknown;
            };
            if reading.read == earlier.read {
                return RateReading::Unchanged;
            }
            for partition in counted_partitions(group, reading) {
                let lag = match reading.lag_since_commit(partition) {
                    Ok(Some(lag)) => lag,
                    Ok(None) => continue,
                    Err(_) => return RateReading::Unknown,
                };
                let Some(own) = Throughput::between(earlier, reading, partition) else {
                    return RateReading::Unknown;
                };
                // The slowest partition decides.
                let left = own.time_to_drain(lag);
                time_to_drain = time_to_drain.zip(left).map(|(a, b)| a.max(b));
                all = Some(all.map_or(own, |all| all.plus(own)));
            }
        }
    }
    match all {
        Some(all) => RateReading::Known(HpaRates {
            produced_per_second: all.produced_per_second(),
            consumed_per_second: all.consumed_per_second(),
            time_to_drain,
        }),
        None => RateReading::Unknown,
    }
}

fn counted_partitions(group: &GroupEvaluation, reading: &TopicLag) -> impl Iterator<Item = usize> {
    let filter = group.query.settings.partitions.clone();
    let all = 0..reading.lags.len();
    all.filter(move |partition| filter.as_ref().is_none_or(|f| f.contains(*partition)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{self, PartitionReading, hpa};
    use crate::model::hpa::facts::MetricTarget;
    use crate::model::kafka::fault::Fault;
    use crate::model::lag::assembly::Scope;
    use crate::model::snapshot::LagSnapshot;
    use crate::model::units::quantity::Milli;

    fn snapshot(seconds: u64, rows: &[PartitionReading]) -> LagSnapshot {
        let hpa = hpa(
            "billing",
            "group=g,topic=orders",
            MetricTarget::AverageValue(Milli::from_units(10)),
        );
        let read = fixtures::read(Duration::from_secs(seconds), "g", "orders", rows);
        fixtures::evaluated(&[hpa], [read], Scope::Whole)
    }

    fn rates(before: &[PartitionReading], after: &[PartitionReading]) -> RateReading {
        let (before, after) = (snapshot(0, before), snapshot(10, after));
        let now = fixtures::at(Duration::from_secs(11));
        let key = HpaKey::new("shop", "billing");
        rates_since(
            after.at(&now),
            &key,
            &EarlierReadings::new(&before.clusters),
        )
    }

    fn ok(committed: i64, end: i64) -> PartitionReading {
        (0, Ok(Some(committed)), Ok(end))
    }

    #[test]
    fn rates_are_those_of_all_partitions_with_a_commit() {
        let none = (0, Ok(None), Ok(7));
        let found = rates(
            &[ok(0, 100), ok(0, 10), none],
            &[ok(50, 110), ok(10, 20), none],
        );
        let expected = HpaRates {
            produced_per_second: 2.0,
            consumed_per_second: 6.0,
            // 10 remain on the second partition, and do not shrink.
            time_to_drain: None,
        };
        assert_eq!(found, RateReading::Known(expected));
        let RateReading::Known(found) = rates(&[ok(0, 100)], &[ok(50, 100)]) else {
            panic!("the rates are known");
        };
        assert_eq!(found.time_to_drain, Some(Duration::from_secs(10)));
    }

    #[test]
    fn rates_need_two_complete_readings() {
        let unknown = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));
        assert_eq!(rates(&[unknown], &[ok(5, 9)]), RateReading::Unknown);
        assert_eq!(rates(&[ok(5, 9)], &[ok(4, 9)]), RateReading::Unknown);
        let one = snapshot(0, &[ok(5, 9)]);
        let now = fixtures::at(Duration::from_secs(5));
        let key = HpaKey::new("shop", "billing");
        let own = EarlierReadings::new(&one.clusters);
        let same = rates_since(one.at(&now), &key, &own);
        assert_eq!(same, RateReading::Unchanged);
        let first = rates_since(one.at(&now), &key, &EarlierReadings::default());
        assert_eq!(first, RateReading::Unknown);
    }
}
