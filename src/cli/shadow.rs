//! `lagwise shadow`: what lagwise would do in KEDA's place.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::daemon_client::DaemonArgs;
use super::kube_args::KubeArgs;
use super::status::MAX_RESPONSE_BYTES;
use super::text_table::{TableColumn, TextTable, or_dash};
use super::{Output, print_output};
use crate::model::keda::shadow::report::minutes;
use crate::model::keda::shadow::{ShadowReport, ShadowRow, ShadowTotals};
use crate::model::units::short_duration::short_duration;

/// The arguments of `lagwise shadow`.
#[derive(Debug, Args)]
pub struct ShadowArgs {
    #[command(subcommand)]
    command: ShadowCommand,
}

#[derive(Debug, Subcommand)]
enum ShadowCommand {
    /// Compare the replicas by KEDA with those by lagwise, since the daemon started to observe
    Report(ReportArgs),
}

/// The arguments of `lagwise shadow report`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise shadow report --daemon --deployment lagwise/lagwise\n  \
    lagwise shadow report --daemon http://127.0.0.1:8082 -n shop\n  \
    lagwise shadow report --daemon -o json | jq '.objects[] | select(.keda != .lagwise)'\n\n\
    The daemon has kubernetes.mode: observe. It compares every 15 seconds, as often as an HPA decides, and computes both numbers from \
    the same readings of Kafka. RUNNING is what the workload has, KEDA what KEDA's arithmetic asks for, LAGWISE what \
    lagwise would ask for.\n\n\
    The sums are replica-minutes and changes of the number of replicas: of what ran, and of two HPAs computed with \
    KEDA's values and with lagwise's, stabilization included. Both see the lag as it is with the replicas that \
    really run. The sums start from zero when the daemon restarts.\n\n\
    Exit code: 0 if every object is compared, 1 if one is not or nothing was read yet, 2 for wrong usage.")]
struct ReportArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Only this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    kube: KubeArgs,
    /// Timeout of each request to Kubernetes and to the daemon
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
}

/// Runs `lagwise shadow`.
///
/// # Errors
/// A daemon that does not answer, or does not observe.
pub async fn run(args: ShadowArgs) -> anyhow::Result<ExitCode> {
    let ShadowCommand::Report(args) = args.command;
    let request = args
        .daemon
        .get_json("/shadow", &args.kube, MAX_RESPONSE_BYTES, args.timeout);
    let mut report: ShadowReport = request.await?;
    if let Some(namespace) = &args.namespace {
        report.objects.retain(|row| row.namespace == *namespace);
        report.totals = ShadowTotals::default();
        for row in &report.objects {
            report.totals.join(&row.totals);
        }
    }
    let text = match args.output.serialize(&report)? {
        Some(text) => text,
        None => render(&report),
    };
    print_output(args.output, &text)?;
    let is_whole = report.since.is_some()
        && report.problems.is_empty()
        && report.objects.iter().all(|row| row.not_compared.is_none());
    Ok(match is_whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The report as text: problems, both numbers, the sums, and the reasons.
fn render(report: &ShadowReport) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    for problem in &report.problems {
        let _ = writeln!(text, "! {problem}");
    }
    let (Some(since), Some(at)) = (&report.since, &report.at) else {
        text += "nothing was read yet; try again in a few seconds\n";
        return text;
    };
    if report.objects.is_empty() {
        let _ = writeln!(text, "no ScaledObject has a Kafka trigger, as of {at}");
        return text;
    }
    let _ = writeln!(text, "Observed since {since}, as of {at}\n");
    text += &shadow_table(&report.objects);
    if report.omitted > 0 {
        let _ = writeln!(text, "{} more objects are left out", report.omitted);
    }
    let _ = write!(
        text,
        "\nSums over the time observed\n{}",
        totals_table(report)
    );
    let totals = &report.totals;
    let (more, fewer) = (
        totals.keda_more_replica_millis,
        totals.lagwise_more_replica_millis,
    );
    let _ = writeln!(
        text,
        "\ncompared with KEDA, lagwise would have used {:.1} replica-minutes fewer while KEDA asked for more, and {:.1} more while KEDA asked for fewer",
        minutes(more),
        minutes(fewer),
    );
    let mut reasons = Vec::from_iter(&totals.reason_millis);
    reasons.sort_by_key(|(reason, millis)| (std::cmp::Reverse(**millis), *reason));
    if !reasons.is_empty() {
        text += "\nReasons for differences, and for how long they applied\n";
    }
    for (reason, millis) in reasons {
        let held = short_duration(Duration::from_millis(*millis));
        let _ = writeln!(text, "  {reason}: {held}");
    }
    text
}

/// Both numbers of each object. Unknown ones are `-`.
pub(super) fn shadow_table(rows: &[ShadowRow]) -> String {
    let mut table = TextTable::new([
        TableColumn::text("NAMESPACE"),
        TableColumn::text("OBJECT"),
        TableColumn::number("RUNNING"),
        TableColumn::number("KEDA"),
        TableColumn::number("LAGWISE"),
        // Last, because it is long.
        TableColumn::text("WHY"),
    ]);
    for row in rows {
        let remarks = row.remarks.iter();
        let all = row.not_compared.iter().chain(&row.why).chain(remarks);
        let all = Vec::from_iter(all.map(String::as_str));
        let kind = match row.kind.as_str() {
            "ScaledObject" => String::new(),
            other => format!("{other}/"),
        };
        table.add_row([
            row.namespace.clone(),
            format!("{kind}{}", row.name),
            or_dash(row.running),
            or_dash(row.keda),
            or_dash(row.lagwise),
            match all.as_slice() {
                [] => "-".to_owned(),
                all => all.join("; "),
            },
        ]);
    }
    table.render()
}

/// Replica-minutes and changes of each object.
fn totals_table(report: &ShadowReport) -> String {
    let mut table = TextTable::new([
        TableColumn::text("NAMESPACE"),
        TableColumn::text("OBJECT"),
        TableColumn::text("TIME"),
        TableColumn::number("RUNNING"),
        TableColumn::number("KEDA"),
        TableColumn::number("LAGWISE"),
        TableColumn::number("CHANGES"),
        TableColumn::number("BY KEDA"),
        TableColumn::number("BY LAGWISE"),
        TableColumn::number("REBALANCES"),
    ]);
    let mut add = |namespace: &str, name: &str, totals: &ShadowTotals| {
        let sides = [&totals.running, &totals.keda, &totals.lagwise];
        let minutes = sides.map(|side| format!("{:.1}", side.replica_minutes()));
        let changes = sides.map(|side| side.scale_changes.to_string());
        let time = short_duration(Duration::from_millis(totals.observed_millis));
        let [running, keda, lagwise] = minutes;
        let [changed, by_keda, by_lagwise] = changes;
        let rebalances = totals.rebalances.to_string();
        table.add_row([
            namespace.to_owned(),
            name.to_owned(),
            time,
            running,
            keda,
            lagwise,
            changed,
            by_keda,
            by_lagwise,
            rebalances,
        ]);
    };
    // Nothing is added up for a ScaledJob.
    let compared = report.objects.iter();
    let compared = compared.filter(|row| row.kind == "ScaledObject" && row.not_compared.is_none());
    for row in compared {
        add(&row.namespace, &row.name, &row.totals);
    }
    add("", "all", &report.totals);
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keda::shadow::report::SideTotals;

    fn side(replica_millis: u64, scale_changes: u64) -> SideTotals {
        SideTotals {
            replica_millis,
            scale_changes,
        }
    }

    fn report() -> ShadowReport {
        let row = |name: &str| ShadowRow {
            kind: "ScaledObject".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            hpa: format!("keda-hpa-{name}"),
            ..ShadowRow::default()
        };
        let totals = ShadowTotals {
            observed_millis: 3_600_000,
            running: side(21_600_000, 4),
            keda: side(21_600_000, 4),
            lagwise: side(18_000_000, 2),
            keda_more_replica_millis: 3_600_000,
            lagwise_more_replica_millis: 0,
            rebalances: 5,
            reason_millis: [
                ("one_beyond_partitions".to_owned(), 3_600_000),
                ("residual".to_owned(), 15_000),
            ]
            .into(),
        };
        ShadowReport {
            since: Some("2024-05-06T07:08:09Z".to_owned()),
            at: Some("2024-05-06T08:08:09Z".to_owned()),
            objects: vec![
                ShadowRow {
                    running: Some(6),
                    keda: Some(6),
                    lagwise: Some(5),
                    why: vec!["KEDA's limit rounds down".to_owned()],
                    remarks: vec!["triggers[1] of type cpu is left out on both sides".to_owned()],
                    totals: totals.clone(),
                    ..row("billing")
                },
                ShadowRow {
                    running: Some(2),
                    not_compared: Some("it is paused".to_owned()),
                    ..row("paused")
                },
                ShadowRow {
                    kind: "ScaledJob".to_owned(),
                    not_compared: Some("a ScaledJob starts Jobs".to_owned()),
                    ..row("import")
                },
            ],
            totals,
            omitted: 3,
            problems: vec!["the right to list scaledjobs.keda.sh is missing".to_owned()],
        }
    }

    #[test]
    fn prints_numbers_sums_and_reasons() {
        insta::assert_snapshot!("report", render(&report()));
    }

    #[test]
    fn says_what_is_missing_before_the_first_report() {
        let nothing = ShadowReport::default();
        assert!(render(&nothing).starts_with("nothing was read yet"));
        let empty = ShadowReport {
            objects: Vec::new(),
            problems: Vec::new(),
            ..report()
        };
        let expected = "no ScaledObject has a Kafka trigger, as of 2024-05-06T08:08:09Z\n";
        assert_eq!(render(&empty), expected);
    }
}
