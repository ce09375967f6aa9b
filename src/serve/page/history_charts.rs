//! The charts of one HPA, over one time axis.

use std::time::{Duration, SystemTime};

use super::chart::{Chart, Line, TimeSpan};
use super::format;
use super::html::Html;
use super::overview::hpa_address;
use super::view_query::Window;
use crate::model::diagnostics::hpa_history::HistoryPoint;
use crate::serve::hpa_endpoints::{HpaView, MarkerRow};

/// Writes the charts of the time that was chosen, or of all that is known, up to an hour. `now` is in seconds since 1970.
pub(super) fn write(html: &mut Html, view: &HpaView, chosen: Option<Window>, now: u32) {
    let points = &view.history.points;
    let known = points
        .first()
        .map_or(0, |first| now.saturating_sub(first.at));
    let window = chosen.unwrap_or_else(|| Window::covering(known));
    let span = TimeSpan {
        from: now.saturating_sub(window.seconds()),
        to: now,
    };
    html.element("section", &[("id", &"history")], |html| {
        html.text_element("h2", &[], "History");
        html.element(
            "nav",
            &[("class", &"filters"), ("aria-label", &"Time")],
            |html| {
                for choice in Window::ALL {
                    let address = format!("{}?window={}", hpa_address(&view.hpa.status), choice.1);
                    let current = if choice == window { "true" } else { "false" };
                    html.text_element(
                        "a",
                        &[
                            ("class", &"counter"),
                            ("href", &address),
                            ("aria-current", &current),
                            ("data-swap", &""),
                        ],
                        choice.1,
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
            },
        );
        let points: Vec<_> = points
            .iter()
            .filter(|point| point.at >= span.from)
            .collect();
        let step = view.history.step_seconds.unwrap_or(15);
        // Older points are further apart.
        let gap = points
            .windows(2)
            .filter_map(|two| Some(two.last()?.at.saturating_sub(two.first()?.at)))
            .min()
            .unwrap_or(step)
            .max(step)
            .saturating_mul(3)
            .max(if window.seconds() > 21_600 { 900 } else { 0 });
        charts(html, &points, &view.history.markers, (span, gap));
        times(html, span);
        // The script puts the numbers below the cursor here.
        html.element("p", &[("class", &"readout"), ("aria-live", &"off")], |_| {});
    });
}

fn charts(
    html: &mut Html,
    points: &[&HistoryPoint],
    markers: &[MarkerRow],
    (span, gap): (TimeSpan, u32),
) {
    let last = points.last().copied();
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
        is_leading: !matches!(class, "ceiling" | "uncapped"),
        points,
        latest,
    };
    let markers: Vec<MarkerRow> = markers
        .iter()
        .filter(|m| m.at >= span.from)
        .cloned()
        .collect();
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
        2.0,
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
    chart(
        "chart-behind",
        "Behind",
        vec![line(
            "behind",
            "age of the oldest unread message",
            false,
            series(|p| p.lag_seconds.map(f64::from)),
            behind.as_str(),
        )],
        format::seconds_of,
        10.0,
    )
    .write(html);
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
    html.element(
        "p",
        &[
            ("class", &"times"),
            ("data-from", &span.from),
            ("data-to", &span.to),
        ],
        |html| {
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
        },
    );
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
