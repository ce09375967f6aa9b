//! Durations for people, short enough for a column of a table.

use std::time::Duration;

/// Units of time, the largest first, in seconds.
const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];

/// Formats a duration in its two largest units, rounded up to seconds: `42s`, `1m33s`, `2h`, `3d4h`.
#[must_use]
pub fn short_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        rest = rest.saturating_add(1);
    }
    let Some(first) = UNITS.iter().position(|(seconds, _)| rest >= *seconds) else {
        return "0s".to_owned();
    };
    let mut text = String::new();
    for (seconds, name) in UNITS.iter().skip(first).take(2) {
        let count = rest.checked_div(*seconds).unwrap_or(0);
        rest = rest.checked_rem(*seconds).unwrap_or(0);
        if count > 0 {
            text += &format!("{count}{name}");
        }
    }
    text
}

/// Formats the age of the oldest unread message, as [`short_duration`] does. A lower bound begins with `>`. `None` for
/// a lower bound of less than a second, which says nothing.
#[must_use]
pub fn short_lag_age(age: Duration, is_lower_bound: bool) -> Option<String> {
    match is_lower_bound {
        true if age < Duration::from_secs(1) => None,
        true => Some(format!(">{}", short_duration(age))),
        false => Some(short_duration(age)),
    }
}

/// A number of seconds as a duration; the longest one if it is too large.
#[must_use]
pub fn from_seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_two_largest_units() {
        for (millis, expected) in [
            (0, "0s"),
            (1, "1s"),
            (42_000, "42s"),
            (93_000, "1m33s"),
            (600_000, "10m"),
            (3_600_000, "1h"),
            (3_599_001, "1h"),
            (7_325_000, "2h2m"),
            (86_405_000, "1d"),
            (273_600_000, "3d4h"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(short_duration(duration), expected, "{millis}");
        }
        assert_eq!(short_duration(Duration::MAX), "213503982334601d7h");
    }
}
