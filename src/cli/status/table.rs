//! Table of `lagwise status`.

use std::time::Duration;

use crate::cli::text_table::{RATE_COLUMNS, TableColumn, TextTable, or_dash, rate_texts};
use crate::model::diagnostics::attention::is_at_ceiling;
use crate::model::diagnostics::hpa_status::HpaStatus;
use crate::model::findings::FindingCode;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::short_duration::{short_duration, short_lag_age};

/// Formats the statuses as a table with one row for each HPA. Unknown values are `-`. Rates have columns if those of an
/// HPA are known, which takes two readings.
pub(super) fn table(hpas: &[HpaStatus]) -> String {
    if hpas.is_empty() {
        return "no HPA uses a metric of lagwise\n".to_owned();
    }
    let with_rates = hpas.iter().any(|hpa| rates(hpa).is_some());
    let mut columns = vec![
        TableColumn::text("NAMESPACE"),
        TableColumn::text("HPA"),
        TableColumn::number("LAG"),
        TableColumn::number("TIME"),
    ];
    if with_rates {
        columns.extend(RATE_COLUMNS.map(TableColumn::number));
    }
    columns.extend([
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
    let mut table = TextTable::new(columns);
    for hpa in hpas {
        let mut cells = vec![
            hpa.namespace.clone(),
            hpa.hpa.clone(),
            or_dash(hpa.lag),
            lag_age(hpa),
        ];
        if with_rates {
            cells.extend(rate_cells(hpa));
        }
        cells.extend([
            or_dash(hpa.replicas),
            desired(hpa),
            or_dash(hpa.ceiling),
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
        table.add_row(cells);
    }
    table.render()
}

/// Messages per second that are produced and consumed.
fn rates(hpa: &HpaStatus) -> Option<(f64, f64)> {
    hpa.produced_per_second.zip(hpa.consumed_per_second)
}

fn rate_cells(hpa: &HpaStatus) -> [String; 3] {
    match rates(hpa) {
        None => ["-", "-", "-"].map(str::to_owned),
        Some((produced, consumed)) => {
            let drain = hpa.seconds_to_drain.map(Duration::from_secs);
            rate_texts(produced, consumed, drain.map(|left| left.as_secs_f64()))
        }
    }
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
    use crate::model::evaluation::parallelism::Limit;
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

    #[test]
    fn known_rates_have_columns() {
        let mut hpas = hpas();
        hpas[0].produced_per_second = Some(21.0);
        hpas[0].consumed_per_second = Some(150.0);
        hpas[0].seconds_to_drain = Some(90);
        let text = table(&hpas);
        let cells: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().skip(3).take(4).collect())
            .collect();
        assert_eq!(cells[0], ["TIME", "PRODUCED/s", "CONSUMED/s", "DRAIN"]);
        assert_eq!(cells[1], ["1m33s", "21.0", "150", "1m30s"]);
        assert_eq!(cells[2], ["0s", "-", "-", "-"]);
    }
}
