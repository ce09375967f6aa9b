//! Errors of the API server: findings about missing rights, and which errors are forgotten.

use super::*;
use crate::telemetry::testing::counter_value;

#[tokio::test]
async fn missing_rights_are_findings_until_a_pass_succeeds() {
    let both = [("cap", "enforce"), ("scale-to-zero", "true")];
    let hpas: HpaMap = [hpa("a", &both)].into_iter().collect();
    let mut rig = Rig::new();
    rig.observe(&hpas, true);
    let mut finish = |seconds: u64, cap: Result<(), &ApiError>, zero: Result<(), &ApiError>| {
        let facts = hpas.values().next().unwrap();
        rig.reconciler.finish_pass(&PassReport {
            hpa: Arc::clone(facts),
            term: 7,
            term_write: Ok(()),
            cap: Some(cap.map(|()| None).map_err(Clone::clone)),
            zero: Some(ZeroReport {
                up_since: None,
                done: None,
                refusal: None,
                error: zero.err().cloned(),
            }),
        });
        rig.sweep(seconds);
        let findings = rig.reconciler.ledger.findings();
        assert!(findings.iter().all(|f| f.code.label() == "write_forbidden"));
        let shown = findings.iter().map(|finding| {
            let text = finding.message.split("; ").next();
            text.unwrap_or_default().to_owned()
        });
        Vec::from_iter(shown)
    };
    let forbidden = |what: &str| ApiError::Forbidden(format!("cannot {what}"));
    let (patch, get) = (forbidden("patch HPAs"), forbidden("get scale"));
    let (no_cap, no_zero) = (
        "lagwise may not write maxReplicas: cannot patch HPAs",
        "lagwise may not scale  shop/ to zero or wake it: cannot get scale",
    );
    let refused = ApiError::Refused("invalid".into());
    let silent = ApiError::timed_out();
    for (seconds, (cap, zero, expected)) in (1..).zip([
        (Ok(()), Ok(()), &[][..]),
        (Err(&refused), Err(&silent), &[]),
        (Err(&patch), Ok(()), &[no_cap]),
        (Err(&patch), Err(&get), &[no_zero, no_cap]),
        // Without an answer nothing is known that is new.
        (Err(&silent), Err(&silent), &[no_zero, no_cap]),
        (Ok(()), Err(&get), &[no_zero]),
        (Ok(()), Ok(()), &[]),
    ]) {
        assert_eq!(finish(seconds, cap, zero), expected, "{seconds}");
    }
}

#[tokio::test]
async fn every_failed_write_is_counted() {
    let both = [("cap", "enforce"), ("scale-to-zero", "true")];
    let hpas: HpaMap = [hpa("a", &both)].into_iter().collect();
    let (refused, forbidden) = (
        ApiError::Refused("invalid".into()),
        ApiError::Forbidden("cannot patch HPAs".into()),
    );
    let changed = ApiError::Changed;
    for (errors, is_failure) in [
        (&[&refused][..], true),
        (&[&refused, &refused, &forbidden], true),
        (&[&changed], false),
    ] {
        let mut rig = Rig::new();
        rig.observe(&hpas, true);
        let counts = || {
            ["lagwise_cap_writes_total", "lagwise_zero_scales_total"]
                .map(|n| counter_value(n, "failed"))
        };
        let before = counts();
        // Many more than fail in the other tests, which may run meanwhile. A conflict is no failure.
        for error in errors.iter().cycle().take(50) {
            rig.reconciler.finish_pass(&PassReport {
                hpa: Arc::clone(hpas.values().next().unwrap()),
                term: 7,
                term_write: Ok(()),
                cap: Some(Err((*error).clone())),
                zero: Some(ZeroReport {
                    up_since: None,
                    done: None,
                    refusal: None,
                    error: Some((*error).clone()),
                }),
            });
        }
        for (after, before) in counts().into_iter().zip(before) {
            let are_counted = after - before >= 50.0;
            assert_eq!(are_counted, is_failure, "{errors:?}: {before} to {after}");
        }
    }
}

#[tokio::test]
async fn a_missing_right_is_no_finding_for_an_hpa_that_no_longer_needs_it() {
    for (annotation, cap, zero) in [
        (("cap", "enforce"), true, false),
        (("scale-to-zero", "true"), false, true),
    ] {
        let asks = hpa("a", &[annotation]);
        let mut rig = Rig::new();
        rig.observe(&[Arc::clone(&asks)].into_iter().collect(), true);
        let error = ApiError::Forbidden("cannot patch".into());
        rig.reconciler.finish_pass(&PassReport {
            hpa: asks,
            term: 7,
            term_write: Ok(()),
            cap: cap.then(|| Err(error.clone())),
            zero: zero.then(|| ZeroReport {
                up_since: None,
                done: None,
                refusal: None,
                error: Some(error.clone()),
            }),
        });
        rig.sweep(1);
        let count = |rig: &Rig| rig.reconciler.ledger.findings().len();
        assert_eq!(count(&rig), 1, "{annotation:?}");
        rig.observe(&[hpa("a", &[])].into_iter().collect(), true);
        assert_eq!(count(&rig), 0, "{annotation:?}");
    }
}

/// Refuses the cap of some HPAs, then lets the lookup of the field's owner fail and succeed. Returns of which HPAs the
/// refusal is forgotten.
fn forgotten_refusals(rig: &mut Rig, refused: &[&str]) -> Vec<String> {
    let hpas: HpaMap = ["a", "b", "c"]
        .map(|name| hpa(name, &[("cap", "enforce")]))
        .into_iter()
        .collect();
    rig.observe(&hpas, true);
    for name in refused {
        let facts = Arc::clone(hpas.get(&HpaKey::new("shop", *name)).unwrap());
        rig.reconciler.finish_pass(&PassReport {
            hpa: facts,
            term: 7,
            term_write: Ok(()),
            cap: Some(Err(ApiError::Refused("denied by a policy".into()))),
            zero: None,
        });
    }
    for state in rig.reconciler.hpas.values_mut() {
        state.cap.target = Some(crate::model::decisions::cap::CapTarget::Hold(6));
    }
    rig.reconciler
        .finish_field_owner_lookup(Err(ApiError::timed_out()));
    let not_refused = rig
        .reconciler
        .hpas
        .iter()
        .filter(|(key, _)| !refused.contains(&&*key.name));
    for (key, state) in not_refused {
        assert!(!state.cap.retry.is_failing(), "{key}");
        assert!(state.cap.lookup_failures.is_failing(), "{key}");
    }
    rig.reconciler
        .finish_field_owner_lookup(Ok(FieldOwner::Lagwise));
    let states = rig.reconciler.hpas.iter();
    let forgotten = states.filter(|(key, state)| {
        assert!(!state.cap.lookup_failures.is_failing(), "{key}");
        refused.contains(&&*key.name) && !state.cap.retry.is_failing()
    });
    forgotten.map(|(key, _)| key.name.to_string()).collect()
}

#[tokio::test]
async fn field_owner_that_is_found_keeps_the_refusal_of_an_hpa() {
    assert_eq!(forgotten_refusals(&mut Rig::new(), &["b"]), [""; 0]);
}

#[tokio::test]
async fn field_owner_that_is_found_keeps_the_refusals_of_all_hpas() {
    assert_eq!(
        forgotten_refusals(&mut Rig::new(), &["a", "b", "c"]),
        [""; 0]
    );
}
