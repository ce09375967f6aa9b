//! Kubernetes events on HPAs: why they are published, on which HPAs, and with which text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::incidents::LagIncident;
use crate::model::findings::{Finding, FindingSubject, Severity};
use crate::model::targets::{Origin, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// One event to publish on an HPA.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HpaEvent {
    pub hpa: HpaKey,
    pub reason: EventReason,
}

/// Why an event is published. `Display` is the event's note: it stays the same while the cause does, because
/// equal events of an HPA are counted instead of published again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventReason {
    /// A finding about the HPA or about a group that it scales on; it lasts until the finding is gone.
    Finding(Finding),
    /// A problem with the lag of a group that the HPA scales on.
    Incident(LagIncident),
    /// `maxReplicas` was raised to this ceiling.
    CapRaised(u32),
    /// `maxReplicas` was lowered to this ceiling.
    CapLowered(u32),
    /// `maxReplicas` was restored to the user's value.
    CapReleased,
    /// Another writer keeps undoing the cap.
    CapFought,
    ScaledToZero,
    /// The workload was scaled from zero to this many replicas.
    Woken(u32),
}

impl EventReason {
    /// The event's `reason` field, in camel case as in Kubernetes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            EventReason::Finding(finding) => finding.code.event_reason(),
            EventReason::Incident(incident) => incident.kind.event_reason(),
            EventReason::CapRaised(_) => "CapRaised",
            EventReason::CapLowered(_) => "CapLowered",
            EventReason::CapReleased => "CapReleased",
            EventReason::CapFought => "CapFought",
            EventReason::ScaledToZero => "ScaledToZero",
            EventReason::Woken(_) => "Woken",
        }
    }

    /// Whether somebody should act on it, so that the event's type is `Warning`.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            EventReason::Finding(_) | EventReason::Incident(_) | EventReason::CapFought => true,
            EventReason::CapRaised(_)
            | EventReason::CapLowered(_)
            | EventReason::CapReleased
            | EventReason::ScaledToZero
            | EventReason::Woken(_) => false,
        }
    }
}

impl fmt::Display for EventReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventReason::Finding(finding) => {
                let Finding { code, .. } = finding;
                write!(f, "{}: {finding}. {}", code.code(), code.fix())
            }
            EventReason::Incident(incident) => write!(f, "{incident}"),
            EventReason::CapRaised(ceiling) => {
                write!(f, "maxReplicas raised to the replica ceiling {ceiling}")
            }
            EventReason::CapLowered(ceiling) => {
                write!(f, "maxReplicas lowered to the replica ceiling {ceiling}")
            }
            EventReason::CapReleased => {
                f.write_str("cap released: maxReplicas is restored to the user's value")
            }
            EventReason::CapFought => f.write_str(
                "another writer keeps resetting spec.maxReplicas, so lagwise writes the ceiling less and less often; make that writer leave the field alone, or set lagwise.dev/cap: advise",
            ),
            EventReason::ScaledToZero => {
                f.write_str("scaled to zero: there was no lag for the whole cooldown")
            }
            EventReason::Woken(replicas) => {
                write!(f, "scaled from zero to {replicas} replicas")
            }
        }
    }
}

/// Events for the findings that are more than informational, on every HPA that each is about.
#[must_use]
pub fn finding_events<'f>(
    findings: impl Iterator<Item = &'f Finding>,
    targets: &Targets,
) -> BTreeSet<HpaEvent> {
    let mut serious = findings
        .filter(|finding| finding.code.severity() > Severity::Info)
        .peekable();
    if serious.peek().is_none() {
        return BTreeSet::new();
    }
    let by_group = hpas_by_group(targets);
    let mut events = BTreeSet::new();
    for finding in serious {
        let event = |hpa: &HpaKey| HpaEvent {
            hpa: hpa.clone(),
            reason: EventReason::Finding(finding.clone()),
        };
        match &finding.subject {
            FindingSubject::Hpa(hpa) => {
                events.insert(event(hpa));
            }
            FindingSubject::Group { cluster, group } => {
                let hpas = by_group.get(&(cluster, group));
                events.extend(hpas.into_iter().flatten().copied().map(event));
            }
        }
    }
    events
}

/// Events for incidents, on every HPA that scales on the affected group.
#[must_use]
pub fn incident_events(incidents: &[LagIncident], targets: &Targets) -> Vec<HpaEvent> {
    let mut relevant = incidents
        .iter()
        .filter(|incident| incident.kind.concerns_hpas())
        .peekable();
    if relevant.peek().is_none() {
        return Vec::new();
    }
    let by_group = hpas_by_group(targets);
    let mut events = Vec::new();
    for incident in relevant {
        let hpas = by_group.get(&(&incident.cluster, &incident.group));
        events.extend(hpas.into_iter().flatten().map(|hpa| HpaEvent {
            hpa: (*hpa).clone(),
            reason: EventReason::Incident(incident.clone()),
        }));
    }
    events
}

fn hpas_by_group(targets: &Targets) -> BTreeMap<(&ClusterName, &GroupId), BTreeSet<&HpaKey>> {
    let mut all: BTreeMap<_, BTreeSet<&HpaKey>> = BTreeMap::new();
    for target in targets.of_hpas() {
        if let Origin::Hpa(hpa) = &target.origin {
            let group = (&target.key.cluster, &target.key.group);
            all.entry(group).or_default().insert(hpa);
        }
    }
    all
}

#[cfg(test)]
mod tests;
