//! Findings about groups and HPAs as they are now, and the log line for each when it begins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::diagnostics::at_ceiling::AtCeilingFindings;
use crate::model::diagnostics::current_findings::{
    FindingOptions, UsedCeiling, find_in_groups, find_in_outcome, find_wide_patterns,
};
use crate::model::diagnostics::hpa_findings::{
    find_in_hpa, find_limited_scale_up, find_shared_scale_targets,
};
use crate::model::diagnostics::policy_findings::find_in_policy;
use crate::model::diagnostics::unseen_groups::find_unseen_groups;
use crate::model::evaluation::hpa_ceiling;
use crate::model::findings::{Finding, ReportedFindings};
use crate::model::hpa::facts::HpaFacts;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::{HpaTargets, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;
use crate::telemetry::finding_log::FindingLog;

/// Minimum age of the lag of a group without members, and minimum time for which a group is not seen, before either is
/// a finding.
const MIN_AGE: Duration = Duration::from_secs(120);

/// The findings as of the last whole sweep, updated incrementally. The serving policy never changes.
#[derive(Debug, Default)]
pub(super) struct FindingsTracker {
    latest: Arc<BTreeSet<Finding>>,
    /// Inputs of the last sweep.
    targets: Arc<Targets>,
    /// Its HPAs, in the order of their keys.
    hpas: Vec<TrackedHpa>,
    /// Findings about lag that is worth more replicas than the ceiling allows. They outlast that state by some minutes.
    at_ceiling: AtCeilingFindings,
    /// Findings about HPAs with the same scale target.
    shared: BTreeSet<Finding>,
    /// Findings that follow from readings of Kafka.
    others: BTreeSet<Finding>,
    /// Findings of other components.
    reported: ReportedFindings,
    /// Whether `reported` has changed since the last update.
    has_new_reports: bool,
}

/// An HPA with its facts, targets and findings, so that an update needs no lookups by key.
#[derive(Debug)]
struct TrackedHpa {
    key: HpaKey,
    facts: Arc<HpaFacts>,
    targets: Option<Arc<HpaTargets>>,
    /// `None` if the HPA has changed since the previous sweep.
    own: Option<OwnFindings>,
}

/// Findings that follow from an HPA and its ceiling. Both rarely change, and formatting the findings is slow.
#[derive(Debug)]
struct OwnFindings {
    ceiling: UsedCeiling,
    findings: Vec<Finding>,
}

impl FindingsTracker {
    /// The findings as of the last whole sweep.
    pub(super) fn latest(&self) -> Arc<BTreeSet<Finding>> {
        Arc::clone(&self.latest)
    }

    /// Replaces the findings of other components. They are published with the next sweep.
    pub(super) fn set_reported_findings(&mut self, found: ReportedFindings) {
        self.has_new_reports |= found != self.reported;
        self.reported = found;
    }

    /// Finds mistakes and risks in a snapshot, and logs those that are new.
    pub(super) fn update(&mut self, snapshot: &LagSnapshot, log: &mut FindingLog) {
        let now = Moment::now();
        let evaluations = snapshot.at(&now);
        let options = FindingOptions {
            cap: evaluations.policy().cap,
            min_age: MIN_AGE,
        };
        let mut is_changed = self.update_targets(&snapshot.targets);
        is_changed |= std::mem::take(&mut self.has_new_reports);
        let mut others = find_in_groups(&snapshot.evaluations, options);
        for hpa in &mut self.hpas {
            let facts = &hpa.facts;
            let targets = hpa.targets.as_ref();
            let targets = targets.map_or(&[][..], |group| &group.targets);
            // Metrics are collected for one HPA at a time, because a list of all of them is large.
            let metrics = evaluations.metrics_of_targets(targets);
            others.extend(metrics.iter().filter_map(find_in_outcome));
            others.extend(metrics.iter().flat_map(find_wide_patterns));
            others.extend(metrics.iter().flat_map(find_in_policy));
            let all = &snapshot.targets;
            let unseen = metrics.iter();
            let unseen = unseen.flat_map(|metric| find_unseen_groups(metric, all, MIN_AGE));
            others.extend(unseen);
            let ceiling = UsedCeiling::new(hpa_ceiling(&metrics), targets);
            let at_ceiling =
                self.at_ceiling
                    .update(facts, &metrics, ceiling.fixed(), now.monotonic);
            others.extend(at_ceiling.cloned());
            if hpa.own.as_ref().is_some_and(|own| own.ceiling == ceiling) {
                continue;
            }
            is_changed = true;
            let mut findings = find_in_hpa(facts);
            let default = evaluations.policy().scaling;
            findings.extend(find_limited_scale_up(facts, targets, default));
            let mode = evaluations.policy().cap_mode(facts);
            findings.extend(ceiling.find_in_hpa(facts, mode));
            hpa.own = Some(OwnFindings { ceiling, findings });
        }
        if is_changed || others != self.others {
            self.others = others;
            self.replace_latest(log, now.monotonic);
        }
    }

    /// Replaces the HPAs. Returns whether they have changed.
    fn update_targets(&mut self, targets: &Arc<Targets>) -> bool {
        let before = std::mem::replace(&mut self.targets, Arc::clone(targets));
        if Arc::ptr_eq(&before, targets) {
            return false;
        }
        let mut is_changed = false;
        let facts = targets.facts();
        before.facts().diff(facts, |key, _, hpa| {
            is_changed = true;
            if hpa.is_none() {
                self.at_ceiling.remove(key);
            }
        });
        let mut known = std::mem::take(&mut self.hpas).into_iter().peekable();
        let track = |(key, facts): (&HpaKey, &Arc<HpaFacts>)| {
            // Both are sorted by key.
            while known.next_if(|known| known.key < *key).is_some() {}
            let known = known.next_if(|known| known.key == *key);
            let same = known.filter(|known| Arc::ptr_eq(&known.facts, facts));
            TrackedHpa {
                key: key.clone(),
                facts: Arc::clone(facts),
                targets: targets.hpa_targets(key).cloned(),
                own: same.and_then(|known| known.own),
            }
        };
        self.hpas = facts.iter().map(track).collect();
        if is_changed {
            let hpas: Vec<_> = facts.values().map(|hpa| &**hpa).collect();
            self.shared = find_shared_scale_targets(&hpas).into_iter().collect();
        }
        is_changed
    }

    /// Collects all findings as the latest, and logs those that are new.
    fn replace_latest(&mut self, log: &mut FindingLog, now: Instant) {
        let of_hpas = self.hpas.iter().filter_map(|hpa| hpa.own.as_ref());
        let of_hpas = of_hpas.flat_map(|own| &own.findings);
        let all = of_hpas.chain(&self.shared).chain(&self.others);
        let all = all.chain(&*self.reported);
        let found = BTreeSet::from_iter(all.cloned());
        for finding in found.difference(&self.latest) {
            log.record(finding, now);
        }
        if found != *self.latest {
            self.latest = Arc::new(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::diagnostics::current_findings::findings;
    use crate::model::evaluation::ServingPolicy;
    use crate::model::findings::FindingCode;
    use crate::model::fixtures;
    use crate::model::hpa::facts::{HpaMap, MetricTarget, ScaleTarget};
    use crate::model::lag::assembly::{ClusterHistory, Scope};
    use crate::model::units::quantity::Milli;

    /// A policy by which nothing gets stale, however long the tests take.
    fn policy() -> ServingPolicy {
        ServingPolicy {
            max_staleness: Duration::from_secs(24 * 3600),
            ..ServingPolicy::default()
        }
    }

    /// The findings of a full scan.
    fn expected(snapshot: &LagSnapshot) -> BTreeSet<Finding> {
        let now = fixtures::at(Duration::ZERO);
        let evaluations = snapshot.at(&now);
        let hpas: Vec<_> = snapshot.targets.facts().values().cloned().collect();
        let options = FindingOptions {
            cap: evaluations.policy().cap,
            min_age: MIN_AGE,
        };
        let metrics = evaluations.hpa_metrics();
        without_lasting(&findings(&snapshot.evaluations, &metrics, &hpas, options))
    }

    /// Leaves out findings that last longer than their cause.
    fn without_lasting(found: &BTreeSet<Finding>) -> BTreeSet<Finding> {
        let lasting = |finding: &&Finding| finding.code != FindingCode::AtCeiling;
        found.iter().filter(lasting).cloned().collect()
    }

    #[test]
    fn incremental_findings_equal_those_of_a_full_scan() {
        let facts = |name: &str, max_replicas, tolerance: Option<&str>| HpaFacts {
            max_replicas,
            min_replicas: Some(5),
            tolerance_up: tolerance.and_then(Milli::parse),
            tolerance_down: tolerance.and_then(Milli::parse),
            ..fixtures::hpa(
                name,
                "cluster=main,group=orders,topic=payments",
                MetricTarget::AverageValue(Milli::from_units(10)),
            )
        };
        let with = |key: &str, value: &str, hpa: HpaFacts| HpaFacts {
            annotations: [(format!("lagwise.dev/{key}"), value.to_owned())].into(),
            ..hpa
        };
        let onto = |workload: &str, hpa: HpaFacts| HpaFacts {
            scale_target: ScaleTarget {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: workload.into(),
            },
            ..hpa
        };
        let mut wide = ClusterHistory::default();
        let rows = [(0, Ok(Some(7)), Ok(12)); 6];
        let read = fixtures::read(Duration::ZERO, "orders", "payments", &rows);
        let wide = wide.apply(read, Scope::Whole);

        let mut snapshot = fixtures::snapshot();
        let narrow = Arc::clone(&snapshot.clusters["main"]);
        let mut tracker = FindingsTracker::default();
        let mut counts = Vec::new();
        for (cluster, changed) in [
            (&narrow, onto("w", facts("a", 20, None))),
            (&narrow, onto("x", facts("b", 20, None))),
            (&narrow, onto("w", facts("b", 20, None))),
            (&wide, onto("w", facts("b", 20, None))),
            (&wide, onto("w", facts("a", 4, Some("0")))),
            (&narrow, with("by", "lagging", facts("a", 20, None))),
            (&narrow, with("even", "true", facts("a", 20, None))),
            (&narrow, with("cap", "enforce", facts("a", 20, None))),
            (
                &narrow,
                HpaFacts {
                    metrics: Vec::new(),
                    ..facts("a", 20, None)
                },
            ),
        ] {
            let mut hpas = snapshot.targets.facts().clone();
            hpas.insert(changed.key(), Arc::new(changed));
            snapshot.targets = Arc::new(snapshot.targets.with_hpas(&hpas, None));
            snapshot.clusters.insert("main".into(), Arc::clone(cluster));
            let evaluated = snapshot.clone().evaluated(&policy());
            tracker.update(&evaluated, &mut FindingLog::default());
            assert_eq!(without_lasting(&tracker.latest()), expected(&evaluated));
            counts.push(tracker.latest().len());
            let before = tracker.latest();
            tracker.update(&evaluated, &mut FindingLog::default());
            assert!(Arc::ptr_eq(&before, &tracker.latest()));
            // Findings of other components are added.
            let reported = Finding::new(
                FindingCode::ZeroNotRecorded,
                HpaKey::new("n", "a"),
                "of the reconciler",
            );
            tracker.set_reported_findings(Arc::new([reported.clone()].into()));
            tracker.update(&evaluated, &mut FindingLog::default());
            assert!(tracker.latest().contains(&reported));
            tracker.set_reported_findings(Arc::default());
            tracker.update(&evaluated, &mut FindingLog::default());
            assert_eq!(*tracker.latest(), *before);
        }
        counts.dedup();
        assert!(counts.len() > 4, "{counts:?}");
        snapshot.targets = Arc::new(snapshot.targets.with_hpas(&HpaMap::default(), None));
        tracker.update(&snapshot.evaluated(&policy()), &mut FindingLog::default());
        assert!(tracker.hpas.is_empty() && tracker.shared.is_empty());
    }
}
