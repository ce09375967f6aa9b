//! Version of KEDA, and the features of Kafka triggers that depend on it.

use std::fmt;

/// A version 2.x of KEDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KedaVersion {
    pub minor: u32,
}

impl KedaVersion {
    /// The newest version whose source was read.
    pub const NEWEST: Self = Self { minor: 21 };

    /// The oldest version whose source was read.
    pub const OLDEST: Self = Self { minor: 8 };

    /// Whether the trigger `apache-kafka` exists.
    #[must_use]
    pub fn has_apache_kafka(self) -> bool {
        self.minor >= 12
    }

    /// Whether the options `excludePersistentLag` and `partitionLimitation` exist. Older versions ignore them.
    #[must_use]
    pub fn has_partition_options(self) -> bool {
        self.minor >= 9
    }

    /// Whether the option `limitToPartitionsWithLag` exists. Older versions ignore it.
    #[must_use]
    pub fn has_limit_to_partitions_with_lag(self) -> bool {
        self.minor >= 13
    }

    /// Whether `scaleToZeroOnInvalidOffset` also applies to `offsetResetPolicy: earliest`.
    #[must_use]
    pub fn has_zero_for_earliest(self) -> bool {
        self.minor >= 15
    }

    /// Whether the option `ensureEvenDistributionOfPartitions` exists. Older versions ignore it.
    #[must_use]
    pub fn has_even_distribution(self) -> bool {
        self.minor >= 18
    }
}

impl Default for KedaVersion {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl fmt::Display for KedaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "2.{}", self.minor)
    }
}
