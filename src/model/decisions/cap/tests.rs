use proptest::prelude::*;

use super::*;
use crate::model::evaluation::parallelism::Limit;
use crate::model::hpa::facts::{HpaFacts, mode};
use crate::model::settings::cap_mode::{CapMode, NO_CEILING};
use crate::model::units::newtypes::Replicas;

fn live(max: u32) -> HpaFields {
    HpaFields {
        max,
        min: 1,
        ceiling: None,
        user: None,
        explicit: None,
    }
}

/// An HPA of a user's 20, capped at 6.
fn capped() -> HpaFields {
    HpaFields {
        max: 6,
        ceiling: Some(6),
        user: Some(20),
        ..live(0)
    }
}

fn complete_read(ceiling: Limit, at: Instant) -> CompleteRead {
    CompleteRead { ceiling, at }
}

#[test]
fn who_says_what_mode() {
    let hpa = |own: Option<&str>, controller: bool| HpaFacts {
        annotations: own
            .map(|own| ("lagwise.dev/cap".to_owned(), own.to_owned()))
            .into_iter()
            .collect(),
        controller: controller.then(|| "ScaledObject/x".into()),
        ..HpaFacts::default()
    };
    use CapMode::{Advise, Enforce};
    for (own, default, controller, expected) in [
        (None, Advise, false, Advise),
        (None, Enforce, false, Enforce),
        (Some("enforce"), Advise, false, Enforce),
        (Some(" advise "), Enforce, false, Advise),
        (Some("Enforce!"), Advise, false, Advise),
        // The controller would put back whatever is written.
        (Some("enforce"), Enforce, true, Advise),
    ] {
        assert_eq!(mode(&hpa(own, controller), default), expected, "{own:?}");
    }
}

#[test]
fn the_users_number_is_told_from_ours() {
    for (now, expected) in [
        (live(20), 20),
        (capped(), 20),
        // Changed by the user while capped.
        (HpaFields { max: 4, ..capped() }, 4),
        (
            HpaFields {
                max: 30,
                ..capped()
            },
            30,
        ),
        // Somebody has taken the ceiling away.
        (
            HpaFields {
                max: 20,
                ceiling: None,
                ..capped()
            },
            20,
        ),
        (
            HpaFields {
                max: 6,
                ceiling: None,
                ..capped()
            },
            6,
        ),
        // Said outright.
        (
            HpaFields {
                explicit: Some(6),
                ..capped()
            },
            6,
        ),
        (
            HpaFields {
                explicit: Some(9),
                ..live(50)
            },
            9,
        ),
        // minReplicas holds it above the ceiling.
        (
            HpaFields {
                max: 8,
                min: 8,
                ..capped()
            },
            20,
        ),
    ] {
        assert_eq!(now.user_max(None), expected, "{now:?}");
    }
}

#[test]
fn what_was_seen_before_counts_while_the_field_is_as_it_was() {
    let seen = Some(LastSeen { max: 6, user: 20 });
    let bare = HpaFields {
        ceiling: None,
        user: None,
        ..capped()
    };
    for (now, seen, expected) in [
        // Every mark was taken away.
        (bare, seen, 20),
        (bare, None, 6),
        // With another number.
        (HpaFields { max: 9, ..bare }, seen, 9),
        // minReplicas was lowered that held the field up, which is no new number.
        (
            HpaFields { max: 8, ..capped() },
            Some(LastSeen { max: 8, user: 20 }),
            20,
        ),
        (HpaFields { max: 8, ..capped() }, seen, 8),
        // What the HPA itself says goes before it, as does what is said outright.
        (
            HpaFields {
                user: Some(30),
                ..capped()
            },
            seen,
            30,
        ),
        (
            HpaFields {
                explicit: Some(7),
                ..bare
            },
            seen,
            7,
        ),
    ] {
        assert_eq!(now.user_max(seen), expected, "{now:?} after {seen:?}");
    }
    for keeper in [FieldOwner::Policy, FieldOwner::Lagwise] {
        // Enforced again, with the right account; or given back.
        let held = write(bare, enforce(bare, seen, 6, keeper), keeper);
        assert_eq!(held, capped(), "{keeper:?}");
        let mut freed = bare;
        for _ in 0..2 {
            if let Some(change) = release(freed, seen, keeper) {
                freed = write(freed, change, keeper);
            }
        }
        assert_eq!(freed, live(20), "{keeper:?}");
    }
}

#[test]
fn with_the_policy_only_the_ceiling_is_written() {
    let change = |now, ceiling| enforce(now, None, ceiling, FieldOwner::Policy);
    let set = |ceiling| CapPatch {
        ceiling: Some(AnnotationChange::Set(ceiling)),
        ..CapPatch::default()
    };
    assert_eq!(change(live(20), 6), set(6));
    assert_eq!(change(capped(), 12), set(12));
    assert!(change(capped(), 6).is_empty());
    // The policy was not there when the field was written.
    assert_eq!(
        change(
            HpaFields {
                max: 30,
                ..capped()
            },
            6
        ),
        set(6)
    );
}

#[test]
fn without_it_the_field_and_the_account_are() {
    let change = |now, ceiling| enforce(now, None, ceiling, FieldOwner::Lagwise);
    let all = |max, ceiling, user| CapPatch {
        max,
        ceiling: Some(AnnotationChange::Set(ceiling)),
        user: Some(AnnotationChange::Set(user)),
    };
    assert_eq!(change(live(20), 6), all(Some(6), 6, 20));
    assert_eq!(change(live(4), 6), all(None, 6, 4));
    assert_eq!(
        change(HpaFields { min: 8, ..live(20) }, 6),
        all(Some(8), 6, 20)
    );
    assert!(change(capped(), 6).is_empty());
    let raised = CapPatch {
        user: None,
        ..all(Some(12), 12, 20)
    };
    assert_eq!(change(capped(), 12), raised);
}

/// The HPA after a write of lagwise's, and after the policy where there is one.
fn write(now: HpaFields, change: CapPatch, keeper: FieldOwner) -> HpaFields {
    let marked = |is, mark| match mark {
        None => is,
        Some(AnnotationChange::Set(number)) => Some(number),
        Some(AnnotationChange::Remove) => None,
    };
    let after = HpaFields {
        max: change.max.unwrap_or(now.max),
        ceiling: marked(now.ceiling, change.ceiling),
        user: marked(now.user, change.user),
        ..now
    };
    admit(now, after, keeper)
}

/// What the policy makes of a write (`charts/lagwise/files/cap-policy.yaml`).
fn admit(before: HpaFields, after: HpaFields, keeper: FieldOwner) -> HpaFields {
    if keeper == FieldOwner::Lagwise || !(before.is_marked() || after.is_marked()) {
        return after;
    }
    let changed = after.max != before.max;
    let remembered = after.user.or(before.user).filter(|_| !changed);
    let user = after.explicit.or(remembered).unwrap_or(after.max);
    let ceiling = after.ceiling.unwrap_or(NO_CEILING).max(after.min);
    HpaFields {
        max: user.min(ceiling),
        user: after.is_marked().then_some(user),
        ..after
    }
}

fn any_keeper() -> impl Strategy<Value = FieldOwner> {
    prop_oneof![Just(FieldOwner::Policy), Just(FieldOwner::Lagwise)]
}

#[derive(Clone, Debug)]
enum Turn {
    User(u32),
    Ceiling(u32),
    Explicit(Option<u32>),
    /// All marks are taken away by hand.
    Bare,
    Min(u32),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        (1u32..40).prop_map(Turn::User),
        (1u32..40).prop_map(Turn::Ceiling),
        proptest::option::of(1u32..40).prop_map(Turn::Explicit),
        Just(Turn::Bare),
        (1u32..9).prop_map(Turn::Min),
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_in_between_the_field_is_the_lesser_and_the_user_gets_theirs_back(
        first in 9u32..40, min in 1u32..4, keeper in any_keeper(),
        turns in proptest::collection::vec(any_turn(), 0..30),
    ) {
        let first = first.max(min);
        let mut now = HpaFields { min, ..live(first) };
        let (mut user, mut ceiling) = (first, NO_CEILING);
        let mut seen = Some(now.seen(None));
        for turn in turns {
            match turn {
                Turn::User(to) => {
                    let to = to.max(now.min);
                    // No API server can tell this from not touching it.
                    if to != now.max || now.user.is_none() {
                        user = to;
                    }
                    now = admit(now, HpaFields { max: to, ..now }, keeper);
                }
                Turn::Ceiling(to) => ceiling = to,
                Turn::Explicit(to) => {
                    let to = to.map(|to| to.max(now.min));
                    user = to.unwrap_or(user);
                    now = admit(now, HpaFields { explicit: to, ..now }, keeper);
                }
                Turn::Bare => now = admit(now, HpaFields { ceiling: None, user: None, ..now }, keeper),
                Turn::Min(to) => {
                    // The API server refuses more than maxReplicas; without the policy that is what is capped.
                    let most = if keeper == FieldOwner::Policy { user } else { now.max };
                    now = admit(now, HpaFields { min: to.min(most), ..now }, keeper);
                }
            }
            if let Some(said) = now.explicit {
                user = said;
            }
            // Level-triggered: a few rounds settle it, and then there is nothing to write.
            for _ in 0..2 {
                now = write(now, enforce(now, seen, ceiling, keeper), keeper);
                seen = Some(now.seen(seen));
            }
            prop_assert!(enforce(now, seen, ceiling, keeper).is_empty(), "{now:?}");
            prop_assert_eq!(now.max, user.min(ceiling.max(now.min)), "{:?}", now);
            prop_assert_eq!(now.user_max(None), user);
        }
        for _ in 0..4 {
            if let Some(change) = release(now, None, keeper) {
                now = write(now, change, keeper);
            }
        }
        prop_assert_eq!((now.max, now.ceiling, now.user), (user, None, None));
        prop_assert_eq!(release(now, None, keeper), None);
    }

    #[test]
    fn the_ceiling_is_lowered_only_after_reads_that_agree(
        reads in proptest::collection::vec(proptest::option::weighted(0.9, 1u32..30), 1..60),
    ) {
        let (mut follow, mut enforced) = (CeilingHysteresis::default(), None::<u32>);
        let mut at = Instant::now();
        let mut complete: Vec<u32> = Vec::new();
        for read in reads {
            at += Duration::from_secs(1);
            let limit = read.map(|most| complete_read(Limit::Bounded(Replicas(most)), at));
            complete = match read {
                Some(read) => complete.into_iter().chain([read]).collect(),
                None => Vec::new(),
            };
            let next = follow.next(limit, enforced);
            // Shown again it counts no more.
            let again = follow.clone().next(limit, next.or(enforced));
            prop_assert!(again.is_none_or(|again| next == Some(again)), "{again:?} after {next:?}");
            match next {
                None => prop_assert!(read.is_none_or(|read| enforced.is_none_or(|e| read < e))),
                Some(next) => {
                    let lowered = enforced.is_none_or(|enforced| next < enforced);
                    let last = complete.iter().rev().take(3);
                    if lowered {
                        prop_assert!(complete.len() >= 3);
                        prop_assert_eq!(last.copied().max(), Some(next));
                    } else {
                        prop_assert_eq!(read, Some(next));
                    }
                    enforced = Some(next);
                }
            }
        }
    }
}

#[test]
fn no_limit_is_the_most_there_can_be() {
    let mut follow = CeilingHysteresis::default();
    let read = Some(complete_read(Limit::Unbounded, Instant::now()));
    assert_eq!(follow.next(read, Some(6)), Some(NO_CEILING));
    assert_eq!(follow.next(read, None), Some(NO_CEILING));
}

#[test]
fn who_keeps_undoing_is_met_ever_more_rarely() {
    let start = Instant::now();
    let mut patience = WriteBackoff::default();
    let mut writes = Vec::new();
    for second in 0..3600 {
        let now = start + Duration::from_secs(second);
        if patience.allows(now) {
            patience.wrote(now);
            writes.push(second);
        }
    }
    assert!(writes.len() < 20, "{writes:?}");
    assert!(patience.is_contested());
    // After a time in which what was written lasted, a write is made at once again.
    let mut calm = WriteBackoff::default();
    for second in [0, 100, 200] {
        let now = start + Duration::from_secs(second);
        assert!(calm.allows(now));
        calm.wrote(now);
    }
    assert!(!calm.is_contested());
}
