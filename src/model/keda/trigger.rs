//! Parses the metadata of a trigger `kafka` or `apache-kafka`, with KEDA's defaults and checks.

use std::collections::{BTreeMap, BTreeSet};

use super::version::KedaVersion;
use crate::model::units::newtypes::{OffsetReset, TopicName};

/// Which of KEDA's two Kafka triggers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerKind {
    /// `kafka`, with the client sarama.
    Kafka,
    /// `apache-kafka`, with the client kafka-go.
    ApacheKafka,
}

impl TriggerKind {
    /// The kind of a trigger of this type; `None` if it is not about Kafka.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        match text {
            "kafka" => Some(Self::Kafka),
            "apache-kafka" => Some(Self::ApacheKafka),
            _ => None,
        }
    }

    /// Its `type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::ApacheKafka => "apache-kafka",
        }
    }
}

/// The options of a trigger that decide its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTrigger {
    pub kind: TriggerKind,
    pub group: Option<String>,
    /// Empty: all topics.
    pub topics: BTreeSet<TopicName>,
    /// Above zero.
    pub lag_threshold: u64,
    pub activation_lag_threshold: u64,
    pub offset_reset: OffsetReset,
    pub allow_idle_consumers: bool,
    pub exclude_persistent_lag: bool,
    pub scale_to_zero_on_invalid_offset: bool,
    pub limit_to_partitions_with_lag: bool,
    pub even: bool,
    /// `None`: all partitions.
    pub partitions: Option<PartitionLimitation>,
}

/// `partitionLimitation`: ranges of partitions, both ends included. A range that ends before it begins has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionLimitation(Vec<(i32, i32)>);

impl PartitionLimitation {
    #[must_use]
    pub fn contains(&self, partition: u32) -> bool {
        let partition = i64::from(partition);
        let ranges = &mut self.0.iter();
        ranges.any(|(first, last)| (i64::from(*first)..=i64::from(*last)).contains(&partition))
    }

    /// Whether it selects no partition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(first, last)| first > last)
    }

    /// The ranges that have partitions, in the form of the annotation `lagwise.dev/partitions`.
    #[must_use]
    pub fn ranges(&self) -> String {
        let some = self.0.iter().filter(|(first, last)| first <= last);
        let text = some.map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        Vec::from_iter(text).join(",")
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<i32>().ok();
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Some((number(first)?, number(last)?)),
            None => Some((number(part)?, number(part)?)),
        };
        let ranges = text.split(',').map(range);
        ranges.collect::<Option<_>>().map(Self)
    }
}

impl KafkaTrigger {
    /// Approximate memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let topics = self.topics.iter();
        let topics = topics.map(|topic| topic.as_str().len().saturating_add(TOPIC_OVERHEAD_BYTES));
        let group = self.group.as_ref().map_or(0, String::len);
        let ranges = self
            .partitions
            .as_ref()
            .map_or(0, |PartitionLimitation(ranges)| ranges.len());
        let ranges = ranges.saturating_mul(size_of::<(i32, i32)>());
        let all = topics.chain([group, ranges]);
        all.fold(size_of::<Self>(), usize::saturating_add)
    }
}

/// Memory of a topic besides its name.
const TOPIC_OVERHEAD_BYTES: usize = 32;

/// An option for which KEDA refuses the trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerProblem {
    /// The option's name.
    pub key: &'static str,
    /// The problem, and the allowed values, without a full stop.
    pub problem: String,
}

/// Names of the options, as KEDA spells them.
pub mod key {
    pub const BOOTSTRAP_SERVERS: &str = "bootstrapServers";
    pub const CONSUMER_GROUP: &str = "consumerGroup";
    pub const TOPIC: &str = "topic";
    pub const LAG_THRESHOLD: &str = "lagThreshold";
    pub const ACTIVATION_LAG_THRESHOLD: &str = "activationLagThreshold";
    pub const OFFSET_RESET_POLICY: &str = "offsetResetPolicy";
    pub const ALLOW_IDLE_CONSUMERS: &str = "allowIdleConsumers";
    pub const EXCLUDE_PERSISTENT_LAG: &str = "excludePersistentLag";
    pub const SCALE_TO_ZERO_ON_INVALID_OFFSET: &str = "scaleToZeroOnInvalidOffset";
    pub const LIMIT_TO_PARTITIONS_WITH_LAG: &str = "limitToPartitionsWithLag";
    pub const EVEN_DISTRIBUTION: &str = "ensureEvenDistributionOfPartitions";
    pub const PARTITION_LIMITATION: &str = "partitionLimitation";
    pub const FULL_METADATA: &str = "fullMetadata";
    pub const VERSION: &str = "version";
    pub const TLS: &str = "tls";
    pub const UNSAFE_SSL: &str = "unsafeSsl";
    pub const SASL: &str = "sasl";
    pub const SASL_TOKEN_PROVIDER: &str = "saslTokenProvider";
    pub const AWS_REGION: &str = "awsRegion";

    /// All options that a trigger's metadata may have.
    pub const ALL: &[&str] = &[
        BOOTSTRAP_SERVERS,
        CONSUMER_GROUP,
        TOPIC,
        LAG_THRESHOLD,
        ACTIVATION_LAG_THRESHOLD,
        OFFSET_RESET_POLICY,
        ALLOW_IDLE_CONSUMERS,
        EXCLUDE_PERSISTENT_LAG,
        SCALE_TO_ZERO_ON_INVALID_OFFSET,
        LIMIT_TO_PARTITIONS_WITH_LAG,
        EVEN_DISTRIBUTION,
        PARTITION_LIMITATION,
        FULL_METADATA,
        VERSION,
        TLS,
        UNSAFE_SSL,
        SASL,
        SASL_TOKEN_PROVIDER,
        AWS_REGION,
    ];

    /// Options that KEDA reads from the environment of the scaled container if their name ends with `FromEnv`.
    pub const FROM_ENV: &[&str] = &[BOOTSTRAP_SERVERS, CONSUMER_GROUP, TOPIC];
}

/// `lagThreshold` of a trigger that sets none.
pub const DEFAULT_LAG_THRESHOLD: u64 = 10;

/// Parses a flag as Go's `strconv.ParseBool`.
#[must_use]
pub fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// The value of an option, without spaces around it. KEDA takes an empty one for unset.
#[must_use]
pub fn option_value<'a>(metadata: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    let value = metadata.get(key)?.trim();
    (!value.is_empty()).then_some(value)
}

/// Reads options; collects all problems.
struct Options<'a> {
    metadata: &'a BTreeMap<String, String>,
    problems: Vec<TriggerProblem>,
}

impl Options<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        option_value(self.metadata, key)
    }

    fn refuse(&mut self, key: &'static str, problem: impl Into<String>) {
        let problem = problem.into();
        self.problems.push(TriggerProblem { key, problem });
    }

    fn flag(&mut self, key: &'static str) -> bool {
        let Some(text) = self.get(key) else {
            return false;
        };
        if let Some(flag) = parse_flag(text) {
            return flag;
        }
        let problem = format!("{text:?} is neither true nor false");
        self.refuse(key, problem);
        false
    }

    fn number(&mut self, key: &'static str, min: u64, default: u64) -> u64 {
        let Some(text) = self.get(key) else {
            return default;
        };
        let is_number = text.starts_with(|c: char| c.is_ascii_digit());
        let number = text.parse::<i64>().ok().filter(|_| is_number);
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if number >= min => number,
            _ => {
                let problem = format!("{text:?} is not a whole number from {min}");
                self.refuse(key, problem);
                default
            }
        }
    }
}

impl KafkaTrigger {
    /// Parses the metadata of a trigger.
    ///
    /// # Errors
    /// Every option for which KEDA refuses the trigger.
    pub fn parse(
        kind: TriggerKind,
        metadata: &BTreeMap<String, String>,
        version: KedaVersion,
    ) -> Result<Self, Vec<TriggerProblem>> {
        let options = &mut Options {
            metadata,
            problems: Vec::new(),
        };
        let lag_threshold = options.number(key::LAG_THRESHOLD, 1, DEFAULT_LAG_THRESHOLD);
        let activation = options.number(key::ACTIVATION_LAG_THRESHOLD, 0, 0);
        let trigger = Self {
            kind,
            group: options.get(key::CONSUMER_GROUP).map(str::to_owned),
            topics: topics(kind, options),
            lag_threshold,
            activation_lag_threshold: activation,
            offset_reset: offset_reset(options),
            allow_idle_consumers: options.flag(key::ALLOW_IDLE_CONSUMERS),
            exclude_persistent_lag: options.flag(key::EXCLUDE_PERSISTENT_LAG)
                && version.has_partition_options(),
            scale_to_zero_on_invalid_offset: options.flag(key::SCALE_TO_ZERO_ON_INVALID_OFFSET),
            limit_to_partitions_with_lag: options.flag(key::LIMIT_TO_PARTITIONS_WITH_LAG)
                && version.has_limit_to_partitions_with_lag(),
            even: options.flag(key::EVEN_DISTRIBUTION) && version.has_even_distribution(),
            partitions: partitions(options).filter(|_| version.has_partition_options()),
        };
        trigger.check(options);
        if kind == TriggerKind::Kafka
            && options.get(key::FULL_METADATA) == Some("false")
            && trigger.topics.is_empty()
        {
            options.refuse(key::TOPIC, "required with fullMetadata: false");
        }
        match options.problems.is_empty() {
            true => Ok(trigger.without_ignored()),
            false => Err(std::mem::take(&mut options.problems)),
        }
    }

    /// KEDA's checks of options that exclude one another.
    fn check(&self, options: &mut Options<'_>) {
        let limit = key::LIMIT_TO_PARTITIONS_WITH_LAG;
        if self.limit_to_partitions_with_lag {
            if self.allow_idle_consumers {
                options.refuse(limit, "excludes allowIdleConsumers");
            }
            if self.topics.is_empty() {
                options.refuse(limit, "needs a topic");
            }
        }
        // The trigger apache-kafka does not check this.
        if self.even && self.kind == TriggerKind::Kafka {
            if self.limit_to_partitions_with_lag {
                options.refuse(key::EVEN_DISTRIBUTION, "excludes limitToPartitionsWithLag");
            }
            if self.topics.is_empty() {
                options.refuse(key::EVEN_DISTRIBUTION, "needs a topic");
            }
        }
    }

    /// Leaves out what KEDA ignores without a topic, and of `apache-kafka` a limitation that selects nothing.
    fn without_ignored(mut self) -> Self {
        let is_ignored = |limitation: &PartitionLimitation| {
            self.topics.is_empty()
                || (self.kind == TriggerKind::ApacheKafka && limitation.is_empty())
        };
        self.partitions = self.partitions.take().filter(|l| !is_ignored(l));
        self
    }
}

/// `apache-kafka` takes several topics, separated by commas.
fn topics(kind: TriggerKind, options: &Options<'_>) -> BTreeSet<TopicName> {
    let text = options.get(key::TOPIC);
    match kind {
        TriggerKind::Kafka => text.map(TopicName::from).into_iter().collect(),
        TriggerKind::ApacheKafka => {
            let all = text.into_iter().flat_map(|text| text.split(','));
            all.map(|topic| TopicName::from(topic.trim())).collect()
        }
    }
}

fn offset_reset(options: &mut Options<'_>) -> OffsetReset {
    match options.get(key::OFFSET_RESET_POLICY) {
        None | Some("latest") => OffsetReset::Latest,
        Some("earliest") => OffsetReset::Earliest,
        Some(other) => {
            let problem = format!("{other:?} is neither latest nor earliest");
            options.refuse(key::OFFSET_RESET_POLICY, problem);
            OffsetReset::Latest
        }
    }
}

fn partitions(options: &mut Options<'_>) -> Option<PartitionLimitation> {
    let text = options.get(key::PARTITION_LIMITATION)?.to_owned();
    let parsed = PartitionLimitation::parse(&text);
    if parsed.is_none() {
        let problem = format!("{text:?} is not a list of partitions and ranges, such as 1,2,10-20");
        options.refuse(key::PARTITION_LIMITATION, problem);
    }
    parsed
}

#[cfg(test)]
mod tests;
