//! Predicts the next sync of an HPA from a single observation: a number of replicas, or a range with the
//! reasons for the uncertainty.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::memory::{Limits, bounded, from_zero};
use super::policies::ScaleEvents;
use super::stage::{Proposal, Verdict, proposals, verdict};
use super::{Behavior, HpaSpec, ObservedScale, ScalingRules, Select, SyncCase, case};

/// Range of replicas; both ends are equal if the number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Smallest possible number.
    pub low: u32,
    /// Largest possible number.
    pub high: u32,
}

impl Range {
    /// The range of a known number.
    #[must_use]
    pub fn exactly(replicas: u32) -> Self {
        Self {
            low: replicas,
            high: replicas,
        }
    }

    /// The number, if it is known.
    #[must_use]
    pub fn known(self) -> Option<u32> {
        (self.low == self.high).then_some(self.low)
    }

    /// Whether the range contains a number.
    #[must_use]
    pub fn has(self, replicas: u32) -> bool {
        (self.low..=self.high).contains(&replicas)
    }

    fn or(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }
}

/// Facts about earlier syncs from the status of an HPA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownHistory {
    /// Time since it last changed the replicas; `None` if it never did.
    pub since_scaled: Option<Duration>,
    /// Highest recommendation within the stabilisation window. Known only if the last sync was limited by
    /// nothing else, so that its result is that recommendation.
    pub highest: Option<u32>,
}

/// Reason for a range instead of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownHistory {
    /// Metrics that are unknown here may propose more replicas or fail.
    OtherMetrics,
    /// The lowest recommendation of the scale-up window is unknown.
    LowestRecommendation,
    /// The highest recommendation of the scale-down window is unknown.
    HighestRecommendation,
    /// Changes within the periods of the policies are unknown.
    RecentChanges,
}

/// Prediction of the next sync, if nothing that it observes changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// Part of the controller that decides.
    pub case: SyncCase,
    /// Proposal of each metric.
    pub proposals: Vec<Proposal>,
    /// Result of the metric stage; `None` if the metrics are not read.
    pub verdict: Option<Verdict>,
    /// The replicas that it sets.
    pub replicas: Range,
    /// Why `replicas` is a range; empty if it is a number.
    pub open: BTreeSet<UnknownHistory>,
}

/// Predicts the next sync from the HPA's spec, the observed replicas and metrics, and what its status reveals about
/// earlier syncs.
#[must_use]
pub fn predict_sync(spec: &HpaSpec, seen: &ObservedScale, past: &KnownHistory) -> Outlook {
    let current = seen.spec_replicas;
    let case = case(spec, seen);
    let plain = |replicas| Outlook {
        case,
        proposals: Vec::new(),
        verdict: None,
        replicas: Range::exactly(replicas),
        open: BTreeSet::new(),
    };
    match case {
        SyncCase::Disabled => return plain(0),
        SyncCase::AboveMax => return plain(spec.max),
        SyncCase::BelowMin => return plain(spec.min),
        SyncCase::Metrics => {}
    }
    let proposals = proposals(spec, seen);
    let verdict = verdict(&proposals, current);
    let mut open = BTreeSet::new();
    let mut reach = |wanted| reach(spec, seen, past, wanted, &mut open);
    let replicas = match verdict {
        Verdict::Wants { replicas, .. } => reach(replicas),
        Verdict::Frozen => Range::exactly(current),
        Verdict::AtLeast {
            replicas,
            may_freeze,
        } => {
            let any = reach(replicas).or(reach(u32::MAX));
            if may_freeze {
                any.or(Range::exactly(current))
            } else {
                any
            }
        }
    };
    if matches!(verdict, Verdict::AtLeast { .. }) {
        open.insert(UnknownHistory::OtherMetrics);
    }
    if replicas.known().is_some() {
        // The unknowns make no difference to the result.
        open.clear();
    }
    Outlook {
        case,
        proposals,
        verdict: Some(verdict),
        replicas,
        open,
    }
}

/// Range of the replicas that the controller may set if the metrics propose `wanted`, with the unknowns added to
/// `open`.
fn reach(
    spec: &HpaSpec,
    seen: &ObservedScale,
    past: &KnownHistory,
    wanted: u32,
    open: &mut BTreeSet<UnknownHistory>,
) -> Range {
    let current = seen.spec_replicas;
    let (low, high) = match &spec.behavior {
        None => {
            let highest = past.highest.unwrap_or(u32::MAX).max(wanted);
            if highest > wanted {
                open.insert(UnknownHistory::HighestRecommendation);
            }
            let bounded = |wanted| bounded(spec, current, wanted).0;
            (bounded(wanted), bounded(highest))
        }
        Some(behavior) => {
            let (low, high) = stabilised(behavior, current, wanted, open);
            let rules = match wanted > current {
                true => &behavior.up,
                false => &behavior.down,
            };
            let limits = limits(behavior, rules, past, current);
            let least = limits.unwrap_or(Limits {
                up: current,
                down: current,
            });
            let most = limits.unwrap_or(Limits {
                up: allowed(&behavior.up, current, u32::MAX),
                down: allowed(&behavior.down, current, 0),
            });
            if limits.is_none() && wanted != current {
                open.insert(UnknownHistory::RecentChanges);
            }
            // The smaller limit gives fewer replicas when scaling up, and more when scaling down.
            let ends = |wanted| {
                let of = |limits: Limits| limits.bounded(spec, current, wanted).0;
                (of(least).min(of(most)), of(least).max(of(most)))
            };
            (ends(low).0, ends(high).1)
        }
    };
    Range {
        low: from_zero(spec, seen, low),
        high: from_zero(spec, seen, high),
    }
}

/// Range after stabilisation: between the current and the proposed number, or exactly the proposed one if
/// the window is zero.
fn stabilised(
    behavior: &Behavior,
    current: u32,
    wanted: u32,
    open: &mut BTreeSet<UnknownHistory>,
) -> (u32, u32) {
    if wanted > current && !behavior.up.window().is_zero() {
        open.insert(UnknownHistory::LowestRecommendation);
        (current, wanted)
    } else if wanted < current && !behavior.down.window().is_zero() {
        open.insert(UnknownHistory::HighestRecommendation);
        (wanted, current)
    } else {
        (wanted, wanted)
    }
}

/// Limits of the policies, if no change happened within their periods; otherwise unknown.
fn limits(
    behavior: &Behavior,
    rules: &ScalingRules,
    past: &KnownHistory,
    current: u32,
) -> Option<Limits> {
    // The status has a resolution of one second.
    let longest = rules
        .longest_period()
        .saturating_add(Duration::from_secs(1));
    let none = ScaleEvents {
        ups: &[],
        downs: &[],
    };
    past.since_scaled
        .is_none_or(|since| since > longest)
        .then(|| Limits::new(behavior, none, current, Duration::ZERO))
}

/// The farthest number that the rules of a direction may allow: `most`, or the current one if the direction is
/// disabled.
fn allowed(rules: &ScalingRules, current: u32, most: u32) -> u32 {
    match rules.select {
        Select::Disabled => current,
        Select::Max | Select::Min => most,
    }
}
