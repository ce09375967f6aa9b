//! Charts of one HPA's history over one time axis.

use super::html::{Attribute, Html};
use crate::serve::hpa_endpoints::MarkerRow;
use crate::serve::time_span::TimeSpan;

/// Width and height of a chart's picture, in units that are stretched to the room there is.
const WIDTH: u32 = 1000;
const HEIGHT: f64 = 100.0;

/// Length of the dash for a point without neighbours, in units of the picture.
const ALONE: u32 = 5;

/// How many times as long as its leading lines need an axis may become to make room for the other lines.
const ROOM_FOR_OTHERS: f64 = 4.0;

/// The horizontal position of a time in a picture of this span, in units of the picture.
fn place(span: TimeSpan, at: u32) -> f64 {
    (f64::from(at) - f64::from(span.from)) / f64::from(span.seconds().max(1)) * f64::from(WIDTH)
}

/// One line of a chart.
pub(crate) struct Line<'a> {
    /// Class in the style sheet, which sets colour and dashes.
    pub(crate) class: &'static str,
    pub(crate) title: &'static str,
    /// Whether a value lasts until the next one, instead of a straight line between them.
    pub(crate) is_stepped: bool,
    /// Whether the axis has room for all of its values. It has room for other lines only as long as these stay well
    /// visible.
    pub(crate) is_leading: bool,
    /// Time and value; `None` where it is unknown.
    pub(crate) points: Vec<(u32, Option<f64>)>,
    /// The last value, as text.
    pub(crate) latest: &'a str,
}

pub(crate) struct Chart<'a> {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) span: TimeSpan,
    /// Longest time between two points that are joined.
    pub(crate) gap: u32,
    pub(crate) lines: Vec<Line<'a>>,
    pub(crate) markers: &'a [MarkerRow],
    /// Formats a value of the axis.
    pub(crate) format: fn(f64) -> String,
    pub(crate) smallest_top: f64,
}

impl Chart<'_> {
    /// Writes the chart with its legend.
    pub(crate) fn write(&self, html: &mut Html) {
        let top = self.top();
        let attributes: [Attribute<'_>; 2] = [("class", &"chart"), ("id", &self.id)];
        // Several charts of one kind have none.
        let count = if self.id.is_empty() { 1 } else { 2 };
        html.element(
            "figure",
            attributes.get(..count).unwrap_or_default(),
            |html| {
                html.element("figcaption", &[], |html| {
                    html.text_element("h3", &[], self.title);
                    for line in &self.lines {
                        html.element(
                            "span",
                            &[("class", &format!("legend {}", line.class))],
                            |html| {
                                html.element(
                                    "svg",
                                    &[("viewBox", &"0 0 20 8"), ("aria-hidden", &"true")],
                                    |html| html.element("path", &[("d", &"M0 4H20")], |_| {}),
                                );
                                html.text(line.title);
                                html.text(" ");
                                html.text_element("b", &[], line.latest);
                            },
                        );
                    }
                });
                html.element("div", &[("class", &"plot")], |html| {
                    html.element(
                        "div",
                        &[("class", &"axis"), ("aria-hidden", &"true")],
                        |html| {
                            for value in [top, top / 2.0, 0.0] {
                                html.text_element("span", &[], (self.format)(value));
                            }
                        },
                    );
                    self.picture(html, top);
                });
            },
        );
        html.line();
    }

    /// The end of the axis.
    fn top(&self) -> f64 {
        let max_value = |is_leading: bool| {
            let lines = self
                .lines
                .iter()
                .filter(|line| line.is_leading == is_leading);
            let values = lines.flat_map(|line| &line.points);
            values.filter_map(|(_, value)| *value).fold(0.0, f64::max)
        };
        let leading = max_value(true).max(self.smallest_top);
        round_up(max_value(false).min(leading * ROOM_FOR_OTHERS).max(leading))
    }

    fn picture(&self, html: &mut Html, top: f64) {
        let label = format!(
            "{}: {}",
            self.title,
            self.lines
                .iter()
                .map(|line| format!("{} {}", line.title, line.latest))
                .collect::<Vec<_>>()
                .join(", ")
        );
        html.element(
            "svg",
            &[
                ("class", &"picture"),
                ("role", &"img"),
                ("aria-label", &label),
                ("viewBox", &format!("0 0 {WIDTH} {HEIGHT}")),
                ("preserveAspectRatio", &"none"),
            ],
            |html| {
                for y in ["0.5", "50", "99.5"] {
                    html.element(
                        "path",
                        &[("class", &"grid"), ("d", &format!("M0 {y}H{WIDTH}"))],
                        |_| {},
                    );
                }
                for marker in self.markers {
                    let x = place(self.span, marker.at);
                    let class = if marker.is_problem {
                        "marker problem"
                    } else {
                        "marker"
                    };
                    html.element(
                        "path",
                        &[("class", &class), ("d", &format!("M{x:.1} 0V{HEIGHT}"))],
                        |html| {
                            html.text_element("title", &[], &marker.text);
                        },
                    );
                }
                for line in &self.lines {
                    let path = line.path(self.span, self.gap, top);
                    html.element(
                        "path",
                        &[("class", &format!("line {}", line.class)), ("d", &path)],
                        |_| {},
                    );
                }
            },
        );
    }
}

impl Line<'_> {
    fn path(&self, span: TimeSpan, gap: u32, top: f64) -> String {
        let mut path = String::new();
        let mut last: Option<u32> = None;
        let joins = |from: u32, to: u32| to.saturating_sub(from) <= gap;
        for (index, (at, value)) in self.points.iter().enumerate() {
            let Some(value) = value else {
                last = None;
                continue;
            };
            // Values beyond the axis are outside the picture.
            let share = value.min(top * 2.0) / top;
            let (x, y) = (place(span, *at), HEIGHT - share * (HEIGHT - 1.0) - 0.5);
            let is_joined = last.is_some_and(|last| joins(last, *at));
            let is_last = !matches!(
                self.points.get(index + 1),
                Some((next, Some(_))) if joins(*at, *next)
            );
            path.push_str(&match (is_joined, self.is_stepped) {
                // A single point has no length and would be invisible.
                (false, _) if is_last => format!("M{x:.1} {y:.1}h{ALONE}"),
                (false, _) => format!("M{x:.1} {y:.1}"),
                (true, true) => format!("H{x:.1}V{y:.1}"),
                (true, false) => format!("L{x:.1} {y:.1}"),
            });
            last = Some(*at);
        }
        path
    }
}

/// Rounds up to a number with one significant digit that is easy to read on an axis.
pub(crate) fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    let fitting = steps.into_iter().map(|step| step * power);
    let mut fitting = fitting.filter(|top| *top >= value);
    fitting.next().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (3.0, 4.0),
            (11.0, 20.0),
            (4_999.0, 5_000.0),
        ] {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn a_distant_ceiling_does_not_hide_the_replicas() {
        let line = |is_leading, value| Line {
            class: "a",
            title: "a",
            is_stepped: true,
            is_leading,
            points: vec![(0, Some(value))],
            latest: "",
        };
        let top = |lines| {
            let chart = Chart {
                id: "a",
                title: "a",
                span: TimeSpan { from: 0, to: 1 },
                gap: 1,
                lines,
                markers: &[],
                format: |value| value.to_string(),
                smallest_top: 2.0,
            };
            chart.top()
        };
        assert!((top(vec![line(true, 8.0), line(false, 1200.0)]) - 40.0).abs() < 1e-9);
        assert!((top(vec![line(true, 8.0), line(false, 12.0)]) - 20.0).abs() < 1e-9);
        assert!((top(vec![line(false, 1200.0)]) - 8.0).abs() < 1e-9);
    }

    #[test]
    fn unknown_values_and_long_breaks_are_gaps() {
        let line = Line {
            class: "a",
            title: "a",
            is_stepped: false,
            is_leading: true,
            points: vec![
                (0, Some(0.0)),
                (10, Some(10.0)),
                (20, None),
                (30, Some(10.0)),
                (90, Some(5.0)),
                (100, Some(5.0)),
            ],
            latest: "",
        };
        let span = TimeSpan { from: 0, to: 100 };
        assert_eq!(
            line.path(span, 15, 10.0),
            "M0.0 99.5L100.0 0.5M300.0 0.5h5M900.0 50.0L1000.0 50.0"
        );
        let stepped = Line {
            is_stepped: true,
            ..line
        };
        assert!(
            stepped
                .path(span, 15, 10.0)
                .starts_with("M0.0 99.5H100.0V0.5M300.0 0.5h5")
        );
    }
}
