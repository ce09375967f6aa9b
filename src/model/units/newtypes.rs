//! Newtypes for names, offsets, lag, replicas and times, so that none is mistaken for another.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::untrusted_text::Printable;

/// A shared, immutable name: cloning one costs a reference count, not a copy.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq)]
        pub struct $name(Arc<str>);

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // Equal names are usually clones of one `Arc`, so that comparing pointers suffices.
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.0.cmp(&other.0)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $name {
            /// The name as text.
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

        /// For people: see [`Printable`]. For requests and keys use `as_str`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Printable::name(&self.0).fmt(f)
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

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
    };
}

name_type! {
    /// Name of a Kafka cluster in the configuration.
    ClusterName
}
name_type! {
    /// A consumer group's `group.id`.
    GroupId
}
name_type! {
    /// Name of a topic.
    TopicName
}

/// A partition's number within its topic, from 0, as on the wire.
pub type Partition = i32;

/// An offset in a partition's log. Signed, as on the wire. The protocol's special values (-1, -2, -1001)
/// never get here: they become `None` or a fault where a response is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Offset(pub i64);

impl Offset {
    /// Number of messages from `earlier` up to this offset; `None` if `earlier` is larger.
    #[must_use]
    pub fn distance_from(self, earlier: Offset) -> Option<Lag> {
        if self.0 < earlier.0 {
            return None;
        }
        // The distance of two i64 always fits into u64.
        Some(Lag(self.0.abs_diff(earlier.0)))
    }

    /// The offset this number of messages after it. Saturating.
    #[must_use]
    pub fn after(self, messages: Lag) -> Self {
        Self(self.0.saturating_add_unsigned(messages.0))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lag in messages. Made by checked subtraction of offsets; sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Lag(pub u64);

impl Lag {
    /// Saturating sum. A sum that wraps around could become zero and remove all replicas.
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

/// Where consumers start on a partition without a committed offset: the client setting
/// `auto.offset.reset`, which brokers do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetReset {
    /// At the log end, the default of every client.
    #[default]
    Latest,
    /// At the log start.
    Earliest,
}

/// Up to which offset consumers read: the client setting `isolation.level`, which brokers do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Up to the high watermark, the default of every client.
    #[default]
    ReadUncommitted,
    /// Up to the last stable offset, which is where the first open transaction starts.
    ReadCommitted,
}

/// Topic ID (KIP-516). A topic that is deleted and created again gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

/// Number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replicas(pub u32);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time on both clocks: the monotonic clock for durations, the wall clock for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For durations; unaffected by clock changes.
    pub monotonic: Instant,
    /// For display and timestamps.
    pub wall: SystemTime,
}

impl Moment {
    /// Time since `earlier`; zero if `earlier` is later.
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
