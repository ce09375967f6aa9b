//! Comma-separated values of `lagwise lag`, for spreadsheets and scripts (RFC 4180).

use super::rows::{GroupRow, LagRow, MemberRow, RateRow};
use crate::model::evaluation::parallelism::Parallelism;
use crate::model::kafka::group::GroupState;
use crate::model::units::untrusted_text::Printable;

/// The columns of [`rate_fields`].
const RATES: [&str; 3] = [
    "produced_per_second",
    "consumed_per_second",
    "drain_seconds",
];

/// First characters of text that a spreadsheet would read as a formula.
const FORMULA_STARTS: [char; 4] = ['=', '+', '-', '@'];

/// One line for each partition, after a header. The names are those of the JSON output. Unknown values are empty.
pub(super) fn partition_csv(rows: &[LagRow<'_>]) -> String {
    let names = [
        "cluster",
        "group",
        "topic",
        "partition",
        "log_start_offset",
        "committed_offset",
        "log_end_offset",
        "lag",
        "lag_seconds",
        "lag_seconds_is_lower_bound",
        "rule",
        "useful_parallelism",
        "group_state",
        "client_id",
        "host",
    ];
    let mut text = header(&names);
    for row in rows {
        let joined = |field: fn(&MemberRow<'_>) -> String| {
            let all: Vec<String> = row.known_members().iter().map(field).collect();
            all.join(" ")
        };
        let mut fields = vec![
            row.cluster.to_owned(),
            row.group.to_owned(),
            row.topic.to_owned(),
            row.partition.to_string(),
            or_empty(row.log_start_offset),
            or_empty(row.committed_offset),
            or_empty(row.log_end_offset),
            or_empty(row.lag),
            or_empty(row.lag_seconds),
            row.lag_seconds_is_lower_bound.to_string(),
            row.rule.to_owned(),
            bound(row.useful_parallelism),
            or_empty(row.group_state.map(GroupState::label)),
            joined(|member| member.client_id.to_owned()),
            joined(|member| member.host.to_owned()),
        ];
        fields.extend(rate_fields(row.rates));
        fields.push(row.note.clone().unwrap_or_default());
        text += &line(&fields);
    }
    text
}

/// One line for each group, after a header.
pub(super) fn group_csv(rows: &[GroupRow<'_>]) -> String {
    let names = [
        "cluster",
        "group",
        "state",
        "members",
        "useful_parallelism",
        "topics",
        "partitions",
        "partitions_without_commit",
        "partitions_unknown",
        "lag",
        "lag_seconds",
        "lag_seconds_is_lower_bound",
    ];
    let mut text = header(&names);
    for row in rows {
        let topics: Vec<&str> = row.topics.iter().map(|topic| topic.as_str()).collect();
        let mut fields = vec![
            row.cluster.to_owned(),
            row.group.to_owned(),
            or_empty(row.state.map(GroupState::label)),
            or_empty(row.members),
            bound(row.useful_parallelism),
            topics.join(" "),
            row.partitions.to_string(),
            row.partitions_without_commit.to_string(),
            row.partitions_unknown.to_string(),
            or_empty(row.lag),
            or_empty(row.lag_seconds),
            row.lag_seconds_is_lower_bound.to_string(),
        ];
        fields.extend(rate_fields(row.rates));
        fields.push(row.note.clone().unwrap_or_default());
        text += &line(&fields);
    }
    text
}

fn header(names: &[&str]) -> String {
    let all = names.iter().chain(&RATES).chain(&["note"]);
    line(&all.map(|name| (*name).to_owned()).collect::<Vec<_>>())
}

fn rate_fields(rates: Option<RateRow>) -> [String; 3] {
    [
        or_empty(rates.map(|rates| rates.produced_per_second)),
        or_empty(rates.map(|rates| rates.consumed_per_second)),
        or_empty(rates.and_then(|rates| rates.drain_seconds)),
    ]
}

/// The useful parallelism; empty if it has no limit.
fn bound(parallelism: Option<Parallelism>) -> String {
    or_empty(parallelism.and_then(|parallelism| parallelism.limit.bounded()))
}

fn or_empty(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Formats a line. Names of others may be in it: unsafe characters, among them line breaks, are escaped.
fn line(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
    fields.join(",") + "\n"
}

/// Quotes a field where needed. A text that a spreadsheet would run as a formula gets an apostrophe in front.
fn quoted(field: &str) -> String {
    let mut text = Printable::unbounded(field).to_string();
    // Anyone who may join a group chooses its name.
    if text.starts_with(FORMULA_STARTS) && text.parse::<i64>().is_err() {
        text.insert(0, '\'');
    }
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_escaped() {
        let fields = ["plain", "a,b", "say \"no\"", "two\nlines", "\u{1b}[2J", ""];
        let fields = fields.map(str::to_owned);
        let expected = "plain,\"a,b\",\"say \"\"no\"\"\",two\\nlines,\\u{1b}[2J,\n";
        assert_eq!(line(&fields), expected);
    }

    #[test]
    fn names_are_no_formulas() {
        for (field, expected) in [
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("+1+1", "'+1+1"),
            ("-team", "'-team"),
            ("-5", "-5"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(quoted(field), expected);
        }
    }
}
