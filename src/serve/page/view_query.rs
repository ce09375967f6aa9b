//! What the page's address asks for: filter, search, order, and the time that charts cover.

use std::cmp::Reverse;

use crate::model::diagnostics::attention::{AttentionLevel, is_asleep, is_at_ceiling};
use crate::serve::hpa_rows::HpaRow;

/// Which HPAs to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    All,
    Attention,
    Ceiling,
    Asleep,
    Unknown,
    Paused,
}

impl Filter {
    pub(super) const ALL: [Self; 6] = [
        Self::All,
        Self::Attention,
        Self::Ceiling,
        Self::Asleep,
        Self::Unknown,
        Self::Paused,
    ];

    /// In the address.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Attention => "attention",
            Self::Ceiling => "ceiling",
            Self::Asleep => "asleep",
            Self::Unknown => "unknown",
            Self::Paused => "paused",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Attention => "need attention",
            Self::Ceiling => "at ceiling",
            Self::Asleep => "asleep",
            Self::Unknown => "unknown",
            Self::Paused => "paused",
        }
    }

    pub(super) fn accepts(self, row: &HpaRow) -> bool {
        match self {
            Self::All => true,
            Self::Attention => row.urgency.needs_attention(),
            Self::Ceiling => is_at_ceiling(&row.status),
            Self::Asleep => is_asleep(&row.status),
            Self::Unknown => row.urgency == AttentionLevel::Unknown,
            Self::Paused => row.status.paused,
        }
    }
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Urgency,
    Name,
    Lag,
    Behind,
    Replicas,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Urgency => "",
            Self::Name => "name",
            Self::Lag => "lag",
            Self::Behind => "behind",
            Self::Replicas => "replicas",
        }
    }

    const ALL: [Self; 5] = [
        Self::Urgency,
        Self::Name,
        Self::Lag,
        Self::Behind,
        Self::Replicas,
    ];
}

/// What the address of the overview asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ViewQuery {
    pub(super) filter: Filter,
    pub(super) order: Order,
    /// Empty = all.
    pub(super) namespace: String,
    /// Part of the name; empty = all.
    pub(super) search: String,
}

impl ViewQuery {
    /// Parses a query string. What is not known is left out, so that an old link still shows something.
    pub(super) fn parse(query: &str) -> Self {
        let value_of = |key: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            let value = pairs.find(|(k, _)| k == key).map(|(_, value)| value);
            value.unwrap_or_default().trim().to_owned()
        };
        let (filter, order) = (value_of("filter"), value_of("sort"));
        let mut filters = Filter::ALL.into_iter();
        let mut orders = Order::ALL.into_iter();
        Self {
            filter: filters
                .find(|known| known.name() == filter)
                .unwrap_or(Filter::All),
            order: orders
                .find(|known| known.name() == order)
                .unwrap_or(Order::Urgency),
            namespace: value_of("namespace"),
            search: value_of("q"),
        }
    }

    /// The address for this.
    pub(super) fn address(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (key, value) in [
            ("filter", self.filter.name()),
            ("namespace", &self.namespace),
            ("q", &self.search),
            ("sort", self.order.name()),
        ] {
            if !value.is_empty() {
                query.append_pair(key, value);
            }
        }
        match query.finish() {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }

    /// Whether an HPA is among those that are searched, whatever the filter.
    pub(super) fn finds(&self, row: &HpaRow) -> bool {
        let search = self.search.to_lowercase();
        let name = format!("{}/{}", row.status.namespace, row.status.hpa);
        (self.namespace.is_empty() || self.namespace == row.status.namespace)
            && name.to_lowercase().contains(&search)
    }

    /// The HPAs to show, in order.
    pub(super) fn select<'a>(&self, rows: &'a [HpaRow]) -> Vec<&'a HpaRow> {
        let shown = rows.iter().filter(|row| self.filter.accepts(row));
        let mut shown: Vec<_> = shown.filter(|row| self.finds(row)).collect();
        // Rows are sorted by name, and sorting keeps the order of equal ones. Unknown lag comes first.
        let lag = |row: &HpaRow| Reverse(row.status.lag.unwrap_or(u64::MAX));
        let behind = |row: &HpaRow| Reverse(row.status.lag_millis.unwrap_or(u64::MAX));
        match self.order {
            Order::Name => {}
            Order::Lag => shown.sort_by_key(|row| lag(row)),
            Order::Behind => shown.sort_by_key(|row| behind(row)),
            Order::Replicas => shown.sort_by_key(|row| Reverse(row.status.replicas)),
            Order::Urgency => {
                shown.sort_by_key(|row| (Reverse(row.urgency), behind(row), lag(row)));
            }
        }
        shown
    }
}

/// The time that charts cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window(u32, pub(super) &'static str);

impl Window {
    pub(super) const ALL: [Self; 5] = [
        Self(300, "5m"),
        Self(900, "15m"),
        Self(3_600, "1h"),
        Self(21_600, "6h"),
        Self(86_400, "24h"),
    ];

    /// The longest that is chosen unless the address says so.
    pub(super) const LONGEST_BY_DEFAULT: u32 = 3_600;

    pub(super) fn parse(query: &str) -> Option<Self> {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let (_, name) = pairs.find(|(key, _)| key == "window")?;
        Self::ALL.into_iter().find(|window| window.1 == name)
    }

    /// The shortest that covers so many seconds, up to an hour.
    pub(super) fn covering(seconds: u32) -> Self {
        let mut fitting = Self::ALL.into_iter();
        let hour = Self(Self::LONGEST_BY_DEFAULT, "1h");
        fitting
            .find(|window| window.0 >= seconds.min(hour.0))
            .unwrap_or(hour)
    }

    pub(super) fn seconds(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_back() {
        for address in ["/", "/?filter=ceiling&namespace=shop&q=a%26b&sort=lag"] {
            let query = ViewQuery::parse(address.trim_start_matches("/?").trim_start_matches('/'));
            assert_eq!(query.address(), address);
        }
        let unknown = ViewQuery::parse("filter=x&sort=y&other=z");
        assert_eq!(unknown, ViewQuery::parse(""));
    }

    #[test]
    fn a_window_covers_what_is_known() {
        assert_eq!(Window::covering(60).1, "5m");
        assert_eq!(Window::covering(301).1, "15m");
        assert_eq!(Window::covering(90_000).1, "1h");
        assert_eq!(Window::parse("a=b&window=6h").unwrap().seconds(), 21_600);
        assert_eq!(Window::parse("window=2h"), None);
    }
}
