//! Rows of the page and `/api` about every HPA and Kafka cluster, from one snapshot: the same values as `/status`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::response::Response;
use serde::Serialize;

use super::admin::{AdminEndpointOptions, off_runtime};
use crate::model::diagnostics::attention::{AttentionLevel, SloState, phrase, what_would_change};
use crate::model::diagnostics::hpa_history::recorder::HistoryRecorder;
use crate::model::diagnostics::hpa_status::{HpaStatus, statuses};
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, Moment};

/// One HPA.
#[derive(Debug, Serialize)]
pub(super) struct HpaRow {
    #[serde(flatten)]
    pub(super) status: HpaStatus,
    /// How urgently the HPA needs attention.
    pub(super) urgency: AttentionLevel,
    /// What determines its replicas, as a phrase.
    pub(super) because: String,
    pub(super) what_would_change: String,
    /// How the age of the oldest unread message compares with the SLO; `None` without an SLO.
    pub(super) slo: Option<SloState>,
}

impl HpaRow {
    pub(super) fn new(status: HpaStatus) -> Self {
        Self {
            urgency: AttentionLevel::new(&status),
            because: phrase(&status),
            what_would_change: what_would_change(&status),
            slo: SloState::new(&status),
            status,
        }
    }

    pub(super) fn key(&self) -> HpaKey {
        HpaKey::new(self.status.namespace.as_str(), self.status.hpa.as_str())
    }
}

/// One Kafka cluster.
#[derive(Debug, Serialize)]
pub(super) struct ClusterRow {
    pub(super) name: ClusterName,
    /// Age of the last complete sweep; `None` before the first.
    pub(super) swept_seconds_ago: Option<u64>,
    /// Why it does not answer; `None` if it does.
    pub(super) problem: Option<String>,
    pub(super) unreachable_brokers: usize,
    pub(super) groups: usize,
    /// Readings of groups and topics with an unknown partition.
    pub(super) incomplete: usize,
}

impl ClusterRow {
    fn new(name: &ClusterName, cluster: &ClusterSnapshot, now: &Moment) -> Self {
        let sweep = cluster.sweep.map(|sweep| sweep.started);
        Self {
            name: name.clone(),
            swept_seconds_ago: sweep.map(|started| now.since(&started).as_secs()),
            problem: cluster.connection.as_ref().map(|c| c.reason.to_string()),
            unreachable_brokers: cluster.unreachable_brokers.len(),
            groups: cluster.groups.len(),
            incomplete: cluster.incomplete(),
        }
    }
}

/// All HPAs and clusters, and since when their history is known.
#[derive(Debug, Serialize)]
pub(super) struct HpaOverview {
    /// Time of the response, in RFC 3339.
    pub(super) at: String,
    /// Number of the snapshot; it counts up.
    pub(super) sequence: u64,
    /// The replica that answers, which leads.
    pub(super) leader: String,
    /// Time since which there is a history without a break, in RFC 3339.
    pub(super) known_since: Option<String>,
    /// Seconds between the latest points of the history.
    pub(super) step_seconds: Option<u32>,
    /// HPAs that have no history, because there are too many.
    pub(super) without_history: usize,
    pub(super) clusters: Vec<ClusterRow>,
    pub(super) hpas: Vec<HpaRow>,
}

/// Data that the history adds to the rows.
#[derive(Debug, Default)]
struct HistorySummary {
    since: Option<SystemTime>,
    step: Option<u32>,
    left_out: usize,
}

impl HistorySummary {
    fn new(recorder: &HistoryRecorder) -> Self {
        Self {
            since: recorder.since(),
            step: Some(recorder.step()),
            left_out: recorder.left_out(),
        }
    }
}

/// The snapshot to show; `None` if this process does not lead.
pub(super) fn leading_snapshot(options: &AdminEndpointOptions) -> Option<Arc<LagSnapshot>> {
    let snapshot = options.reader.latest();
    let term = options
        .leadership
        .current_term(snapshot.term, Instant::now());
    term.map(|_| snapshot)
}

impl HpaOverview {
    /// Reads the latest snapshot and the history; `None` if this process does not lead.
    ///
    /// # Errors
    /// The response to give if the work failed.
    pub(super) async fn read(
        options: &AdminEndpointOptions,
    ) -> Result<Option<Self>, Box<Response>> {
        let summary = options.history.query(HistorySummary::new).await;
        let Some(snapshot) = leading_snapshot(options) else {
            return Ok(None);
        };
        let leader = options.instance.to_string();
        let summary = summary.unwrap_or_default();
        let make = move || Self::new(&snapshot, &Moment::now(), leader, &summary);
        off_runtime(make).await.map(Some)
    }

    fn new(snapshot: &LagSnapshot, now: &Moment, leader: String, summary: &HistorySummary) -> Self {
        let clusters = snapshot.clusters.iter();
        let statuses = statuses(snapshot.at(now), snapshot.all_findings());
        Self {
            at: rfc3339(now.wall),
            sequence: snapshot.sequence,
            leader,
            known_since: summary.since.map(rfc3339),
            step_seconds: summary.step,
            without_history: summary.left_out,
            clusters: clusters
                .map(|(name, cluster)| ClusterRow::new(name, cluster, now))
                .collect(),
            hpas: statuses.into_iter().map(HpaRow::new).collect(),
        }
    }
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
