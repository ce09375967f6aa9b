//! `/metrics` for Prometheus.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::TextEncoder;

use super::admission::RequestAdmission;
use super::auth::RequestAuth;
use super::connection_peer::ConnectionPeer;
use super::exposition::{AddressTurns, WriterTurns};
use super::shadow::ShadowReader;
use super::{BuildInfo, endpoints, exposition};
use crate::authentication::access::{Action, Object};
use crate::leader_election::Leadership;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::Moment;
use crate::snapshot_channel::SnapshotReader;
use crate::telemetry::REGISTRY;

/// What `/metrics` needs.
#[derive(Clone, Debug)]
pub struct MetricsOptions {
    pub reader: SnapshotReader,
    /// Whether this daemon leads.
    pub leadership: Leadership,
    /// How scrapers are authenticated and authorized, by `get` on the path.
    pub auth: RequestAuth,
    pub build: BuildInfo,
    /// The comparison of KEDA's replicas with lagwise's.
    pub shadow: ShadowReader,
}

#[derive(Debug)]
struct ScrapeState {
    reader: SnapshotReader,
    leadership: Leadership,
    admission: RequestAdmission,
    build: BuildInfo,
    turns: WriterTurns,
    shadow: ShadowReader,
}

/// Router of the metrics.
pub fn router(options: MetricsOptions) -> Router {
    router_with(options, WriterTurns::default())
}

pub(super) fn router_with(options: MetricsOptions, turns: WriterTurns) -> Router {
    let state = ScrapeState {
        reader: options.reader,
        leadership: options.leadership,
        admission: RequestAdmission::new(options.auth),
        build: options.build,
        turns,
        shadow: options.shadow,
    };
    Router::new()
        .route(endpoints::METRICS.path, get(scrape))
        .with_state(Arc::new(state))
}

async fn scrape(State(state): State<Arc<ScrapeState>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let action = Action {
        verb: "get",
        object: Object::Path(endpoints::METRICS.path.to_owned()),
    };
    let admitted = async {
        let authenticated = state.admission.authenticate(&parts).await?;
        state.admission.authorize(&authenticated, &action).await
    };
    match admitted.await {
        Ok(()) => {
            let peer = parts.extensions.get::<Arc<ConnectionPeer>>();
            let address = peer.map(|peer| peer.slot.peer());
            expose(&state, state.turns.at_address(address))
        }
        Err(failure) => failure.into_response(),
    }
}

/// The snapshot whose metrics are exported: the latest of a leader, otherwise an empty one. Sums over all replicas
/// would be doubled if others exported metrics of Kafka, too.
pub(super) fn exported_snapshot(
    reader: &SnapshotReader,
    leadership: &Leadership,
) -> Arc<LagSnapshot> {
    let latest = reader.latest();
    let leads = leadership.current_term(latest.term, Instant::now());
    leads.map_or_else(Arc::default, |_| latest)
}

fn expose(state: &ScrapeState, turns: AddressTurns) -> Response {
    let snapshot = exported_snapshot(&state.reader, &state.leadership);
    // Encoded before the response begins, while an error can still be its status.
    let mut of_process = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(&REGISTRY.gather(), &mut of_process) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    if let Some(report) = state.shadow.latest() {
        of_process += &exposition::shadow::shadow_text(&report);
    }
    // The snapshot's metrics may take tens of megabytes, so they are sent while they are written.
    let build = state.build.clone();
    let chunks = exposition::stream(turns, snapshot, Moment::now(), build, of_process);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    let body = Body::from_stream(chunks);
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
