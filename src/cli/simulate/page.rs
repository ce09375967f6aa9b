//! The report as a page: one HTML file that needs no script, no other file and no network.

mod panels;
mod pareto;

use std::fmt::Display;

use self::panels::write_panels;
use self::pareto::{ParetoPoint, write_pareto};
use super::report::{SimulationReport, describe_trace};
use crate::serve::page::assets::PAGE_CSS;
use crate::serve::page::html::Html;
use crate::serve::page::layout::fit_to_screen;
use crate::simulate::records::TimelineEntry;

/// The style sheet of parts that the page of the daemon does not have.
const REPORT_CSS: &str = include_str!("page/report.css");

/// Maximum number of runs whose course is shown, so that a browser can open the file.
pub(super) const MAX_COURSES: usize = 40;

/// Nothing is loaded and no script runs, whatever names are in the file.
const SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The course of one run.
#[derive(Clone, Debug)]
pub(super) struct RunCourse {
    pub(super) scenario: String,
    pub(super) about: String,
    pub(super) policy: String,
    pub(super) slo: u32,
    pub(super) timeline: Vec<TimelineEntry>,
}

/// Writes the page. `runs` is the number of all runs, of which the courses may be a part.
pub(super) fn render_page(report: &SimulationReport, courses: &[RunCourse], runs: usize) -> String {
    let title = report.title();
    Html::document(|html| {
        html.element("html", &[("lang", &"en")], |html| {
            html.element("head", &[], |html| write_head(html, &title));
            html.line();
            html.element("body", &[], |html| {
                html.element("main", &[("class", &"report")], |html| {
                    write_content(html, &title, report, courses, runs);
                });
            });
        });
        html.line();
    })
}

fn write_head(html: &mut Html, title: &str) {
    html.void("meta", &[("charset", &"utf-8")]);
    html.void(
        "meta",
        &[
            ("http-equiv", &"Content-Security-Policy"),
            ("content", &SECURITY_POLICY),
        ],
    );
    fit_to_screen(html);
    html.text_element("title", &[], format!("{title} – lagwise simulate"));
    html.line();
    html.style_sheet(PAGE_CSS);
    html.style_sheet(REPORT_CSS);
}

fn write_content(
    html: &mut Html,
    title: &str,
    report: &SimulationReport,
    courses: &[RunCourse],
    runs: usize,
) {
    html.element("header", &[], |html| {
        html.text_element("h1", &[], "Scaling policies compared");
        html.element("p", &[("class", &"facts")], |html| {
            html.text(title);
            html.text(" · lagwise ");
            html.text(env!("CARGO_PKG_VERSION"));
        });
    });
    html.line();
    html.element("section", &[("id", &"pareto")], |html| {
        html.text_element("h2", &[], "Replicas against late messages");
        html.text_element(
            "p",
            &[("class", &"note")],
            "Lower and further left is better. The line joins the policies that no other one beats in both.",
        );
        write_pareto(html, &points(report));
    });
    html.line();
    html.element("section", &[("id", &"scores")], |html| {
        html.text_element("h2", &[], "Scores");
        write_table(html, report.score_rows());
        if let Some(trace) = &report.trace {
            for line in describe_trace(trace).lines().filter(|line| !line.is_empty()) {
                html.text_element("p", &[("class", &"note")], line);
            }
        }
        html.text_element(
            "p",
            &[("class", &"note")],
            "Cost is replicas in percent of as many as partitions, plus 5 for each percent of late messages, plus 0.2 for \
             each rebalance.",
        );
    });
    html.line();
    let costs = report.cost_rows();
    if costs.len() > 2 {
        html.element("section", &[("id", &"costs")], |html| {
            html.text_element("h2", &[], "Cost in each scenario");
            write_table(html, costs);
        });
        html.line();
    }
    html.element("section", &[("id", &"courses")], |html| {
        html.text_element("h2", &[], "Course of the runs");
        let seed = report.first_seed();
        let shown = match courses.len() < runs {
            true => format!("Seed {seed}. {} of {runs} runs are shown; choose scenarios and policies to see others.", courses.len()),
            false => format!("Seed {seed}."),
        };
        html.text_element("p", &[("class", &"note")], shown);
        let mut last = "";
        for course in courses {
            let is_new = course.scenario != last;
            if is_new {
                html.element("h3", &[], |html| {
                    html.text(&course.scenario);
                    html.text_element("small", &[], format!(" {}", course.about));
                });
            }
            last = &course.scenario;
            write_panels(html, course, is_new);
        }
    });
}

/// The means of the policies, and of the references that they are compared with.
fn points(report: &SimulationReport) -> Vec<ParetoPoint> {
    report
        .mean_scores()
        .map(|(name, score, is_reference)| ParetoPoint {
            name: name.to_owned(),
            late: score.late_percent,
            replicas: score.cost_percent,
            is_reference,
        })
        .collect()
}

/// A table whose first row is the header, and whose first column are names.
fn write_table(html: &mut Html, rows: Vec<Vec<impl Display>>) {
    html.element("div", &[("class", &"scroll")], |html| {
        html.element("table", &[("class", &"scores")], |html| {
            for (number, row) in rows.iter().enumerate() {
                html.element("tr", &[], |html| {
                    for (place, cell) in row.iter().enumerate() {
                        let name = if number == 0 || place == 0 {
                            "th"
                        } else {
                            "td"
                        };
                        html.text_element(name, &[], cell);
                    }
                });
                html.line();
            }
        });
    });
}

#[cfg(test)]
mod tests;
