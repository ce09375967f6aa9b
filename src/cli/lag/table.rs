//! Output of `lagwise lag`: one row per partition.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::model::evaluation::parallelism::{Limit, Parallelism};
use crate::model::kafka::fault::Fault;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::TopicLag;
use crate::model::lag::lag_age::LagAge;
use crate::model::units::newtypes::{GroupId, Lag, Offset, TopicName};
use crate::model::units::untrusted_text::Printable;

/// One partition of a group.
#[derive(Debug, Serialize)]
pub(super) struct TableRow<'a> {
    pub(super) cluster: &'a str,
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
    pub(super) partition: usize,
    pub(super) log_start_offset: Option<Offset>,
    pub(super) committed_offset: Option<Offset>,
    pub(super) log_end_offset: Option<Offset>,
    pub(super) lag: Option<Lag>,
    /// Age of the oldest unread message.
    pub(super) lag_seconds: Option<f64>,
    pub(super) lag_seconds_is_lower_bound: bool,
    /// The lag rule applied, or the fault.
    pub(super) rule: &'static str,
    pub(super) note: Option<String>,
    /// Useful parallelism of the group over all topics that were read.
    pub(super) useful_parallelism: Option<Parallelism>,
}

/// Builds the row of a partition.
pub(super) fn row<'a>(
    cluster: &'a str,
    group: &'a GroupId,
    topic: &'a TopicName,
    read: &TopicLag,
    partition: usize,
) -> TableRow<'a> {
    let offset =
        |column: &[Result<Offset, Fault>]| column.get(partition).and_then(|offset| offset.ok());
    let committed = read.committed.get(partition);
    let committed = committed.unwrap_or(Err(Fault::NoAnswer));
    let found = read.lags.get(partition).copied();
    let found = found.unwrap_or(Err(Fault::NoAnswer));
    let (lag, note) = match (committed, found) {
        (_, Err(fault)) => (None, Some(fault.to_string())),
        // The lag depends on where the consumers will start, which only they know.
        (Ok(None), _) => (None, Some("no commit".into())),
        (_, Ok(lag @ PartitionLag::Lost(_))) => {
            let lost = read.lost(partition).unwrap_or_default();
            let note = format!("retention deleted {lost} unread messages");
            (Some(lag.messages()), Some(note))
        }
        (_, Ok(lag)) => (Some(lag.messages()), None),
    };
    let age = read.partition_age(partition);
    let age = age.filter(|_| lag.is_some());
    TableRow {
        cluster,
        group: group.as_str(),
        topic: topic.as_str(),
        partition,
        log_start_offset: offset(&read.offsets.starts),
        committed_offset: committed.ok().flatten(),
        log_end_offset: offset(&read.offsets.ends),
        lag,
        lag_seconds: age.map(|age| age.duration().as_secs_f64()),
        lag_seconds_is_lower_bound: age.is_some_and(LagAge::is_bound),
        rule: match found {
            Ok(lag) => lag.label(),
            Err(fault) => fault.label(),
        },
        note,
        useful_parallelism: None,
    }
}

/// Formats all partitions as a table with a total.
pub(super) fn table(rows: &[TableRow<'_>]) -> String {
    if rows.is_empty() {
        return "no committed offsets\n".into();
    }
    let several = rows
        .iter()
        .any(|row| row.cluster != rows.first().map_or("", |first| first.cluster));
    let mut head = vec![
        "GROUP",
        "TOPIC",
        "PARTITION",
        "LOG-START",
        "COMMITTED",
        "LOG-END",
        "LAG",
        "TIME",
        "RULE",
        "NOTE",
    ];
    if several {
        head.insert(0, "CLUSTER");
    }
    let shown =
        |offset: Option<Offset>| offset.map_or_else(|| "-".into(), |offset| offset.to_string());
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    for row in rows {
        let mut cells = vec![
            Printable::name(row.group).to_string(),
            Printable::name(row.topic).to_string(),
            row.partition.to_string(),
            shown(row.log_start_offset),
            shown(row.committed_offset),
            shown(row.log_end_offset),
            row.lag.map_or_else(|| "-".into(), |lag| lag.to_string()),
            time(row),
            row.rule.to_owned(),
            row.note.clone().unwrap_or_default(),
        ];
        if several {
            cells.insert(0, row.cluster.to_owned());
        }
        table.add_row(cells);
    }
    let first_number = if several { 3 } else { 2 };
    for column in table.column_iter_mut().skip(first_number).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    let total: Lag = rows.iter().filter_map(|row| row.lag).sum();
    let unknown = rows.iter().filter(|row| row.lag.is_none()).count();
    text.push_str(&format!("\n{} partitions, lag {total}", rows.len()));
    if unknown > 0 {
        text.push_str(&format!(", unknown on {unknown} of them"));
    }
    text.push('\n');
    text
}

/// Formats the useful parallelism, one line per group.
pub(super) fn bounds(rows: &[TableRow<'_>]) -> String {
    let mut groups: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row.cluster, row.group, row.useful_parallelism?)))
        .collect();
    groups.dedup_by_key(|(cluster, group, _)| (*cluster, *group));
    let line = |(_, group, useful): (&str, &str, Parallelism)| match useful.limit {
        Limit::Bounded(most) => {
            format!(
                "group {group}: at most {most} members can have work: {}\n",
                useful.rule
            )
        }
        Limit::Unbounded => format!(
            "group {group}: any number of members can have work: {}\n",
            useful.rule
        ),
    };
    groups.into_iter().map(line).collect()
}

/// The age of the oldest unread message. `>` marks a lower bound, which is mostly all that a single
/// reading shows.
fn time(row: &TableRow<'_>) -> String {
    let Some(seconds) = row.lag_seconds else {
        return "-".into();
    };
    if row.lag_seconds_is_lower_bound && seconds < 1.0 {
        return "-".into();
    }
    let shown = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or_default();
    let bound = if row.lag_seconds_is_lower_bound {
        ">"
    } else {
        ""
    };
    format!("{bound}{}", humantime::format_duration(shown))
}
