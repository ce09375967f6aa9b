//! The overview: Kafka clusters, counters that filter, and a table of all HPAs.

use std::collections::BTreeSet;

use super::bars;
use super::format;
use super::html::Html;
use super::layout;
use super::view_query::{Filter, Order, ViewQuery};
use crate::model::diagnostics::attention::{AttentionLevel, findings};
use crate::model::diagnostics::hpa_status::HpaStatus;
use crate::model::findings::{FindingCode, Severity};
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::untrusted_text::Printable;
use crate::serve::hpa_rows::{ClusterRow, HpaOverview, HpaRow};

/// Renders the overview.
pub(super) fn render(overview: &HpaOverview, query: &ViewQuery) -> String {
    layout::page("HPAs", true, |html| {
        html.element("header", &[], |html| {
            html.text_element("h1", &[], "lagwise");
            facts(html, overview);
        });
        clusters(html, &overview.clusters);
        controls(html, &overview.hpas, query);
        let shown = query.select(&overview.hpas);
        if shown.is_empty() {
            let text = match overview.hpas.is_empty() {
                true => "No HPA uses a metric of lagwise.",
                false => "No HPA matches.",
            };
            html.text_element("p", &[("class", &"empty")], text);
        } else {
            table(html, &shown, query);
        }
    })
}

/// Who leads, the age of the data, and since when there is a history.
fn facts(html: &mut Html, overview: &HpaOverview) {
    html.element("p", &[("class", &"facts")], |html| {
        html.text("leader ");
        html.text_element("b", &[], Printable::name(&overview.leader));
        html.text(" · as of ");
        html.element("time", &[("datetime", &overview.at)], |html| {
            html.text(&overview.at);
        });
        if let Some(since) = &overview.known_since {
            html.text(" · history since ");
            html.element("time", &[("datetime", since)], |html| html.text(since));
        }
        if overview.without_history > 0 {
            let count = overview.without_history;
            html.text(format!(" · {count} HPAs without history (too many)"));
        }
    });
}

fn clusters(html: &mut Html, clusters: &[ClusterRow]) {
    html.element("ul", &[("class", &"clusters")], |html| {
        for cluster in clusters {
            let is_well = cluster.problem.is_none()
                && cluster.unreachable_brokers == 0
                && cluster.swept_seconds_ago.is_some();
            let class = if is_well { "well" } else { "ill" };
            html.element("li", &[("class", &class)], |html| {
                let mark = if is_well { "✓ " } else { "✗ " };
                html.text_element("span", &[("class", &"mark")], mark);
                html.text_element("b", &[], Printable::name(cluster.name.as_str()));
                html.text(match cluster.swept_seconds_ago {
                    Some(age) => format!(" read {} ago", format::seconds(age)),
                    None => " not read yet".to_owned(),
                });
                let groups = cluster.groups;
                html.text(format!(
                    ", {groups} {}",
                    if groups == 1 { "group" } else { "groups" }
                ));
                for (count, what) in [
                    (cluster.incomplete, "incomplete readings"),
                    (cluster.unreachable_brokers, "brokers out of reach"),
                ] {
                    if count > 0 {
                        html.text(format!(", {what}: {count}"));
                    }
                }
                if let Some(problem) = &cluster.problem {
                    html.text(": ");
                    html.text(Printable::message(problem));
                }
            });
        }
    });
}

/// Counters, search and namespace.
fn controls(html: &mut Html, rows: &[HpaRow], query: &ViewQuery) {
    html.element("div", &[("class", &"controls")], |html| {
        counters(html, rows, query);
        search(html, rows, query);
    });
}

fn counters(html: &mut Html, rows: &[HpaRow], query: &ViewQuery) {
    html.element(
        "nav",
        &[("class", &"filters"), ("aria-label", &"Filters")],
        |html| {
            for filter in Filter::ALL {
                let accepted = rows.iter().filter(|row| filter.accepts(row));
                let count = accepted.filter(|row| query.finds(row)).count();
                let address = ViewQuery {
                    filter,
                    ..query.clone()
                }
                .address();
                let is_chosen = query.filter == filter;
                let class = match (filter, count) {
                    (Filter::Attention | Filter::Unknown, 1..) => "counter alarm",
                    _ => "counter",
                };
                let current = if is_chosen { "true" } else { "false" };
                html.element(
                    "a",
                    &[
                        ("class", &class),
                        ("href", &address),
                        ("aria-current", &current),
                        ("data-swap", &""),
                    ],
                    |html| {
                        html.text_element("b", &[], count);
                        html.text(" ");
                        html.text(filter.title());
                    },
                );
            }
        },
    );
}

fn search(html: &mut Html, rows: &[HpaRow], query: &ViewQuery) {
    html.element(
        "form",
        &[
            ("class", &"search"),
            ("method", &"get"),
            ("action", &"/"),
            ("role", &"search"),
        ],
        |html| {
            html.void(
                "input",
                &[
                    ("type", &"search"),
                    ("id", &"search"),
                    ("name", &"q"),
                    ("value", &query.search),
                    ("placeholder", &"Search HPAs  ( / )"),
                    ("aria-label", &"Search HPAs"),
                    ("autocomplete", &"off"),
                ],
            );
            html.element(
                "select",
                &[
                    ("id", &"namespace"),
                    ("name", &"namespace"),
                    ("aria-label", &"Namespace"),
                ],
                |html| namespaces(html, rows, &query.namespace),
            );
            for (name, value) in [
                ("filter", query.filter.name()),
                ("sort", query.order.name()),
            ] {
                if !value.is_empty() {
                    html.void(
                        "input",
                        &[("type", &"hidden"), ("name", &name), ("value", &value)],
                    );
                }
            }
            html.text_element("button", &[("type", &"submit")], "Show");
        },
    );
}

fn namespaces(html: &mut Html, rows: &[HpaRow], chosen: &str) {
    let all: BTreeSet<&str> = rows
        .iter()
        .map(|row| row.status.namespace.as_str())
        .collect();
    html.text_element("option", &[("value", &"")], "all namespaces");
    for namespace in all {
        if namespace == chosen {
            html.text_element(
                "option",
                &[("value", &namespace), ("selected", &"")],
                Printable::name(namespace),
            );
        } else {
            html.text_element(
                "option",
                &[("value", &namespace)],
                Printable::name(namespace),
            );
        }
    }
}

fn table(html: &mut Html, rows: &[&HpaRow], query: &ViewQuery) {
    html.element("table", &[("class", &"hpas")], |html| {
        html.element("thead", &[], |html| {
            html.element("tr", &[], |html| {
                for (order, title) in [
                    (Some(Order::Urgency), "State"),
                    (Some(Order::Name), "HPA"),
                    (Some(Order::Lag), "Lag"),
                    (Some(Order::Behind), "Behind"),
                    (None, "Drained in"),
                    (Some(Order::Replicas), "Replicas"),
                    (None, "Because"),
                    (None, "Findings"),
                    (None, "Cap"),
                ] {
                    heading(html, order, title, query);
                }
            });
        });
        html.line();
        html.element("tbody", &[], |html| {
            for row in rows {
                table_row(html, row);
                html.line();
            }
        });
    });
}

fn heading(html: &mut Html, order: Option<Order>, title: &str, query: &ViewQuery) {
    let Some(order) = order else {
        let class = if title == "Drained in" { "number" } else { "" };
        return html.text_element("th", &[("scope", &"col"), ("class", &class)], title);
    };
    let address = ViewQuery {
        order,
        ..query.clone()
    }
    .address();
    let is_chosen = query.order == order;
    let sort = match (is_chosen, order) {
        (false, _) => "none",
        (true, Order::Name) => "ascending",
        (true, _) => "descending",
    };
    let class = if order == Order::Behind { "number" } else { "" };
    let attributes: [(&'static str, &dyn std::fmt::Display); 3] =
        [("scope", &"col"), ("class", &class), ("aria-sort", &sort)];
    html.element("th", &attributes, |html| {
        html.text_element("a", &[("href", &address), ("data-swap", &"")], title);
    });
}

fn table_row(html: &mut Html, row: &HpaRow) {
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
            bars::sparkline(html, &row.lags);
            html.text_element("b", &[], format::or_unknown(status.lag.map(format::count)));
        });
        let cell = |html: &mut Html, class: &str, label: &str, text: String| {
            html.text_element("td", &[("class", &class), ("data-label", &label)], text);
        };
        cell(html, "number", "behind", format::behind(status));
        let drained = format::or_unknown(row.seconds_to_drain.map(format::seconds));
        cell(html, "number", "drained in", drained);
        html.element("td", &[("class", &"replicas")], |html| {
            bars::replica_bar(html, status);
            bars::replica_numbers(html, status);
        });
        let because = Printable::message(&row.because);
        html.element("td", &[("class", &"because")], |html| {
            // The style sheet cuts what is long; the page of the HPA has all of it.
            html.text_element("span", &[("title", &because)], because);
        });
        html.element("td", &[("class", &"findings")], |html| {
            for code in findings(status) {
                badge(html, code);
            }
        });
        cell(html, "cap", "cap", cap(status));
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

/// How urgent it is, as a shape and a word, so that it can be told without colours.
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

fn badge(html: &mut Html, code: FindingCode) {
    let (class, mark) = match code.severity() {
        Severity::Error => ("badge error", "✗ "),
        Severity::Warning => ("badge warning", "! "),
        Severity::Info => ("badge", "i "),
    };
    let title = format!("{} {} {}", code.what(), code.why(), code.fix());
    html.element("abbr", &[("class", &class), ("title", &title)], |html| {
        html.text(mark);
        html.text(code.code());
    });
}

/// What is done about the ceiling.
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
