//! Enforces the cap: keeps an HPA's `spec.maxReplicas` at the smaller of the user's number and the replica
//! ceiling, so that no other metric of the HPA can exceed it.
//!
//! The user's number is never lost. It is kept in [`USER_MAX`] while the cap lowers the field. A change of
//! the field by anyone else becomes the user's new number, and [`release`] restores it. On clusters with
//! the admission policy `lagwise-cap`, the policy maintains [`USER_MAX`] at every write to the HPA and
//! lagwise writes only [`CEILING`]; elsewhere lagwise writes both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::enforceable::CompleteRead;
use crate::model::hpa::facts::{self, HpaFacts};
use crate::model::settings::annotation_keys::{CEILING, USER_MAX};
use crate::model::settings::cap_mode::NO_CEILING;

/// Complete reads in a row after which the ceiling may be lowered.
pub const LOWER_AFTER: u32 = 3;

/// Parses a number of replicas that lagwise wrote.
fn number(annotations: &BTreeMap<String, String>, key: &str) -> Option<u32> {
    let number: u32 = annotations.get(key)?.trim().parse().ok()?;
    (1..=NO_CEILING).contains(&number).then_some(number)
}

/// The fields of an HPA that the cap reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaFields {
    /// `spec.maxReplicas`.
    pub max: u32,
    /// `spec.minReplicas`; 1 if it is not set.
    pub min: u32,
    /// [`CEILING`].
    pub ceiling: Option<u32>,
    /// [`USER_MAX`].
    pub user: Option<u32>,
    /// The annotation `lagwise.dev/max-replicas`.
    pub explicit: Option<u32>,
}

impl HpaFields {
    /// Reads the fields of an HPA.
    #[must_use]
    pub fn of(hpa: &HpaFacts) -> Self {
        Self {
            max: hpa.max_replicas,
            min: facts::min_replicas(hpa),
            ceiling: number(&hpa.annotations, CEILING),
            user: number(&hpa.annotations, USER_MAX),
            explicit: facts::settings(hpa).max_replicas,
        }
    }

    /// Whether the cap has left an annotation on the HPA.
    #[must_use]
    pub fn is_annotated(self) -> bool {
        self.ceiling.is_some() || self.user.is_some()
    }

    /// The user's number cut to the ceiling. Never below `minReplicas`: the API server would reject that.
    fn capped(self, user: u32, ceiling: u32) -> u32 {
        user.min(ceiling.max(self.min))
    }

    /// The user's number: the annotation `lagwise.dev/max-replicas`, else the number remembered on the HPA or
    /// in `seen`, else the field itself.
    #[must_use]
    pub fn user_max(self, seen: Option<LastSeen>) -> u32 {
        let annotated = self.user.filter(|user| {
            let ceiling = self.ceiling.unwrap_or(NO_CEILING);
            self.max == self.capped(*user, ceiling)
        });
        // A user may have removed the annotations, or lowered `minReplicas`, which kept the field higher.
        let seen = seen
            .filter(|seen| seen.max == self.max && self.user.is_none_or(|user| user == seen.user));
        let remembered = annotated.or(seen.map(|seen| seen.user));
        self.explicit.or(remembered).unwrap_or(self.max)
    }

    /// The `maxReplicas` to remember for the next pass, with the user's number behind it.
    #[must_use]
    pub fn to_last_seen(self, before: Option<LastSeen>) -> LastSeen {
        LastSeen {
            max: self.max,
            user: self.user_max(before),
        }
    }
}

/// An HPA's `maxReplicas` as it was last seen, and the user's number behind it. A write that leaves the
/// field as it was does not change the user's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSeen {
    /// `spec.maxReplicas`.
    pub max: u32,
    /// The user's number.
    pub user: u32,
}

impl LastSeen {
    /// Whether the field was below the user's number.
    #[must_use]
    pub fn is_capped(self) -> bool {
        self.max != self.user
    }
}

/// Fields to write; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapPatch {
    /// `spec.maxReplicas`.
    pub max: Option<u32>,
    /// [`CEILING`].
    pub ceiling: Option<AnnotationChange>,
    /// [`USER_MAX`].
    pub user: Option<AnnotationChange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationChange<T = u32> {
    /// Set it to this value.
    Set(T),
    Remove,
}

impl CapPatch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing of the cap remains on the HPA after this patch.
    #[must_use]
    pub fn is_last(&self) -> bool {
        [self.ceiling, self.user].contains(&Some(AnnotationChange::Remove))
    }
}

/// Who maintains [`USER_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOwner {
    /// The admission policy, at every write to the HPA (Kubernetes 1.36 and later).
    Policy,
    /// lagwise, in the patch that changes the field.
    Lagwise,
}

/// The intended state of an HPA's `maxReplicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapTarget {
    /// Limit it to this ceiling.
    Hold(u32),
    /// Remove the cap.
    Release,
}

/// The intended state of the cap of an HPA, and the inputs of the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapGoal {
    pub target: CapTarget,
    /// The HPA as it was last seen.
    pub last_seen: Option<LastSeen>,
    pub owner: FieldOwner,
    /// Whether the API server refused the last attempt. Then the cap is not combined with other writes, which
    /// would fail with it.
    pub was_refused: bool,
}

impl CapGoal {
    /// The next patch of this HPA.
    #[must_use]
    pub fn patch(&self, hpa: HpaFields) -> CapPatch {
        match self.target {
            CapTarget::Hold(ceiling) => enforce(hpa, self.last_seen, ceiling, self.owner),
            CapTarget::Release => release(hpa, self.last_seen, self.owner).unwrap_or_default(),
        }
    }
}

/// The patch that enforces `ceiling`. `seen` is the state of the HPA in the last pass.
#[must_use]
pub fn enforce(
    live: HpaFields,
    seen: Option<LastSeen>,
    ceiling: u32,
    owner: FieldOwner,
) -> CapPatch {
    let annotation =
        |found: Option<u32>, goal| (found != Some(goal)).then_some(AnnotationChange::Set(goal));
    let user = live.user_max(seen);
    let capped = live.capped(user, ceiling);
    match owner {
        // Otherwise the policy would take the capped field for the user's number.
        FieldOwner::Policy if live.user_max(None) != user => CapPatch {
            max: Some(user),
            ceiling: annotation(live.ceiling, ceiling),
            user: None,
        },
        FieldOwner::Policy => CapPatch {
            // The policy acts only on writes. If the field is not capped yet, as on an HPA older than the
            // policy, writing the annotation again triggers it.
            ceiling: (live.ceiling != Some(ceiling) || live.max != capped)
                .then_some(AnnotationChange::Set(ceiling)),
            ..CapPatch::default()
        },
        FieldOwner::Lagwise => CapPatch {
            max: (live.max != capped).then_some(capped),
            ceiling: annotation(live.ceiling, ceiling),
            user: annotation(live.user, user),
        },
    }
}

/// The next patch that removes the cap from an HPA; `None` when nothing is left of it. The first patch
/// restores the field, while the user's number is still there; the second removes the annotations.
#[must_use]
pub fn release(live: HpaFields, seen: Option<LastSeen>, owner: FieldOwner) -> Option<CapPatch> {
    let user = live.user_max(seen);
    if live.max == user && !live.is_annotated() {
        return None;
    }
    if live.max == user {
        return Some(CapPatch {
            max: None,
            ceiling: live.ceiling.map(|_| AnnotationChange::Remove),
            user: live.user.map(|_| AnnotationChange::Remove),
        });
    }
    let policy_restores = owner == FieldOwner::Policy && live.user_max(None) == user;
    let is_first_step = policy_restores && live.ceiling != Some(NO_CEILING);
    Some(if is_first_step {
        // The policy restores the number, so that the user stays the manager of the field.
        CapPatch {
            ceiling: Some(AnnotationChange::Set(NO_CEILING)),
            ..CapPatch::default()
        }
    } else {
        CapPatch {
            max: Some(user),
            ceiling: Some(AnnotationChange::Set(NO_CEILING)),
            user: Some(AnnotationChange::Set(user)),
        }
    })
}

/// Follows the ceiling of one HPA over its reads: raises it at once, lowers it only after several complete
/// reads in a row, and leaves it while anything is unknown. A decrease stays due until it is written, since the
/// write may be refused or come too late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CeilingHysteresis {
    lower: Option<PendingDecrease>,
}

/// Complete reads in a row with a ceiling below the enforced one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PendingDecrease {
    count: u32,
    /// The largest ceiling among them, because a lower one may have been transient.
    most: u32,
    last: Instant,
}

impl CeilingHysteresis {
    /// The ceiling to enforce after a read; `None` to change nothing. `read` is `None` if the read was
    /// incomplete, and `enforced` is the current ceiling. The same read again counts once.
    pub fn next(&mut self, read: Option<CompleteRead>, enforced: Option<u32>) -> Option<u32> {
        let Some(CompleteRead { ceiling, at }) = read else {
            self.lower = None;
            return None;
        };
        let ceiling = ceiling.bounded().unwrap_or(NO_CEILING).clamp(1, NO_CEILING);
        let enforced = enforced.unwrap_or(NO_CEILING);
        if ceiling >= enforced {
            self.lower = None;
            return Some(ceiling);
        }
        // After a decrease was written, the next one needs new reads.
        let before = self.lower.filter(|before| before.most < enforced);
        let lower = match before {
            Some(before) if before.last >= at => before,
            Some(before) => PendingDecrease {
                count: before.count.saturating_add(1),
                most: before.most.max(ceiling),
                last: at,
            },
            None => PendingDecrease {
                count: 1,
                most: ceiling,
                last: at,
            },
        };
        self.lower = Some(lower);
        (lower.count >= LOWER_AFTER).then_some(lower.most)
    }
}

/// Minimum and maximum backoff between writes to an HPA whose cap another writer keeps undoing.
const BACKOFFS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Backoff between writes to one HPA, so that lagwise does not fight over a field: every write that was
/// undone doubles it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBackoff {
    last: Option<Instant>,
    backoff: Duration,
}

impl WriteBackoff {
    /// Whether a write is allowed at `now`.
    #[must_use]
    pub fn allows(&self, now: Instant) -> bool {
        let since = |last| now.saturating_duration_since(last);
        self.last.is_none_or(|last| since(last) >= self.backoff)
    }

    pub fn record_write(&mut self, now: Instant) {
        let since = |last: Instant| now.saturating_duration_since(last);
        // A write soon after the last one means that the last one was undone.
        let is_soon = |last| since(last) < self.backoff.saturating_mul(3).max(BACKOFFS.0);
        self.backoff = match self.last {
            Some(last) if is_soon(last) => {
                self.backoff.saturating_mul(2).clamp(BACKOFFS.0, BACKOFFS.1)
            }
            _ => Duration::ZERO,
        };
        self.last = Some(now);
    }

    /// Whether another writer keeps undoing the writes.
    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.backoff >= BACKOFFS.0.saturating_mul(4)
    }
}

#[cfg(test)]
mod tests;
