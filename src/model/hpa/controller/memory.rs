//! One sync of the controller, with the recommendations and scale events it keeps between syncs.

use std::time::Duration;

use serde::Serialize;

use super::policies::{ScaleEvent, ScaleEvents, default_up_limit};
use super::stage::{Proposal, Verdict, proposals, verdict};
use super::{
    Behavior, DEFAULT_DOWNSCALE_STABILISATION, HpaSpec, ObservedScale, ScalingRules, SyncCase, case,
};

/// The limit that bounded the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// No limit.
    No,
    /// Rate limit of scaling up.
    ScaleUpLimit,
    /// Rate limit of scaling down.
    ScaleDownLimit,
    /// `maxReplicas`.
    TooManyReplicas,
    /// `minReplicas`.
    TooFewReplicas,
}

/// Result of one sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Part of the controller that decided.
    pub case: SyncCase,
    /// Proposal of each metric; empty if the metrics were not read.
    pub proposals: Vec<Proposal>,
    /// Result of the metric stage; `None` if the metrics were not read.
    pub verdict: Option<Verdict>,
    /// The number after stabilisation; `None` if there is none.
    pub stabilised: Option<u32>,
    /// Replicas after the sync; `None` if a metric is unknown here.
    pub replicas: Option<u32>,
    /// The limit that bounded them.
    pub limited: Limited,
}

/// State that the controller keeps of one HPA. All times are of the same arbitrary clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recommendations {
    /// Recommendations with their times, in the order of the controller; `None` before the first sync.
    recommendations: Option<Vec<(Duration, u32)>>,
    ups: Vec<ScaleEvent>,
    downs: Vec<ScaleEvent>,
}

impl Recommendations {
    /// Runs one sync at `now` whose write succeeds (`reconcileAutoscaler`).
    pub fn sync(&mut self, spec: &HpaSpec, seen: &ObservedScale, now: Duration) -> Sync {
        let current = seen.spec_replicas;
        // For a new HPA the controller records the current replicas as the first recommendation.
        self.recommendations
            .get_or_insert_with(|| vec![(now, current)]);
        let case = case(spec, seen);
        let plain = |replicas, limited| Sync {
            case,
            proposals: Vec::new(),
            verdict: None,
            stabilised: None,
            replicas: Some(replicas),
            limited,
        };
        let sync = match case {
            SyncCase::Disabled => plain(0, Limited::No),
            SyncCase::AboveMax => plain(spec.max, Limited::TooManyReplicas),
            SyncCase::BelowMin => plain(spec.min, Limited::TooFewReplicas),
            SyncCase::Metrics => self.by_metrics(spec, seen, now),
        };
        if let (Some(behavior), Some(replicas)) = (&spec.behavior, sync.replicas) {
            self.store(behavior, current, replicas, now);
        }
        sync
    }

    fn by_metrics(&mut self, spec: &HpaSpec, seen: &ObservedScale, now: Duration) -> Sync {
        let current = seen.spec_replicas;
        let proposals = proposals(spec, seen);
        let verdict = verdict(&proposals, current);
        let Verdict::Wants { replicas, .. } = verdict else {
            return Sync {
                case: SyncCase::Metrics,
                proposals,
                verdict: Some(verdict),
                stabilised: None,
                replicas: (verdict == Verdict::Frozen).then_some(current),
                limited: Limited::No,
            };
        };
        let (stabilised, (bounded, limited)) = match &spec.behavior {
            None => {
                let stabilised = self.stabilise(replicas, now);
                (stabilised, bounded(spec, current, stabilised))
            }
            Some(behavior) => {
                let stabilised = self.stabilise_by(behavior, current, replicas, now);
                let events = ScaleEvents {
                    ups: &self.ups,
                    downs: &self.downs,
                };
                let limits = Limits::new(behavior, events, current, now);
                (stabilised, limits.bounded(spec, current, stabilised))
            }
        };
        Sync {
            case: SyncCase::Metrics,
            proposals,
            verdict: Some(verdict),
            stabilised: Some(stabilised),
            replicas: Some(from_zero(spec, seen, bounded)),
            limited,
        }
    }

    /// Largest recommendation within the default window (`stabilizeRecommendation`).
    fn stabilise(&mut self, wanted: u32, now: Duration) -> u32 {
        let all = self.recommendations.get_or_insert_default();
        let mut most = wanted;
        let mut old = None;
        for (place, (at, replicas)) in all.iter().enumerate() {
            if at.saturating_add(DEFAULT_DOWNSCALE_STABILISATION) < now {
                old = Some(place);
            } else {
                most = most.max(*replicas);
            }
        }
        put(all, old, (now, wanted));
        most
    }

    /// Current replicas, clamped between the lowest recommendation of the scale-up window and the highest
    /// of the scale-down window (`stabilizeRecommendationWithBehaviors`).
    fn stabilise_by(
        &mut self,
        behavior: &Behavior,
        current: u32,
        wanted: u32,
        now: Duration,
    ) -> u32 {
        let all = self.recommendations.get_or_insert_default();
        let (up, down) = (behavior.up.window(), behavior.down.window());
        let (mut lowest, mut highest) = (wanted, wanted);
        let mut old = None;
        for (place, (at, replicas)) in all.iter().enumerate() {
            if at.saturating_add(up) > now {
                lowest = lowest.min(*replicas);
            }
            if at.saturating_add(down) > now {
                highest = highest.max(*replicas);
            }
            if at.saturating_add(up.max(down)) < now {
                old = Some(place);
            }
        }
        put(all, old, (now, wanted));
        current.max(lowest).min(highest)
    }

    /// Records a change for the longest period of the policies (`storeScaleEvent`).
    fn store(&mut self, behavior: &Behavior, before: u32, after: u32, now: Duration) {
        let (events, rules): (_, &ScalingRules) = match after.cmp(&before) {
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => (&mut self.ups, &behavior.up),
            std::cmp::Ordering::Less => (&mut self.downs, &behavior.down),
        };
        let mut old = None;
        for (place, event) in events.iter_mut().enumerate() {
            event.outdated |= event.at.saturating_add(rules.longest_period()) < now;
            if event.outdated {
                old = Some(place);
            }
        }
        let event = ScaleEvent {
            at: now,
            change: after.abs_diff(before),
            outdated: false,
        };
        put(events, old, event);
    }
}

/// Replaces the outdated element, or appends.
fn put<T>(all: &mut Vec<T>, old: Option<usize>, new: T) {
    match old.and_then(|place| all.get_mut(place)) {
        Some(place) => *place = new,
        None => all.push(new),
    }
}

/// Limits of an HPA without `behavior` (`convertDesiredReplicasWithRules`).
pub(super) fn bounded(spec: &HpaSpec, current: u32, wanted: u32) -> (u32, Limited) {
    let limit = default_up_limit(current);
    if wanted < spec.min {
        (spec.min, Limited::TooFewReplicas)
    } else if wanted > spec.max.min(limit) {
        let limited = match spec.max > limit {
            true => Limited::ScaleUpLimit,
            false => Limited::TooManyReplicas,
        };
        (spec.max.min(limit), limited)
    } else {
        (wanted, Limited::No)
    }
}

/// Largest and smallest number of replicas that the policies allow at one sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) up: u32,
    pub(super) down: u32,
}

impl Limits {
    pub(super) fn new(
        behavior: &Behavior,
        events: ScaleEvents<'_>,
        current: u32,
        now: Duration,
    ) -> Self {
        Self {
            up: events.up_limit(&behavior.up, current, now),
            down: events.down_limit(&behavior.down, current, now),
        }
    }

    /// Applies the limits of `behavior` (`convertDesiredReplicasWithBehaviorRate`).
    pub(super) fn bounded(self, spec: &HpaSpec, current: u32, wanted: u32) -> (u32, Limited) {
        if wanted > current && wanted > spec.max.min(self.up) {
            let limited = match spec.max > self.up {
                true => Limited::ScaleUpLimit,
                false => Limited::TooManyReplicas,
            };
            return (spec.max.min(self.up), limited);
        }
        if wanted < current && wanted < spec.min.max(self.down) {
            let limited = match spec.min < self.down {
                true => Limited::ScaleDownLimit,
                false => Limited::TooFewReplicas,
            };
            return (spec.min.max(self.down), limited);
        }
        (wanted, Limited::No)
    }
}

/// A workload that wakes from zero starts with at least `minReplicas`.
pub(super) fn from_zero(spec: &HpaSpec, seen: &ObservedScale, replicas: u32) -> u32 {
    match seen.spec_replicas == 0 && seen.scaled_to_zero {
        true => replicas.max(spec.min),
        false => replicas,
    }
}
