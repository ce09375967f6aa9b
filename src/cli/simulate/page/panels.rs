//! The course of one run in panels over one time axis.

use std::time::Duration;

use super::RunCourse;
use crate::model::policy::decision::RateDecision;
use crate::model::units::short_duration::short_duration;
use crate::serve::hpa_endpoints::MarkerRow;
use crate::serve::page::chart::{Chart, Line};
use crate::serve::page::format::seconds_of;
use crate::serve::page::history_charts::format_count;
use crate::serve::page::html::Html;
use crate::serve::time_span::TimeSpan;
use crate::simulate::records::TimelineEntry;

/// Maximum number of points of a line. More could not be distinguished.
const MAX_POINTS: usize = 240;

/// Maximum number of changes that are marked.
const MAX_MARKERS: usize = 120;

type Points = Vec<(u32, Option<f64>)>;

/// Writes the panels of a run, folded or not.
pub(super) fn write_panels(html: &mut Html, course: &RunCourse, is_open: bool) {
    let open: [(&'static str, &dyn std::fmt::Display); 2] = [("class", &"course"), ("open", &"")];
    let attributes = if is_open { &open[..] } else { &open[..1] };
    html.element("details", attributes, |html| {
        let markers = changes(&course.timeline);
        html.element("summary", &[], |html| {
            html.text(&course.policy);
            html.text_element(
                "small",
                &[],
                format!(" {} changes of the replicas", markers.len()),
            );
        });
        let shown = markers
            .get(..MAX_MARKERS.min(markers.len()))
            .unwrap_or_default();
        write_charts(html, course, shown);
    });
    html.line();
}

fn write_charts(html: &mut Html, course: &RunCourse, markers: &[MarkerRow]) {
    let timeline = &course.timeline;
    let end = timeline.last().map_or(1, |entry| entry.second + 1);
    let span = TimeSpan { from: 0, to: end };
    let merged = |of: fn(&TimelineEntry) -> Option<f64>| points(timeline, of, Merge::Most);
    let mean = |of: fn(&TimelineEntry) -> Option<f64>| points(timeline, of, Merge::Mean);
    let chart = |title, lines, format, smallest_top| Chart {
        id: "",
        title,
        span,
        gap: u32::MAX,
        lines,
        markers,
        format,
        smallest_top,
    };
    let most = |points: &Points| {
        points
            .iter()
            .filter_map(|(_, value)| *value)
            .fold(0.0, f64::max)
    };
    let replicas = merged(|entry| Some(f64::from(entry.replicas)));
    let members = merged(|entry| Some(f64::from(entry.members)));
    let ceiling = merged(|entry| Some(f64::from(entry.partitions)));
    let (up_to, at_most) = (
        format!("up to {:.0}", most(&replicas)),
        format!("{:.0}", most(&ceiling)),
    );
    chart(
        "Replicas",
        vec![
            line("ceiling", "ceiling", true, false, ceiling, &at_most),
            line("desired", "members", true, true, members, ""),
            line("now", "replicas", true, true, replicas, &up_to),
        ],
        format_count,
        2.0,
    )
    .write(html);
    let age = merged(|entry| Some(f64::from(entry.age)));
    let slo = f64::from(course.slo);
    let (oldest, objective) = (format!("up to {}", seconds_of(most(&age))), seconds_of(slo));
    chart(
        "Age of the oldest message",
        vec![
            line(
                "slo",
                "objective",
                true,
                true,
                vec![(0, Some(slo)), (end, Some(slo))],
                &objective,
            ),
            line("behind", "age", false, true, age, &oldest),
        ],
        seconds_of,
        slo,
    )
    .write(html);
    let arrivals = mean(|entry| Some(entry.arrivals));
    let processed = mean(|entry| Some(entry.processed));
    let capacity = mean(|entry| Some(entry.capacity));
    let estimate = mean(|entry| {
        let terms = entry.decision.as_ref()?.terms.as_ref()?;
        (terms.capacity > 0.0).then(|| terms.capacity * f64::from(entry.members))
    });
    let mut lines = vec![
        line(
            "capacity",
            "capacity of the members",
            false,
            false,
            capacity,
            "",
        ),
        line("produced", "arriving", false, true, arrivals, ""),
        line("consumed", "processed", false, true, processed, ""),
    ];
    if estimate.iter().any(|(_, value)| value.is_some()) {
        lines.insert(
            1,
            line(
                "estimate",
                "capacity as estimated",
                false,
                false,
                estimate,
                "",
            ),
        );
    }
    chart("Messages per second", lines, format_count, 1.0).write(html);
    html.element("p", &[("class", &"times")], |html| {
        for at in [0, end / 2, end] {
            html.text_element(
                "span",
                &[],
                short_duration(Duration::from_secs(u64::from(at))),
            );
        }
    });
}

fn line<'a>(
    class: &'static str,
    title: &'static str,
    is_stepped: bool,
    is_leading: bool,
    points: Points,
    latest: &'a str,
) -> Line<'a> {
    Line {
        class,
        title,
        is_stepped,
        is_leading,
        points,
        latest,
    }
}

/// What becomes of entries that would be too close to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merge {
    Most,
    Mean,
}

/// The points of a line, merged where there are too many.
fn points(
    timeline: &[TimelineEntry],
    value: fn(&TimelineEntry) -> Option<f64>,
    merge: Merge,
) -> Points {
    let each = timeline.len().div_ceil(MAX_POINTS).max(1);
    let merged = timeline.chunks(each).map(|entries| {
        let at = entries.first().map_or(0, |entry| entry.second);
        let values: Vec<f64> = entries.iter().filter_map(value).collect();
        let count = f64::from(u32::try_from(values.len()).unwrap_or(1));
        let merged = match merge {
            Merge::Most => values.into_iter().reduce(f64::max),
            Merge::Mean => values
                .into_iter()
                .reduce(|a, b| a + b)
                .map(|sum| sum / count),
        };
        (at, merged)
    });
    merged.collect()
}

/// The changes of the number of replicas, with the rule of the decision before if there was one.
fn changes(timeline: &[TimelineEntry]) -> Vec<MarkerRow> {
    let mut markers = Vec::new();
    let mut rule = None;
    for pair in timeline.windows(2) {
        let [before, entry] = pair else { continue };
        rule = changed_by(before.decision.as_ref()).or(rule);
        if entry.replicas == before.replicas {
            continue;
        }
        rule = changed_by(entry.decision.as_ref()).or(rule);
        let at = short_duration(Duration::from_secs(u64::from(entry.second)));
        let because = rule
            .take()
            .map_or_else(String::new, |rule| format!(", rule {rule}"));
        markers.push(MarkerRow {
            at: entry.second,
            kind: "replicas",
            text: format!(
                "{at}: {} to {} replicas{because}",
                before.replicas, entry.replicas
            ),
            is_problem: false,
        });
    }
    markers
}

/// The rule of a decision that changes the number.
fn changed_by(decision: Option<&RateDecision>) -> Option<String> {
    let decision = decision.filter(|decision| decision.replicas != decision.before)?;
    let rule = serde_json::to_value(decision.rule).ok()?;
    rule.as_str().map(str::to_owned)
}
