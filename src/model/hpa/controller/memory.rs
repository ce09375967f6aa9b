//! What the controller remembers of an HPA from sync to sync, and what it decides with it.

use std::time::Duration;

use serde::Serialize;

use super::policies::{ScaleEvent, ScaleEvents, default_up_limit};
use super::stage::{Proposal, Verdict, proposals, verdict};
use super::{Behavior, Case, DOWNSCALE_STABILISATION, HpaSpec, ObservedScale, ScalingRules, case};

/// What bounded the number that the metrics want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// Nothing.
    No,
    /// As fast as replicas may grow.
    ScaleUpLimit,
    /// As fast as replicas may shrink.
    ScaleDownLimit,
    /// `maxReplicas`.
    TooManyReplicas,
    /// `minReplicas`.
    TooFewReplicas,
}

/// What one sync came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Which part decided.
    pub case: Case,
    /// What each metric proposed; none where the metrics were not asked.
    pub proposals: Vec<Proposal>,
    /// What they came to; `None` where they were not asked.
    pub verdict: Option<Verdict>,
    /// That number after stabilisation; `None` where there is none.
    pub stabilised: Option<u32>,
    /// The replicas that there are to be now; `None` where a metric is not known here.
    pub replicas: Option<u32>,
    /// What bounded them.
    pub limited: Limited,
}

/// What the controller remembers of one HPA. Times are of any one clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recommendations {
    /// What was wanted and when, in the controller's own order; `None` before the first sync.
    recommendations: Option<Vec<(Duration, u32)>>,
    ups: Vec<ScaleEvent>,
    downs: Vec<ScaleEvent>,
}

impl Recommendations {
    /// One sync at `now`, whose write succeeds (`reconcileAutoscaler`).
    pub fn sync(&mut self, spec: &HpaSpec, seen: &ObservedScale, now: Duration) -> Sync {
        let current = seen.spec_replicas;
        // A controller that knows nothing of the HPA takes its present size for wanted.
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
            Case::Disabled => plain(0, Limited::No),
            Case::AboveMax => plain(spec.max, Limited::TooManyReplicas),
            Case::BelowMin => plain(spec.min, Limited::TooFewReplicas),
            Case::Metrics => self.by_metrics(spec, seen, now),
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
                case: Case::Metrics,
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
                let limits = Limits::of(behavior, events, current, now);
                (stabilised, limits.bounded(spec, current, stabilised))
            }
        };
        Sync {
            case: Case::Metrics,
            proposals,
            verdict: Some(verdict),
            stabilised: Some(stabilised),
            replicas: Some(from_zero(spec, seen, bounded)),
            limited,
        }
    }

    /// The largest recommendation of the controller's own window (`stabilizeRecommendation`).
    fn stabilise(&mut self, wanted: u32, now: Duration) -> u32 {
        let all = self.recommendations.get_or_insert_default();
        let mut most = wanted;
        let mut old = None;
        for (place, (at, replicas)) in all.iter().enumerate() {
            if at.saturating_add(DOWNSCALE_STABILISATION) < now {
                old = Some(place);
            } else {
                most = most.max(*replicas);
            }
        }
        put(all, old, (now, wanted));
        most
    }

    /// What there is, brought between the lowest recommendation of the window upwards and the highest
    /// of the one downwards (`stabilizeRecommendationWithBehaviors`).
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

    /// Keeps what a sync changed for as long as a policy may ask (`storeScaleEvent`).
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

/// In the place of what is too old, or else at the end.
fn put<T>(all: &mut Vec<T>, old: Option<usize>, new: T) {
    match old.and_then(|place| all.get_mut(place)) {
        Some(place) => *place = new,
        None => all.push(new),
    }
}

/// Bounds without behavior (`convertDesiredReplicasWithRules`).
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

/// How far the policies let one sync go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) up: u32,
    pub(super) down: u32,
}

impl Limits {
    pub(super) fn of(
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

    /// Bounds by behavior (`convertDesiredReplicasWithBehaviorRate`).
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

/// What wakes from zero wakes to `minReplicas` at least.
pub(super) fn from_zero(spec: &HpaSpec, seen: &ObservedScale, replicas: u32) -> u32 {
    match seen.spec_replicas == 0 && seen.scaled_to_zero {
        true => replicas.max(spec.min),
        false => replicas,
    }
}
