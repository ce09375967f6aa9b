//! The table of HPAs on the overview.

use super::bars;
use super::format;
use super::html::{Attribute, Html};
use super::sparklines::Sparklines;
use super::view_query::{Order, ViewQuery};
use crate::model::diagnostics::attention::{AttentionLevel, SloState, findings};
use crate::model::diagnostics::hpa_status::HpaStatus;
use crate::model::findings::{FindingCode, Severity};
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::untrusted_text::Printable;
use crate::serve::hpa_rows::HpaRow;

/// Columns: sort order, title, and meaning.
const HEADINGS: [(Option<Order>, &str, &str); 9] = [
    (Some(Order::Urgency), "State", "The most urgent first"),
    (Some(Order::Name), "HPA", "Namespace and name"),
    (
        Some(Order::Lag),
        "Lag",
        "Unread messages, now and in the last hour, and how fast they change",
    ),
    (
        Some(Order::Behind),
        "Behind",
        "Age of the oldest unread message",
    ),
    (
        None,
        "Drained in",
        "Time until there is no lag, at the present rates",
    ),
    (
        Some(Order::Replicas),
        "Replicas",
        "Dark: now. Light: wanted. Solid mark: ceiling, more would have no work. Dashed mark: maxReplicas",
    ),
    (None, "Because", "What decides on the replicas"),
    (
        None,
        "Findings",
        "Mistakes and risks; point at one to read more",
    ),
    (None, "Cap", "What lagwise does about the ceiling"),
];

/// Minimum change of the lag, in messages per second, that is shown as growing or shrinking.
const MIN_TREND_PER_SECOND: f64 = 1.0;

/// Writes the table of these HPAs.
pub(super) fn write(html: &mut Html, rows: &[&HpaRow], query: &ViewQuery, sparklines: &Sparklines) {
    html.element("table", &[("class", &"hpas")], |html| {
        html.element("thead", &[], |html| {
            html.element("tr", &[], |html| {
                for (order, title, meaning) in HEADINGS {
                    heading(html, order, (title, meaning), query);
                }
            });
        });
        html.line();
        html.element("tbody", &[], |html| {
            for row in rows {
                table_row(html, row, sparklines.lags(&row.key()));
                html.line();
            }
        });
    });
}

fn heading(
    html: &mut Html,
    order: Option<Order>,
    (title, meaning): (&str, &str),
    query: &ViewQuery,
) {
    let Some(order) = order else {
        let class = if title == "Drained in" { "number" } else { "" };
        return html.text_element(
            "th",
            &[("scope", &"col"), ("class", &class), ("title", &meaning)],
            title,
        );
    };
    let address = ViewQuery {
        order,
        ..query.at_first_page()
    }
    .address();
    let is_chosen = query.order == order;
    let sort = match (is_chosen, order) {
        (false, _) => "none",
        (true, Order::Name) => "ascending",
        (true, _) => "descending",
    };
    let class = if order == Order::Behind { "number" } else { "" };
    let attributes: [Attribute<'_>; 4] = [
        ("scope", &"col"),
        ("class", &class),
        ("aria-sort", &sort),
        ("title", &meaning),
    ];
    html.element("th", &attributes, |html| {
        html.text_element("a", &[("href", &address), ("data-swap", &"")], title);
    });
}

fn table_row(html: &mut Html, row: &HpaRow, lags: &[Option<u64>]) {
    let status = &row.status;
    let address = hpa_address(status);
    html.element("tr", &[("data-href", &address)], |html| {
        html.element("td", &[("class", &"state")], |html| {
            state(html, row.urgency)
        });
        html.element("td", &[("class", &"name")], |html| {
            html.element("a", &[("href", &address)], |html| {
                html.element("span", &[("class", &"namespace")], |html| {
                    html.text(Printable::name(&status.namespace));
                    html.text("/");
                });
                html.text(Printable::name(&status.hpa));
            });
        });
        html.element("td", &[("class", &"lag"), ("data-label", &"lag")], |html| {
            bars::sparkline(html, lags);
            html.text_element("b", &[], format::or_unknown(status.lag.map(format::count)));
            if let Some(trend) = trend(status) {
                html.text_element("small", &[("class", &"trend")], trend);
            }
        });
        let cell = |html: &mut Html, class: &str, label: &str, text: String| {
            html.text_element("td", &[("class", &class), ("data-label", &label)], text);
        };
        html.element(
            "td",
            &[("class", &"number"), ("data-label", &"behind")],
            |html| {
                html.text(format::behind(status));
                slo(html, row);
            },
        );
        let drained = format::or_unknown(status.seconds_to_drain.map(format::seconds));
        cell(html, "number", "drained in", drained);
        html.element("td", &[("class", &"replicas")], |html| {
            bars::replica_bar(html, status);
            bars::replica_numbers(html, status);
        });
        let because = Printable::message(&row.because);
        html.element("td", &[("class", &"because")], |html| {
            // The style sheet cuts long text; the page of the HPA has all of it.
            html.text_element("span", &[("title", &because)], because);
        });
        html.element("td", &[("class", &"findings")], |html| {
            for code in findings(status) {
                badge(html, code, &address);
            }
        });
        cell(html, "cap", "cap", cap(status));
    });
}

/// Whether the lag grows or shrinks, and how fast, at the rates of the HPA; `None` if these are unknown.
fn trend(status: &HpaStatus) -> Option<String> {
    status.lag?;
    let change = status.produced_per_second? - status.consumed_per_second?;
    Some(match change {
        change if change >= MIN_TREND_PER_SECOND => {
            format!("growing {}", format::rate(Some(change)))
        }
        change if change <= -MIN_TREND_PER_SECOND => {
            format!("shrinking {}", format::rate(Some(-change)))
        }
        _ => "steady".to_owned(),
    })
}

/// The SLO, and in words whether it is missed.
pub(super) fn slo(html: &mut Html, row: &HpaRow) {
    let Some((state, objective)) = row.slo.zip(row.status.slo_seconds) else {
        return;
    };
    let (class, text) = match state {
        SloState::Met => ("slo", "within SLO"),
        SloState::Missed => ("slo missed", "over SLO"),
        SloState::Unknown => ("slo", "SLO"),
    };
    html.element("small", &[("class", &class)], |html| {
        html.text(format!("{text} {}", format::seconds(objective)));
    });
}

/// The address of the page of an HPA.
pub(super) fn hpa_address(status: &HpaStatus) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    // A name may have dots and hyphens, which need no escape.
    let plain = |text: &str| encode(text).replace("%2D", "-").replace("%2E", ".");
    format!("/hpas/{}/{}", plain(&status.namespace), plain(&status.hpa))
}

/// The urgency as a shape and a word, so that it is recognizable without colours.
pub(super) fn state(html: &mut Html, urgency: AttentionLevel) {
    let (class, mark) = match urgency {
        AttentionLevel::Unknown => ("state-unknown", "?"),
        AttentionLevel::Error => ("state-error", "✗"),
        AttentionLevel::Warning => ("state-warning", "!"),
        AttentionLevel::AtCeiling => ("state-ceiling", "▲"),
        AttentionLevel::Calm => ("state-calm", "✓"),
        AttentionLevel::Asleep => ("state-asleep", "z"),
    };
    html.element("span", &[("class", &class)], |html| {
        html.text_element(
            "span",
            &[("class", &"mark"), ("aria-hidden", &"true")],
            mark,
        );
        html.text(urgency.label());
    });
}

/// The code of a finding, which explains it on hover and leads to it on the page of the HPA.
fn badge(html: &mut Html, code: FindingCode, address: &str) {
    let (class, mark) = match code.severity() {
        Severity::Error => ("badge error", "✗ "),
        Severity::Warning => ("badge warning", "! "),
        Severity::Info => ("badge", "i "),
    };
    let title = format!("{} {} {}", code.what(), code.why(), code.fix());
    let link = format!("{address}#findings");
    html.element(
        "a",
        &[("class", &class), ("href", &link), ("title", &title)],
        |html| {
            html.text(mark);
            html.text(code.code());
        },
    );
}

/// How the ceiling is applied.
pub(super) fn cap(status: &HpaStatus) -> String {
    let mode = match status.cap {
        CapMode::Advise => "advise",
        CapMode::Enforce if status.cap_observed => "enforced",
        CapMode::Enforce => "enforce, not yet held",
    };
    match status.paused {
        true => format!("{mode}, paused"),
        false => mode.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trend_is_the_change_of_the_lag() {
        let trend_of = |lag: Option<u64>, rates: Option<(f64, f64)>| {
            trend(&HpaStatus {
                lag,
                produced_per_second: rates.map(|(produced, _)| produced),
                consumed_per_second: rates.map(|(_, consumed)| consumed),
                ..HpaStatus::default()
            })
        };
        for (lag, rates, expected) in [
            (Some(40), Some((100.0, 20.0)), Some("growing 80/s")),
            (Some(40), Some((3.0, 5.5)), Some("shrinking 2.5/s")),
            (Some(40), Some((100.4, 100.0)), Some("steady")),
            (Some(0), Some((50.0, 50.0)), Some("steady")),
            // Rates of earlier readings say nothing about a lag that is unknown now.
            (None, Some((100.0, 20.0)), None),
            (Some(40), None, None),
        ] {
            let trend = trend_of(lag, rates);
            assert_eq!(trend.as_deref(), expected, "{lag:?} {rates:?}");
        }
    }
}
