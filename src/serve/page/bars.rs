//! Inline charts of a row of the overview: a sparkline of the lag of the last hour, and a bar of the replicas.

use super::format;
use super::html::Html;
use crate::model::diagnostics::attention::is_at_ceiling;
use crate::model::diagnostics::hpa_status::HpaStatus;
use crate::model::evaluation::parallelism::Limit;

/// Width and height of a sparkline, in SVG units.
const SPARK: (usize, u64) = (120, 24);

/// Draws the lag of the last hour as a line, with gaps where it is unknown.
pub(super) fn sparkline(html: &mut Html, lags: &[Option<u64>]) {
    let (width, height) = SPARK;
    let most = lags.iter().flatten().copied().max().unwrap_or(0).max(1);
    let label = match lags.iter().flatten().next_back() {
        Some(_) => format!("lag of the last hour, at most {}", format::count(most)),
        None => "the lag of the last hour is unknown".to_owned(),
    };
    let mut path = String::new();
    let mut is_drawing = false;
    for (place, lag) in lags.iter().enumerate() {
        let x = width * place / lags.len().saturating_sub(1).max(1);
        match lag {
            Some(lag) => {
                let y = height - 1 - scaled(*lag, most, height - 2);
                let command = if is_drawing { 'L' } else { 'M' };
                path.push_str(&format!("{command}{x} {y}"));
                // A single point would be invisible, so every line starts with a short horizontal stroke.
                if !is_drawing {
                    path.push_str("h1");
                }
                is_drawing = true;
            }
            None => is_drawing = false,
        }
    }
    html.element(
        "svg",
        &[
            ("class", &"spark"),
            ("role", &"img"),
            ("aria-label", &label),
            ("viewBox", &format!("0 0 {width} {height}")),
            ("preserveAspectRatio", &"none"),
        ],
        |html| {
            html.element("path", &[("d", &path)], |_| {});
        },
    );
}

/// Scales `value` from the range 0 to `whole` to the range 0 to `parts`.
pub(super) fn scaled(value: u64, whole: u64, parts: u64) -> u64 {
    let scaled = u128::from(value.min(whole)) * u128::from(parts) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(parts)
}

/// Draws current and desired replicas, ceiling and maximum as one bar, with the same numbers as its label.
pub(super) fn replica_bar(html: &mut Html, status: &HpaStatus) {
    let ceiling = status.ceiling.and_then(Limit::bounded);
    let shown = [status.replicas, status.desired, ceiling];
    let largest = shown.into_iter().flatten().max().unwrap_or(1).max(1);
    // A much larger maximum is left out, because it would make everything else too small to see.
    let end = match status.max_replicas {
        Some(most) if most <= largest.saturating_mul(2) => most.max(largest),
        _ => largest.saturating_add(largest / 4).saturating_add(1),
    };
    let place = |count: u32| {
        let thousandths = scaled(u64::from(count), u64::from(end), 1000);
        format!("{}.{}%", thousandths / 10, thousandths % 10)
    };
    let label = description(status);
    html.element(
        "svg",
        &[("class", &"bar"), ("role", &"img"), ("aria-label", &label)],
        |html| {
            let rect = |html: &mut Html, class: &str, y: &str, height: &str, width: &str| {
                let attributes: [(&'static str, &dyn std::fmt::Display); 6] = [
                    ("class", &class),
                    ("x", &"0"),
                    ("y", &y),
                    ("width", &width),
                    ("height", &height),
                    ("rx", &"1"),
                ];
                html.element("rect", &attributes, |_| {});
            };
            rect(html, "track", "4", "8", "100%");
            if let Some(desired) = status.desired {
                rect(html, "desired", "4", "8", &place(desired));
            }
            if let Some(replicas) = status.replicas {
                rect(html, "now", "6", "4", &place(replicas));
            }
            let tick = |html: &mut Html, class: &str, count: u32, y: (&str, &str)| {
                let x = place(count);
                html.element(
                    "line",
                    &[
                        ("class", &class),
                        ("x1", &x),
                        ("x2", &x),
                        ("y1", &y.0),
                        ("y2", &y.1),
                    ],
                    |_| {},
                );
            };
            if let Some(ceiling) = ceiling {
                tick(html, "ceiling", ceiling, ("1", "15"));
            }
            if let Some(most) = status.max_replicas.filter(|most| *most <= end) {
                tick(html, "most", most, ("3", "13"));
            }
        },
    );
}

/// The numbers of a bar as a sentence.
fn description(status: &HpaStatus) -> String {
    format!(
        "{} replicas now, {} desired, ceiling {}, maximum {}",
        format::number(status.replicas),
        format::number(status.desired),
        format::limit(status.ceiling),
        format::number(status.max_replicas),
    )
}

/// Writes the numbers of a bar in short form.
pub(super) fn replica_numbers(html: &mut Html, status: &HpaStatus) {
    html.element("span", &[("class", &"numbers")], |html| {
        html.text_element("b", &[], format::number(status.replicas));
        html.text(" now, ");
        html.text_element("b", &[], format::number(status.desired));
        if let Some(uncapped) = status.uncapped.filter(|_| is_at_ceiling(status)) {
            html.text(format!(" of {uncapped}"));
        }
        html.text(" wanted, ceiling ");
        html.text(format::limit(status.ceiling));
        html.text(", max ");
        html.text(format::number(status.max_replicas));
    });
}
