//! One row per situation: what is on the HPA, what is wanted, and the writes in their order.

use AnnotationChange::{Remove, Set};

use super::*;
use crate::model::decisions::cap::{CapTarget, FieldOwner};
use crate::model::settings::annotation_keys::{CEILING, USER_MAX};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const ASKS_FOR_ZERO: (&str, &str) = ("lagwise.dev/scale-to-zero", "true");
const MARK: (&str, &str) = (ZEROED_SINCE, "2026-01-01T00:00:00Z");
const ENFORCED: (&str, &str) = ("lagwise.dev/cap", "enforce");

fn hpa(max: u32, annotations: &[(&str, &str)]) -> HpaFacts {
    HpaFacts {
        max_replicas: max,
        annotations: annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..HpaFacts::default()
    }
}

fn goal(target: CapTarget) -> Option<CapGoal> {
    Some(CapGoal {
        target,
        last_seen: None,
        owner: FieldOwner::Lagwise,
        was_refused: false,
    })
}

/// In term 7 and without a cap.
fn goals(cap: Option<CapGoal>, zero: ZeroAction) -> HpaGoals {
    HpaGoals {
        term: 7,
        default_mode: CapMode::Advise,
        cap,
        zero,
        now: NOW,
    }
}

fn plan(facts: &HpaFacts, epoch: Option<&str>, goals: &HpaGoals) -> HpaWritePlan {
    plan_hpa_write(ObservedHpa { facts, epoch }, goals)
}

fn patch(epoch: Option<u64>, zeroed: Option<AnnotationChange<SystemTime>>) -> HpaPatch {
    HpaPatch {
        epoch: epoch.map(Set),
        cap: CapPatch::default(),
        zeroed,
    }
}

/// The first cap of a user's 20 to 6.
const CAPPED: CapPatch = CapPatch {
    max: Some(6),
    ceiling: Some(Set(6)),
    user: Some(Set(20)),
};

#[test]
fn scale_to_zero_is_written_in_the_order_that_survives_a_crash() {
    let none = HpaPatch::default();
    for (annotations, epoch, action, first, scale, last) in [
        // Nothing to do but the term, which is written once.
        (
            &[ASKS_FOR_ZERO][..],
            None,
            ZeroAction::Rest,
            patch(Some(7), None),
            None,
            none,
        ),
        (
            &[ASKS_FOR_ZERO],
            Some("7"),
            ZeroAction::Rest,
            none,
            None,
            none,
        ),
        (&[], None, ZeroAction::Rest, none, None, none),
        // To zero: the mark, then the replicas.
        (
            &[ASKS_FOR_ZERO],
            Some("7"),
            ZeroAction::Zero,
            patch(None, Some(Set(NOW))),
            Some(0),
            none,
        ),
        (
            &[ASKS_FOR_ZERO],
            Some("6"),
            ZeroAction::Zero,
            patch(Some(7), Some(Set(NOW))),
            Some(0),
            none,
        ),
        // Marked already: the HPA has written its replicas once more.
        (
            &[ASKS_FOR_ZERO, MARK],
            Some("7"),
            ZeroAction::Zero,
            none,
            Some(0),
            none,
        ),
        // From zero: the replicas, then the mark.
        (
            &[ASKS_FOR_ZERO, MARK],
            Some("7"),
            ZeroAction::Wake(3),
            none,
            Some(3),
            patch(None, Some(Remove)),
        ),
        // But the term of a new leader before either.
        (
            &[ASKS_FOR_ZERO, MARK],
            Some("6"),
            ZeroAction::Wake(3),
            patch(Some(7), None),
            Some(3),
            patch(None, Some(Remove)),
        ),
        // Somebody else has woken it.
        (
            &[ASKS_FOR_ZERO, MARK],
            Some("6"),
            ZeroAction::Unmark,
            patch(Some(7), Some(Remove)),
            None,
            none,
        ),
    ] {
        let expected = HpaWritePlan { first, scale, last };
        let found = plan(&hpa(20, annotations), epoch, &goals(None, action));
        assert_eq!(found, expected, "{annotations:?} {epoch:?} {action:?}");
    }
}

#[test]
fn everything_goes_into_one_patch_where_the_order_allows_it() {
    let facts = hpa(20, &[ENFORCED, ASKS_FOR_ZERO]);
    let hold = goal(CapTarget::Hold(6));
    let all = HpaPatch {
        epoch: Some(Set(7)),
        cap: CAPPED,
        zeroed: Some(Set(NOW)),
    };
    let found = plan(&facts, None, &goals(hold, ZeroAction::Zero));
    assert_eq!((found.first, found.scale), (all, Some(0)));
    assert!(found.last.is_empty());
    // Waking: the cap rides on whichever patch there is.
    let facts = hpa(20, &[ENFORCED, ASKS_FOR_ZERO, MARK]);
    let found = plan(&facts, Some("7"), &goals(hold, ZeroAction::Wake(2)));
    assert!(found.first.is_empty());
    assert_eq!((found.last.cap, found.last.zeroed), (CAPPED, Some(Remove)));
    let found = plan(&facts, None, &goals(hold, ZeroAction::Wake(2)));
    assert_eq!((found.first.cap, found.first.epoch), (CAPPED, Some(Set(7))));
    assert_eq!(found.last, patch(None, Some(Remove)));
}

#[test]
fn a_cap_that_was_refused_does_not_hold_up_the_rest() {
    let refused = goal(CapTarget::Hold(6)).map(|goal| CapGoal {
        was_refused: true,
        ..goal
    });
    let cap_alone = HpaPatch {
        cap: CAPPED,
        ..HpaPatch::default()
    };
    for (annotations, epoch, action, expected) in [
        // Alone.
        (&[ENFORCED][..], Some("7"), ZeroAction::Rest, cap_alone),
        // Left for the next pass.
        (&[ENFORCED], None, ZeroAction::Rest, patch(Some(7), None)),
        (
            &[ENFORCED, ASKS_FOR_ZERO],
            Some("7"),
            ZeroAction::Zero,
            patch(None, Some(Set(NOW))),
        ),
    ] {
        let found = plan(&hpa(20, annotations), epoch, &goals(refused, action));
        assert_eq!(found.first, expected, "{annotations:?} {epoch:?}");
    }
}

#[test]
fn the_last_write_of_the_cap_removes_the_term_unless_scale_to_zero_needs_it() {
    let marks = [(CEILING, "6"), (USER_MAX, "20")];
    let release = goals(goal(CapTarget::Release), ZeroAction::Rest);
    for (more, epoch, expected) in [
        (&[][..], Some("7"), Some(Remove)),
        (&[], Some("6"), Some(Remove)),
        (&[], None, None),
        (&[ASKS_FOR_ZERO], Some("7"), None),
        (&[ASKS_FOR_ZERO], Some("6"), Some(Set(7))),
        (&[MARK], None, Some(Set(7))),
    ] {
        let facts = hpa(20, &[&marks[..], more].concat());
        let first = plan(&facts, epoch, &release).first;
        assert!(first.cap.is_last());
        assert_eq!(first.epoch, expected, "{more:?} {epoch:?}");
    }
    // The first of the two only gives the number back.
    let capped = hpa(6, &marks);
    let first = plan(&capped, Some("6"), &release).first;
    assert_eq!((first.cap.max, first.epoch), (Some(20), Some(Set(7))));
}

#[test]
fn without_an_election_there_is_no_term_to_write() {
    let facts = hpa(20, &[ENFORCED]);
    let alone = HpaGoals {
        term: 0,
        ..goals(goal(CapTarget::Hold(6)), ZeroAction::Rest)
    };
    let found = plan(&facts, None, &alone);
    let cap = HpaPatch {
        cap: CAPPED,
        ..HpaPatch::default()
    };
    assert_eq!(found.first, cap);
}
