//! `poll`: how often Kafka is read, and how old the lag may be that is served.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::schema::{duration_schema, serialize_duration};
use super::section::Section;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(60 * 60);
const MIN_DEADLINE: Duration = Duration::from_millis(10);
const DEFAULT_STALENESS: Duration = Duration::from_secs(30);
const MAX_STALENESS: Duration = Duration::from_secs(24 * 60 * 60);

/// How often Kafka is read, and how old the lag may be that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct PollConfig {
    /// Time from the start of one sweep (a reading of all groups) to the start of the next: 100ms to 1h.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Duration,
    /// Time limit of one sweep: 10ms to the interval. Data that has not arrived by then is unknown in this
    /// sweep. Default: four fifths of the interval.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub deadline: Duration,
    /// Age from which lag is no longer served: the sum of interval and deadline, to 24h. The metric is then
    /// an error, and the HPA keeps its replicas. Default: six intervals, but at least 30s.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub max_staleness: Duration,
}

impl Default for PollConfig {
    fn default() -> Self {
        Self::every(DEFAULT_INTERVAL)
    }
}

impl PollConfig {
    /// This interval, with the defaults of deadline and staleness that follow from it, so that changing the
    /// interval alone does not make the others invalid.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            deadline: interval.saturating_mul(4) / 5,
            max_staleness: DEFAULT_STALENESS.max(interval.saturating_mul(6)),
        }
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let interval_field = section.get("interval");
        let interval_given = interval_field.is_some();
        let interval =
            interval_field.and_then(|field| field.duration((MIN_INTERVAL, ""), (MAX_INTERVAL, "")));
        let mut poll = Self::every(interval.unwrap_or(DEFAULT_INTERVAL));
        // If the interval is invalid, the other two cannot be checked against it.
        let is_known = interval.is_some() || !interval_given;
        let longest_deadline = if is_known {
            (poll.interval, " (poll.interval)")
        } else {
            (MAX_INTERVAL, "")
        };
        let deadline = section
            .get("deadline")
            .and_then(|field| field.duration((MIN_DEADLINE, ""), longest_deadline));
        // A reading reaches this age before the next sweep replaces it.
        let healthy = poll
            .interval
            .saturating_add(deadline.unwrap_or(poll.deadline));
        let shortest_staleness = if is_known {
            (healthy, " (poll.interval and poll.deadline together)")
        } else {
            (MIN_INTERVAL, "")
        };
        let max_staleness = section
            .get("max_staleness")
            .and_then(|field| field.duration(shortest_staleness, (MAX_STALENESS, "")));
        poll.deadline = deadline.unwrap_or(poll.deadline);
        poll.max_staleness = max_staleness.unwrap_or(poll.max_staleness);
        section.finish();
        poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_interval_and_stay_in_bounds() {
        let seconds = Duration::from_secs;
        let poll = PollConfig::default();
        assert_eq!(
            (poll.interval, poll.deadline, poll.max_staleness),
            (seconds(5), seconds(4), seconds(30))
        );
        for interval in [MIN_INTERVAL, seconds(1), seconds(60), MAX_INTERVAL] {
            let poll = PollConfig::every(interval);
            assert!(poll.deadline >= MIN_DEADLINE && poll.deadline <= interval);
            assert!(poll.max_staleness >= interval + poll.deadline);
            assert!(poll.max_staleness <= MAX_STALENESS);
        }
    }
}
