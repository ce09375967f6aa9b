//! The value that is served after lag has been unknown for long.

use super::*;
use crate::model::hpa::facts::HpaFacts;
use crate::model::settings::cap_mode::CapMode;

/// A group whose last complete reading is at time 0.
fn out_of_reach(annotations: &[(&str, &str)]) -> LagSnapshot {
    let mut down = observation(5, &[]);
    down.groups[0].committed = Err(Fault::Unreachable);
    let facts = annotated(hpa("h", "group=g,topic=t", average(10)), annotations);
    snapshot(
        vec![observation(0, &[("t", &behind(4, 9))]), down],
        &[facts],
    )
}

#[test]
fn the_fallback_is_served_once_lag_has_been_unknown_for_long() {
    let set = [("fallback-replicas", "3"), ("fallback-after", "2m")];
    let served = |snapshot: &LagSnapshot, seconds| {
        let answer = ask_at(seconds, snapshot, "group=g,topic=t", &POLICY);
        answer.map(|a| (a.value.thousandths() / 1000, a.rule, a.lag))
    };
    let snapshot = out_of_reach(&set);
    assert_eq!(
        served(&snapshot, 30),
        Ok((9, ValueRule::AsMeasured, Some(Lag(9))))
    );
    assert!(served(&snapshot, 119).is_err());
    assert_eq!(served(&snapshot, 120), Ok((30, ValueRule::Fallback, None)));
    // Off by default, and the time alone turns nothing on.
    for annotations in [&[][..], &set[1..]] {
        assert!(served(&out_of_reach(annotations), 100_000).is_err());
    }
    // Never above the ceiling that was known last.
    let many = [("fallback-replicas", "9"), ("fallback-after", "2m")];
    assert_eq!(
        served(&out_of_reach(&many), 500),
        Ok((40, ValueRule::Fallback, None))
    );
    let snapshot = snapshot.evaluated(&POLICY);
    let now = at(120);
    let metrics = snapshot.at(&now).hpa_metrics();
    let options = FindingOptions {
        cap: CapMode::Advise,
        min_age: Duration::ZERO,
    };
    let found = findings::<HpaFacts>(&snapshot.evaluations, &metrics, &[], options);
    let found: Vec<_> = found.iter().map(|f| (f.code, &f.subject)).collect();
    let subject = HpaKey::new("shop", "h").into();
    assert_eq!(found, [(FindingCode::FallbackServed, &subject)]);
}

#[test]
fn lag_that_was_never_read_is_unknown_since_it_is_watched() {
    let set = [("fallback-replicas", "3"), ("fallback-after", "2m")];
    let mut snapshot = out_of_reach(&set);
    let targets = Targets::new(&["main".into()], TargetOptions::default(), None);
    let targets = targets.with_hpas(snapshot.targets.facts(), Some(at(100)));
    snapshot.targets = Arc::new(targets);
    snapshot.clusters = BTreeMap::new();
    let served = |seconds| ask_at(seconds, &snapshot, "group=g,topic=t", &POLICY);
    assert!(matches!(served(219), Err(NoValueReason::NotYetRead(_))));
    assert_eq!(served(220).unwrap().value, Milli::from_units(30));
    assert_eq!(served(220).unwrap().ceiling, None);
}

#[test]
fn no_fallback_is_served_before_the_hpas_are_listed_or_for_a_missing_topic() {
    let mut snapshot = out_of_reach(&[("fallback-replicas", "3"), ("fallback-after", "2m")]);
    let mut targets = (*snapshot.targets).clone();
    targets.hpas_unlisted = true;
    snapshot.targets = Arc::new(targets);
    assert!(ask_at(500, &snapshot, "group=g,topic=t", &POLICY).is_err());
    // A missing topic is no outage.
    let mut gone = observation(0, &[("t", &[])]);
    gone.topics.insert("t".into(), Err(Fault::TopicMissing));
    let facts = annotated(
        hpa("h", "group=g,topic=t", average(10)),
        &[("fallback-replicas", "3"), ("fallback-after", "2m")],
    );
    let snapshot = self::snapshot(vec![gone], &[facts]);
    let refusal = ask_at(500, &snapshot, "group=g,topic=t", &POLICY).unwrap_err();
    assert!(
        matches!(refusal, NoValueReason::TopicMissing { .. }),
        "{refusal}"
    );
}
