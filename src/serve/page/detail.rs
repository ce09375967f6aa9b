//! The page of one HPA: its charts, partitions, derivation, findings and what happened to it.

use super::bars;
use super::derivation;
use super::format;
use super::history_charts::{self, time_of};
use super::hpa_table::{cap, slo, state};
use super::html::Html;
use super::layout;
use super::time_choice::TimeChoice;
use crate::model::diagnostics::attention::findings;
use crate::model::findings::{FindingCode, Severity};
use crate::model::units::untrusted_text::Printable;
use crate::serve::hpa_endpoints::{HpaView, MarkerRow};

/// Maximum number of events that are listed, the latest first.
const MAX_LISTED: usize = 40;

/// Renders the page of an HPA. `now` is in seconds since 1970.
pub(super) fn render(view: &HpaView, chosen: TimeChoice, now: u32) -> String {
    let status = &view.hpa.status;
    let name = format!("{}/{}", status.namespace, status.hpa);
    layout::page(&name, true, |html| {
        html.element("header", &[], |html| {
            html.element("p", &[("class", &"up")], |html| {
                html.text_element("a", &[("href", &"/"), ("id", &"up")], "← all HPAs");
            });
            html.element("h1", &[], |html| {
                html.text(Printable::name(&status.namespace));
                html.text("/");
                html.text(Printable::name(&status.hpa));
                html.text(" ");
                state(html, view.hpa.urgency);
            });
            html.text_element(
                "p",
                &[("class", &"verdict")],
                Printable::message(&view.explanation.verdict),
            );
            html.element("p", &[("class", &"facts")], |html| {
                html.text("leader ");
                html.text_element("b", &[], Printable::name(&view.leader));
                html.text(" · as of ");
                html.element("time", &[("datetime", &view.at)], |html| {
                    html.text(&view.at)
                });
                if let Some(age) = status.age_millis {
                    let age = format::seconds(age.div_ceil(1000));
                    html.text(format!(" · oldest reading {age} ago"));
                }
            });
        });
        numbers(html, view);
        history_charts::write(html, view, chosen, now);
        write_findings(html, view);
        events(html, &view.history.markers);
        html.element("section", &[("id", &"derivation")], |html| {
            html.text_element("h2", &[], "Derivation");
            derivation::write(html, &view.explanation, &view.snapshot);
        });
    })
}

/// The present numbers, and what would change them.
fn numbers(html: &mut Html, view: &HpaView) {
    let status = &view.hpa.status;
    html.element("section", &[("id", &"now"), ("class", &"tiles")], |html| {
        let tile = |html: &mut Html, title: &str, value: String, more: &dyn Fn(&mut Html)| {
            html.element("div", &[("class", &"tile")], |html| {
                html.text_element("span", &[], title);
                html.text_element("b", &[], value);
                more(html);
            });
        };
        let note =
            |text: String| move |html: &mut Html| html.text_element("small", &[], text.as_str());
        let partitions = match status.partitions {
            Some(count) => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                format!("on {}", format::partitions(count))
            }
            None => "partitions unknown".to_owned(),
        };
        let lag = format::or_unknown(status.lag.map(format::count));
        tile(html, "lag", lag, &note(partitions));
        tile(
            html,
            "behind",
            format::behind(status),
            &|html| match view.hpa.slo {
                Some(_) => slo(html, &view.hpa),
                None => html.text_element("small", &[], "no SLO is set"),
            },
        );
        let drained = format::or_unknown(status.seconds_to_drain.map(format::seconds));
        let rates = format!(
            "in {}, out {}",
            format::rate(status.produced_per_second),
            format::rate(status.consumed_per_second),
        );
        tile(html, "drained in", drained, &note(rates));
        tile(
            html,
            "ceiling",
            format::limit(status.ceiling),
            &note(format!("cap: {}", cap(status))),
        );
        html.element("div", &[("class", &"tile wide")], |html| {
            html.text_element("span", &[], "replicas");
            bars::replica_bar(html, status);
            bars::replica_numbers(html, status);
        });
    });
    html.element("section", &[("class", &"why")], |html| {
        html.element("p", &[], |html| {
            html.text_element("b", &[], "Because ");
            html.text(Printable::message(&view.hpa.because));
            html.text(".");
        });
        html.element("p", &[], |html| {
            html.text_element("b", &[], "What would change it: ");
            html.text(Printable::message(&view.hpa.what_would_change));
        });
    });
}

/// Findings with why they matter and what to do.
fn write_findings(html: &mut Html, view: &HpaView) {
    let codes: Vec<FindingCode> = findings(&view.hpa.status).collect();
    if codes.is_empty() {
        return;
    }
    html.element("section", &[("id", &"findings")], |html| {
        html.text_element("h2", &[], "Findings");
        for code in codes {
            let class = match code.severity() {
                Severity::Error => "finding error",
                Severity::Warning => "finding warning",
                Severity::Info => "finding",
            };
            html.element("article", &[("class", &class)], |html| {
                html.element("h3", &[], |html| {
                    html.text_element("code", &[], code.code());
                    html.text(" ");
                    html.text(code.what());
                });
                let own = view.explanation.findings.iter();
                for sentence in own.filter_map(|text| text.strip_prefix(code.code())) {
                    html.text_element("p", &[], Printable::message(sentence.trim_start()));
                }
                html.text_element("p", &[("class", &"note")], code.why());
                html.element("p", &[], |html| {
                    html.text_element("b", &[], "What to do: ");
                    html.text(code.fix());
                });
            });
        }
    });
}

/// What happened, the latest first.
fn events(html: &mut Html, markers: &[MarkerRow]) {
    html.element("section", &[("id", &"events")], |html| {
        html.text_element("h2", &[], "What happened");
        if markers.is_empty() {
            html.text_element("p", &[("class", &"note")], "Nothing in this time.");
            return;
        }
        html.element("ol", &[("class", &"events")], |html| {
            for marker in markers.iter().rev().take(MAX_LISTED) {
                let class = if marker.is_problem {
                    "problem"
                } else {
                    "plain"
                };
                html.element("li", &[("class", &class)], |html| {
                    let time = time_of(marker.at);
                    html.element("time", &[("datetime", &time)], |html| html.text(&time));
                    html.text(if marker.is_problem { " ! " } else { " " });
                    html.text(Printable::message(&marker.text));
                });
            }
        });
        if let Some(more) = markers
            .len()
            .checked_sub(MAX_LISTED)
            .filter(|more| *more > 0)
        {
            html.text_element(
                "p",
                &[("class", &"note")],
                format!("{more} earlier ones are left out."),
            );
        }
    });
}
