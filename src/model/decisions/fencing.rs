//! Fencing: keeps a former leader whose process was suspended from overwriting the writes of its successor.
//!
//! A leader writes only during its term, by its own clock, and from a snapshot that is not stale. Its process
//! may still be suspended between checking the clock and writing. So every write carries the
//! `resourceVersion` that was read, and a new leader first writes its term to each HPA that it manages
//! ([`TERM`]): a delayed write of its predecessor then fails with a conflict.

use std::time::{Duration, Instant};

use super::cap::HpaFields;
use crate::model::evaluation::{Clusters, ServingPolicy};
use crate::model::hpa::facts::{self, HpaFacts, is_paused, scales_to_zero_natively};
use crate::model::settings::cap_mode::CapMode;

pub use crate::model::settings::annotation_keys::TERM;

/// How long after `now` writes may still be decided from these snapshots: until the latest sweep among them
/// is older than `max_staleness`. `None` if it is already, or if there was no sweep. The age of a single
/// reading is checked where it is used.
#[must_use]
pub fn time_left(clusters: &Clusters, now: Instant, max_staleness: Duration) -> Option<Duration> {
    let sweeps = clusters.values().filter_map(|c| c.sweep);
    let latest = sweeps.map(|sweep| sweep.finished.monotonic).max()?;
    let age = now.saturating_duration_since(latest);
    let left = max_staleness.checked_sub(age)?;
    (!left.is_zero()).then_some(left)
}

/// The value to write to an HPA's [`TERM`] before any other write; `None` if it is there already, or if
/// there is no leader election (term 0).
///
/// A higher number is overwritten: the Lease was recreated, or a person wrote the annotation. It cannot
/// come from a later leader, because the caller checks its own term between the read and the write.
#[must_use]
pub fn term_to_write(found: Option<&str>, term: u64) -> Option<u64> {
    let is_written = found == Some(term.to_string().as_str());
    (term > 0 && !is_written).then_some(term)
}

/// Whether lagwise writes, or may write, to this HPA or its scale target: because its settings require that, or because
/// something was written before. `is_recorded` says whether the ledger of scale to zero has a record for it.
#[must_use]
pub fn is_managed(hpa: &HpaFacts, policy: &ServingPolicy, is_recorded: bool) -> bool {
    if is_paused(hpa) {
        return false;
    }
    policy.cap_mode(hpa) == CapMode::Enforce
        || HpaFields::of(hpa).is_annotated()
        || is_managed_for_zero(hpa, policy, is_recorded)
}

/// Whether lagwise writes, or may write, to this HPA for scale to zero.
#[must_use]
pub fn is_managed_for_zero(hpa: &HpaFacts, policy: &ServingPolicy, is_recorded: bool) -> bool {
    let is_enabled = || facts::settings(hpa).scale_to_zero();
    let is_allowed = policy.writes.zero.includes(&hpa.namespace);
    let may_be_zeroed = is_allowed && hpa.controller.is_none() && !scales_to_zero_natively(hpa);
    is_recorded || may_be_zeroed && is_enabled()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures;
    use crate::model::hpa::write_scopes::{WriteScope, WriteScopes};

    #[test]
    fn snapshot_allows_decisions_until_it_is_stale() {
        let snapshot = fixtures::snapshot();
        let sweeps = snapshot.clusters.values().filter_map(|c| c.sweep);
        let latest = sweeps.map(|sweep| sweep.finished.monotonic).max().unwrap();
        let second = Duration::from_secs(1);
        let left = |after| time_left(&snapshot.clusters, latest + after, 10 * second);
        assert_eq!(left(Duration::ZERO), Some(10 * second));
        assert_eq!(left(9 * second), Some(second));
        assert_eq!(left(10 * second), None);
        assert_eq!(left(3600 * second), None);
        let nothing = Clusters::new();
        assert_eq!(time_left(&nothing, latest, 10 * second), None);
    }

    #[test]
    fn writes_the_term_once() {
        for (found, term, expected) in [
            (None, 7, Some(7)),
            (Some("6"), 7, Some(7)),
            (Some("7"), 7, None),
            (Some("8"), 7, Some(7)),
            (Some("seven"), 7, Some(7)),
            (None, 0, None),
            (Some("7"), 0, None),
        ] {
            assert_eq!(term_to_write(found, term), expected, "{found:?} {term}");
        }
    }

    #[test]
    fn hpas_with_or_awaiting_writes_are_managed() {
        let hpa = |annotations: &[(&str, &str)]| HpaFacts {
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..HpaFacts::default()
        };
        let with_cap = |cap| ServingPolicy {
            cap,
            ..ServingPolicy::default()
        };
        let (advise, enforce) = (with_cap(CapMode::Advise), with_cap(CapMode::Enforce));
        for (annotations, expected) in [
            (&[][..], false),
            (&[("lagwise.dev/cap", "enforce")], true),
            (&[("lagwise.dev/cap", "advise")], false),
            (&[("lagwise.dev/ceiling", "6")], true),
            (&[("lagwise.dev/user-max-replicas", "20")], true),
            // Everybody who may write the HPA can write the annotation.
            (
                &[("lagwise.dev/zeroed-since", "2026-01-01T00:00:00Z")],
                false,
            ),
            (&[("lagwise.dev/scale-to-zero", "true")], true),
            (&[("lagwise.dev/scale-to-zero.g", "true")], false),
            (&[("lagwise.dev/scale-to-zero", "false")], false),
            (
                &[
                    ("lagwise.dev/cap", "enforce"),
                    ("lagwise.dev/paused", "true"),
                ],
                false,
            ),
        ] {
            let found = is_managed(&hpa(annotations), &advise, false);
            assert_eq!(found, expected, "{annotations:?}");
        }
        assert!(is_managed(&hpa(&[]), &enforce, false));
        // lagwise must wake a workload that it has scaled to zero, also if the HPA no longer has scale to zero.
        assert!(is_managed(&hpa(&[]), &advise, true));
        let paused = hpa(&[("lagwise.dev/paused", "true")]);
        assert!(!is_managed(&paused, &advise, true));
        // HPAs with a controller are left alone, and those that scale to zero natively.
        let zero = hpa(&[("lagwise.dev/scale-to-zero", "true")]);
        let native = HpaFacts {
            min_replicas: Some(0),
            ..zero.clone()
        };
        let owned = HpaFacts {
            controller: Some("ScaledObject shop/orders".into()),
            ..zero
        };
        assert!(!is_managed(&native, &advise, false));
        assert!(!is_managed(&owned, &enforce, false));
        // It does not write where the administrator has not enabled that, unless something was written before.
        let elsewhere = WriteScope {
            namespaces: vec!["elsewhere".into()],
            ..WriteScope::ALL
        };
        let narrow = ServingPolicy {
            writes: WriteScopes {
                cap: elsewhere.clone(),
                zero: elsewhere,
            },
            ..enforce
        };
        let capped = hpa(&[("lagwise.dev/ceiling", "6")]);
        for (hpa, is_recorded, expected) in [
            (&hpa(&[("lagwise.dev/cap", "enforce")]), false, false),
            (&hpa(&[("lagwise.dev/scale-to-zero", "true")]), false, false),
            (&hpa(&[("lagwise.dev/scale-to-zero", "true")]), true, true),
            (&capped, false, true),
        ] {
            assert_eq!(is_managed(hpa, &narrow, is_recorded), expected, "{hpa:?}");
        }
    }
}
