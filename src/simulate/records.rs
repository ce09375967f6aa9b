//! Records of a run, if they are requested.

use serde::Serialize;

use super::numbers::to_float;
use super::trace::TraceSample;
use crate::model::hpa::controller::ObservedScale;
use crate::model::policy::decision::RateDecision;

/// What happened in one poll interval of a run.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// Seconds since the beginning.
    pub second: u32,
    /// Pods, those that start included.
    pub replicas: u32,
    pub members: u32,
    pub partitions: u32,
    /// Age of the oldest unprocessed message in seconds, stuck partitions excepted.
    pub age: u32,
    /// Messages per second that arrived and that were processed since the entry before.
    pub arrivals: f64,
    pub processed: f64,
    /// Messages per second that the members could process.
    pub capacity: f64,
    /// The decision of the rate policy, if there was one.
    pub decision: Option<RateDecision>,
}

/// One sync of the simulated HPA.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedSync {
    pub seen: ObservedScale,
    /// The replicas that it set, or left as they were.
    pub after: u32,
}

/// Records of a run; those that were not requested are empty.
#[derive(Clone, Debug, Default)]
pub struct RunRecords {
    /// One entry for each poll.
    pub timeline: Vec<TimelineEntry>,
    /// What Kafka says at each poll.
    pub trace: Vec<TraceSample>,
    /// The syncs of the HPA.
    pub syncs: Vec<SimulatedSync>,
    /// Arrived and processed since the last entry of the timeline.
    since_entry: (u64, u64),
}

impl RunRecords {
    /// Counts the messages of a second.
    pub(super) fn count_messages(&mut self, arrived: &[u32], processed: u64) {
        let arrived = arrived.iter().map(|messages| u64::from(*messages));
        self.since_entry.0 += arrived.sum::<u64>();
        self.since_entry.1 += processed;
    }

    /// Messages per second that arrived and that were processed since the last entry of the timeline.
    pub(super) fn take_rates(&mut self, now: u32) -> (f64, f64) {
        let since = self.timeline.last().map_or(0, |entry| entry.second + 1);
        let rate = |messages: u64| to_float(messages) / f64::from(now + 1 - since);
        let (arrived, processed) = std::mem::take(&mut self.since_entry);
        (rate(arrived), rate(processed))
    }
}
