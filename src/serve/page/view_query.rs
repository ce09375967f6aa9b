//! Parameters of the page's address: filter, search, order and page.

use std::cmp::Reverse;

use crate::model::diagnostics::attention::{AttentionLevel, SloState, is_asleep, is_at_ceiling};
use crate::model::diagnostics::hpa_status::HpaStatus;
use crate::serve::hpa_rows::HpaRow;
use crate::serve::time_span::query_value;

/// Which HPAs to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    All,
    Attention,
    Ceiling,
    Asleep,
    Unknown,
    Late,
    Paused,
}

impl Filter {
    pub(super) const ALL: [Self; 7] = [
        Self::All,
        Self::Attention,
        Self::Ceiling,
        Self::Asleep,
        Self::Unknown,
        Self::Late,
        Self::Paused,
    ];

    /// Value of the parameter `filter`; empty for the default.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Attention => "attention",
            Self::Ceiling => "ceiling",
            Self::Asleep => "asleep",
            Self::Unknown => "unknown",
            Self::Late => "late",
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
            Self::Late => "over SLO",
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
            Self::Late => row.slo == Some(SloState::Missed),
            Self::Paused => row.status.paused,
        }
    }
}

/// Order of the rows.
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

/// Number of HPAs on one page. More would keep a browser busy at every update.
pub(super) const ROWS_PER_PAGE: usize = 100;

/// The part of a list that is shown on a page.
#[derive(Debug)]
pub(super) struct PageSlice<'a, T> {
    pub(super) rows: &'a [T],
    /// Number of the page, from 1.
    pub(super) page: usize,
    pub(super) pages: usize,
    /// Position of the first row in the list, from 1.
    pub(super) first: usize,
    /// Rows on all pages.
    pub(super) total: usize,
}

/// Parameters of the overview's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ViewQuery {
    pub(super) filter: Filter,
    pub(super) order: Order,
    /// Empty = all.
    pub(super) namespace: String,
    /// Part of the name; empty = all.
    pub(super) search: String,
    /// Number of the page, from 1.
    pub(super) page: usize,
}

impl ViewQuery {
    /// Parses a query string. Unknown parameters are ignored, so that an old link still works.
    pub(super) fn parse(query: &str) -> Self {
        let value_of = |key: &str| query_value(query, key).unwrap_or_default();
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
            page: value_of("page").parse().unwrap_or(1),
        }
    }

    /// The address with these parameters.
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
        if self.page > 1 {
            query.append_pair("page", &self.page.to_string());
        }
        match query.finish() {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }

    /// The same parameters with the first page, for a link that changes which rows are listed.
    pub(super) fn at_first_page(&self) -> Self {
        Self {
            page: 1,
            ..self.clone()
        }
    }

    /// The HPAs that match the namespace and the search, regardless of the filter.
    pub(super) fn find<'a>(&self, rows: &'a [HpaRow]) -> Vec<&'a HpaRow> {
        let search = self.search.to_lowercase();
        let is_found = |row: &&HpaRow| {
            let HpaStatus { namespace, hpa, .. } = &row.status;
            (self.namespace.is_empty() || self.namespace == *namespace)
                && (search.is_empty()
                    || format!("{namespace}/{hpa}")
                        .to_lowercase()
                        .contains(&search))
        };
        rows.iter().filter(is_found).collect()
    }

    /// The found HPAs that the filter accepts, in order.
    pub(super) fn select<'a>(&self, found: &[&'a HpaRow]) -> Vec<&'a HpaRow> {
        let found = found.iter().copied();
        let mut shown: Vec<_> = found.filter(|row| self.filter.accepts(row)).collect();
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

    /// The rows of the page, or of the last page if there are fewer.
    pub(super) fn slice<'a, T>(&self, rows: &'a [T]) -> PageSlice<'a, T> {
        let pages = rows.len().div_ceil(ROWS_PER_PAGE).max(1);
        let page = self.page.clamp(1, pages);
        let before = (page - 1) * ROWS_PER_PAGE;
        PageSlice {
            rows: rows.chunks(ROWS_PER_PAGE).nth(page - 1).unwrap_or(&[]),
            page,
            pages,
            first: before + 1,
            total: rows.len(),
        }
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
    fn pages_have_bounds_and_a_change_begins_at_the_first() {
        let query = ViewQuery::parse("page=3&q=a");
        assert_eq!(query.address(), "/?q=a&page=3");
        let rows: Vec<usize> = (0..250).collect();
        for (page, expected) in [
            ("page=1", (0, 99)),
            ("page=3", (200, 249)),
            ("page=9", (200, 249)),
            ("page=0", (0, 99)),
            ("page=x", (0, 99)),
        ] {
            let shown = ViewQuery::parse(page).slice(&rows);
            let ends = (*shown.rows.first().unwrap(), *shown.rows.last().unwrap());
            assert_eq!(ends, expected, "{page}");
            assert_eq!(shown.pages, 3);
        }
        let none = ViewQuery::parse("page=2").slice(&rows[..0]);
        assert_eq!((none.rows.len(), none.page, none.pages), (0, 1, 1));
        let filtered = ViewQuery {
            filter: Filter::Ceiling,
            ..query.at_first_page()
        };
        assert_eq!(filtered.address(), "/?filter=ceiling&q=a");
    }
}
