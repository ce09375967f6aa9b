//! Links to the pages of a long list.

use super::format;
use super::html::Html;
use super::view_query::{PageSlice, ViewQuery};

/// Writes which rows are shown, and links to the previous and the next page; nothing if there is only one page.
pub(super) fn write<T>(html: &mut Html, slice: &PageSlice<'_, T>, query: &ViewQuery) {
    if slice.pages == 1 {
        return;
    }
    html.element(
        "nav",
        &[("class", &"pager"), ("aria-label", &"Pages")],
        |html| {
            let link = |html: &mut Html, page: usize, rel: &str, title: &str| {
                let address = ViewQuery {
                    page,
                    ..query.clone()
                }
                .address();
                html.text_element(
                    "a",
                    &[
                        ("class", &"counter"),
                        ("href", &address),
                        ("rel", &rel),
                        ("data-swap", &""),
                    ],
                    title,
                );
            };
            if slice.page > 1 {
                link(html, slice.page - 1, "prev", "← previous");
            }
            let last = slice.first + slice.rows.len() - 1;
            html.text_element(
                "span",
                &[],
                format!(
                    "{}–{} of {} HPAs",
                    format::size(slice.first),
                    format::size(last),
                    format::size(slice.total)
                ),
            );
            if slice.page < slice.pages {
                link(html, slice.page + 1, "next", "next →");
            }
        },
    );
}
