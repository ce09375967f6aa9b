//! Times and numbers of the policy in compact form.

pub(super) use crate::model::units::single_precision::narrow as compact;

/// A time in tenths of a second on the policy's own timeline, which begins at its first reading. Four bytes, because
/// there are several for every partition. The range is 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PolicyTime(u32);

impl PolicyTime {
    /// The time this number of seconds after the beginning. Saturating.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded on both sides, and whole"
    )]
    pub(super) fn from_seconds(seconds: f64) -> Self {
        Self((seconds * 10.0).round().clamp(0.0, f64::from(u32::MAX)) as u32)
    }

    /// Seconds since an earlier time; 0 if it is not earlier.
    pub(super) fn since(self, earlier: Self) -> f64 {
        f64::from(self.tenths_since(earlier)) / 10.0
    }

    /// Tenths of a second since an earlier time; 0 if it is not earlier.
    pub(super) fn tenths_since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A count as a number to calculate with.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts of partitions, members and messages are far below 2^53"
)]
pub(super) fn from_count(count: usize) -> f64 {
    count as f64
}

/// A sum of 32-bit counters as a number to calculate with.
#[allow(
    clippy::cast_precision_loss,
    reason = "the sum of a few counters is below 2^53"
)]
pub(super) fn from_total(total: u64) -> f64 {
    total as f64
}

/// The difference of two offsets as a number to calculate with; 0 if it is negative.
#[allow(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than 53 bits"
)]
pub(super) fn messages_between(earlier: i64, later: i64) -> f64 {
    later.saturating_sub(earlier).max(0) as f64
}

/// A number of messages as a 32-bit counter. Saturating.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded on both sides"
)]
pub(super) fn to_counter(messages: f64) -> u32 {
    messages.clamp(0.0, f64::from(u32::MAX)) as u32
}
