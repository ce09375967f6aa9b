//! Numbers in single precision, where there are many and seven digits are enough.

/// Rounds to single precision.
#[allow(
    clippy::cast_possible_truncation,
    reason = "callers need no more than seven digits"
)]
#[must_use]
pub fn narrow(number: f64) -> f32 {
    number as f32
}
