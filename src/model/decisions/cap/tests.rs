use proptest::prelude::*;

use super::*;
use crate::model::evaluation::parallelism::Limit;
use crate::model::hpa::facts::HpaFacts;
use crate::model::hpa::write_scopes::WriteScopes;
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

/// An HPA whose user set 20, capped at 6.
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
fn annotation_controller_and_default_decide_the_mode() {
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
        // The owning controller would undo the writes.
        (Some("enforce"), Enforce, true, Advise),
    ] {
        let found = WriteScopes::ALL.cap_mode(&hpa(own, controller), default);
        assert_eq!(found, expected, "{own:?}");
    }
}

#[test]
fn distinguishes_the_users_maximum_from_the_capped_one() {
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
        // A user has removed the ceiling.
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
        // Set explicitly.
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
        // minReplicas keeps it above the ceiling.
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
fn last_seen_counts_while_the_field_is_unchanged() {
    let seen = Some(LastSeen { max: 6, user: 20 });
    let bare = HpaFields {
        ceiling: None,
        user: None,
        ..capped()
    };
    for (now, seen, expected) in [
        // Every annotation was removed.
        (bare, seen, 20),
        (bare, None, 6),
        // And the field was changed.
        (HpaFields { max: 9, ..bare }, seen, 9),
        // minReplicas, which kept the field higher, was lowered: that is no new number of the user.
        (
            HpaFields { max: 8, ..capped() },
            Some(LastSeen { max: 8, user: 20 }),
            20,
        ),
        (HpaFields { max: 8, ..capped() }, seen, 8),
        // The HPA's own annotations take precedence.
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
    for owner in [FieldOwner::Policy, FieldOwner::Lagwise] {
        // Enforcing again restores the user's number; so does releasing.
        let enforced = write(bare, enforce(bare, seen, 6, owner), owner);
        assert_eq!(enforced, capped(), "{owner:?}");
        let mut released = bare;
        for _ in 0..2 {
            if let Some(patch) = release(released, seen, owner) {
                released = write(released, patch, owner);
            }
        }
        assert_eq!(released, live(20), "{owner:?}");
    }
}

#[test]
fn with_the_policy_writes_only_the_ceiling() {
    let change = |now, ceiling| enforce(now, None, ceiling, FieldOwner::Policy);
    let set = |ceiling| CapPatch {
        ceiling: Some(AnnotationChange::Set(ceiling)),
        ..CapPatch::default()
    };
    assert_eq!(change(live(20), 6), set(6));
    assert_eq!(change(capped(), 12), set(12));
    assert!(change(capped(), 6).is_empty());
    // The policy did not exist yet when the field was written.
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
fn without_the_policy_writes_the_field_and_the_users_maximum() {
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

/// The HPA after a patch, and after the policy if there is one.
fn write(now: HpaFields, patch: CapPatch, owner: FieldOwner) -> HpaFields {
    let annotation = |found, change| match change {
        None => found,
        Some(AnnotationChange::Set(number)) => Some(number),
        Some(AnnotationChange::Remove) => None,
    };
    let after = HpaFields {
        max: patch.max.unwrap_or(now.max),
        ceiling: annotation(now.ceiling, patch.ceiling),
        user: annotation(now.user, patch.user),
        ..now
    };
    admit(now, after, owner)
}

/// Applies the admission policy to a write (`charts/lagwise/files/cap-policy.yaml`).
fn admit(before: HpaFields, after: HpaFields, owner: FieldOwner) -> HpaFields {
    if owner == FieldOwner::Lagwise || !(before.is_annotated() || after.is_annotated()) {
        return after;
    }
    let changed = after.max != before.max;
    let remembered = after.user.or(before.user).filter(|_| !changed);
    let user = after.explicit.or(remembered).unwrap_or(after.max);
    let ceiling = after.ceiling.unwrap_or(NO_CEILING).max(after.min);
    HpaFields {
        max: user.min(ceiling),
        user: after.is_annotated().then_some(user),
        ..after
    }
}

fn any_owner() -> impl Strategy<Value = FieldOwner> {
    prop_oneof![Just(FieldOwner::Policy), Just(FieldOwner::Lagwise)]
}

/// A change between two passes of the reconciler.
#[derive(Clone, Debug)]
enum CapStep {
    User(u32),
    Ceiling(u32),
    Explicit(Option<u32>),
    /// The user removes all annotations of the cap.
    RemoveAnnotations,
    Min(u32),
}

fn any_step() -> impl Strategy<Value = CapStep> {
    prop_oneof![
        (1u32..40).prop_map(CapStep::User),
        (1u32..40).prop_map(CapStep::Ceiling),
        proptest::option::of(1u32..40).prop_map(CapStep::Explicit),
        Just(CapStep::RemoveAnnotations),
        (1u32..9).prop_map(CapStep::Min),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_writes_holds_the_cap_and_restores_the_users_maximum(
        first in 9u32..40, min in 1u32..4, owner in any_owner(),
        steps in proptest::collection::vec(any_step(), 0..30),
    ) {
        let first = first.max(min);
        let mut now = HpaFields { min, ..live(first) };
        let (mut user, mut ceiling) = (first, NO_CEILING);
        let mut seen = Some(now.to_last_seen(None));
        for step in steps {
            match step {
                CapStep::User(to) => {
                    let to = to.max(now.min);
                    // Setting the field to its present value is not visible to the API server.
                    if to != now.max || now.user.is_none() {
                        user = to;
                    }
                    now = admit(now, HpaFields { max: to, ..now }, owner);
                }
                CapStep::Ceiling(to) => ceiling = to,
                CapStep::Explicit(to) => {
                    let to = to.map(|to| to.max(now.min));
                    user = to.unwrap_or(user);
                    now = admit(now, HpaFields { explicit: to, ..now }, owner);
                }
                CapStep::RemoveAnnotations => {
                    now = admit(now, HpaFields { ceiling: None, user: None, ..now }, owner);
                }
                CapStep::Min(to) => {
                    // The API server rejects a minReplicas above maxReplicas, which without the policy is the
                    // capped field.
                    let most = if owner == FieldOwner::Policy { user } else { now.max };
                    now = admit(now, HpaFields { min: to.min(most), ..now }, owner);
                }
            }
            if let Some(explicit) = now.explicit {
                user = explicit;
            }
            // Level-triggered: after two passes there is nothing left to write.
            for _ in 0..2 {
                now = write(now, enforce(now, seen, ceiling, owner), owner);
                seen = Some(now.to_last_seen(seen));
            }
            prop_assert!(enforce(now, seen, ceiling, owner).is_empty(), "{now:?}");
            prop_assert_eq!(now.max, user.min(ceiling.max(now.min)), "{:?}", now);
            prop_assert_eq!(now.user_max(None), user);
        }
        for _ in 0..4 {
            if let Some(patch) = release(now, None, owner) {
                now = write(now, patch, owner);
            }
        }
        prop_assert_eq!((now.max, now.ceiling, now.user), (user, None, None));
        prop_assert_eq!(release(now, None, owner), None);
    }

    #[test]
    fn lowers_the_ceiling_only_after_three_agreeing_reads(
        reads in proptest::collection::vec(proptest::option::weighted(0.9, 1u32..30), 1..60),
    ) {
        let (mut hysteresis, mut enforced) = (CeilingHysteresis::default(), None::<u32>);
        let mut at = Instant::now();
        let mut complete: Vec<u32> = Vec::new();
        for read in reads {
            at += Duration::from_secs(1);
            let limit = read.map(|most| complete_read(Limit::Bounded(Replicas(most)), at));
            complete = match read {
                Some(read) => complete.into_iter().chain([read]).collect(),
                None => Vec::new(),
            };
            let next = hysteresis.next(limit, enforced);
            // The same read again counts once.
            let again = hysteresis.clone().next(limit, next.or(enforced));
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

/// The ceilings to enforce after reads at one per second, none of which is written.
fn unwritten(reads: &[Option<u32>], enforced: Option<u32>) -> Vec<Option<u32>> {
    let (mut hysteresis, start) = (CeilingHysteresis::default(), Instant::now());
    let reads = (1..).zip(reads).map(|(second, read)| {
        let at = start + Duration::from_secs(second);
        let read = read.map(|most| complete_read(Limit::Bounded(Replicas(most)), at));
        let next = hysteresis.next(read, enforced);
        // Another cluster was swept, so the same read is passed again.
        assert_eq!(hysteresis.next(read, enforced), next);
        next
    });
    reads.collect()
}

#[test]
fn decrease_stays_due_until_it_is_written() {
    let steady = unwritten(&[Some(6); 6], None);
    assert_eq!(steady, [None, None, Some(6), Some(6), Some(6), Some(6)]);
    let varying = unwritten(&[Some(4), Some(5), Some(4), Some(3), Some(7)], Some(12));
    assert_eq!(varying, [None, None, Some(5), Some(5), Some(7)]);
    // An unknown ceiling, or one that is not lower any more, ends it.
    for end in [None, Some(20)] {
        let ended = unwritten(
            &[Some(6), Some(6), Some(6), end, Some(6), Some(6)],
            Some(12),
        );
        assert_eq!(ended, [None, None, Some(6), end, None, None]);
    }
}

#[test]
fn unbounded_limit_becomes_no_ceiling() {
    let mut hysteresis = CeilingHysteresis::default();
    let read = Some(complete_read(Limit::Unbounded, Instant::now()));
    assert_eq!(hysteresis.next(read, Some(6)), Some(NO_CEILING));
    assert_eq!(hysteresis.next(read, None), Some(NO_CEILING));
}

#[test]
fn backs_off_while_writes_are_undone() {
    let start = Instant::now();
    let mut backoff = WriteBackoff::default();
    let mut writes = Vec::new();
    for second in 0..3600 {
        let now = start + Duration::from_secs(second);
        if backoff.allows(now) {
            backoff.record_write(now);
            writes.push(second);
        }
    }
    assert!(writes.len() < 20, "{writes:?}");
    assert!(backoff.is_contested());
    // Once a write has lasted for a while, the next one is allowed at once.
    let mut calm = WriteBackoff::default();
    for second in [0, 100, 200] {
        let now = start + Duration::from_secs(second);
        assert!(calm.allows(now));
        calm.record_write(now);
    }
    assert!(!calm.is_contested());
}
