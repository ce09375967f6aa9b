use std::time::Duration;

use AnnotationChange::{Remove, Set};

use super::*;
use crate::model::decisions::cap::{CapTarget, FieldOwner};
use crate::model::hpa::write_scopes::WriteScopes;
use crate::model::settings::annotation_keys::{CEILING, USER_MAX, ZEROED_SINCE};
use crate::model::settings::cap_mode::CapMode;

/// HPAs with `cap: enforce` are capped.
static POLICY: ServingPolicy = ServingPolicy {
    clamp: true,
    cap: CapMode::Advise,
    scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
    max_staleness: Duration::from_secs(30),
    namespaces: Vec::new(),
    writes: WriteScopes::ALL,
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const WITH_ZERO: (&str, &str) = ("lagwise.dev/scale-to-zero", "true");
const ZEROED: (&str, &str) = (ZEROED_SINCE, "2026-01-01T00:00:00Z");
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

/// Goals in term 7.
fn goals(cap: Option<CapGoal>, zero: ZeroAction) -> HpaGoals<'static> {
    HpaGoals {
        term: 7,
        policy: &POLICY,
        cap,
        zero,
        now: NOW,
    }
}

fn plan(facts: &HpaFacts, term: Option<&str>, goals: &HpaGoals<'_>) -> HpaWritePlan {
    let is_recorded = has_zeroed_annotation(facts);
    let observed = ObservedHpa {
        facts,
        term,
        is_recorded,
    };
    plan_hpa_write(observed, goals)
}

fn patch(term: Option<u64>, zeroed: Option<AnnotationChange<SystemTime>>) -> HpaPatch {
    HpaPatch {
        term: term.map(Set),
        cap: CapPatch::default(),
        zeroed,
    }
}

/// The patch that first caps a user's 20 to 6.
const CAPPED: CapPatch = CapPatch {
    max: Some(6),
    ceiling: Some(Set(6)),
    user: Some(Set(20)),
};

#[test]
fn orders_zero_writes_to_survive_a_crash() {
    let none = HpaPatch::default();
    for (annotations, term, action, first, scale, last) in [
        // Only the term, once.
        (
            &[WITH_ZERO][..],
            None,
            ZeroAction::Keep,
            patch(Some(7), None),
            None,
            none,
        ),
        (&[WITH_ZERO], Some("7"), ZeroAction::Keep, none, None, none),
        (&[], None, ZeroAction::Keep, none, None, none),
        // To zero: the annotation, then the replicas.
        (
            &[WITH_ZERO],
            Some("7"),
            ZeroAction::Zero,
            patch(None, Some(Set(NOW))),
            Some(0),
            none,
        ),
        (
            &[WITH_ZERO],
            Some("6"),
            ZeroAction::Zero,
            patch(Some(7), Some(Set(NOW))),
            Some(0),
            none,
        ),
        // Annotated already: the HPA controller has set replicas once more.
        (
            &[WITH_ZERO, ZEROED],
            Some("7"),
            ZeroAction::Zero,
            none,
            Some(0),
            none,
        ),
        // From zero: the replicas, then the annotation.
        (
            &[WITH_ZERO, ZEROED],
            Some("7"),
            ZeroAction::Wake(3),
            none,
            Some(3),
            patch(None, Some(Remove)),
        ),
        // The term of a new leader comes first.
        (
            &[WITH_ZERO, ZEROED],
            Some("6"),
            ZeroAction::Wake(3),
            patch(Some(7), None),
            Some(3),
            patch(None, Some(Remove)),
        ),
        // Another writer has scaled it up.
        (
            &[WITH_ZERO, ZEROED],
            Some("6"),
            ZeroAction::RemoveAnnotation,
            patch(Some(7), Some(Remove)),
            None,
            none,
        ),
    ] {
        let expected = HpaWritePlan { first, scale, last };
        let found = plan(&hpa(20, annotations), term, &goals(None, action));
        assert_eq!(found, expected, "{annotations:?} {term:?} {action:?}");
    }
}

#[test]
fn combines_writes_into_one_patch_where_order_allows() {
    let facts = hpa(20, &[ENFORCED, WITH_ZERO]);
    let hold = goal(CapTarget::Hold(6));
    let all = HpaPatch {
        term: Some(Set(7)),
        cap: CAPPED,
        zeroed: Some(Set(NOW)),
    };
    let found = plan(&facts, None, &goals(hold, ZeroAction::Zero));
    assert_eq!((found.first, found.scale), (all, Some(0)));
    assert!(found.last.is_empty());
    // Waking: the cap joins the patch that is written anyway.
    let facts = hpa(20, &[ENFORCED, WITH_ZERO, ZEROED]);
    let found = plan(&facts, Some("7"), &goals(hold, ZeroAction::Wake(2)));
    assert!(found.first.is_empty());
    assert_eq!((found.last.cap, found.last.zeroed), (CAPPED, Some(Remove)));
    let found = plan(&facts, None, &goals(hold, ZeroAction::Wake(2)));
    assert_eq!((found.first.cap, found.first.term), (CAPPED, Some(Set(7))));
    assert_eq!(found.last, patch(None, Some(Remove)));
}

#[test]
fn refused_cap_does_not_block_other_writes() {
    let refused = goal(CapTarget::Hold(6)).map(|goal| CapGoal {
        was_refused: true,
        ..goal
    });
    let cap_alone = HpaPatch {
        cap: CAPPED,
        ..HpaPatch::default()
    };
    for (annotations, term, action, expected) in [
        // Alone.
        (&[ENFORCED][..], Some("7"), ZeroAction::Keep, cap_alone),
        // Left for the next pass.
        (&[ENFORCED], None, ZeroAction::Keep, patch(Some(7), None)),
        (
            &[ENFORCED, WITH_ZERO],
            Some("7"),
            ZeroAction::Zero,
            patch(None, Some(Set(NOW))),
        ),
    ] {
        let found = plan(&hpa(20, annotations), term, &goals(refused, action));
        assert_eq!(found.first, expected, "{annotations:?} {term:?}");
    }
}

#[test]
fn last_cap_write_removes_the_term_unless_zero_needs_it() {
    let annotations = [(CEILING, "6"), (USER_MAX, "20")];
    let release = goals(goal(CapTarget::Release), ZeroAction::Keep);
    for (more, term, expected) in [
        (&[][..], Some("7"), Some(Remove)),
        (&[], Some("6"), Some(Remove)),
        (&[], None, None),
        (&[WITH_ZERO], Some("7"), None),
        (&[WITH_ZERO], Some("6"), Some(Set(7))),
        (&[ZEROED], None, Some(Set(7))),
    ] {
        let facts = hpa(20, &[&annotations[..], more].concat());
        let first = plan(&facts, term, &release).first;
        assert!(first.cap.is_last());
        assert_eq!(first.term, expected, "{more:?} {term:?}");
    }
    // The first of the two patches only restores the number.
    let capped = hpa(6, &annotations);
    let first = plan(&capped, Some("6"), &release).first;
    assert_eq!((first.cap.max, first.term), (Some(20), Some(Set(7))));
}

#[test]
fn writes_no_term_without_an_election() {
    let facts = hpa(20, &[ENFORCED]);
    let alone = HpaGoals {
        term: 0,
        ..goals(goal(CapTarget::Hold(6)), ZeroAction::Keep)
    };
    let found = plan(&facts, None, &alone);
    let cap = HpaPatch {
        cap: CAPPED,
        ..HpaPatch::default()
    };
    assert_eq!(found.first, cap);
}
