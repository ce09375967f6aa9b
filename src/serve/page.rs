//! The page: all HPAs at a glance, and one HPA in detail, as HTML that is complete without a script. A script of our
//! own adds live updates, filtering while typing, keyboard and a cursor in the charts. It loads nothing from elsewhere.
//!
//! The charts are SVG that is written here: the page then shows the same without a script and on paper, and needs no
//! chart library.

pub(crate) mod assets;
mod bars;
pub(crate) mod chart;
mod derivation;
mod detail;
pub(crate) mod format;
pub(crate) mod history_charts;
mod hpa_table;
pub(crate) mod html;
pub(crate) mod layout;
mod overview;
mod pager;
mod partitions;
mod sparklines;
mod time_choice;
mod view_query;

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use self::overview::OverviewView;
use self::sparklines::Sparklines;
use self::time_choice::TimeChoice;
use self::view_query::ViewQuery;
use super::admin::{AdminEndpointOptions, FOLLOWER, off_runtime, respond_off_runtime};
use super::hpa_endpoints::{HpaView, NoView};
use super::hpa_rows::HpaOverview;
use crate::model::diagnostics::hpa_history::recorder::seconds_since_1970;
use crate::model::units::hpa_key::HpaKey;

/// Sent with every response, so that a defect in the page cannot load or send anything.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Serves the overview.
pub(super) async fn show_overview(
    State(options): State<Arc<AdminEndpointOptions>>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = ViewQuery::parse(query.as_deref().unwrap_or_default());
    let overview = match HpaOverview::read(&options).await {
        Ok(Some(overview)) => overview,
        Ok(None) => {
            return as_html(
                StatusCode::SERVICE_UNAVAILABLE,
                layout::message("No data here", FOLLOWER),
            );
        }
        Err(response) => return *response,
    };
    let chosen = off_runtime(move || {
        let found = query.find(&overview.hpas);
        let shown = query.select(&found);
        // Only those of this page, since there may be thousands of HPAs.
        let rows = query.slice(&shown).rows.iter();
        let hpas: Vec<HpaKey> = rows.map(|row| row.key()).collect();
        (overview, query, hpas)
    });
    let (overview, query, hpas) = match chosen.await {
        Ok(chosen) => chosen,
        Err(response) => return *response,
    };
    let sparklines = options
        .history
        .query(move |recorder| Sparklines::new(recorder, hpas));
    let sparklines = sparklines.await.unwrap_or_default();
    respond_off_runtime(move || {
        let found = query.find(&overview.hpas);
        let shown = query.select(&found);
        let view = OverviewView {
            overview: &overview,
            query: &query,
            found: &found,
            slice: &query.slice(&shown),
            sparklines: &sparklines,
        };
        as_html(StatusCode::OK, view.render())
    })
    .await
}

/// Serves the page of one HPA.
pub(super) async fn show_hpa(
    State(options): State<Arc<AdminEndpointOptions>>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let hpa = HpaKey::new(namespace, name);
    let now = seconds_since_1970(SystemTime::now());
    let chosen = TimeChoice::parse(query.as_deref().unwrap_or_default(), now);
    // Lines are drawn to the edges, so the points just outside are needed, too.
    let span = chosen.longest(now).widened(history_charts::MARGIN);
    match HpaView::read(&options, &hpa, span).await {
        Ok(view) => {
            let html = move || as_html(StatusCode::OK, detail::render(&view, chosen, now));
            respond_off_runtime(html).await
        }
        Err(NoView::Failed(response)) => *response,
        Err(NoView::Follower) => as_html(
            StatusCode::SERVICE_UNAVAILABLE,
            layout::message("No data here", FOLLOWER),
        ),
        Err(NoView::NoHpa) => as_html(
            StatusCode::NOT_FOUND,
            layout::message(
                "No such HPA",
                &format!("There is no HPA {hpa}, or it uses no metric of lagwise."),
            ),
        ),
    }
}

/// Serves a style sheet, script or icon.
pub(super) async fn serve_asset(Path(name): Path<String>) -> Response {
    match assets::find(&name) {
        Some(asset) => {
            let content_type = [(header::CONTENT_TYPE, asset.content_type)];
            (SECURITY_HEADERS, content_type, asset.text).into_response()
        }
        None => (StatusCode::NOT_FOUND, SECURITY_HEADERS, "not found\n").into_response(),
    }
}

fn as_html(code: StatusCode, html: String) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    let mut response = (code, SECURITY_HEADERS, content_type, html).into_response();
    if code == StatusCode::SERVICE_UNAVAILABLE {
        // The next connection through `lagwise page` leads to the new leader.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

#[cfg(test)]
mod tests;
