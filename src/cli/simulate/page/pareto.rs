//! The Pareto plot: each policy by its late messages and its replicas.

use crate::serve::page::chart::round_up;
use crate::serve::page::html::Html;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 46.0;

/// Height of a label.
const LABEL: f64 = 16.0;

/// Labels that are a label's height apart may seem closer, because sums are rounded.
const ROUNDING: f64 = 1e-6;

/// Maximum width of a character of a label.
const MAX_CHARACTER_WIDTH: f64 = 8.0;

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ParetoPoint {
    pub(super) name: String,
    /// Late messages in percent.
    pub(super) late: f64,
    /// Replicas in percent of as many as partitions.
    pub(super) replicas: f64,
    /// Whether it cannot be chosen as a policy: what really happened, or a schedule that knows all arrivals in advance.
    pub(super) is_reference: bool,
}

/// Places in a picture.
struct PlotScale {
    late: f64,
    replicas: f64,
}

impl PlotScale {
    fn fitting(points: &[ParetoPoint]) -> Self {
        let most = |value: fn(&ParetoPoint) -> f64| points.iter().map(value).fold(0.0, f64::max);
        Self {
            late: round_up(most(|point| point.late).max(1.0)),
            replicas: round_up(most(|point| point.replicas).max(10.0)),
        }
    }

    fn x(&self, late: f64) -> f64 {
        LEFT + late / self.late * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, replicas: f64) -> f64 {
        HEIGHT - BOTTOM - replicas / self.replicas * (HEIGHT - TOP - BOTTOM)
    }
}

/// The points that no other one beats in both, from left to right.
fn front(points: &[ParetoPoint]) -> Vec<&ParetoPoint> {
    let choices = points.iter().filter(|point| !point.is_reference);
    let mut sorted: Vec<&ParetoPoint> = choices.collect();
    sorted.sort_by(|a, b| {
        a.late
            .total_cmp(&b.late)
            .then(a.replicas.total_cmp(&b.replicas))
    });
    let mut least = f64::INFINITY;
    sorted.retain(|point| {
        let is_better = point.replicas < least;
        least = least.min(point.replicas);
        is_better
    });
    sorted
}

/// Places of the labels, right of their points and below those that would be covered.
fn place_labels(points: &[ParetoPoint], scale: &PlotScale) -> Vec<(f64, f64)> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    let key = |place: &usize| {
        points
            .get(*place)
            .map_or(0.0, |point| scale.y(point.replicas))
    };
    order.sort_by(|a, b| key(a).total_cmp(&key(b)));
    let mut placed: Vec<(f64, f64, f64)> = Vec::new();
    let mut places = vec![(0.0, 0.0); points.len()];
    for place in order {
        let Some(point) = points.get(place) else {
            continue;
        };
        let x = scale.x(point.late) + 10.0;
        let width =
            f64::from(u32::try_from(point.name.chars().count()).unwrap_or(0)) * MAX_CHARACTER_WIDTH;
        let mut y = scale.y(point.replicas) + 4.0;
        while let Some((_, _, other)) = placed.iter().find(|(left, right, other)| {
            x < *right && *left < x + width && (y - other).abs() < LABEL - ROUNDING
        }) {
            y = other + LABEL;
        }
        placed.push((x, x + width, y));
        if let Some(found) = places.get_mut(place) {
            *found = (x, y);
        }
    }
    places
}

/// Writes the plot.
pub(super) fn write_pareto(html: &mut Html, points: &[ParetoPoint]) {
    let scale = PlotScale::fitting(points);
    let front = front(points);
    let said = points.iter().map(|point| {
        format!(
            "{}: {:.1} % replicas, {:.2} % late",
            point.name, point.replicas, point.late
        )
    });
    let label = said.collect::<Vec<_>>().join("; ");
    html.element("figure", &[("class", &"pareto")], |html| {
        html.element(
            "svg",
            &[
                ("role", &"img"),
                ("aria-label", &label),
                ("viewBox", &format!("0 0 {WIDTH} {HEIGHT}")),
            ],
            |html| {
                write_axes(html, &scale);
                let line = front.iter().enumerate().map(|(number, point)| {
                    let (x, y) = (scale.x(point.late), scale.y(point.replicas));
                    match number {
                        0 => format!("M{x:.1} {y:.1}"),
                        // Between two policies, only the later one's share of late messages has its replicas.
                        _ => format!("H{x:.1}V{y:.1}"),
                    }
                });
                write_path(html, "front", &line.collect::<String>());
                for (point, place) in points.iter().zip(place_labels(points, &scale)) {
                    write_point(html, point, &scale, place, front.contains(&point));
                }
            },
        );
    });
}

fn write_path(html: &mut Html, class: &'static str, path: &str) {
    html.element("path", &[("class", &class), ("d", &path)], |_| {});
}

fn write_text(
    html: &mut Html,
    class: &'static str,
    anchor: &'static str,
    x: f64,
    y: f64,
    text: &str,
) {
    html.text_element(
        "text",
        &[
            ("class", &class),
            ("text-anchor", &anchor),
            ("x", &format!("{x:.1}")),
            ("y", &format!("{y:.1}")),
        ],
        text,
    );
}

fn write_axes(html: &mut Html, scale: &PlotScale) {
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = scale.y(scale.replicas * part);
        write_path(
            html,
            "grid",
            &format!("M{LEFT} {y:.1}H{:.1}", WIDTH - RIGHT),
        );
        write_text(
            html,
            "tick",
            "end",
            LEFT - 8.0,
            y + 4.0,
            &format!("{:.0} %", scale.replicas * part),
        );
        let x = scale.x(scale.late * part);
        write_path(
            html,
            "grid",
            &format!("M{x:.1} {TOP}V{:.1}", HEIGHT - BOTTOM),
        );
        let late = scale.late * part;
        let digits = usize::from(scale.late < 4.0) + usize::from(scale.late <= 10.0);
        write_text(
            html,
            "tick",
            "middle",
            x,
            HEIGHT - BOTTOM + 18.0,
            &format!("{late:.digits$} %"),
        );
    }
    write_text(
        html,
        "unit",
        "end",
        WIDTH - RIGHT,
        HEIGHT - 8.0,
        "late messages",
    );
    write_text(
        html,
        "unit",
        "start",
        8.0,
        16.0,
        "replicas, of as many as partitions",
    );
}

fn write_point(
    html: &mut Html,
    point: &ParetoPoint,
    scale: &PlotScale,
    (text_x, text_y): (f64, f64),
    is_best: bool,
) {
    let (x, y) = (scale.x(point.late), scale.y(point.replicas));
    let class = match (point.is_reference, is_best) {
        (true, _) => "reference",
        (false, true) => "best",
        (false, false) => "other",
    };
    html.element("g", &[("class", &class)], |html| {
        if (text_y - 4.0 - y).abs() > 1.0 {
            let path = format!("M{x:.1} {y:.1}L{:.1} {:.1}", text_x - 2.0, text_y - 4.0);
            write_path(html, "lead", &path);
        }
        html.element(
            "circle",
            &[
                ("cx", &format!("{x:.1}")),
                ("cy", &format!("{y:.1}")),
                ("r", &"5"),
            ],
            |_| {},
        );
        write_text(html, "name", "start", text_x, text_y, &point.name);
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(name: &str, late: f64, replicas: f64) -> ParetoPoint {
        ParetoPoint {
            name: name.to_owned(),
            late,
            replicas,
            is_reference: false,
        }
    }

    #[test]
    fn the_front_has_the_points_that_no_other_dominates() {
        let points = [
            ParetoPoint {
                is_reference: true,
                ..point("clairvoyant", 1.0, 40.0)
            },
            point("cheap", 10.0, 50.0),
            point("worse", 10.0, 60.0),
            point("static", 3.0, 100.0),
            point("static too", 3.0, 100.0),
            point("good", 5.0, 60.0),
            point("worst", 12.0, 101.0),
        ];
        let names: Vec<&str> = front(&points)
            .iter()
            .map(|point| point.name.as_str())
            .collect();
        assert_eq!(names, ["static", "good", "cheap"]);
    }

    proptest! {
        #[test]
        fn labels_do_not_cover_each_other(places in prop::collection::vec((0.0..20.0f64, 0.0..100.0f64), 0..20)) {
            let points: Vec<ParetoPoint> =
                places.iter().map(|(late, replicas)| point("flink-given-tuned", *late, *replicas)).collect();
            let placed = place_labels(&points, &PlotScale::fitting(&points));
            for (number, (x, y)) in placed.iter().enumerate() {
                for (other_x, other_y) in &placed[..number] {
                    let width = 17.0 * MAX_CHARACTER_WIDTH;
                    prop_assert!((x - other_x).abs() >= width || (y - other_y).abs() >= LABEL - ROUNDING);
                }
            }
        }
    }
}
