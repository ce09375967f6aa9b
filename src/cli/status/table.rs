//! Table of `lagwise status`.

use std::time::Duration;

use crate::cli::text_table::{TableColumn, TextTable, or_dash};
use crate::model::diagnostics::attention::is_at_ceiling;
use crate::model::diagnostics::hpa_status::HpaStatus;
use crate::model::evaluation::parallelism::Limit;
use crate::model::findings::FindingCode;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::short_duration::{short_duration, short_lag_age};

/// Formats the statuses as a table with one row for each HPA. Unknown values are `-`.
pub(super) fn table(hpas: &[HpaStatus]) -> String {
    if hpas.is_empty() {
        return "no HPA uses a metric of lagwise\n".to_owned();
    }
    let mut table = TextTable::new([
        TableColumn::text("NAMESPACE"),
        TableColumn::text("HPA"),
        TableColumn::number("LAG"),
        TableColumn::number("TIME"),
        TableColumn::number("REPLICAS"),
        TableColumn::number("DESIRED"),
        TableColumn::number("CEILING"),
        TableColumn::number("PARTITIONS"),
        TableColumn::text("CAP"),
        TableColumn::text("AGE"),
        TableColumn::text("FINDINGS"),
        // Last, because it is long if it explains why the value is unknown.
        TableColumn::text("REASON"),
    ]);
    for hpa in hpas {
        table.add_row([
            hpa.namespace.clone(),
            hpa.hpa.clone(),
            or_dash(hpa.lag),
            lag_age(hpa),
            or_dash(hpa.replicas),
            desired(hpa),
            match hpa.ceiling {
                None => "-".to_owned(),
                Some(Limit::Bounded(most)) => most.to_string(),
                Some(Limit::Unbounded) => "none".to_owned(),
            },
            or_dash(hpa.partitions),
            cap(hpa),
            or_dash(
                hpa.age_millis
                    .map(Duration::from_millis)
                    .map(short_duration),
            ),
            match hpa.findings.as_slice() {
                [] => "-".to_owned(),
                codes => codes.join(","),
            },
            reason(hpa),
        ]);
    }
    table.render()
}

/// The desired replicas; if the ceiling limits them, also the replicas without it, as in `6 of 13`.
fn desired(hpa: &HpaStatus) -> String {
    let uncapped = hpa.uncapped.filter(|_| is_at_ceiling(hpa));
    match (hpa.desired, uncapped) {
        (Some(desired), Some(uncapped)) => format!("{desired} of {uncapped}"),
        (desired, _) => or_dash(desired),
    }
}

/// Age of the oldest unread message.
fn lag_age(hpa: &HpaStatus) -> String {
    let age = hpa.lag_millis.map(Duration::from_millis);
    or_dash(age.and_then(|age| short_lag_age(age, hpa.lag_millis_is_lower_bound)))
}

/// The rule behind the value, or why there is none; and for a workload at zero replicas, since when lagwise keeps it
/// there, or that another writer does.
fn reason(hpa: &HpaStatus) -> String {
    let is = |code: FindingCode| hpa.findings.iter().any(|found| found == code.code());
    match &hpa.asleep_since {
        Some(since) => format!("asleep since {since}, {}", hpa.reason),
        None if is(FindingCode::SwitchedOff) => {
            format!("switched off, not by lagwise, {}", hpa.reason)
        }
        None => hpa.reason.clone(),
    }
}

/// The cap mode. `*` marks that `maxReplicas` is observed to be at or below the ceiling.
fn cap(hpa: &HpaStatus) -> String {
    let mode = match hpa.cap {
        CapMode::Advise => "advise",
        CapMode::Enforce => "enforce",
    };
    let observed = if hpa.cap_observed { "*" } else { "" };
    let paused = if hpa.paused { ",paused" } else { "" };
    format!("{mode}{observed}{paused}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Output;
    use crate::model::units::newtypes::Replicas;

    fn hpas() -> Vec<HpaStatus> {
        let of = |hpa: &str| HpaStatus {
            namespace: "shop".into(),
            hpa: hpa.into(),
            ..HpaStatus::default()
        };
        vec![
            HpaStatus {
                lag: Some(1250),
                lag_millis: Some(93_000),
                replicas: Some(4),
                desired: Some(6),
                uncapped: Some(13),
                ceiling: Some(Limit::Bounded(Replicas(6))),
                partitions: Some(6),
                cap: CapMode::Enforce,
                cap_observed: true,
                reason: "lifted".into(),
                age_millis: Some(4200),
                ..of("billing")
            },
            HpaStatus {
                lag: Some(0),
                lag_millis: Some(0),
                replicas: Some(0),
                desired: Some(0),
                ceiling: Some(Limit::Unbounded),
                partitions: Some(0),
                cap: CapMode::Enforce,
                paused: true,
                reason: "as_measured".into(),
                age_millis: Some(0),
                asleep_since: Some("2024-05-06T07:08:09Z".into()),
                ..of("empty")
            },
            HpaStatus {
                lag: Some(7),
                lag_millis: Some(600_000),
                lag_millis_is_lower_bound: true,
                desired: Some(1),
                uncapped: Some(1),
                ceiling: Some(Limit::Bounded(Replicas(12))),
                partitions: Some(12),
                reason: "as_measured".into(),
                age_millis: Some(1000),
                findings: vec!["LW018".into(), "LW024".into()],
                ..of("mail")
            },
            HpaStatus {
                lag: Some(50),
                lag_millis: Some(500),
                lag_millis_is_lower_bound: true,
                replicas: Some(0),
                desired: Some(1),
                ceiling: Some(Limit::Bounded(Replicas(2))),
                partitions: Some(2),
                reason: "as_measured".into(),
                age_millis: Some(1000),
                findings: vec!["LW054".into()],
                ..of("off")
            },
            HpaStatus {
                replicas: Some(3),
                reason: "topic \"gone\" does not exist on Kafka cluster \"main\"".into(),
                findings: vec!["LW027".into()],
                ..of("unknown")
            },
        ]
    }

    #[test]
    fn prints_table_and_json() {
        insta::assert_snapshot!("table", table(&hpas()));
        insta::assert_snapshot!("json", Output::Json.serialize(&hpas()).unwrap().unwrap());
        assert_eq!(table(&[]), "no HPA uses a metric of lagwise\n");
    }
}
