//! Records the numbers of all HPAs in histories of bounded memory.

mod handover;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

pub use self::handover::{HandedHpa, HistoryPart};

use super::marker::{HistoryMarker, MarkerKind};
use super::{HistoryPoint, HistoryResolution, HpaHistory, RecordedRule};
use crate::model::diagnostics::attention::findings;
use crate::model::diagnostics::earlier_incidents::EarlierIncidents;
use crate::model::diagnostics::hpa_status::{HpaStatus, statuses};
use crate::model::diagnostics::incidents::{IncidentKind, detect_in_group};
use crate::model::evaluation::EvaluationsAt;
use crate::model::evaluation::parallelism::Limit;
use crate::model::findings::{Finding, FindingCode};
use crate::model::targets::Targets;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::single_precision::narrow;

/// Maximum memory of all histories, in bytes.
pub const MAX_HISTORY_BYTES: usize = 32 * 1024 * 1024;

/// Maximum number of times that the resolution is halved: with more HPAs than fit then, some are left out.
const MAX_HALVINGS: u32 = 5;

/// The histories of all HPAs.
#[derive(Debug)]
pub struct HistoryRecorder {
    finest: HistoryResolution,
    resolution: HistoryResolution,
    max_bytes: usize,
    hpas: BTreeMap<HpaKey, RecordedHpa>,
    /// HPAs without a history, because there are too many.
    left_out: usize,
    /// Time since which it records without a break.
    since: Option<SystemTime>,
    /// Of the process that last handed its histories over: the time since which it had recorded without a break, and
    /// the time of the handover.
    handed_over: Option<(SystemTime, SystemTime)>,
    /// The incidents at the last point.
    before: EarlierIncidents,
    /// The term of the last point.
    term: u64,
}

/// The history of an HPA, and the state with which the next point is compared.
#[derive(Debug, Default)]
struct RecordedHpa {
    history: HpaHistory,
    findings: BTreeSet<FindingCode>,
    is_paused: bool,
}

impl HistoryRecorder {
    /// Histories with a point every `step`.
    #[must_use]
    pub fn new(step: Duration) -> Self {
        let step = u32::try_from(step.as_secs()).unwrap_or(u32::MAX);
        let finest = HistoryResolution::new(step);
        Self {
            finest,
            resolution: finest,
            max_bytes: MAX_HISTORY_BYTES,
            hpas: BTreeMap::new(),
            left_out: 0,
            since: None,
            handed_over: None,
            before: EarlierIncidents::default(),
            term: 0,
        }
    }

    /// Adds a point for each HPA, from the evaluations and findings of a snapshot of this term.
    pub fn record<'f>(
        &mut self,
        evaluations: EvaluationsAt<'_>,
        findings: impl Iterator<Item = &'f Finding>,
        term: u64,
    ) {
        let now = evaluations.now();
        if self.term != term {
            // Another process has led in between.
            self.before = EarlierIncidents::default();
            self.since = self.since_handover(now.wall);
            self.term = term;
        }
        let statuses = statuses(evaluations, findings);
        let keys: BTreeSet<HpaKey> = statuses.iter().map(key_of).collect();
        self.hpas.retain(|hpa, _| keys.contains(hpa));
        self.fit(statuses.len());
        let room = self.room();
        let at = seconds_since_1970(now.wall);
        let incidents = self.incidents(evaluations);
        self.left_out = 0;
        for status in &statuses {
            let hpa = key_of(status);
            if !self.hpas.contains_key(&hpa) && self.hpas.len() >= room {
                self.left_out = self.left_out.saturating_add(1);
                continue;
            }
            let of_hpa = incidents.get(&hpa).into_iter().flatten();
            let recorded = self.hpas.entry(hpa.clone()).or_default();
            recorded.record(status, of_hpa, at, self.resolution);
        }
        self.since = self.since.or(Some(now.wall));
        self.before = EarlierIncidents::new(evaluations.clusters());
    }

    /// Forgets everything that is compared with the next snapshot, since this process does not lead.
    pub fn pause(&mut self) {
        self.before = EarlierIncidents::default();
        self.since = None;
    }

    /// The history of an HPA.
    #[must_use]
    pub fn history(&self, hpa: &HpaKey) -> Option<&HpaHistory> {
        self.hpas.get(hpa).map(|recorded| &recorded.history)
    }

    /// The HPAs with a history.
    pub fn hpas(&self) -> impl Iterator<Item = (&HpaKey, &HpaHistory)> {
        self.hpas.iter().map(|(hpa, of)| (hpa, &of.history))
    }

    /// How many HPAs have no history, because there are too many.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Time since which it records without a break; `None` before the first point.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Seconds between the latest points.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.resolution.step
    }

    /// Memory that all histories take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = self.hpas.values().map(|recorded| recorded.history.bytes());
        bytes.fold(0, usize::saturating_add)
    }

    /// How many HPAs have room at this resolution.
    fn room(&self) -> usize {
        let per_hpa = self.resolution.bytes_per_hpa();
        self.max_bytes.checked_div(per_hpa).unwrap_or(0)
    }

    /// Chooses the finest resolution at which this number of HPAs has room.
    fn fit(&mut self, hpas: usize) {
        let before = self.resolution;
        self.resolution = self.finest;
        for _ in 0..MAX_HALVINGS {
            if hpas <= self.room() {
                break;
            }
            self.resolution = self.resolution.halved();
        }
        if self.resolution.step > before.step {
            for recorded in self.hpas.values_mut() {
                recorded.history = recorded.history.coarsened(self.resolution);
            }
        }
    }

    /// Incidents since the last point, by HPA.
    fn incidents(
        &self,
        evaluations: EvaluationsAt<'_>,
    ) -> BTreeMap<HpaKey, BTreeSet<IncidentKind>> {
        let mut all: BTreeMap<HpaKey, BTreeSet<IncidentKind>> = BTreeMap::new();
        let mut begun = Vec::new();
        for (name, cluster) in evaluations.clusters() {
            if !self.before.has_cluster(name) {
                continue;
            }
            for (id, group) in &cluster.groups {
                let known = self.before.group(name, id);
                detect_in_group((name, id), known, group, &mut begun);
            }
        }
        for incident in begun {
            for hpa in hpas_of_group(evaluations.targets(), &incident.cluster, &incident.group) {
                all.entry(hpa).or_default().insert(incident.kind);
            }
        }
        all
    }
}

impl RecordedHpa {
    fn record<'a>(
        &mut self,
        status: &HpaStatus,
        incidents: impl Iterator<Item = &'a IncidentKind>,
        at: u32,
        resolution: HistoryResolution,
    ) {
        let point = HistoryPoint {
            at,
            replicas: status.replicas,
            desired: status.desired,
            uncapped: status.uncapped,
            ceiling: status.ceiling.and_then(Limit::bounded),
            max_replicas: status.max_replicas,
            lag: status.lag,
            lag_seconds: lag_seconds(status),
            produced_per_second: status.produced_per_second.map(narrow),
            consumed_per_second: status.consumed_per_second.map(narrow),
            rule: status.rule.map(RecordedRule::Known),
        };
        let findings: BTreeSet<FindingCode> = findings(status).collect();
        let mut kinds: Vec<MarkerKind> = Vec::new();
        if let Some(last) = self.history.latest() {
            kinds.extend(changes(&last, &point));
            let (old, new) = (&self.findings, &findings);
            kinds.extend(
                new.difference(old)
                    .map(|code| MarkerKind::FindingBegan(*code)),
            );
            kinds.extend(
                old.difference(new)
                    .map(|code| MarkerKind::FindingEnded(*code)),
            );
            match (self.is_paused, status.paused) {
                (false, true) => kinds.push(MarkerKind::Paused),
                (true, false) => kinds.push(MarkerKind::Resumed),
                _ => {}
            }
        }
        kinds.extend(incidents.map(|kind| MarkerKind::Incident(*kind)));
        for kind in kinds {
            self.history.mark(HistoryMarker { at, kind }, resolution);
        }
        self.findings = findings;
        self.is_paused = status.paused;
        self.history.add(point, resolution);
    }
}

/// What changed between two points. A number that is unknown in one of them has not changed.
fn changes(last: &HistoryPoint, next: &HistoryPoint) -> Vec<MarkerKind> {
    let changed = |from: Option<u32>, to: Option<u32>| from.zip(to).filter(|(a, b)| a != b);
    let scaled = changed(last.replicas, next.replicas);
    let max = changed(last.max_replicas, next.max_replicas);
    let ceiling = changed(last.ceiling, next.ceiling);
    let value = match (last.rule.is_some(), next.rule.is_some()) {
        (true, false) => Some(MarkerKind::ValueLost),
        (false, true) => Some(MarkerKind::ValueFound),
        _ => None,
    };
    let all = [
        scaled.map(|(from, to)| MarkerKind::Scaled { from, to }),
        max.map(|(from, to)| MarkerKind::MaxReplicasChanged { from, to }),
        ceiling.map(|(from, to)| MarkerKind::CeilingChanged { from, to }),
        value,
    ];
    all.into_iter().flatten().collect()
}

fn hpas_of_group(
    targets: &Targets,
    cluster: &crate::model::units::newtypes::ClusterName,
    group: &crate::model::units::newtypes::GroupId,
) -> BTreeSet<HpaKey> {
    let group = targets.group(cluster, group);
    let targets = group.map_or(&[][..], |group| group.targets());
    targets
        .iter()
        .filter_map(|target| target.hpa().cloned())
        .collect()
}

fn key_of(status: &HpaStatus) -> HpaKey {
    HpaKey::new(status.namespace.as_str(), status.hpa.as_str())
}

/// A lower bound of zero says nothing.
fn lag_seconds(status: &HpaStatus) -> Option<f32> {
    let millis = status.lag_millis?;
    let says_nothing = status.lag_millis_is_lower_bound && millis < 1000;
    (!says_nothing).then(|| narrow(Duration::from_millis(millis).as_secs_f64()))
}

/// Seconds since 1970, as points have them.
#[must_use]
pub fn seconds_since_1970(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]

    use super::*;
    use crate::model::fixtures::{self, PartitionReading};
    use crate::model::hpa::facts::{HpaFacts, MetricTarget};
    use crate::model::kafka::fault::Fault;
    use crate::model::lag::assembly::Scope;
    use crate::model::units::quantity::Milli;

    fn hpa(name: &str, replicas: u32) -> HpaFacts {
        HpaFacts {
            replicas: Some(replicas),
            max_replicas: 20,
            ..fixtures::hpa(
                name,
                "group=g,topic=orders",
                MetricTarget::AverageValue(Milli::from_units(10)),
            )
        }
    }

    fn ok(committed: i64, end: i64) -> PartitionReading {
        (0, Ok(Some(committed)), Ok(end))
    }

    fn record(
        recorder: &mut HistoryRecorder,
        seconds: u64,
        hpas: &[HpaFacts],
        rows: &[PartitionReading],
    ) {
        record_last(recorder, hpas, &[(seconds, rows)]);
    }

    /// Records the last of these sweeps.
    fn record_last(
        recorder: &mut HistoryRecorder,
        hpas: &[HpaFacts],
        sweeps: &[(u64, &[PartitionReading])],
    ) {
        let reads = sweeps.iter().map(|(seconds, rows)| {
            fixtures::read(Duration::from_secs(*seconds), "g", "orders", rows)
        });
        let snapshot = fixtures::evaluated(hpas, reads, Scope::Whole);
        let (last, _) = sweeps.last().unwrap();
        let now = fixtures::at(Duration::from_secs(*last));
        recorder.record(snapshot.at(&now), snapshot.all_findings(), snapshot.term);
    }

    #[test]
    fn records_numbers_rates_and_changes() {
        let mut recorder = HistoryRecorder::new(Duration::from_secs(15));
        assert_eq!(recorder.since(), None);
        let first = [ok(0, 100), ok(0, 20)];
        let second = [ok(30, 130), ok(15, 35)];
        record(&mut recorder, 0, &[hpa("billing", 1)], &first);
        let sweeps: [(u64, &[PartitionReading]); 2] = [(0, &first), (15, &second)];
        record_last(&mut recorder, &[hpa("billing", 2)], &sweeps);
        let unknown = (0, Ok(Some(30)), Err(Fault::LeaderUnknown));
        let last = [unknown, ok(15, 35)];
        record(&mut recorder, 30, &[hpa("billing", 2)], &last);
        let key = HpaKey::new("shop", "billing");
        let history = recorder.history(&key).unwrap();
        let points: Vec<_> = history.points().collect();
        assert_eq!(points.len(), 3);
        assert_eq!((points[0].lag, points[0].replicas), (Some(120), Some(1)));
        assert_eq!(
            points[0].produced_per_second, None,
            "one reading has no rate"
        );
        assert_eq!(points[1].produced_per_second, Some(3.0));
        assert_eq!(points[1].consumed_per_second, Some(3.0));
        assert_eq!((points[1].desired, points[1].uncapped), (Some(2), Some(12)));
        assert_eq!(
            (points[1].ceiling, points[1].max_replicas),
            (Some(2), Some(20))
        );
        assert_eq!((points[2].lag, points[2].rule), (None, None));
        assert_eq!(points[2].produced_per_second, None);
        let markers: Vec<_> = history.markers().map(|marker| marker.kind).collect();
        assert_eq!(
            markers,
            [MarkerKind::Scaled { from: 1, to: 2 }, MarkerKind::ValueLost]
        );
        assert_eq!(recorder.since(), Some(fixtures::at(Duration::ZERO).wall));
        recorder.pause();
        assert_eq!(recorder.since(), None);
    }

    #[test]
    fn forgets_hpas_that_are_gone() {
        let mut recorder = HistoryRecorder::new(Duration::from_secs(15));
        record(&mut recorder, 0, &[hpa("a", 1), hpa("b", 1)], &[ok(0, 1)]);
        record(&mut recorder, 15, &[hpa("b", 1)], &[ok(0, 1)]);
        let left: Vec<_> = recorder.hpas().map(|(hpa, _)| hpa.to_string()).collect();
        assert_eq!(left, ["shop/b"]);
    }

    #[test]
    fn many_hpas_have_coarser_histories_and_too_many_are_counted() {
        let mut recorder = HistoryRecorder::new(Duration::from_secs(15));
        let hpas: Vec<_> = (0..200).map(|n| hpa(&format!("h{n:03}"), 1)).collect();
        recorder.max_bytes = 20 * recorder.finest.bytes_per_hpa();
        for step in 0..2_000 {
            let rows = [ok(0, i64::from(step))];
            let hpas = &hpas[..if step < 500 { 10 } else { 50 }];
            record(
                &mut recorder,
                u64::try_from(step).unwrap() * 15,
                hpas,
                &rows,
            );
        }
        assert_eq!((recorder.step(), recorder.left_out()), (60, 0));
        let bytes = recorder.bytes();
        // Lists grow in steps, so that each may have room for some points more.
        assert!(bytes <= recorder.max_bytes * 12 / 10, "{bytes}");
        let first = recorder.hpas().next().unwrap().1.points().next().unwrap();
        let start = seconds_since_1970(fixtures::at(Duration::ZERO).wall);
        assert!(first.at <= start + 1200, "{}", first.at - start);
        recorder.max_bytes = recorder.finest.bytes_per_hpa();
        record(&mut recorder, 40_000, &hpas, &[ok(0, 1)]);
        assert!(recorder.left_out() > 0);
        assert_eq!(recorder.left_out() + recorder.hpas().count(), 200);
    }

    #[test]
    fn another_term_begins_anew() {
        let mut recorder = HistoryRecorder::new(Duration::from_secs(15));
        record(&mut recorder, 0, &[hpa("a", 1)], &[ok(0, 1)]);
        let after = Duration::from_secs(15);
        let read = fixtures::read(after, "g", "orders", &[ok(1, 9)]);
        let mut snapshot = fixtures::evaluated(&[hpa("a", 1)], [read], Scope::Whole);
        snapshot.term = 2;
        let now = fixtures::at(after);
        recorder.record(snapshot.at(&now), snapshot.all_findings(), snapshot.term);
        assert_eq!(recorder.since(), Some(fixtures::at(after).wall));
    }
}
