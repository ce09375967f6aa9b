//! The cap, enforced: what is written so that an HPA's `spec.maxReplicas` is the lesser of the user's
//! number and the replica ceiling, whatever else the HPA scales by.
//!
//! The user's number is never lost. It is kept in [`USER_MAX`] while the cap holds the field down, a
//! change of the field by anyone else is taken for the user's new number, and [`release`] gives it
//! back. On clusters with the admission policy `lagwise-cap` the policy keeps that account at every
//! write to the HPA, and lagwise writes only [`CEILING`]; elsewhere lagwise does both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::enforceable::CompleteRead;
use crate::model::hpa::facts::HpaFacts;
use crate::model::settings::annotation_keys::{CEILING, EXPLICIT_MAX, USER_MAX};
use crate::model::settings::cap_mode::NO_CEILING;

/// Complete reads in a row after which the ceiling may be lowered.
pub const LOWER_AFTER: u32 = 3;

fn number(annotations: &BTreeMap<String, String>, key: &str) -> Option<u32> {
    let number: u32 = annotations.get(key)?.trim().parse().ok()?;
    (1..=NO_CEILING).contains(&number).then_some(number)
}

/// An HPA's fields that the cap is about, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaFields {
    /// `spec.maxReplicas`.
    pub max: u32,
    /// `spec.minReplicas`; one where it does not say.
    pub min: u32,
    /// [`CEILING`].
    pub ceiling: Option<u32>,
    /// [`USER_MAX`].
    pub user: Option<u32>,
    /// [`EXPLICIT_MAX`].
    pub explicit: Option<u32>,
}

impl HpaFields {
    /// Reads them.
    #[must_use]
    pub fn of(hpa: &HpaFacts) -> Self {
        Self {
            max: hpa.max_replicas,
            min: hpa.min_replicas.unwrap_or(1),
            ceiling: number(&hpa.annotations, CEILING),
            user: number(&hpa.annotations, USER_MAX),
            explicit: number(&hpa.annotations, EXPLICIT_MAX),
        }
    }

    /// Whether anything of lagwise's is on it.
    #[must_use]
    pub fn is_marked(self) -> bool {
        self.ceiling.is_some() || self.user.is_some()
    }

    /// What the cap makes of the user's number. Never below `minReplicas`, which the API server would
    /// refuse.
    fn capped(self, user: u32, ceiling: u32) -> u32 {
        user.min(ceiling.max(self.min))
    }

    /// The user's number: said outright, or what the field was changed to, or what is remembered: on
    /// the HPA, or as it was `seen` before.
    #[must_use]
    pub fn user_max(self, seen: Option<LastSeen>) -> u32 {
        let marked = self.user.filter(|user| {
            let ceiling = self.ceiling.unwrap_or(NO_CEILING);
            self.max == self.capped(*user, ceiling)
        });
        // The marks may have been taken away, or `minReplicas` lowered that held the field up.
        let seen = seen
            .filter(|seen| seen.max == self.max && self.user.is_none_or(|user| user == seen.user));
        let remembered = marked.or(seen.map(|seen| seen.user));
        self.explicit.or(remembered).unwrap_or(self.max)
    }

    /// What is to be remembered of it.
    #[must_use]
    pub fn seen(self, before: Option<LastSeen>) -> LastSeen {
        LastSeen {
            max: self.max,
            user: self.user_max(before),
        }
    }
}

/// An HPA's `maxReplicas` as it was last seen, and the user's number that it stood for. A write that
/// leaves the field as it was says nothing of that number, whatever else it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSeen {
    /// `spec.maxReplicas`.
    pub max: u32,
    /// The user's number.
    pub user: u32,
}

impl LastSeen {
    /// Whether the cap held the field down.
    #[must_use]
    pub fn is_capped(self) -> bool {
        self.max != self.user
    }
}

/// Fields to write; `None` = as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapPatch {
    /// `spec.maxReplicas`.
    pub max: Option<u32>,
    /// [`CEILING`].
    pub ceiling: Option<AnnotationChange>,
    /// [`USER_MAX`].
    pub user: Option<AnnotationChange>,
}

/// What becomes of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationChange {
    /// It gets this value.
    Set(u32),
    /// It goes.
    Remove,
}

impl CapPatch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the HPA is the user's alone afterwards.
    #[must_use]
    pub fn is_last(&self) -> bool {
        [self.ceiling, self.user].contains(&Some(AnnotationChange::Remove))
    }
}

/// Who keeps the account of the user's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOwner {
    /// The admission policy, at every write to the HPA (Kubernetes 1.36 and later).
    Policy,
    /// lagwise, by a patch of the field.
    Lagwise,
}

/// What to write so that `ceiling` is enforced, whatever the HPA was when it was `seen` before.
#[must_use]
pub fn enforce(
    live: HpaFields,
    seen: Option<LastSeen>,
    ceiling: u32,
    keeper: FieldOwner,
) -> CapPatch {
    let mark =
        |is: Option<u32>, wanted| (is != Some(wanted)).then_some(AnnotationChange::Set(wanted));
    let user = live.user_max(seen);
    let capped = live.capped(user, ceiling);
    match keeper {
        // The policy would take what the field is for the user's number.
        FieldOwner::Policy if live.user_max(None) != user => CapPatch {
            max: Some(user),
            ceiling: mark(live.ceiling, ceiling),
            user: None,
        },
        FieldOwner::Policy => CapPatch {
            // The policy acts on writes alone: the mark is written again where the field is not what
            // it should be, as on an HPA that was there before the policy.
            ceiling: (live.ceiling != Some(ceiling) || live.max != capped)
                .then_some(AnnotationChange::Set(ceiling)),
            ..CapPatch::default()
        },
        FieldOwner::Lagwise => CapPatch {
            max: (live.max != capped).then_some(capped),
            ceiling: mark(live.ceiling, ceiling),
            user: mark(live.user, user),
        },
    }
}

/// What to write next so that the HPA is the user's alone; `None` when it is. First the field goes
/// back, while it is still known what to, then the marks go.
#[must_use]
pub fn release(live: HpaFields, seen: Option<LastSeen>, keeper: FieldOwner) -> Option<CapPatch> {
    let user = live.user_max(seen);
    if live.max == user && !live.is_marked() {
        return None;
    }
    if live.max == user {
        return Some(CapPatch {
            max: None,
            ceiling: live.ceiling.map(|_| AnnotationChange::Remove),
            user: live.user.map(|_| AnnotationChange::Remove),
        });
    }
    let keeps = keeper == FieldOwner::Policy && live.user_max(None) == user;
    let frees = keeps && live.ceiling != Some(NO_CEILING);
    Some(if frees {
        // The policy puts the number back, so that the field stays the user's own.
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

/// Follows one HPA's ceiling from read to read: raised at once, lowered only when several complete
/// reads in a row agree, frozen while anything is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CeilingHysteresis {
    lower: Option<PendingDecrease>,
}

/// Complete reads in a row that were below what is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PendingDecrease {
    count: u32,
    /// The largest of them: what was read once and no more may have been a glimpse.
    most: u32,
    last: Instant,
}

impl CeilingHysteresis {
    /// The ceiling to enforce after a read, `None` to leave everything as it is. `read` is the
    /// ceiling of a complete read, `None` of any other; `enforced` is the one that holds now. One
    /// read counts once, however often it is shown.
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
        let lower = match self.lower {
            Some(before) if before.last >= at => return None,
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
        self.lower = (lower.count < LOWER_AFTER).then_some(lower);
        self.lower.is_none().then_some(lower.most)
    }
}

/// The shortest time between two writes to one HPA that somebody else keeps undoing, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Keeps lagwise from fighting over a field: every write that does not last doubles the time to the
/// next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBackoff {
    last: Option<Instant>,
    pause: Duration,
}

impl WriteBackoff {
    /// Whether a write may be made at `now`.
    #[must_use]
    pub fn allows(&self, now: Instant) -> bool {
        let since = |last| now.saturating_duration_since(last);
        self.last.is_none_or(|last| since(last) >= self.pause)
    }

    /// A write is made.
    pub fn wrote(&mut self, now: Instant) {
        let since = |last: Instant| now.saturating_duration_since(last);
        let soon = |last| since(last) < self.pause.saturating_mul(3).max(PAUSES.0);
        self.pause = match self.last {
            Some(last) if soon(last) => self.pause.saturating_mul(2).clamp(PAUSES.0, PAUSES.1),
            _ => Duration::ZERO,
        };
        self.last = Some(now);
    }

    /// Whether somebody keeps undoing what is written.
    #[must_use]
    pub fn is_tried(&self) -> bool {
        self.pause >= PAUSES.0.saturating_mul(4)
    }
}

#[cfg(test)]
mod tests;
