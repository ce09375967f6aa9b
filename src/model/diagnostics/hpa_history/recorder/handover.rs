//! Hands histories to another process, which may lead next: in parts, each small enough for one response.

mod point_row;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use self::point_row::PointRow;
use super::{HistoryRecorder, RecordedHpa, seconds_since_1970};
use crate::model::diagnostics::hpa_history::marker::{HistoryMarker, MarkerKind};
use crate::model::diagnostics::incidents::IncidentKind;
use crate::model::findings::FindingCode;
use crate::model::units::hpa_key::HpaKey;

/// Maximum size of a part in JSON, in bytes, by the estimates below. The first HPA of a part always fits.
const MAX_PART_BYTES: usize = 900_000;

/// Maximum size of an HPA without points and markers, of a point and of a marker, in bytes of JSON.
const MAX_HPA_BYTES: usize = 2_000;
const MAX_POINT_BYTES: usize = 160;
const MAX_MARKER_BYTES: usize = 80;

/// A history that was handed over continues without a gap if the last part came this recently.
const FRESH: Duration = Duration::from_secs(120);

/// A part of the histories of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryPart {
    /// Time since which it is known without a break, in seconds since 1970.
    pub since: Option<u32>,
    /// Number of HPAs in all parts.
    pub total: usize,
    pub hpas: Vec<HandedHpa>,
    /// Whether no further HPAs follow.
    pub is_last: bool,
}

/// The part of one HPA's history that is handed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandedHpa {
    pub namespace: String,
    pub name: String,
    points: Vec<PointRow>,
    markers: Vec<HandedMarker>,
    /// Codes of the present findings.
    findings: Vec<String>,
    is_paused: bool,
}

/// The time of a marker, its label, and what belongs to it.
type HandedMarker = (u32, String, MarkerDetail);

/// What belongs to a marker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum MarkerDetail {
    Change {
        from: u32,
        to: u32,
    },
    /// Code of a finding, or label of an incident.
    Name(String),
    None(()),
    /// What only another version knows.
    #[serde(skip_serializing)]
    Foreign(IgnoredAny),
}

impl HistoryPart {
    /// Removes points and markers that are later than `latest`, in seconds since 1970. A leader whose clock is ahead
    /// would hand it over, and a history accepts no point that is earlier than its last.
    pub fn drop_later_than(&mut self, latest: u32) {
        for hpa in &mut self.hpas {
            hpa.points.retain(|row| row.0.at <= latest);
            hpa.markers.retain(|marker| marker.0 <= latest);
        }
    }
}

impl HandedHpa {
    fn new(hpa: &HpaKey, recorded: &RecordedHpa, since: u32) -> Self {
        let points = recorded.history.points();
        let markers = recorded.history.markers();
        Self {
            namespace: hpa.namespace.to_string(),
            name: hpa.name.to_string(),
            points: points.filter(|p| p.at >= since).map(PointRow).collect(),
            markers: markers.filter(|m| m.at >= since).map(marker_row).collect(),
            findings: recorded
                .findings
                .iter()
                .map(|code| code.code().to_owned())
                .collect(),
            is_paused: recorded.is_paused,
        }
    }

    #[must_use]
    pub fn key(&self) -> HpaKey {
        HpaKey::new(self.namespace.as_str(), self.name.as_str())
    }

    /// The time of the last point.
    #[must_use]
    pub fn latest(&self) -> Option<u32> {
        self.points.last().map(|row| row.0.at)
    }

    fn estimated_bytes(&self) -> usize {
        let points = self.points.len().saturating_mul(MAX_POINT_BYTES);
        let markers = self.markers.len().saturating_mul(MAX_MARKER_BYTES);
        MAX_HPA_BYTES.saturating_add(points).saturating_add(markers)
    }
}

impl HistoryRecorder {
    /// The histories of the HPAs after this one, since `since` in seconds since 1970; as many as fit.
    #[must_use]
    pub fn part(&self, after: Option<&HpaKey>, since: u32) -> HistoryPart {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut left = self.hpas.range::<HpaKey, _>((start, Bound::Unbounded));
        let mut part = HistoryPart {
            since: self.since.map(seconds_since_1970),
            total: self.hpas.len(),
            hpas: Vec::new(),
            is_last: false,
        };
        let mut bytes: usize = 0;
        loop {
            let Some((hpa, recorded)) = left.next() else {
                part.is_last = true;
                return part;
            };
            let handed = HandedHpa::new(hpa, recorded, since);
            bytes = bytes.saturating_add(handed.estimated_bytes());
            if bytes > MAX_PART_BYTES && !part.hpas.is_empty() {
                return part;
            }
            part.hpas.push(handed);
        }
    }

    /// Adds a part that another process recorded, as far as there is room.
    pub fn add_part(&mut self, part: &HistoryPart) {
        self.fit(part.total);
        let room = self.room();
        for handed in &part.hpas {
            let hpa = handed.key();
            if !self.hpas.contains_key(&hpa) && self.hpas.len() >= room {
                continue;
            }
            let resolution = self.resolution;
            let recorded = self.hpas.entry(hpa).or_default();
            for row in &handed.points {
                recorded.history.add(row.0, resolution);
            }
            for marker in handed.markers.iter().filter_map(marker) {
                // Parts overlap.
                if recorded.history.markers().all(|known| *known != marker) {
                    recorded.history.mark(marker, resolution);
                }
            }
            let codes = handed.findings.iter();
            recorded.findings = codes.filter_map(|code| FindingCode::find(code)).collect();
            recorded.is_paused = handed.is_paused;
        }
    }

    /// Ends a handover of all parts, at this time: forgets HPAs that were not among them.
    pub fn finish_handover(
        &mut self,
        hpas: &BTreeSet<HpaKey>,
        since: Option<u32>,
        now: SystemTime,
    ) {
        self.hpas.retain(|hpa, _| hpas.contains(hpa));
        let since = since.and_then(|since| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since.into()))
        });
        self.handed_over = since.map(|since| (since, now));
    }

    /// Time since which the history is known without a break, if it was handed over shortly before `now`.
    pub(super) fn since_handover(&mut self, now: SystemTime) -> Option<SystemTime> {
        let (since, handed) = self.handed_over.take()?;
        let is_fresh = now.duration_since(handed).is_ok_and(|age| age <= FRESH);
        is_fresh.then_some(since)
    }
}

fn marker_row(marker: &HistoryMarker) -> HandedMarker {
    let detail = match marker.kind {
        MarkerKind::Scaled { from, to }
        | MarkerKind::MaxReplicasChanged { from, to }
        | MarkerKind::CeilingChanged { from, to } => MarkerDetail::Change { from, to },
        MarkerKind::FindingBegan(code) | MarkerKind::FindingEnded(code) => {
            MarkerDetail::Name(code.code().to_owned())
        }
        MarkerKind::Incident(kind) => MarkerDetail::Name(kind.label().to_owned()),
        MarkerKind::ValueLost
        | MarkerKind::ValueFound
        | MarkerKind::Paused
        | MarkerKind::Resumed => MarkerDetail::None(()),
    };
    (marker.at, marker.kind.label().to_owned(), detail)
}

/// The marker of a row; `None` for one that only another version knows.
fn marker((at, label, detail): &HandedMarker) -> Option<HistoryMarker> {
    let kind = match (label.as_str(), detail) {
        ("scaled", MarkerDetail::Change { from, to }) => MarkerKind::Scaled {
            from: *from,
            to: *to,
        },
        ("max_replicas_changed", MarkerDetail::Change { from, to }) => {
            MarkerKind::MaxReplicasChanged {
                from: *from,
                to: *to,
            }
        }
        ("ceiling_changed", MarkerDetail::Change { from, to }) => MarkerKind::CeilingChanged {
            from: *from,
            to: *to,
        },
        ("value_lost", _) => MarkerKind::ValueLost,
        ("value_found", _) => MarkerKind::ValueFound,
        ("paused", _) => MarkerKind::Paused,
        ("resumed", _) => MarkerKind::Resumed,
        ("finding_began", MarkerDetail::Name(code)) => {
            MarkerKind::FindingBegan(FindingCode::find(code)?)
        }
        ("finding_ended", MarkerDetail::Name(code)) => {
            MarkerKind::FindingEnded(FindingCode::find(code)?)
        }
        ("incident", MarkerDetail::Name(label)) => MarkerKind::Incident(
            IncidentKind::ALL
                .into_iter()
                .find(|kind| kind.label() == label)?,
        ),
        _ => return None,
    };
    Some(HistoryMarker { at: *at, kind })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]

    use serde_json::{Value, json};

    use super::*;
    use crate::model::diagnostics::hpa_history::{
        HistoryPoint, MAX_MARKERS, MAX_OLDER_POINTS, MAX_RECENT_POINTS, RecordedRule,
    };
    use crate::model::evaluation::ValueRule;

    const STEP: Duration = Duration::from_secs(15);

    fn point_at(at: u32) -> HistoryPoint {
        HistoryPoint {
            at,
            replicas: Some(at),
            lag: Some(7),
            lag_seconds: Some(0.5),
            rule: Some(ValueRule::Clamped.into()),
            ..HistoryPoint::default()
        }
    }

    fn leader(hpas: usize, points: u32) -> HistoryRecorder {
        let mut recorder = HistoryRecorder::new(STEP);
        recorder.since = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(30));
        let resolution = recorder.resolution;
        for number in 0..hpas {
            let hpa = HpaKey::new("shop", format!("h{number:04}").as_str());
            let recorded = recorder.hpas.entry(hpa).or_default();
            for place in 0..points {
                recorded.history.add(point_at(place * 15), resolution);
            }
        }
        recorder
    }

    #[test]
    fn points_in_the_future_are_rejected() {
        let mut part = leader(2, 4).part(None, 0);
        part.drop_later_than(15);
        assert!(part.hpas.iter().all(|hpa| hpa.latest() == Some(15)));
        let mut follower = HistoryRecorder::new(STEP);
        follower.add_part(&part);
        let resolution = follower.resolution;
        let recorded = follower.hpas.values_mut().next().unwrap();
        recorded.history.add(point_at(30), resolution);
        assert_eq!(recorded.history.points().last().unwrap().at, 30);
    }

    /// Hands everything since `since` over, as JSON. Returns the number of parts and the size of the largest.
    fn hand_over(from: &HistoryRecorder, to: &mut HistoryRecorder, since: u32) -> (usize, usize) {
        let (mut count, mut largest) = (0, 0);
        let mut after = None;
        let mut hpas = BTreeSet::new();
        loop {
            let json = serde_json::to_string(&from.part(after.as_ref(), since)).unwrap();
            let part: HistoryPart = serde_json::from_str(&json).unwrap();
            to.add_part(&part);
            count += 1;
            largest = largest.max(json.len());
            hpas.extend(part.hpas.iter().map(HandedHpa::key));
            after = part.hpas.last().map(HandedHpa::key).or(after);
            if part.is_last {
                to.finish_handover(&hpas, part.since, SystemTime::UNIX_EPOCH);
                return (count, largest);
            }
        }
    }

    fn points(recorder: &HistoryRecorder, hpa: &str) -> Vec<HistoryPoint> {
        let history = recorder.history(&HpaKey::new("shop", hpa)).unwrap();
        history.points().collect()
    }

    #[test]
    fn the_next_leader_has_all_points_and_markers_and_continues() {
        let mut leader = leader(3, 200);
        let resolution = leader.resolution;
        let kinds = [
            MarkerKind::Scaled { from: 1, to: 2 },
            MarkerKind::MaxReplicasChanged { from: 20, to: 12 },
            MarkerKind::CeilingChanged { from: 12, to: 24 },
            MarkerKind::ValueLost,
            MarkerKind::ValueFound,
            MarkerKind::Paused,
            MarkerKind::Resumed,
            MarkerKind::FindingBegan(FindingCode::NoGroup),
            MarkerKind::FindingEnded(FindingCode::NoGroup),
        ];
        let incidents = IncidentKind::ALL.map(MarkerKind::Incident);
        let markers: Vec<_> = (0..)
            .zip(kinds.into_iter().chain(incidents))
            .map(|(at, kind)| HistoryMarker { at, kind })
            .collect();
        let first = leader.hpas.first_entry().unwrap().into_mut();
        first.findings.insert(FindingCode::NoGroup);
        first.is_paused = true;
        for marker in &markers {
            first.history.mark(*marker, resolution);
        }
        let mut next = HistoryRecorder::new(STEP);
        assert_eq!(hand_over(&leader, &mut next, 0).0, 1);
        assert_eq!(points(&next, "h0002"), points(&leader, "h0002"));
        let key = HpaKey::new("shop", "h0000");
        let taken: Vec<_> = next.history(&key).unwrap().markers().copied().collect();
        assert_eq!(taken, markers);
        // State that was handed over is not recorded again as a change.
        assert!(next.hpas[&key].is_paused && next.hpas[&key].findings.len() == 1);
        // The rest comes later, with an overlap.
        let second = leader.hpas.get_mut(&HpaKey::new("shop", "h0001")).unwrap();
        second.history.add(point_at(3_000), resolution);
        hand_over(&leader, &mut next, 2_900);
        assert_eq!(points(&next, "h0001"), points(&leader, "h0001"));
        assert_eq!(next.history(&key).unwrap().markers().count(), markers.len());
        // A deleted HPA is forgotten.
        leader.hpas.remove(&key);
        hand_over(&leader, &mut next, 3_000);
        assert!(next.history(&key).is_none());
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(30);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(next.since_handover(at(100)), Some(since));
        assert_eq!(next.since_handover(at(100)), None, "only once");
        hand_over(&leader, &mut next, 3_000);
        assert_eq!(next.since_handover(at(200)), None, "that was too long ago");
    }

    #[test]
    fn parts_and_the_received_history_are_bounded() {
        let full = u32::try_from(MAX_RECENT_POINTS + MAX_OLDER_POINTS).unwrap();
        let mut leader = leader(12, full);
        let resolution = leader.resolution;
        for recorded in leader.hpas.values_mut() {
            for at in 0..u32::try_from(MAX_MARKERS).unwrap() {
                let kind = MarkerKind::Scaled { from: at, to: at };
                recorded
                    .history
                    .mark(HistoryMarker { at, kind }, resolution);
            }
        }
        let mut next = HistoryRecorder::new(STEP);
        let (parts, largest) = hand_over(&leader, &mut next, 0);
        assert!(
            parts > 1 && largest < MAX_PART_BYTES,
            "{parts} parts of {largest} bytes"
        );
        assert_eq!(next.hpas().count(), 12);
        // Room for three at the coarsest resolution.
        let mut small = HistoryRecorder::new(STEP);
        small.max_bytes = 3 * 5_000;
        hand_over(&leader, &mut small, 0);
        assert!(
            small.hpas().count() <= small.room(),
            "{}",
            small.hpas().count()
        );
        assert!(small.bytes() < 12 * 30_000, "{}", small.bytes());
    }

    /// A handover of another leader, changed as another version might write it.
    fn taken_over(change: impl Fn(&mut Vec<Value>)) -> Vec<HistoryPoint> {
        let mut json = serde_json::to_value(leader(2, 4).part(None, 0)).unwrap();
        for hpa in json["hpas"].as_array_mut().unwrap() {
            for row in hpa["points"].as_array_mut().unwrap() {
                change(row.as_array_mut().unwrap());
            }
        }
        let part: HistoryPart = serde_json::from_value(json).unwrap();
        let mut next = HistoryRecorder::new(STEP);
        next.add_part(&part);
        points(&next, "h0001")
    }

    #[test]
    fn a_rule_of_another_version_is_taken_over_as_such() {
        let foreign = taken_over(|row| {
            if row[0] == 15 {
                row[10] = json!("by_the_moon");
            }
        });
        let rules: Vec<_> = foreign.iter().map(|point| point.rule).collect();
        let clamped = Some(RecordedRule::Known(ValueRule::Clamped));
        let expected = [clamped, Some(RecordedRule::Foreign), clamped, clamped];
        assert_eq!(rules, expected);
        assert_eq!(foreign[1].lag, Some(7), "its numbers are known");
    }

    #[test]
    fn rows_with_more_or_fewer_numbers_are_taken_over() {
        let now = taken_over(|_| {});
        assert_eq!(now.len(), 4);
        let longer = taken_over(|row| row.extend([json!(3), json!({"a": [1]}), Value::Null]));
        assert_eq!(longer, now);
        let shorter = taken_over(|row| row.truncate(7));
        let expected = now.iter().map(|point| HistoryPoint {
            lag_seconds: None,
            rule: None,
            ..*point
        });
        assert_eq!(shorter, expected.collect::<Vec<_>>());
        for wrong in [json!([]), json!(["now"]), json!({"at": 1})] {
            assert!(
                serde_json::from_value::<PointRow>(wrong.clone()).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn markers_of_any_shape_can_be_read() {
        for detail in [json!(7), json!({"to": 3}), json!([1, "x"])] {
            let row: HandedMarker = serde_json::from_value(json!([1, "scaled", detail])).unwrap();
            assert_eq!(marker(&row), None, "{row:?}");
        }
        let json = json!([1, "scaled", {"from": 2, "to": 3, "by": "hand"}]);
        let row: HandedMarker = serde_json::from_value(json).unwrap();
        let kind = MarkerKind::Scaled { from: 2, to: 3 };
        assert_eq!(marker(&row), Some(HistoryMarker { at: 1, kind }));
    }

    #[test]
    fn markers_of_another_version_are_left_out() {
        for row in [
            (1, "exploded".to_owned(), MarkerDetail::None(())),
            (1, "scaled".to_owned(), MarkerDetail::Name("x".to_owned())),
            (
                1,
                "finding_began".to_owned(),
                MarkerDetail::Name("LW999".to_owned()),
            ),
            (
                1,
                "incident".to_owned(),
                MarkerDetail::Name("fire".to_owned()),
            ),
        ] {
            assert_eq!(marker(&row), None, "{row:?}");
        }
    }
}
