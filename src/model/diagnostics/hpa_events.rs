//! Kubernetes events on HPAs: why they are published, on which HPAs, and with which text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::{fmt, mem};

use super::incidents::LagIncident;
use super::rate_change::RateChange;
use crate::model::decisions::cap::HpaFields;
use crate::model::findings::{Finding, FindingSubject, Severity};
use crate::model::settings::annotation_keys::USER_MAX;
use crate::model::settings::cap_mode::NO_CEILING;
use crate::model::targets::{GroupKey, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::model::units::parallelism_rule::ParallelismRule;

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
    /// The ceiling rose, and `maxReplicas` with it.
    CapRaised(CapChange),
    /// A ceiling was set, or it fell, so `maxReplicas` is now at most that.
    CapLowered(CapChange),
    /// `maxReplicas` was restored to the user's value.
    CapReleased {
        from: u32,
        to: u32,
    },
    /// Another writer keeps undoing the cap.
    CapFought,
    ScaledToZero,
    /// The workload was scaled from zero to this many replicas.
    Woken(u32),
    /// The rate policy has decided on another number of replicas.
    ScaleAdvice(RateChange),
}

/// A change of `maxReplicas` by the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CapChange {
    /// `maxReplicas` before and after.
    pub from: u32,
    pub to: u32,
    /// The user's own number.
    pub user: u32,
    /// The replica ceiling.
    pub ceiling: u32,
    /// The rule behind the ceiling; `None` if that is not known any more.
    pub rule: Option<ParallelismRule>,
}

impl CapChange {
    /// The ceiling with its rule.
    fn ceiling(&self) -> String {
        let rule = self.rule.map(|rule| format!(" ({rule})"));
        format!("{}{}", self.ceiling, rule.unwrap_or_default())
    }

    /// Says where the user's number is kept, if the field has another one.
    fn kept(&self) -> String {
        match self.user == self.to {
            true => String::new(),
            false => format!("; your {} is kept in the annotation {USER_MAX}", self.user),
        }
    }
}

impl EventReason {
    /// The event about a write of the cap that changed an HPA from `before` to `after`. There is none if the ceiling is
    /// unchanged, or for the second step of a release. `ceiling` is `None` for a release.
    #[must_use]
    pub fn about_cap(
        ceiling: Option<u32>,
        before: HpaFields,
        after: HpaFields,
        user: u32,
        rule: Option<ParallelismRule>,
    ) -> Option<Self> {
        let held = before.ceiling.filter(|held| *held != NO_CEILING);
        let change = |ceiling| CapChange {
            from: before.max,
            to: after.max,
            user,
            ceiling,
            rule,
        };
        match (ceiling, held) {
            (Some(now), Some(held)) if now > held => Some(Self::CapRaised(change(now))),
            (Some(now), held) if held != Some(now) => Some(Self::CapLowered(change(now))),
            (None, Some(_)) => Some(Self::CapReleased {
                from: before.max,
                to: after.max,
            }),
            _ => None,
        }
    }

    /// The event's `reason` field, in camel case as in Kubernetes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            EventReason::Finding(finding) => finding.code.event_reason(),
            EventReason::Incident(incident) => incident.kind.event_reason(),
            EventReason::CapRaised(_) => "CapRaised",
            EventReason::CapLowered(_) => "CapLowered",
            EventReason::CapReleased { .. } => "CapReleased",
            EventReason::CapFought => "CapFought",
            EventReason::ScaledToZero => "ScaledToZero",
            EventReason::Woken(_) => "Woken",
            EventReason::ScaleAdvice(_) => "ScaleAdvice",
        }
    }

    /// The text of the event, with advice for this version of Kubernetes.
    #[must_use]
    pub fn note(&self, on: Option<KubernetesVersion>) -> String {
        match self {
            EventReason::Finding(finding) => {
                let code = finding.code;
                format!("{}: {finding}. {}", code.code(), code.advice(on))
            }
            other => other.to_string(),
        }
    }

    /// Whether its text depends on the version of Kubernetes.
    #[must_use]
    pub fn depends_on_version(&self) -> bool {
        matches!(self, EventReason::Finding(finding) if finding.code.depends_on_version())
    }

    /// Whether it requires an action, so that the event's type is `Warning`.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            EventReason::Finding(finding) => finding.code.severity() > Severity::Info,
            EventReason::Incident(_) | EventReason::CapFought => true,
            EventReason::CapRaised(_)
            | EventReason::CapLowered(_)
            | EventReason::CapReleased { .. }
            | EventReason::ScaledToZero
            | EventReason::Woken(_)
            | EventReason::ScaleAdvice(_) => false,
        }
    }
}

impl fmt::Display for EventReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventReason::Finding(_) => f.write_str(&self.note(None)),
            EventReason::Incident(incident) => write!(f, "{incident}"),
            EventReason::CapRaised(change) if change.from == change.to => write!(
                f,
                "maxReplicas stays {}: the replica ceiling rose to {}{}",
                change.to,
                change.ceiling(),
                change.kept()
            ),
            EventReason::CapRaised(change) => write!(
                f,
                "maxReplicas {} -> {}: the replica ceiling rose to {}{}",
                change.from,
                change.to,
                change.ceiling(),
                change.kept()
            ),
            EventReason::CapLowered(change) if change.from == change.to => write!(
                f,
                "maxReplicas stays {}: the replica ceiling is {}{}",
                change.to,
                change.ceiling(),
                change.kept()
            ),
            EventReason::CapLowered(change) => write!(
                f,
                "maxReplicas {} -> {}: more replicas than the replica ceiling {} have no work{}",
                change.from,
                change.to,
                change.ceiling(),
                change.kept()
            ),
            // The admission policy restores the number only after this write.
            EventReason::CapReleased { from, to } if from == to => {
                f.write_str("the cap is released: maxReplicas gets your own value again")
            }
            EventReason::CapReleased { from, to } => {
                write!(f, "maxReplicas {from} -> {to}: the cap is released")
            }
            EventReason::CapFought => f.write_str(
                "another writer keeps resetting spec.maxReplicas, so lagwise writes the ceiling less and less often; make that writer leave the field alone, or set lagwise.dev/cap: advise",
            ),
            EventReason::ScaledToZero => {
                f.write_str("scaled to zero: there was no lag for the whole cooldown")
            }
            EventReason::Woken(1) => f.write_str("scaled from zero to 1 replica"),
            EventReason::Woken(replicas) => {
                write!(f, "scaled from zero to {replicas} replicas")
            }
            EventReason::ScaleAdvice(change) => write!(f, "{change}"),
        }
    }
}

/// Makes the events of findings, on every HPA that a finding is about. Follows the findings and the targets from
/// snapshot to snapshot, with work in proportion to the changes.
#[derive(Clone, Debug, Default)]
pub struct FindingEvents {
    targets: Arc<Targets>,
    /// The findings other than those of the targets.
    findings: Arc<BTreeSet<Finding>>,
    /// Findings about groups, which concern other HPAs when the targets change.
    by_group: BTreeMap<GroupKey, BTreeSet<Finding>>,
}

/// Events whose cause has ended or begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventChanges {
    pub ended: Vec<HpaEvent>,
    pub begun: Vec<HpaEvent>,
}

impl FindingEvents {
    /// Records the targets with their findings, and the other findings, of the next snapshot.
    pub fn update(
        &mut self,
        targets: &Arc<Targets>,
        findings: &Arc<BTreeSet<Finding>>,
    ) -> EventChanges {
        let targets_before = mem::replace(&mut self.targets, Arc::clone(targets));
        let findings_before = mem::replace(&mut self.findings, Arc::clone(findings));
        let (mut ended, mut begun) = (Vec::new(), Vec::new());
        targets_before.diff_findings(targets, |finding, is_new| {
            let changed = if is_new { &mut begun } else { &mut ended };
            changed.push(Finding::clone(finding));
        });
        // Most sweeps have the findings of the previous one.
        if !Arc::ptr_eq(&findings_before, findings) {
            ended.extend(findings_before.difference(findings).cloned());
            begun.extend(findings.difference(&findings_before).cloned());
        }
        for changed in [&mut ended, &mut begun] {
            changed.retain(|finding| finding.code.is_event());
        }
        let mut groups = BTreeSet::new();
        let groups_before = targets_before.groups();
        groups_before.diff(targets.groups(), |group, _, _| {
            if self.by_group.contains_key(group) {
                groups.insert(group.clone());
            }
        });
        groups.extend(ended.iter().chain(&begun).filter_map(group_of));

        let events_before = self.events_of_groups(&groups, &targets_before);
        for finding in &ended {
            self.remove_from_group(finding);
        }
        for finding in &begun {
            if let Some(group) = group_of(finding) {
                self.by_group
                    .entry(group)
                    .or_default()
                    .insert(finding.clone());
            }
        }
        let events = self.events_of_groups(&groups, targets);
        EventChanges {
            ended: own_events(ended)
                .chain(events_before.difference(&events).cloned())
                .collect(),
            begun: own_events(begun)
                .chain(events.difference(&events_before).cloned())
                .collect(),
        }
    }

    fn remove_from_group(&mut self, finding: &Finding) {
        let Some(group) = group_of(finding) else {
            return;
        };
        if let Some(findings) = self.by_group.get_mut(&group) {
            findings.remove(finding);
            if findings.is_empty() {
                self.by_group.remove(&group);
            }
        }
    }

    /// The events for the findings about these groups.
    fn events_of_groups(
        &self,
        groups: &BTreeSet<GroupKey>,
        targets: &Targets,
    ) -> BTreeSet<HpaEvent> {
        let mut events = BTreeSet::new();
        for group in groups {
            let findings = self.by_group.get(group).into_iter().flatten();
            for finding in findings {
                events.extend(
                    hpas_of_group(targets, &group.0, &group.1).map(|hpa| HpaEvent {
                        hpa: hpa.clone(),
                        reason: EventReason::Finding(finding.clone()),
                    }),
                );
            }
        }
        events
    }
}

/// The group that a finding is about, if it is not about an HPA.
fn group_of(finding: &Finding) -> Option<GroupKey> {
    match &finding.subject {
        FindingSubject::Hpa(_) | FindingSubject::Setting(_) | FindingSubject::Keda { .. } => None,
        FindingSubject::Group { cluster, group } => Some((cluster.clone(), group.clone())),
    }
}

/// The events for the findings that are about one HPA.
fn own_events(findings: Vec<Finding>) -> impl Iterator<Item = HpaEvent> {
    findings.into_iter().filter_map(|finding| {
        let FindingSubject::Hpa(hpa) = &finding.subject else {
            return None;
        };
        Some(HpaEvent {
            hpa: hpa.clone(),
            reason: EventReason::Finding(finding),
        })
    })
}

/// Events for incidents, on every HPA that scales on the affected group.
#[must_use]
pub fn incident_events(incidents: &[LagIncident], targets: &Targets) -> Vec<HpaEvent> {
    let relevant = incidents
        .iter()
        .filter(|incident| incident.kind.concerns_hpas());
    let events = relevant.flat_map(|incident| {
        let hpas = hpas_of_group(targets, &incident.cluster, &incident.group);
        // An HPA may have several targets of one group.
        let hpas: BTreeSet<_> = hpas.collect();
        hpas.into_iter().map(|hpa| HpaEvent {
            hpa: hpa.clone(),
            reason: EventReason::Incident(incident.clone()),
        })
    });
    events.collect()
}

/// The HPAs that scale on a group, once for each of their targets on it.
fn hpas_of_group<'a>(
    targets: &'a Targets,
    cluster: &ClusterName,
    group: &GroupId,
) -> impl Iterator<Item = &'a HpaKey> {
    let group = targets.group(cluster, group);
    let targets = group.map_or(&[][..], |group| group.targets());
    targets.iter().filter_map(|target| target.hpa())
}

#[cfg(test)]
mod tests;
