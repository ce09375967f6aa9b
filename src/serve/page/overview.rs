//! The overview: Kafka clusters, counters that filter, and the table of HPAs.

use std::collections::BTreeSet;

use super::format;
use super::hpa_table;
use super::html::{Attribute, Html};
use super::layout;
use super::pager;
use super::sparklines::Sparklines;
use super::view_query::{Filter, PageSlice, ViewQuery};
use crate::model::units::counted::counted;
use crate::model::units::untrusted_text::Printable;
use crate::serve::hpa_rows::{ClusterRow, HpaOverview, HpaRow};

/// What one page of the overview shows.
pub(super) struct OverviewView<'a> {
    pub(super) overview: &'a HpaOverview,
    pub(super) query: &'a ViewQuery,
    /// The HPAs that match the namespace and the search, regardless of the filter.
    pub(super) found: &'a [&'a HpaRow],
    /// The rows of this page.
    pub(super) slice: &'a PageSlice<'a, &'a HpaRow>,
    pub(super) sparklines: &'a Sparklines,
}

impl OverviewView<'_> {
    /// Renders the page.
    pub(super) fn render(&self) -> String {
        layout::page("HPAs", true, |html| {
            html.element("header", &[], |html| {
                html.text_element("h1", &[], "lagwise");
                facts(html, self.overview);
            });
            clusters(html, &self.overview.clusters);
            self.controls(html);
            if self.slice.rows.is_empty() {
                let text = match self.overview.hpas.is_empty() {
                    true => "No HPA uses a metric of lagwise.",
                    false => "No HPA matches.",
                };
                html.text_element("p", &[("class", &"empty")], text);
            } else {
                hpa_table::write(html, self.slice.rows, self.query, self.sparklines);
                pager::write(html, self.slice, self.query);
            }
        })
    }

    /// Counters, search and namespace.
    fn controls(&self, html: &mut Html) {
        html.element("div", &[("class", &"controls")], |html| {
            self.counters(html);
            search(html, &self.overview.hpas, self.query);
        });
    }

    fn counters(&self, html: &mut Html) {
        let attributes: [Attribute<'_>; 2] = [("class", &"filters"), ("aria-label", &"Filters")];
        html.element("nav", &attributes, |html| {
            for filter in Filter::ALL {
                let accepted = self.found.iter().filter(|row| filter.accepts(row));
                let count = accepted.count();
                let address = ViewQuery {
                    filter,
                    ..self.query.at_first_page()
                }
                .address();
                let is_chosen = self.query.filter == filter;
                let class = match (filter, count) {
                    (Filter::Attention | Filter::Unknown | Filter::Late, 1..) => "counter alarm",
                    (_, 0) => "counter none",
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
                        html.text_element("b", &[], format::size(count));
                        html.text(" ");
                        html.text(filter.title());
                    },
                );
            }
        });
    }
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
                html.text(format!(", {}", counted(cluster.groups, "group")));
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
