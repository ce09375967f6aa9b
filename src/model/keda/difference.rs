//! Reasons for which KEDA and lagwise derive different numbers of replicas for one group.

use std::fmt;

use serde::Serialize;

use super::arithmetic::{
    KedaFailure, KedaReading, KedaRule, PreviousOffsets, hpa_replicas, partition_lag,
};
use super::observed_offsets::partitions_of;
use super::trigger::KafkaTrigger;
use super::version::KedaVersion;
use crate::model::evaluation::MetricValue;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{GroupTopic, TopicLag};
use crate::model::units::newtypes::TopicName;

/// One reason for which the two numbers differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Difference {
    /// KEDA's limit rounds down and the HPA rounds up, so that one replica has no partition.
    OneBeyondPartitions { replicas: u32, partitions: u64 },
    /// `allowIdleConsumers`: KEDA does not limit the replicas.
    Unlimited { replicas: u32, ceiling: u32 },
    /// KEDA adds up the partitions of all topics, more than the assignor can give to different members.
    TopicsAddedUp { partitions: u64, useful: u32 },
    /// Each replica has several members, which KEDA does not know.
    Threads { threads: u32 },
    /// The HPA's tolerance keeps the replicas below those of KEDA's value.
    WithinTolerance { replicas: u32, wanted: u32 },
    /// KEDA rounds up to divisors of the number of partitions, lagwise to all numbers that share them evenly.
    EvenSteps { keda: u32, lagwise: u32 },
    /// KEDA does not exceed the number of partitions with lag.
    PartitionsWithLag { partitions: u64 },
    /// Partitions without a committed offset.
    Uncommitted {
        partitions: u32,
        keda: i64,
        lagwise: u64,
    },
    /// KEDA counts messages that retention has deleted.
    Deleted { messages: i64 },
    /// KEDA counts what no consumer can read: transaction markers and compaction gaps.
    Residual { messages: u64 },
    /// KEDA counts the lag of stuck partitions, which `stuck-counts: false` leaves out.
    Stuck { messages: u64 },
    /// KEDA counts records of open transactions, which consumers that read committed records do not get yet.
    OpenTransactions { messages: i64 },
    /// `excludePersistentLag`: KEDA leaves out partitions whose committed offset is the one of the reading before.
    Persistent { messages: i64 },
    /// KEDA takes the trigger for inactive up to this lag.
    Inactive { threshold: u64 },
    /// KEDA's trigger fails.
    KedaFails { why: String },
    /// lagwise has no value.
    LagwiseUnknown,
}

impl Difference {
    /// Its name in metrics and sums.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::OneBeyondPartitions { .. } => "one_beyond_partitions",
            Self::Unlimited { .. } => "unlimited",
            Self::TopicsAddedUp { .. } => "topics_added_up",
            Self::Threads { .. } => "threads",
            Self::WithinTolerance { .. } => "within_tolerance",
            Self::EvenSteps { .. } => "even_steps",
            Self::PartitionsWithLag { .. } => "partitions_with_lag",
            Self::Uncommitted { .. } => "uncommitted",
            Self::Deleted { .. } => "deleted",
            Self::Residual { .. } => "residual",
            Self::Stuck { .. } => "stuck",
            Self::OpenTransactions { .. } => "open_transactions",
            Self::Persistent { .. } => "persistent",
            Self::Inactive { .. } => "inactive",
            Self::KedaFails { .. } => "keda_fails",
            Self::LagwiseUnknown => "lagwise_unknown",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneBeyondPartitions {
                replicas,
                partitions,
            } => write!(
                f,
                "KEDA's limit of {partitions} partitions rounds down and the HPA rounds up, so that {replicas} replicas run"
            ),
            Self::Unlimited { replicas, ceiling } => write!(
                f,
                "allowIdleConsumers lets {replicas} replicas run, of which {ceiling} can have work"
            ),
            Self::TopicsAddedUp { partitions, useful } => write!(
                f,
                "KEDA adds up {partitions} partitions of several topics, of which {useful} members can have work"
            ),
            Self::Threads { threads } => {
                write!(
                    f,
                    "a replica has {threads} members, which KEDA does not know"
                )
            }
            Self::WithinTolerance { replicas, wanted } => write!(
                f,
                "the HPA's tolerance keeps {replicas} replicas, although the lag is worth {wanted}"
            ),
            Self::EvenSteps { keda, lagwise } => write!(
                f,
                "KEDA rounds up to the divisor {keda} of the partitions, lagwise to {lagwise}, which also shares them evenly"
            ),
            Self::PartitionsWithLag { partitions } => {
                write!(
                    f,
                    "KEDA limits the replicas to the {partitions} partitions with lag"
                )
            }
            Self::Uncommitted {
                partitions,
                keda,
                lagwise,
            } => write!(
                f,
                "for {partitions} partitions without a committed offset KEDA counts {keda} messages, lagwise {lagwise}"
            ),
            Self::Deleted { messages } => {
                write!(
                    f,
                    "KEDA counts {messages} messages that retention has deleted"
                )
            }
            Self::Residual { messages } => write!(
                f,
                "KEDA counts {messages} messages that no consumer can read, such as transaction markers"
            ),
            Self::Stuck { messages } => {
                write!(f, "KEDA counts {messages} messages of stuck partitions")
            }
            Self::OpenTransactions { messages } => {
                write!(f, "KEDA counts {messages} records of open transactions")
            }
            Self::Persistent { messages } => write!(
                f,
                "excludePersistentLag leaves out {messages} messages, since the committed offset did not move between two readings"
            ),
            Self::Inactive { threshold } => {
                write!(
                    f,
                    "activationLagThreshold {threshold} is not exceeded, so that KEDA starts no replica"
                )
            }
            Self::KedaFails { why } => write!(f, "KEDA's trigger fails: {why}"),
            Self::LagwiseUnknown => f.write_str("lagwise does not know the lag"),
        }
    }
}

/// The results of KEDA and lagwise for one group.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    pub trigger: &'a KafkaTrigger,
    pub version: KedaVersion,
    pub keda: Result<&'a KedaReading, &'a KedaFailure>,
    /// `None` if lagwise has no value.
    pub lagwise: Option<&'a MetricValue>,
    /// The topics of the group.
    pub topics: &'a TopicMap<GroupTopic>,
    /// The replicas now, and the tolerances of KEDA's HPA for scaling down and up, in thousandths.
    pub current: u32,
    pub tolerances: (u64, u64),
}

impl Comparison<'_> {
    /// The replicas that KEDA's HPA proposes; `None` if the trigger fails. 0 if the trigger is inactive.
    #[must_use]
    pub fn keda_replicas(&self) -> Option<u32> {
        let reading = self.keda.ok()?;
        Some(match reading.active {
            true => hpa_replicas(self.trigger, reading, self.current, self.tolerances),
            false => 0,
        })
    }

    /// The replicas that lagwise proposes; `None` if they are unknown.
    #[must_use]
    pub fn lagwise_replicas(&self) -> Option<u32> {
        self.lagwise?.desired
    }

    /// The reasons for which the two may differ, those about lag first. Empty if they agree for the same reasons.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        let mut found = Vec::new();
        let reading = match self.keda {
            Ok(reading) => reading,
            Err(failure) => {
                let why = failure.to_string();
                return vec![Difference::KedaFails { why }];
            }
        };
        self.compare_lag(reading, &mut found);
        match self.lagwise {
            Some(value) => self.compare_replicas(reading, value, &mut found),
            None => found.push(Difference::LagwiseUnknown),
        }
        found
    }

    fn compare_lag(&self, reading: &KedaReading, found: &mut Vec<Difference>) {
        let mut sums = LagSums::default();
        for (topic, read) in self.topics.iter() {
            let is_counted = self.trigger.topics.is_empty() || self.trigger.topics.contains(topic);
            if let (true, Ok(lag)) = (is_counted, &read.latest) {
                self.add_topic(topic, lag, &mut sums);
            }
        }
        let persistent = reading.lag_with_persistent.saturating_sub(reading.lag);
        let LagSums {
            residual,
            stuck,
            deleted,
            open,
            ..
        } = sums;
        let reasons = [
            (sums.uncommitted > 0
                && sums.uncommitted_keda
                    != i64::try_from(sums.uncommitted_lagwise).unwrap_or(i64::MAX))
            .then_some(Difference::Uncommitted {
                partitions: sums.uncommitted,
                keda: sums.uncommitted_keda,
                lagwise: sums.uncommitted_lagwise,
            }),
            (deleted > 0).then_some(Difference::Deleted { messages: deleted }),
            (residual > 0).then_some(Difference::Residual { messages: residual }),
            (stuck > 0).then_some(Difference::Stuck { messages: stuck }),
            (open > 0).then_some(Difference::OpenTransactions { messages: open }),
            (persistent > 0).then_some(Difference::Persistent {
                messages: persistent,
            }),
        ];
        found.extend(reasons.into_iter().flatten());
    }

    fn add_topic(&self, topic: &TopicName, lag: &TopicLag, sums: &mut LagSums) {
        let limitation = self.trigger.partitions.as_ref();
        // The lag without the memory of excludePersistentLag, which is compared as a whole.
        let plain = KafkaTrigger {
            exclude_persistent_lag: false,
            ..self.trigger.clone()
        };
        for ((partition, of), offsets) in (0u32..).zip(lag.lags.iter()).zip(partitions_of(lag)) {
            let is_counted = limitation.is_none_or(|limitation| limitation.contains(partition));
            let (true, Ok(of), Ok(committed), Ok(end)) =
                (is_counted, *of, offsets.committed, offsets.end)
            else {
                continue;
            };
            let mut none = PreviousOffsets::new();
            let key = (topic, partition);
            let (keda, _) = partition_lag(&plain, committed, end, (&mut none, key), self.version);
            sums.add(committed.is_none(), keda, of);
        }
    }

    fn compare_replicas(
        &self,
        reading: &KedaReading,
        value: &MetricValue,
        found: &mut Vec<Difference>,
    ) {
        if !reading.active {
            let threshold = self.trigger.activation_lag_threshold;
            if reading.lag_with_persistent > 0 {
                found.push(Difference::Inactive { threshold });
            }
            return;
        }
        let keda = hpa_replicas(self.trigger, reading, self.current, self.tolerances);
        let worth = hpa_replicas(self.trigger, reading, 0, (0, 0));
        if keda != worth {
            found.push(Difference::WithinTolerance {
                replicas: keda,
                wanted: worth,
            });
        }
        if let Some(desired) = value.desired
            && reading.rule == KedaRule::Even
            && worth != desired
        {
            found.push(Difference::EvenSteps {
                keda: worth,
                lagwise: desired,
            });
        }
        let Some(ceiling) = value.ceiling else {
            return;
        };
        let threads = ceiling.threads.get();
        let useful = ceiling.useful.limit.bounded();
        let (Some(useful), Some(most)) = (useful, ceiling.replicas.bounded()) else {
            return;
        };
        if self.trigger.limit_to_partitions_with_lag
            && reading.partitions_with_lag < u64::from(useful)
        {
            let partitions = reading.partitions_with_lag;
            found.push(Difference::PartitionsWithLag { partitions });
        }
        let beyond = worth.max(keda);
        if beyond <= most {
            return;
        }
        if threads > 1 {
            found.push(Difference::Threads { threads });
        }
        match reading.bound {
            None => found.push(Difference::Unlimited {
                replicas: beyond,
                ceiling: most,
            }),
            Some(partitions) if partitions > u64::from(useful) => {
                found.push(Difference::TopicsAddedUp { partitions, useful });
            }
            Some(_) => {}
        }
        if let Some(partitions) = reading.bound
            && u64::from(beyond) == partitions.saturating_add(1)
        {
            found.push(Difference::OneBeyondPartitions {
                replicas: beyond,
                partitions,
            });
        }
    }
}

/// Messages that the two count differently.
#[derive(Debug, Default)]
struct LagSums {
    uncommitted: u32,
    uncommitted_keda: i64,
    uncommitted_lagwise: u64,
    residual: u64,
    stuck: u64,
    deleted: i64,
    open: i64,
}

impl LagSums {
    fn add(&mut self, is_uncommitted: bool, keda: i64, lagwise: PartitionLag) {
        let more = || {
            let own = i64::try_from(lagwise.for_scaling().0).unwrap_or(i64::MAX);
            keda.saturating_sub(own).max(0)
        };
        match lagwise {
            PartitionLag::Residual(lag) => self.residual = self.residual.saturating_add(lag.0),
            PartitionLag::Stuck { lag, sized: false } => {
                self.stuck = self.stuck.saturating_add(lag.0);
            }
            PartitionLag::Lost(_) => self.deleted = self.deleted.saturating_add(more()),
            _ if is_uncommitted => {
                self.uncommitted = self.uncommitted.saturating_add(1);
                self.uncommitted_keda = self.uncommitted_keda.saturating_add(keda);
                let own = lagwise.for_scaling().0;
                self.uncommitted_lagwise = self.uncommitted_lagwise.saturating_add(own);
            }
            PartitionLag::Measured(_) | PartitionLag::BeyondStable => {
                self.open = self.open.saturating_add(more());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
