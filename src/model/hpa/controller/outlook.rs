//! What an HPA will come to, as far as one look from outside can tell: a number, or the range that its
//! unknown memory leaves open, and why.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::memory::{Limits, bounded, from_zero};
use super::policies::ScaleEvents;
use super::stage::{Proposal, Verdict, proposals, verdict};
use super::{Behavior, Case, HpaSpec, ObservedScale, ScalingRules, Select, case};

/// From the fewest to the most replicas; alike where the number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The fewest.
    pub low: u32,
    /// The most.
    pub high: u32,
}

impl Range {
    /// A number that is known.
    #[must_use]
    pub fn exactly(replicas: u32) -> Self {
        Self {
            low: replicas,
            high: replicas,
        }
    }

    /// The number, where it is known.
    #[must_use]
    pub fn known(self) -> Option<u32> {
        (self.low == self.high).then_some(self.low)
    }

    /// Whether a number may be it.
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

/// What an HPA's status tells of the syncs before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownHistory {
    /// The time since it last changed the replicas; `None` where it never has.
    pub since_scaled: Option<Duration>,
    /// The highest recommendation of the controller's window, where its last sync says so: it was
    /// bounded by nothing but that.
    pub highest: Option<u32>,
}

/// Why a number is not known exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownHistory {
    /// Metrics that are not known here may want more, or be errors.
    OtherMetrics,
    /// The lowest recommendation of the window upwards.
    LowestRecommendation,
    /// The highest recommendation of the window downwards.
    HighestRecommendation,
    /// What the HPA added and removed within the periods of its policies.
    RecentChanges,
}

/// What an HPA will come to at its next sync, if what it sees stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// Which part of the controller decides.
    pub case: Case,
    /// What each metric proposes.
    pub proposals: Vec<Proposal>,
    /// What the metric stage comes to; `None` where the metrics are not asked.
    pub verdict: Option<Verdict>,
    /// The replicas that it sets.
    pub replicas: Range,
    /// What keeps that from being exact.
    pub open: BTreeSet<UnknownHistory>,
}

/// What an HPA will come to.
#[must_use]
pub fn outlook(spec: &HpaSpec, seen: &ObservedScale, past: &KnownHistory) -> Outlook {
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
        Case::Disabled => return plain(0),
        Case::AboveMax => return plain(spec.max),
        Case::BelowMin => return plain(spec.min),
        Case::Metrics => {}
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
        // What is not known makes no difference.
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

/// Where the number that the metrics want may end.
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
            // Upwards the least change is the fewest, downwards it is the most.
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

/// Between which numbers stabilisation may leave it: what there is and what is wanted, or exactly that
/// where the window is empty.
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

/// What the policies allow, where nothing happened that those of this direction would count.
fn limits(
    behavior: &Behavior,
    rules: &ScalingRules,
    past: &KnownHistory,
    current: u32,
) -> Option<Limits> {
    // The status tells whole seconds.
    let longest = rules
        .longest_period()
        .saturating_add(Duration::from_secs(1));
    let none = ScaleEvents {
        ups: &[],
        downs: &[],
    };
    past.since_scaled
        .is_none_or(|since| since > longest)
        .then(|| Limits::of(behavior, none, current, Duration::ZERO))
}

fn allowed(rules: &ScalingRules, current: u32, most: u32) -> u32 {
    match rules.select {
        Select::Disabled => current,
        Select::Max | Select::Min => most,
    }
}
