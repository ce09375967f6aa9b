//! Writes KEDA's numbers and lagwise's beside one another, while lagwise observes.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use super::text::Labels;
use crate::model::keda::shadow::report::minutes;
use crate::model::keda::shadow::{ShadowReport, ShadowRow};
use crate::telemetry::family::{COUNTER, Family, GAUGE};

/// All families.
pub(crate) const FAMILIES: &[&Family] = &[
    &REPLICAS,
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

/// The report in Prometheus's text format. Sums have three digits after the point.
pub(in crate::serve) fn shadow_text(report: &ShadowReport) -> String {
    let mut text = String::new();
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
    header(&mut text, &REPLICAS);
    for row in scaled() {
        for (by, replicas, _) in sides(row) {
            if let Some(replicas) = replicas {
                sample(&mut text, &REPLICAS, labels(row).with("by", by), replicas);
            }
        }
    }
    header(&mut text, &DIFFERENCE);
    for row in compared() {
        for reason in &row.reasons {
            let labels = labels(row).with("reason", reason);
            sample(&mut text, &DIFFERENCE, labels, 1);
        }
    }
    header(&mut text, &COMPARED);
    for row in scaled() {
        let is_compared = u8::from(row.not_compared.is_none());
        sample(&mut text, &COMPARED, labels(row), is_compared);
    }
    header(&mut text, &REPLICA_MINUTES_TOTAL);
    for row in compared() {
        for (by, _, side) in sides(row) {
            let labels = labels(row).with("by", by);
            let minutes = format!("{:.3}", side.replica_minutes());
            sample(&mut text, &REPLICA_MINUTES_TOTAL, labels, minutes);
        }
    }
    header(&mut text, &SCALE_CHANGES_TOTAL);
    for row in compared() {
        for (by, _, side) in sides(row) {
            let labels = labels(row).with("by", by);
            sample(&mut text, &SCALE_CHANGES_TOTAL, labels, side.scale_changes);
        }
    }
    header(&mut text, &REBALANCES_TOTAL);
    for row in compared() {
        let rebalances = row.totals.rebalances;
        sample(&mut text, &REBALANCES_TOTAL, labels(row), rebalances);
    }
    header(&mut text, &OBSERVED_SECONDS_TOTAL);
    for row in compared() {
        let seconds = minutes(row.totals.observed_millis) * 60.0;
        let seconds = format!("{seconds:.3}");
        sample(&mut text, &OBSERVED_SECONDS_TOTAL, labels(row), seconds);
    }
    text
}

fn labels(row: &ShadowRow) -> Labels {
    Labels::default()
        .with("namespace", &row.namespace)
        .with("scaled_object", &row.name)
}

fn header(text: &mut String, family: &Family) {
    let Family {
        name, kind, help, ..
    } = family;
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, family: &Family, labels: Labels, value: impl Display) {
    let _ = writeln!(text, "{}{{{}}} {value}", family.name, labels.0);
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
