//! The partitions of a topic as text: all of them, or the worst and a histogram.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use clap::ValueEnum;

use crate::cli::text_table::{TableColumn, TextTable, or_dash};
use crate::model::diagnostics::explain::{PartitionPart, TopicPart, UNKNOWN_RULE};
use crate::model::units::short_duration::{from_seconds, short_lag_age};

/// Maximum number of partitions of a topic that is not folded.
const MAX_UNFOLDED_PARTITIONS: usize = 20;

/// Partitions that are shown of a folded topic.
const WORST: usize = 10;

/// Maximum length of a bar of the histogram, in characters.
const MAX_BAR_CHARS: usize = 30;

/// Which partitions to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ShownPartitions {
    /// Of a topic with more than 20, the 10 with the most lag, and a histogram
    Worst,
    /// All of them
    All,
}

/// The lines about the partitions of a topic.
pub(super) fn partition_lines(topic: &TopicPart, shown: ShownPartitions) -> Vec<String> {
    let all = &topic.partitions;
    let is_folded = shown == ShownPartitions::Worst && all.len() > MAX_UNFOLDED_PARTITIONS;
    let rows: Vec<&PartitionPart> = match is_folded {
        true => worst(all),
        false => all.iter().collect(),
    };
    let mut lines = match rows.is_empty() {
        true => Vec::new(),
        false => table(&rows, topic.incomplete.as_deref()),
    };
    let omitted = all.len() - rows.len() + topic.partitions_left_out;
    if omitted > 0 {
        lines.push(format!("and {omitted} more partitions"));
    }
    if is_folded {
        let shown = match topic.partitions_left_out {
            0 => format!("all {} partitions", all.len()),
            _ => format!("the {} partitions with the most lag", all.len()),
        };
        lines.push(format!("{shown}, by lag:"));
        lines.extend(histogram(all));
    }
    lines
}

/// The partitions with the most lag, after those whose lag is unknown; in the order of their numbers.
fn worst(all: &[PartitionPart]) -> Vec<&PartitionPart> {
    let mut worst: Vec<&PartitionPart> = all.iter().collect();
    worst.sort_by_key(|partition| Reverse(partition.lag.unwrap_or(u64::MAX)));
    worst.truncate(WORST);
    worst.sort_by_key(|partition| partition.partition);
    worst
}

/// Counts partitions by the number of digits of their lag.
fn histogram(all: &[PartitionPart]) -> Vec<String> {
    let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    for partition in all {
        let digits = |lag: u64| lag.checked_ilog10().map_or(0, |log| log + 1);
        *counts.entry(partition.lag.map(digits)).or_default() += 1;
    }
    let mut table = TextTable::new([
        TableColumn::number("LAG"),
        TableColumn::number("PARTITIONS"),
        TableColumn::text(""),
    ]);
    for (digits, count) in counts {
        let range = match digits {
            None => "unknown".to_owned(),
            Some(0) => "0".to_owned(),
            Some(digits) => {
                let least = 10u64.saturating_pow(digits - 1);
                format!("{least}-{}", least.saturating_mul(10).saturating_sub(1))
            }
        };
        let bar = "#".repeat((count * MAX_BAR_CHARS).div_ceil(all.len().max(1)));
        table.add_row([range, count.to_string(), bar]);
    }
    table.lines()
}

/// The table. The reason for `incomplete` was printed above it.
fn table(partitions: &[&PartitionPart], incomplete: Option<&str>) -> Vec<String> {
    let rule = |rule: &str| match rule.strip_prefix(UNKNOWN_RULE) {
        Some(reason) if incomplete == Some(reason) => "unknown".to_owned(),
        _ => rule.to_owned(),
    };
    let mut table = TextTable::new([
        TableColumn::number("PARTITION"),
        TableColumn::number("COMMITTED"),
        TableColumn::number("LOG-END"),
        TableColumn::number("LAG"),
        TableColumn::number("COUNTS"),
        TableColumn::number("TIME"),
        TableColumn::text("RULE"),
    ]);
    for partition in partitions {
        table.add_row([
            partition.partition.to_string(),
            or_dash(partition.committed_offset),
            or_dash(partition.log_end_offset),
            or_dash(partition.lag),
            or_dash(partition.counts),
            or_dash(age(
                partition.lag_seconds,
                partition.lag_seconds_is_lower_bound,
            )),
            rule(&partition.rule),
        ]);
    }
    table.lines()
}

/// The age of the oldest unread message. A single reading often gives only a lower bound.
pub(super) fn age(seconds: Option<f64>, is_lower_bound: bool) -> Option<String> {
    short_lag_age(from_seconds(seconds?), is_lower_bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(lags: impl Iterator<Item = Option<u64>>) -> TopicPart {
        let part = |(partition, lag): (usize, Option<u64>)| PartitionPart {
            partition,
            committed_offset: Some(0),
            log_end_offset: lag.and_then(|lag| i64::try_from(lag).ok()),
            lag,
            counts: lag,
            lag_seconds: None,
            lag_seconds_is_lower_bound: false,
            rule: "measured".to_owned(),
        };
        TopicPart {
            topic: "orders".into(),
            read_seconds_ago: Some(1),
            lag: None,
            lag_seconds: None,
            lag_seconds_is_lower_bound: false,
            incomplete: None,
            partitions: lags.enumerate().map(part).collect(),
            partitions_left_out: 0,
        }
    }

    #[test]
    fn up_to_twenty_partitions_are_shown() {
        let lines = partition_lines(&topic((0..20).map(Some)), ShownPartitions::Worst);
        assert_eq!(lines.len(), 21);
    }

    #[test]
    fn of_more_partitions_the_worst_are_shown_with_a_histogram() {
        let lags = (0..200).map(|i| match i {
            7 => None,
            i if i % 4 == 0 => Some(i * 13),
            _ => Some(0),
        });
        let topic = topic(lags);
        let lines = partition_lines(&topic, ShownPartitions::Worst);
        insta::assert_snapshot!("folded", lines.join("\n"));
        let all = partition_lines(&topic, ShownPartitions::All);
        assert_eq!(all.len(), 201);
    }

    #[test]
    fn partitions_that_a_daemon_left_out_are_counted() {
        let mut topic = topic((0..30).map(Some));
        topic.partitions_left_out = 70;
        let lines = partition_lines(&topic, ShownPartitions::Worst);
        assert!(
            lines.contains(&"and 90 more partitions".to_owned()),
            "{lines:#?}"
        );
        let by_lag = "the 30 partitions with the most lag, by lag:".to_owned();
        assert!(lines.contains(&by_lag), "{lines:#?}");
    }
}
