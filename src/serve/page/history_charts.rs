//! The charts of one HPA, over one time axis.

use std::time::{Duration, SystemTime};

use super::chart::{Chart, Line};
use super::format;
use super::hpa_table::hpa_address;
use super::html::{Attribute, Html};
use super::time_choice::{TimeChoice, TimeWindow, adjacent_spans, query_of};
use crate::model::diagnostics::hpa_history::HistoryPoint;
use crate::serve::hpa_endpoints::{HpaView, MarkerRow};
use crate::serve::time_span::TimeSpan;

/// Seconds outside a span whose points are needed: the maximum distance of two older points.
pub(super) const MARGIN: u32 = 900;

/// Maximum length of a span with recent points only.
const MAX_RECENT_SPAN_SECONDS: u32 = 21_600;

/// Writes the charts of the time that was chosen. `now` is in seconds since 1970.
pub(super) fn write(html: &mut Html, view: &HpaView, chosen: TimeChoice, now: u32) {
    let history = &view.history;
    let span = chosen.span(now, history.first);
    html.element("section", &[("id", &"history")], |html| {
        html.text_element("h2", &[], "History");
        choices(html, view, (chosen, span), now);
        let points: Vec<_> = history.points.iter().collect();
        let is_known = points.iter().any(|point| span.contains(point.at));
        if !is_known && matches!(chosen, TimeChoice::Selected(_)) {
            let text = "No history is recorded for this period.";
            html.text_element("p", &[("class", &"note")], text);
        }
        let step = history.step_seconds.unwrap_or(15);
        let is_old = span.seconds() > MAX_RECENT_SPAN_SECONDS
            || now.saturating_sub(span.from) > MAX_RECENT_SPAN_SECONDS;
        // Each of the older points covers 20 steps.
        let gap = step.saturating_mul(if is_old { 60 } else { 3 });
        let attributes: [Attribute<'_>; 3] = [
            ("id", &"charts"),
            ("data-from", &span.from),
            ("data-to", &span.to),
        ];
        html.element("div", &attributes, |html| {
            charts(html, view, &points, (span, gap));
            times(html, span);
        });
        // The script puts the numbers below the cursor here.
        html.element(
            "p",
            &[("class", &"readout"), ("aria-live", &"polite")],
            |_| {},
        );
    });
}

/// Links to other times.
fn choices(html: &mut Html, view: &HpaView, (chosen, span): (TimeChoice, TimeSpan), now: u32) {
    let own = hpa_address(&view.hpa.status);
    let shown = chosen.window(now, view.history.first);
    let attributes: [Attribute<'_>; 2] = [("class", &"filters"), ("aria-label", &"Time")];
    html.element("nav", &attributes, |html| {
        let link = |html: &mut Html, title: &str, query: String, is_current: bool| {
            let current = if is_current { "true" } else { "false" };
            html.text_element(
                "a",
                &[
                    ("class", &"counter"),
                    ("href", &format!("{own}?{query}")),
                    ("aria-current", &current),
                    ("data-swap", &""),
                ],
                title,
            );
        };
        for window in TimeWindow::ALL {
            let is_current = shown == Some(window);
            link(html, window.1, format!("window={}", window.1), is_current);
        }
        html.element("span", &[("class", &"divider")], |_| {});
        for (title, other) in adjacent_spans(span, now) {
            link(html, title, query_of(other), false);
        }
        if matches!(chosen, TimeChoice::Selected(_)) {
            html.text_element(
                "a",
                &[
                    ("class", &"counter"),
                    ("id", &"latest"),
                    ("href", &own),
                    ("data-swap", &""),
                ],
                "back to now",
            );
        }
        html.element("span", &[("class", &"note")], |html| {
            match &view.history.known_since {
                Some(since) => {
                    html.text("known since ");
                    html.element("time", &[("datetime", since)], |html| html.text(since));
                }
                None => html.text("no history: this replica has not recorded any yet"),
            }
        });
    });
}

fn charts(html: &mut Html, view: &HpaView, points: &[&HistoryPoint], (span, gap): (TimeSpan, u32)) {
    let shown = points.iter().rev().find(|point| span.contains(point.at));
    let last = shown.copied();
    let series = |of: fn(&HistoryPoint) -> Option<f64>| {
        points.iter().map(|point| (point.at, of(point))).collect()
    };
    let latest = |of: fn(&HistoryPoint) -> Option<u32>| format::number(last.and_then(of));
    let texts = [
        latest(|p| p.replicas),
        latest(|p| p.desired),
        latest(|p| p.uncapped),
        latest(|p| p.ceiling),
        format::or_unknown(last.and_then(|p| p.lag).map(format::count)),
        format::or_unknown(
            last.and_then(|p| p.lag_seconds)
                .map(|s| format::seconds_of(f64::from(s))),
        ),
        format::rate(last.and_then(|p| p.produced_per_second).map(f64::from)),
        format::rate(last.and_then(|p| p.consumed_per_second).map(f64::from)),
    ];
    let [
        now,
        desired,
        uncapped,
        ceiling,
        lag,
        behind,
        produced,
        consumed,
    ] = &texts;
    let line = |class, title, is_stepped, points, latest| Line {
        class,
        title,
        is_stepped,
        is_leading: !matches!(class, "ceiling" | "uncapped" | "slo"),
        points,
        latest,
    };
    let markers = view
        .history
        .markers
        .iter()
        .filter(|marker| span.contains(marker.at));
    let markers: Vec<MarkerRow> = markers.cloned().collect();
    let chart = |id, title, lines, format, smallest_top| Chart {
        id,
        title,
        span,
        gap,
        lines,
        markers: &markers,
        format,
        smallest_top,
    };
    chart(
        "chart-replicas",
        "Replicas",
        vec![
            line(
                "ceiling",
                "ceiling",
                true,
                series(|p| p.ceiling.map(f64::from)),
                ceiling.as_str(),
            ),
            line(
                "uncapped",
                "worth",
                true,
                series(|p| p.uncapped.map(f64::from)),
                uncapped,
            ),
            line(
                "desired",
                "desired",
                true,
                series(|p| p.desired.map(f64::from)),
                desired,
            ),
            line(
                "now",
                "now",
                true,
                series(|p| p.replicas.map(f64::from)),
                now,
            ),
        ],
        format_count,
        4.0,
    )
    .write(html);
    chart(
        "chart-lag",
        "Lag",
        vec![line(
            "lag",
            "messages",
            false,
            series(|p| p.lag.map(as_number)),
            lag.as_str(),
        )],
        format_count,
        10.0,
    )
    .write(html);
    let objective = view.hpa.status.slo_seconds;
    let slo = format::or_unknown(objective.map(format::seconds));
    let mut ages = vec![line(
        "behind",
        "age of the oldest unread message",
        false,
        series(|p| p.lag_seconds.map(f64::from)),
        behind.as_str(),
    )];
    if let Some(objective) = objective {
        let all = points.iter();
        let level = all.map(|point| (point.at, Some(as_number(objective))));
        ages.push(line("slo", "SLO", true, level.collect(), &slo));
    }
    chart("chart-behind", "Behind", ages, format::seconds_of, 10.0).write(html);
    chart(
        "chart-rates",
        "Messages per second",
        vec![
            line(
                "produced",
                "arriving",
                false,
                series(|p| p.produced_per_second.map(f64::from)),
                produced.as_str(),
            ),
            line(
                "consumed",
                "consumed",
                false,
                series(|p| p.consumed_per_second.map(f64::from)),
                consumed,
            ),
        ],
        format_count,
        1.0,
    )
    .write(html);
}

/// The times below the charts.
fn times(html: &mut Html, span: TimeSpan) {
    html.element("p", &[("class", &"times")], |html| {
        let middle = span.from.midpoint(span.to);
        for at in [span.from, middle, span.to] {
            let time = time_of(at);
            let clock = time.get(11..19).unwrap_or_default().to_owned();
            html.element(
                "time",
                &[("datetime", &time), ("data-clock", &"")],
                |html| {
                    html.text(format!("{clock} UTC"));
                },
            );
        }
    });
}

/// A time for people and scripts.
pub(super) fn time_of(at: u32) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(at));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A count for an axis; more than 2^53 need not be exact.
#[allow(clippy::cast_precision_loss, reason = "a chart needs no 53 bits")]
fn as_number(count: u64) -> f64 {
    count as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an axis begins at zero, and the largest number will do for one beyond"
)]
pub(crate) fn format_count(value: f64) -> String {
    match value {
        value if value < 10.0 && value.fract() > 0.0 => format!("{value:.1}"),
        value => format::short_count(value.round() as u64),
    }
}
