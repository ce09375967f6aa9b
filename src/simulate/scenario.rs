//! A scenario: what arrives, who consumes, and what goes wrong.

use std::borrow::Cow;
use std::sync::Arc;

use super::arrivals::Arrivals;
use super::numbers::whole;

/// One part of the arrival rate. The rate is the sum of the parts, times the noise.
#[derive(Clone, Debug, PartialEq)]
pub enum RatePart {
    /// A rate that stays the same.
    Constant(f64),
    /// `low` at the beginning, `high` after half a period, and back.
    Wave { low: f64, high: f64, period: f64 },
    /// A rate from one time to another, with linear ramps within that time.
    Pulse {
        rate: f64,
        from: f64,
        until: f64,
        ramp: f64,
    },
    /// A rate that rises from `low` to `high` within each period and falls back at once.
    Sawtooth { low: f64, high: f64, period: f64 },
}

impl RatePart {
    /// Messages per second at a time in seconds.
    #[must_use]
    pub fn at(&self, time: f64) -> f64 {
        match *self {
            RatePart::Constant(rate) => rate,
            RatePart::Wave { low, high, period } => {
                let turn = (time / period * std::f64::consts::TAU).cos();
                low + (high - low) * (1.0 - turn) / 2.0
            }
            RatePart::Pulse {
                rate,
                from,
                until,
                ramp,
            } => {
                let rise = (time - from) / ramp.max(1e-9);
                let fall = (until - time) / ramp.max(1e-9);
                rate * rise.min(fall).clamp(0.0, 1.0)
            }
            RatePart::Sawtooth { low, high, period } => {
                low + (high - low) * (time / period).fract()
            }
        }
    }
}

impl RatePart {
    /// Multiplies the rate.
    pub fn scale(&mut self, factor: f64) {
        match self {
            RatePart::Constant(rate) | RatePart::Pulse { rate, .. } => *rate *= factor,
            RatePart::Wave { low, high, .. } | RatePart::Sawtooth { low, high, .. } => {
                *low *= factor;
                *high *= factor;
            }
        }
    }
}

/// How many replicas there are at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartReplicas {
    One,
    /// Half as many as partitions.
    Half,
    /// As many as partitions.
    All,
    Count(u32),
}

/// How the group moves partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// All members stop.
    Eager,
    /// Only moved partitions stop.
    Cooperative,
}

/// A simulated workload. Times in seconds, rates in messages per second.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Name on the command line.
    pub name: Cow<'static, str>,
    /// Description in a few words.
    pub about: Cow<'static, str>,
    pub duration: u32,
    /// Partitions at the end.
    pub partitions: u32,
    /// Partitions before a time.
    pub fewer_partitions: Option<(u32, u32)>,
    pub rate: Vec<RatePart>,
    /// Noise: the rate of each block of this number of seconds is multiplied by 1 ± part.
    pub noise: Option<(f64, u32)>,
    /// Share of the first partition in the arrivals, if it is hot.
    pub hot: Option<f64>,
    /// Standard deviation of the logarithm of the shares of partitions.
    pub skew: f64,
    /// Messages per second that one consumer processes.
    pub capacity: f64,
    /// Consumers differ by up to this part of the capacity.
    pub capacity_spread: f64,
    /// A factor on the capacity from a time on.
    pub capacity_change: Option<(u32, f64)>,
    /// Nothing is processed from one time to another.
    pub outage: Option<(u32, u32)>,
    /// The whole group processes at most so much from one time to another.
    pub downstream: Option<(u32, u32, f64)>,
    /// The first partition's consumers fail at a message from a time on.
    pub poison: Option<u32>,
    /// All pods are replaced from a time on.
    pub deploy: Option<u32>,
    /// Polls fail: from, until.
    pub gaps: Vec<(u32, u32)>,
    /// Part of the polls that fail besides.
    pub missing: f64,
    pub commit_interval: u32,
    /// Whether members commit when partitions are revoked.
    pub commits_on_revoke: bool,
    pub start_replicas: StartReplicas,
    /// Shortest and longest time from a new pod until it joins the group.
    pub start_up: (u32, u32),
    pub protocol: RebalanceProtocol,
    /// Mean time that an eager rebalance stops the group, and a cooperative one the moved partitions.
    pub pause: (u32, u32),
    pub slo: u32,
    pub poll: u32,
    /// Arrivals that were recorded, instead of those drawn from the rate.
    pub recorded: Option<Arc<Arrivals>>,
}

impl Scenario {
    /// A scenario of three hours with 24 partitions and 100 messages per second and consumer, which starts with one
    /// replica.
    #[must_use]
    pub fn new(name: &'static str, about: &'static str, rate: Vec<RatePart>) -> Self {
        Self {
            name: Cow::Borrowed(name),
            about: Cow::Borrowed(about),
            duration: 3 * 3600,
            partitions: 24,
            fewer_partitions: None,
            rate,
            noise: None,
            hot: None,
            skew: 0.0,
            capacity: 100.0,
            capacity_spread: 0.0,
            capacity_change: None,
            outage: None,
            downstream: None,
            poison: None,
            deploy: None,
            gaps: Vec::new(),
            missing: 0.0,
            commit_interval: 5,
            commits_on_revoke: true,
            // So that each policy has to find the right number itself.
            start_replicas: StartReplicas::One,
            start_up: (30, 40),
            protocol: RebalanceProtocol::Eager,
            pause: (6, 3),
            slo: 60,
            poll: 5,
            recorded: None,
        }
    }

    /// The same with another number of partitions, and arrivals in proportion.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        let ratio = f64::from(partitions) / f64::from(self.partitions.max(1));
        let scale = |count: u32| whole((f64::from(count) * ratio).round()).max(1);
        self.fewer_partitions = self
            .fewer_partitions
            .map(|(until, fewer)| (until, scale(fewer)));
        self.downstream = self
            .downstream
            .map(|(from, until, rate)| (from, until, rate * ratio));
        self.partitions = partitions;
        for part in &mut self.rate {
            part.scale(ratio);
        }
        self
    }

    /// Partitions at a time.
    #[must_use]
    pub fn partitions_at(&self, time: u32) -> u32 {
        match self.fewer_partitions {
            Some((until, fewer)) if time < until => fewer,
            _ => self.partitions,
        }
    }

    /// Replicas at the beginning.
    #[must_use]
    pub fn first_replicas(&self) -> u32 {
        let partitions = self.partitions_at(0);
        match self.start_replicas {
            StartReplicas::One => 1,
            StartReplicas::Half => partitions.div_ceil(2),
            StartReplicas::All => partitions,
            StartReplicas::Count(replicas) => replicas,
        }
    }

    /// The most messages per second that all consumers process together; `None` if nothing downstream limits them.
    pub(super) fn downstream_limit(&self, time: u32) -> Option<f64> {
        let (from, until, rate) = self.downstream?;
        (from..until).contains(&time).then_some(rate)
    }

    pub(super) fn is_out(&self, time: u32) -> bool {
        self.outage
            .is_some_and(|(from, until)| (from..until).contains(&time))
    }

    pub(super) fn is_poisoned(&self, time: u32, partition: usize) -> bool {
        partition == 0 && self.poison.is_some_and(|from| time >= from)
    }

    pub(super) fn capacity_factor(&self, time: u32) -> f64 {
        match self.capacity_change {
            Some((from, factor)) if time >= from => factor,
            _ => 1.0,
        }
    }
}
