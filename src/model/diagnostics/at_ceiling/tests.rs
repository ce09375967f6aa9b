use super::*;
use crate::model::diagnostics::current_findings::UsedCeiling;
use crate::model::evaluation::hpa_ceiling;
use crate::model::fixtures;
use crate::model::hpa::facts::MetricTarget;
use crate::model::lag::assembly::Scope;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::quantity::Milli;

/// An HPA of 100 messages per replica on these selectors.
fn hpa(selectors: &[&str], annotations: &[(&str, &str)], max_replicas: u32) -> HpaFacts {
    let target = MetricTarget::AverageValue(Milli::from_units(100));
    let one = |selector: &str| fixtures::hpa("billing", selector, target);
    let metrics = selectors.iter().flat_map(|selector| one(selector).metrics);
    let key = |key: &str| format!("lagwise.dev/{key}");
    HpaFacts {
        max_replicas,
        metrics: metrics.collect(),
        annotations: annotations
            .iter()
            .map(|(name, value)| (key(name), (*value).to_owned()))
            .collect(),
        ..one("")
    }
}

/// Lag by group, topic and partition.
type Lags<'a> = &'a [(&'a str, &'a str, &'a [i64])];

fn snapshot(hpa: &HpaFacts, lags: Lags<'_>) -> LagSnapshot {
    let observations = lags.iter().map(|(group, topic, lags)| {
        let rows: Vec<_> = lags.iter().map(|lag| (0, Ok(Some(0)), Ok(*lag))).collect();
        fixtures::read(Duration::ZERO, group, topic, &rows)
    });
    fixtures::evaluated(std::slice::from_ref(hpa), observations, Scope::Partial)
}

/// The finding about the HPA with this lag.
fn text(hpa: &HpaFacts, lags: Lags<'_>) -> Option<String> {
    let snapshot = snapshot(hpa, lags);
    let now = fixtures::at(Duration::ZERO);
    let metrics = snapshot.at(&now).hpa_metrics();
    AtCeiling::of_hpa(&metrics, hpa.max_replicas).map(|at_ceiling| at_ceiling.to_string())
}

#[test]
fn reports_the_replicas_for_the_lag_and_the_ceiling() {
    let g = ["group=g,topic=t"];
    let one = |max| hpa(&g, &[], max);
    let twelve = [437; 12];
    for (hpa, lags, expected) in [
        (
            one(12),
            &[("g", "t", &twelve[..])][..],
            Some("lag 5244 is worth 53 replicas, capped at 12 (12 partitions of t)"),
        ),
        (
            one(20),
            &[("g", "t", &[101])],
            Some("lag 101 is worth 2 replicas, capped at 1 (1 partition of t)"),
        ),
        (one(20), &[("g", "t", &[100])], None),
        (one(20), &[("g", "t", &[0, 0])], None),
        // The HPA's own maximum is what limits it.
        (one(11), &[("g", "t", &twelve)], None),
        (
            hpa(&g, &[("threads-per-replica", "4")], 20),
            &[("g", "t", &twelve)],
            Some(
                "lag 5244 is worth 53 replicas, capped at 3 (12 partitions of t, 4 members in each replica)",
            ),
        ),
        (
            hpa(&["group=g,topic in (t,u)"], &[], 20),
            &[("g", "t", &[900, 0, 0])],
            None,
        ),
        (
            hpa(&["group in (g,h),topic=t"], &[], 20),
            &[("g", "t", &[900, 0]), ("h", "t", &[900, 0])],
            Some(
                "lag 1800 is worth 18 replicas, capped at 2 (by the replica ceilings of its groups)",
            ),
        ),
        // The HPA follows the metric that desires the most.
        (
            hpa(&["group=g,topic=t", "group=h,topic=u"], &[], 20),
            &[("g", "t", &[900, 0]), ("h", "u", &[100, 100, 100])],
            None,
        ),
        (
            hpa(&["group=g,topic=t", "group=h,topic=u"], &[], 20),
            &[("g", "t", &[900, 0]), ("h", "u", &[100, 0, 0])],
            Some("lag 900 is worth 9 replicas, capped at 2 (2 partitions of t)"),
        ),
        (
            hpa(&g, &[("by", "lagging")], 20),
            &[("g", "t", &[900, 0, 10])],
            Some(
                "lag 910 is worth 10 replicas, capped at 2 (useful parallelism 2: the partitions with lag)",
            ),
        ),
    ] {
        assert_eq!(text(&hpa, lags).as_deref(), expected, "{lags:?}");
    }
}

/// The finding about the HPA at this number of seconds after the start.
fn update(
    findings: &mut AtCeilingFindings,
    hpa: &HpaFacts,
    seconds: u64,
    lags: Lags<'_>,
) -> Option<String> {
    let snapshot = snapshot(hpa, lags);
    let start = fixtures::at(Duration::ZERO);
    let metrics = snapshot.at(&start).hpa_metrics();
    let targets = snapshot.targets.of_hpa(&hpa.key());
    let ceiling = UsedCeiling::new(hpa_ceiling(&metrics), targets).fixed();
    let now = start.monotonic + Duration::from_secs(seconds);
    let finding = findings.update(hpa, &metrics, ceiling, now);
    finding.map(|finding| finding.message.clone())
}

#[test]
fn is_not_reported_again_when_another_metric_becomes_an_error() {
    let mut findings = AtCeilingFindings::default();
    let billing = hpa(&["group=g,topic=t", "group=h,topic=u"], &[], 20);
    let mut update = |seconds, lags: Lags<'_>| update(&mut findings, &billing, seconds, lags);
    let g: (&str, &str, &[i64]) = ("g", "t", &[900, 0]);
    let h: (&str, &str, &[i64]) = ("h", "u", &[0, 0]);
    // The ceiling of the HPA is not known before the other group has been read.
    let first = update(0, &[g]);
    assert!(first.is_some());
    let g = ("g", "t", &[800, 0][..]);
    for (seconds, lags) in [(5, &[g, h][..]), (10, &[g]), (15, &[g, h])] {
        assert_eq!(update(seconds, lags), first, "{seconds}");
    }
    let h = ("h", "u", &[0, 0, 0][..]);
    assert_ne!(update(20, &[g, h]), first);
}

#[test]
fn is_reported_once_while_the_lag_varies() {
    let mut findings = AtCeilingFindings::default();
    let mut update = |hpa: &HpaFacts, seconds: u64, lags: &[i64]| {
        update(&mut findings, hpa, seconds, &[("g", "t", lags)])
    };
    let billing = hpa(&["group=g,topic=t"], &[], 20);
    let says = |lag: u64, worth: u64, partitions: u64| {
        let limit = format!("capped at {partitions} ({partitions} partitions of t)");
        Some(format!("lag {lag} is worth {worth} replicas, {limit}"))
    };
    for (seconds, lags, expected) in [
        (0, &[100, 100][..], None),
        (5, &[300, 200], says(500, 5, 2)),
        // More lag, and some seconds without: still the same.
        (10, &[900, 200], says(500, 5, 2)),
        (15, &[0, 0], says(500, 5, 2)),
        (400, &[100, 201], says(500, 5, 2)),
        (999, &[0, 0], says(500, 5, 2)),
        // Another ceiling is news.
        (999, &[500, 0, 0], says(500, 5, 3)),
        (1598, &[0, 0, 0], says(500, 5, 3)),
        (1599, &[0, 0, 0], None),
        (1600, &[700, 0, 0], says(700, 7, 3)),
    ] {
        assert_eq!(update(&billing, seconds, lags), expected, "{seconds}");
    }

    // A ceiling that follows the lag is not news each time.
    let lagging = HpaFacts {
        name: "mail".into(),
        ..hpa(&["group=g,topic=t"], &[("by", "lagging")], 20)
    };
    let first = update(&lagging, 2000, &[900, 0, 10]);
    assert!(first.is_some());
    assert_eq!(update(&lagging, 2005, &[900, 0, 0]), first);
    findings.remove(&lagging.key());
    assert!(!findings.0.contains_key(&lagging.key()));
}
