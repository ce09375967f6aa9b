//! Writes KEDA's and lagwise's replicas while lagwise observes.

use std::borrow::Cow;

use super::sample::{Labels, SampleSink, SampleValue};
use super::text::TextSamples;
use crate::model::keda::shadow::report::minutes;
use crate::model::keda::shadow::{ShadowReport, ShadowRow};
use crate::telemetry::family::{COUNTER, Family, GAUGE};

pub(crate) const FAMILIES: &[&Family] = &[
    &REPLICAS,
    &JOBS,
    &DIFFERENCE,
    &COMPARED,
    &REPLICA_MINUTES_TOTAL,
    &SCALE_CHANGES_TOTAL,
    &REBALANCES_TOTAL,
    &OBSERVED_SECONDS_TOTAL,
];

const REPLICAS: Family = Family {
    name: "lagwise_shadow_replicas",
    kind: GAUGE,
    help: "Replicas of a workload that KEDA scales: those that run, those that KEDA's arithmetic asks for, and those that lagwise would ask for; absent if unknown",
    labels: Cow::Borrowed(&["namespace", "scaled_object", "by"]),
};
const JOBS: Family = Family {
    name: "lagwise_shadow_jobs",
    kind: GAUGE,
    help: "Jobs of a ScaledJob: by keda those after KEDA's next poll if none existed before it, by lagwise those that the lag is worth and that can have work; absent if unknown",
    labels: Cow::Borrowed(&["namespace", "scaled_job", "by"]),
};
const DIFFERENCE: Family = Family {
    name: "lagwise_shadow_difference",
    kind: GAUGE,
    help: "1 while the numbers of KEDA and lagwise may differ for this reason; absent otherwise",
    labels: Cow::Borrowed(&["namespace", "scaled_object", "reason"]),
};
const COMPARED: Family = Family {
    name: "lagwise_shadow_compared",
    kind: GAUGE,
    help: "1 if KEDA and lagwise are compared for the object, 0 if not, for the reason that lagwise shadow report shows",
    labels: Cow::Borrowed(&["namespace", "scaled_object"]),
};
const REPLICA_MINUTES_TOTAL: Family = Family {
    name: "lagwise_shadow_replica_minutes_total",
    kind: COUNTER,
    help: "Replicas times minutes, while both numbers are known: by is running for what ran, keda and lagwise for an HPA computed with the values of each, at the same lag",
    labels: Cow::Borrowed(&["namespace", "scaled_object", "by"]),
};
const SCALE_CHANGES_TOTAL: Family = Family {
    name: "lagwise_shadow_scale_changes_total",
    kind: COUNTER,
    help: "Changes of the number of replicas, each at least one rebalance; by as in lagwise_shadow_replica_minutes_total",
    labels: Cow::Borrowed(&["namespace", "scaled_object", "by"]),
};
const REBALANCES_TOTAL: Family = Family {
    name: "lagwise_shadow_rebalances_total",
    kind: COUNTER,
    help: "Observed rebalances of the groups of a workload that KEDA scales",
    labels: Cow::Borrowed(&["namespace", "scaled_object"]),
};
const OBSERVED_SECONDS_TOTAL: Family = Family {
    name: "lagwise_shadow_observed_seconds_total",
    kind: COUNTER,
    help: "Time in which both numbers were known",
    labels: Cow::Borrowed(&["namespace", "scaled_object"]),
};

/// The report in Prometheus's text format.
pub(in crate::serve) fn shadow_text(report: &ShadowReport) -> String {
    let mut samples = TextSamples::default();
    write(&mut samples, report);
    samples.text
}

/// Writes the report. Sums have three digits after the point.
pub(super) fn write(samples: &mut impl SampleSink, report: &ShadowReport) {
    let scaled = || {
        report
            .objects
            .iter()
            .filter(|row| row.kind == "ScaledObject")
    };
    let compared = || scaled().filter(|row| row.not_compared.is_none());
    let sides = |row: &ShadowRow| {
        let totals = &row.totals;
        [
            ("running", row.running, totals.running.clone()),
            ("keda", row.keda, totals.keda.clone()),
            ("lagwise", row.lagwise, totals.lagwise.clone()),
        ]
    };
    samples.family(&REPLICAS);
    for row in scaled() {
        for (by, replicas, _) in sides(row) {
            if let Some(replicas) = replicas {
                samples.sample(&labels(row).with("by", by), replicas);
            }
        }
    }
    samples.family(&JOBS);
    for row in report.objects.iter().filter(|row| row.kind == "ScaledJob") {
        for (by, jobs) in [("keda", row.keda), ("lagwise", row.lagwise)] {
            if let Some(jobs) = jobs {
                let labels = Labels::default()
                    .with("namespace", &row.namespace)
                    .with("scaled_job", &row.name);
                samples.sample(&labels.with("by", by), jobs);
            }
        }
    }
    samples.family(&DIFFERENCE);
    for row in compared() {
        for reason in &row.reasons {
            samples.sample(&labels(row).with("reason", reason), true);
        }
    }
    samples.family(&COMPARED);
    for row in scaled() {
        samples.sample(&labels(row), row.not_compared.is_none());
    }
    samples.family(&REPLICA_MINUTES_TOTAL);
    for row in compared() {
        for (by, _, side) in sides(row) {
            let minutes = SampleValue::Rounded(side.replica_minutes());
            samples.sample(&labels(row).with("by", by), minutes);
        }
    }
    samples.family(&SCALE_CHANGES_TOTAL);
    for row in compared() {
        for (by, _, side) in sides(row) {
            samples.sample(&labels(row).with("by", by), side.scale_changes);
        }
    }
    samples.family(&REBALANCES_TOTAL);
    for row in compared() {
        samples.sample(&labels(row), row.totals.rebalances);
    }
    samples.family(&OBSERVED_SECONDS_TOTAL);
    for row in compared() {
        let seconds = minutes(row.totals.observed_millis) * 60.0;
        samples.sample(&labels(row), SampleValue::Rounded(seconds));
    }
}

fn labels(row: &ShadowRow) -> Labels {
    Labels::default()
        .with("namespace", &row.namespace)
        .with("scaled_object", &row.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keda::shadow::ShadowTotals;
    use crate::model::keda::shadow::report::SideTotals;

    #[test]
    fn writes_every_family_and_leaves_out_what_is_unknown() {
        let row = |name: &str| ShadowRow {
            kind: "ScaledObject".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ..ShadowRow::default()
        };
        let side = |replica_millis, scale_changes| SideTotals {
            replica_millis,
            scale_changes,
        };
        let report = ShadowReport {
            objects: vec![
                ShadowRow {
                    running: Some(6),
                    keda: Some(6),
                    lagwise: Some(5),
                    reasons: vec!["one_beyond_partitions".to_owned()],
                    totals: ShadowTotals {
                        observed_millis: 90_500,
                        running: side(540_000, 2),
                        keda: side(540_000, 2),
                        lagwise: side(450_000, 1),
                        rebalances: 3,
                        ..ShadowTotals::default()
                    },
                    ..row("billing")
                },
                ShadowRow {
                    running: Some(1),
                    not_compared: Some("it is paused".to_owned()),
                    ..row("paused")
                },
                ShadowRow {
                    kind: "ScaledJob".to_owned(),
                    keda: Some(6),
                    lagwise: Some(5),
                    ..row("import")
                },
            ],
            ..ShadowReport::default()
        };
        let text = shadow_text(&report);
        for family in FAMILIES {
            assert!(
                text.contains(&format!("# TYPE {} ", family.name)),
                "{}",
                family.name
            );
        }
        insta::assert_snapshot!(text);
    }
}
