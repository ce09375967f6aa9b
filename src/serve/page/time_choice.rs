//! The time that the charts of an HPA cover, from the address: a window that ends now, or a fixed span.

use super::history_charts::time_of;
use crate::serve::time_span::{TimeSpan, parse_time, query_value};

/// Minimum span that charts show.
const MIN_SPAN_SECONDS: u32 = 60;

/// Maximum span that charts show: no history is longer.
const MAX_SPAN_SECONDS: u32 = 86_400;

/// A window that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeWindow(u32, pub(super) &'static str);

impl TimeWindow {
    pub(super) const ALL: [Self; 5] = [
        Self(300, "5m"),
        Self(900, "15m"),
        Self::HOUR,
        Self(21_600, "6h"),
        Self(MAX_SPAN_SECONDS, "24h"),
    ];

    /// One hour: the longest that is chosen unless the address says so.
    const HOUR: Self = Self(3_600, "1h");

    /// The shortest that covers this number of seconds, up to an hour.
    fn covering(seconds: u32) -> Self {
        let mut fitting = Self::ALL.into_iter();
        fitting
            .find(|window| window.0 >= seconds.min(Self::HOUR.0))
            .unwrap_or(Self::HOUR)
    }

    fn until(self, now: u32) -> TimeSpan {
        TimeSpan {
            from: now.saturating_sub(self.0),
            to: now,
        }
    }
}

/// Parameters of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeChoice {
    /// All that is known, up to an hour.
    Unset,
    Window(TimeWindow),
    /// A span that does not move on: it was selected in a chart, or comes with a link.
    Selected(TimeSpan),
}

impl TimeChoice {
    /// Parses `from` and `to`, or `window`. Invalid values are ignored, so that an old link still works.
    pub(super) fn parse(query: &str, now: u32) -> Self {
        let time = |key| query_value(query, key).and_then(|text| parse_time(&text));
        if let Some(from) = time("from") {
            let to = time("to").unwrap_or(now);
            if from < to {
                return Self::Selected(bounded(TimeSpan { from, to }, now));
            }
        }
        let name = query_value(query, "window");
        let mut windows = TimeWindow::ALL.into_iter();
        let window = windows.find(|window| Some(window.1) == name.as_deref());
        window.map_or(Self::Unset, Self::Window)
    }

    /// The longest span that can be chosen.
    pub(super) fn longest(self, now: u32) -> TimeSpan {
        match self {
            Self::Selected(span) => span,
            Self::Window(window) => window.until(now),
            Self::Unset => TimeWindow::HOUR.until(now),
        }
    }

    /// The span to show, if the first point of the history is from `first`.
    pub(super) fn span(self, now: u32, first: Option<u32>) -> TimeSpan {
        match self.window(now, first) {
            Some(window) => window.until(now),
            None => self.longest(now),
        }
    }

    /// The window that is shown; `None` for a selected span.
    pub(super) fn window(self, now: u32, first: Option<u32>) -> Option<TimeWindow> {
        match self {
            Self::Selected(_) => None,
            Self::Window(window) => Some(window),
            Self::Unset => {
                let known = first.map_or(0, |first| now.saturating_sub(first));
                Some(TimeWindow::covering(known))
            }
        }
    }
}

/// A span of a length that can be shown, and not of the future.
fn bounded(span: TimeSpan, now: u32) -> TimeSpan {
    let length = span.seconds().clamp(MIN_SPAN_SECONDS, MAX_SPAN_SECONDS);
    let to = span.to.min(now).max(length);
    let from = span.from.max(to.saturating_sub(length));
    TimeSpan {
        from: from.min(to.saturating_sub(MIN_SPAN_SECONDS)),
        to,
    }
}

/// Links from a span to other spans, each with its name.
pub(super) fn adjacent_spans(span: TimeSpan, now: u32) -> Vec<(&'static str, TimeSpan)> {
    let (half, quarter) = (span.seconds() / 2, span.seconds() / 4);
    let (earlier, later) = (half.min(span.from), half.min(now.saturating_sub(span.to)));
    let all = [
        (
            "← earlier",
            earlier > 0,
            (
                span.from.saturating_sub(earlier),
                span.to.saturating_sub(earlier),
            ),
        ),
        (
            "later →",
            later > 0,
            (
                span.from.saturating_add(later),
                span.to.saturating_add(later),
            ),
        ),
        (
            "zoom in",
            half >= MIN_SPAN_SECONDS,
            (
                span.from.saturating_add(quarter),
                span.to.saturating_sub(quarter),
            ),
        ),
        (
            "zoom out",
            span.seconds() < MAX_SPAN_SECONDS,
            (span.from.saturating_sub(half), span.to.saturating_add(half)),
        ),
    ];
    let possible = all.into_iter().filter(|(_, is_possible, _)| *is_possible);
    possible
        .map(|(name, _, (from, to))| (name, bounded(TimeSpan { from, to }, now)))
        .collect()
}

/// The query string for a span.
pub(super) fn query_of(span: TimeSpan) -> String {
    format!("from={}&to={}", time_of(span.from), time_of(span.to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u32 = 1_800_000_000;

    #[test]
    fn a_window_covers_the_known_history() {
        let shown = |first: Option<u32>| TimeChoice::Unset.window(NOW, first).unwrap().1;
        assert_eq!(shown(None), "5m");
        assert_eq!(shown(Some(NOW - 60)), "5m");
        assert_eq!(shown(Some(NOW - 301)), "15m");
        assert_eq!(shown(Some(NOW - 90_000)), "1h");
        let chosen = TimeChoice::parse("a=b&window=6h", NOW);
        let span = TimeSpan {
            from: NOW - 21_600,
            to: NOW,
        };
        assert_eq!(chosen.span(NOW, None), span);
    }

    #[test]
    fn the_selected_span_remains_and_is_bounded() {
        let span = |query: &str| match TimeChoice::parse(query, NOW) {
            TimeChoice::Selected(span) => Some((span.from, span.to)),
            _ => None,
        };
        for (query, expected) in [
            (
                "from=1799990000&to=1799990600",
                Some((1_799_990_000, 1_799_990_600)),
            ),
            (
                "from=2027-01-15T05:13:20Z&to=2027-01-15T05:23:20Z",
                Some((1_799_990_000, 1_799_990_600)),
            ),
            ("from=1799999000", Some((1_799_999_000, NOW))),
            // Too short, too long, and into the future.
            (
                "from=1799990000&to=1799990001",
                Some((1_799_989_941, 1_799_990_001)),
            ),
            ("from=0&to=1800000000", Some((NOW - MAX_SPAN_SECONDS, NOW))),
            ("from=1799999000&to=1900000000", Some((1_799_999_000, NOW))),
            (
                "from=1850000000&to=1900000000",
                Some((NOW - MIN_SPAN_SECONDS, NOW)),
            ),
            // No span.
            ("from=1799990600&to=1799990000", None),
            ("from=soon&to=1799990000", None),
            ("to=1799990000", None),
            ("window=2h", None),
            ("", None),
        ] {
            assert_eq!(span(query), expected, "{query}");
        }
        let both = TimeChoice::parse("window=6h&from=1799990000&to=1799990600", NOW);
        assert_eq!(both.window(NOW, None), None);
    }

    #[test]
    fn neighbours_are_earlier_later_shorter_and_longer() {
        let span = TimeSpan {
            from: NOW - 2_000,
            to: NOW - 1_000,
        };
        let all: Vec<_> = adjacent_spans(span, NOW)
            .into_iter()
            .map(|(name, span)| (name, NOW - span.from, NOW - span.to))
            .collect();
        assert_eq!(
            all,
            [
                ("← earlier", 2_500, 1_500),
                ("later →", 1_500, 500),
                ("zoom in", 1_750, 1_250),
                ("zoom out", 2_500, 500),
            ]
        );
        let latest = TimeSpan {
            from: NOW - MIN_SPAN_SECONDS,
            to: NOW,
        };
        let names: Vec<_> = adjacent_spans(latest, NOW)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["← earlier", "zoom out"]);
    }

    proptest! {
        #[test]
        fn every_span_can_be_shown_and_linked_to(from: u32, to: u32, now in MAX_SPAN_SECONDS..) {
            let query = format!("from={from}&to={to}");
            if let TimeChoice::Selected(span) = TimeChoice::parse(&query, now) {
                prop_assert!(span.to <= now, "{span:?}");
                prop_assert!((MIN_SPAN_SECONDS..=MAX_SPAN_SECONDS).contains(&span.seconds()), "{span:?}");
                let again = TimeChoice::parse(&query_of(span), now);
                prop_assert_eq!(again, TimeChoice::Selected(span));
                for (_, other) in adjacent_spans(span, now) {
                    prop_assert!((MIN_SPAN_SECONDS..=MAX_SPAN_SECONDS).contains(&other.seconds()), "{other:?}");
                    prop_assert!(other.to <= now, "{other:?}");
                }
            }
        }
    }
}
