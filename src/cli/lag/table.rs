//! Tables of `lagwise lag`.

use super::rows::{GroupRow, LagRow, RateRow, RowLag};
use crate::cli::text_table::{RATE_COLUMNS, TableColumn, TextTable, or_dash, rate_texts};
use crate::model::evaluation::parallelism::{Limit, Parallelism};
use crate::model::kafka::group::GroupState;
use crate::model::units::counted::counted;
use crate::model::units::newtypes::Lag;
use crate::model::units::short_duration::{from_seconds, short_lag_age};
use crate::model::units::untrusted_text::Printable;

/// Columns that only some tables have.
#[derive(Clone, Copy, Debug)]
struct OptionalColumns {
    cluster: bool,
    members: bool,
    rates: bool,
}

/// Totals of the rows, for the last line of a table.
struct TableTotals {
    /// What a row is, in the singular: `group` or `partition`.
    kind: &'static str,
    shown: usize,
    /// Number of rows before `--top`.
    all: usize,
    lag: Lag,
    unknown: usize,
    uncommitted: usize,
}

impl TableTotals {
    fn new<R: RowLag>(kind: &'static str, rows: &[R], all: usize) -> Self {
        let has_no_commit = |row: &&R| !row.is_unknown() && row.lag().is_none();
        Self {
            kind,
            shown: rows.len(),
            all,
            lag: rows.iter().filter_map(R::lag).sum(),
            unknown: rows.iter().filter(|row| row.is_unknown()).count(),
            uncommitted: rows.iter().filter(has_no_commit).count(),
        }
    }

    fn line(&self) -> String {
        let all = counted(self.all, self.kind);
        let mut line = match self.shown == self.all {
            true => all,
            false => format!("{} of {all}", self.shown),
        };
        line += &format!(", lag {}", self.lag);
        if self.unknown > 0 {
            line += &format!(", unknown for {} of them", self.unknown);
        }
        if self.uncommitted > 0 {
            line += &format!(", no commit for {} of them", self.uncommitted);
        }
        line
    }
}

/// Formats partitions as a table with a line of totals; `all` is their number before `--top`.
pub(super) fn partition_table(rows: &[LagRow<'_>], all: usize, with_rates: bool) -> String {
    if rows.is_empty() {
        return "no committed offsets\n".into();
    }
    let optional = OptionalColumns {
        cluster: has_several(rows.iter().map(|row| row.cluster)),
        members: rows.iter().any(|row| !row.known_members().is_empty()),
        rates: with_rates,
    };
    let mut columns = Vec::new();
    columns.extend(optional.cluster.then_some(TableColumn::text("CLUSTER")));
    columns.extend([
        TableColumn::text("GROUP"),
        TableColumn::text("TOPIC"),
        TableColumn::number("PARTITION"),
        TableColumn::number("LOG-START"),
        TableColumn::number("COMMITTED"),
        TableColumn::number("LOG-END"),
        TableColumn::number("LAG"),
        TableColumn::number("TIME"),
    ]);
    columns.extend(rate_columns(optional.rates));
    columns.push(TableColumn::text("RULE"));
    if optional.members {
        columns.extend([TableColumn::text("CLIENT"), TableColumn::text("HOST")]);
    }
    columns.push(TableColumn::text("NOTE"));
    let mut table = TextTable::new(columns);
    for row in rows {
        let mut cells = Vec::new();
        cells.extend(optional.cluster.then(|| row.cluster.to_owned()));
        cells.extend([
            Printable::name(row.group).to_string(),
            Printable::name(row.topic).to_string(),
            row.partition.to_string(),
            or_dash(row.log_start_offset),
            or_dash(row.committed_offset),
            or_dash(row.log_end_offset),
            or_dash(row.lag),
            age(row.lag_seconds, row.lag_seconds_is_lower_bound),
        ]);
        cells.extend(rate_cells(optional.rates, row.rates));
        cells.push(row.rule.to_owned());
        if optional.members {
            cells.extend(member_cells(row));
        }
        cells.push(row.note.clone().unwrap_or_default());
        table.add_row(cells);
    }
    let totals = TableTotals::new("partition", rows, all);
    format!("{}\n{}\n", table.render(), totals.line())
}

/// Formats groups as a table with a line of totals; `all` is their number before `--top`.
pub(super) fn group_table(rows: &[GroupRow<'_>], all: usize, with_rates: bool) -> String {
    if rows.is_empty() {
        return "no consumer groups\n".into();
    }
    let with_clusters = has_several(rows.iter().map(|row| row.cluster));
    let mut columns = Vec::new();
    columns.extend(with_clusters.then_some(TableColumn::text("CLUSTER")));
    columns.extend([
        TableColumn::text("GROUP"),
        TableColumn::text("TOPIC"),
        TableColumn::text("STATE"),
        TableColumn::number("MEMBERS"),
        TableColumn::number("USEFUL"),
        TableColumn::number("PARTITIONS"),
        TableColumn::number("LAG"),
        TableColumn::number("TIME"),
    ]);
    columns.extend(rate_columns(with_rates));
    columns.push(TableColumn::text("NOTE"));
    let mut table = TextTable::new(columns);
    for row in rows {
        let mut cells = Vec::new();
        cells.extend(with_clusters.then(|| row.cluster.to_owned()));
        cells.extend([
            Printable::name(row.group).to_string(),
            match row.topics.as_slice() {
                [] => "-".to_owned(),
                [only] => Printable::name(only.as_str()).to_string(),
                several => format!("{} topics", several.len()),
            },
            or_dash(row.state.map(GroupState::label)),
            or_dash(row.members),
            or_dash(row.useful_parallelism.map(|useful| useful.limit)),
            row.partitions.to_string(),
            or_dash(row.lag),
            age(row.lag_seconds, row.lag_seconds_is_lower_bound),
        ]);
        cells.extend(rate_cells(with_rates, row.rates));
        cells.push(row.note.clone().unwrap_or_default());
        table.add_row(cells);
    }
    let totals = TableTotals::new("group", rows, all);
    format!("{}\n{}\n", table.render(), totals.line())
}

/// Formats the state and the useful parallelism of each group as a line.
pub(super) fn useful_parallelism_lines(rows: &[LagRow<'_>]) -> String {
    let mut groups: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row, row.useful_parallelism?)))
        .collect();
    groups.sort_by_key(|(row, _)| (row.cluster, row.group));
    groups.dedup_by_key(|(row, _)| (row.cluster, row.group));
    let line = |(row, useful): (&LagRow<'_>, Parallelism)| {
        let group = Printable::name(row.group);
        let state = row.group_state.map(|state| format!(" {};", state.label()));
        let members = match useful.limit {
            Limit::Bounded(most) => format!("at most {most} members"),
            Limit::Unbounded => "any number of members".to_owned(),
        };
        let (state, rule) = (state.unwrap_or_default(), useful.rule);
        format!("group {group}:{state} {members} can have work: {rule}\n")
    };
    groups.into_iter().map(line).collect()
}

fn has_several<'a>(mut clusters: impl Iterator<Item = &'a str>) -> bool {
    let first = clusters.next();
    clusters.any(|cluster| Some(cluster) != first)
}

/// The age of the oldest unread message. With a single reading it is usually a lower bound.
fn age(age: Option<f64>, is_lower_bound: bool) -> String {
    or_dash(age.and_then(|age| short_lag_age(from_seconds(age), is_lower_bound)))
}

fn rate_columns(with_rates: bool) -> impl Iterator<Item = TableColumn> {
    let columns = RATE_COLUMNS.map(TableColumn::number);
    columns.into_iter().filter(move |_| with_rates)
}

fn rate_cells(with_rates: bool, rates: Option<RateRow>) -> impl Iterator<Item = String> {
    let cells = match rates {
        None => ["-", "-", "-"].map(str::to_owned),
        Some(rates) => rate_texts(
            rates.produced_per_second,
            rates.consumed_per_second,
            rates.drain_seconds,
        ),
    };
    cells.into_iter().filter(move |_| with_rates)
}

/// Client ID and host of the first member that owns the partition, and the number of other owners, which only share
/// groups have.
fn member_cells(row: &LagRow<'_>) -> [String; 2] {
    let Some(first) = row.known_members().first() else {
        return ["-".to_owned(), "-".to_owned()];
    };
    let others = match row.known_members().len() {
        0 | 1 => String::new(),
        several => format!(" (+{})", several - 1),
    };
    [
        Printable::name(first.client_id).to_string() + &others,
        Printable::name(first.host).to_string(),
    ]
}
