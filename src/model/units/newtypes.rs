//! The nouns of the field, each its own type, so that a topic is never taken for a group
//! and an offset never for a lag.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize, Serializer};

/// A shared, immutable name: cloning one costs a reference count, not a copy.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as written by its owner.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(Arc::from(name))
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(Arc::from(name))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The name the configuration gives a Kafka cluster.
    ClusterName
}
name_type! {
    /// A consumer group's `group.id`.
    GroupId
}
name_type! {
    /// A topic's name.
    TopicName
}

/// A partition's number within its topic, from 0, as on the wire.
pub type Partition = i32;

/// A position in a partition's log. Signed, as on the wire; the protocol's markers for "none"
/// never reach this type, they become `None` where the response is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Offset(pub i64);

impl Offset {
    /// Messages from `earlier` up to here; `None` where `earlier` lies beyond.
    #[must_use]
    pub fn distance_from(self, earlier: Offset) -> Option<Lag> {
        if self.0 < earlier.0 {
            return None;
        }
        // Two signed 64-bit numbers in order are never further apart than u64 holds.
        Some(Lag(self.0.abs_diff(earlier.0)))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Messages behind. Comes only from a checked subtraction of offsets; sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Lag(pub u64);

impl Lag {
    /// The sum, saturating: a wrong huge number asks for the maximum, a wrapped one for nothing.
    #[must_use]
    pub fn plus(self, other: Lag) -> Lag {
        Lag(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for Lag {
    fn sum<I: Iterator<Item = Lag>>(lags: I) -> Lag {
        lags.fold(Lag::default(), Lag::plus)
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a group's consumers begin on a partition without a committed offset: their client's
/// `auto.offset.reset`, which no broker knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetReset {
    /// At the log's end, every client's default.
    #[default]
    Latest,
    /// At the log's start.
    Earliest,
}

/// Which log end a group's consumers read up to: their client's `isolation.level`, which no broker
/// knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// The high watermark, every client's default.
    #[default]
    ReadUncommitted,
    /// The last stable offset: the first record of a transaction that is still open is beyond it.
    ReadCommitted,
}

/// A topic's ID (KIP-516): a topic of the same name with another ID is another topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

/// A number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replicas(pub u32);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time on both clocks: the monotonic one decides ages, the wall clock is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For differences; unaffected by clock changes.
    pub monotonic: Instant,
    /// For display and for timestamps in answers.
    pub wall: SystemTime,
}

impl Moment {
    /// Time from `earlier` to here; zero where `earlier` is later.
    #[must_use]
    pub fn since(&self, earlier: &Moment) -> Duration {
        self.monotonic.saturating_duration_since(earlier.monotonic)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn distance_never_wraps(a: i64, b: i64) {
            let expected = i128::from(b) - i128::from(a);
            match Offset(b).distance_from(Offset(a)) {
                Some(lag) => prop_assert_eq!(i128::from(lag.0), expected),
                None => prop_assert!(expected < 0),
            }
        }
    }

    #[test]
    fn sums_saturate() {
        assert_eq!(
            [Lag(u64::MAX), Lag(7)].into_iter().sum::<Lag>(),
            Lag(u64::MAX)
        );
    }
}
