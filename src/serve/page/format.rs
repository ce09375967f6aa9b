//! Numbers for people.

use std::time::Duration;

use crate::model::diagnostics::hpa_status::HpaStatus;
use crate::model::evaluation::parallelism::Limit;
use crate::model::units::short_duration::{short_duration, short_lag_age};

/// Text for an unknown value.
pub(super) const UNKNOWN: &str = "–";

/// A count with thin spaces between thousands, as `12 345`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The length of a list, as [`count`].
pub(super) fn size(length: usize) -> String {
    count(u64::try_from(length).unwrap_or(u64::MAX))
}

/// A number of partitions, as `1 partition`.
pub(super) fn partitions(count: usize) -> String {
    match count {
        1 => "1 partition".to_owned(),
        count => format!("{} partitions", size(count)),
    }
}

/// A count in at most five characters, as `12.3k`.
pub(crate) fn short_count(count: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    let Some((size, unit)) = UNITS.iter().find(|(size, _)| count >= *size) else {
        return count.to_string();
    };
    let (whole, tenths) = (count / size, count % size * 10 / size);
    match (whole, tenths) {
        (0..=99, 1..) => format!("{whole}.{tenths}{unit}"),
        _ => format!("{whole}{unit}"),
    }
}

pub(super) fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Messages per second, in three digits.
pub(super) fn rate(per_second: Option<f64>) -> String {
    or_unknown(per_second.map(|rate| match rate {
        rate if rate < 10.0 => format!("{rate:.1}/s"),
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is not negative, and the largest number will do for one beyond"
        )]
        rate => format!("{}/s", short_count(rate.round() as u64)),
    }))
}

/// Seconds with a fraction, rounded.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an age is not negative, and the largest number will do for one beyond"
)]
pub(crate) fn seconds_of(fractional: f64) -> String {
    seconds(fractional.round() as u64)
}

pub(super) fn seconds(seconds: u64) -> String {
    short_duration(Duration::from_secs(seconds))
}

/// Age of the oldest unread message. A lower bound of zero says nothing.
pub(super) fn behind(status: &HpaStatus) -> String {
    let age = status.lag_millis.map(Duration::from_millis);
    or_unknown(age.and_then(|age| short_lag_age(age, status.lag_millis_is_lower_bound)))
}

pub(super) fn limit(limit: Option<Limit>) -> String {
    or_unknown(limit.map(|limit| limit.to_string()))
}

pub(super) fn number(number: Option<u32>) -> String {
    or_unknown(number.map(|number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, long, short) in [
            (0, "0", "0"),
            (999, "999", "999"),
            (1_000, "1\u{202f}000", "1k"),
            (12_345, "12\u{202f}345", "12.3k"),
            (123_456, "123\u{202f}456", "123k"),
            (1_234_567, "1\u{202f}234\u{202f}567", "1.2M"),
        ] {
            assert_eq!(
                (count(number).as_str(), short_count(number).as_str()),
                (long, short)
            );
        }
        assert_eq!(short_count(u64::MAX), "18446P");
        assert_eq!(rate(Some(3.12)), "3.1/s");
        assert_eq!(rate(Some(31_400.4)), "31.4k/s");
        assert_eq!(rate(None), UNKNOWN);
    }
}
