use super::*;
use crate::model::diagnostics::incidents::IncidentKind;
use crate::model::findings::FindingCode;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts};
use crate::model::hpa::selector::Selector;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::Lag;

fn hpa(name: &str) -> HpaKey {
    HpaKey::new("shop", name)
}

fn targets() -> Arc<Targets> {
    targets_of(&[("a", "g"), ("b", "g"), ("c", "other")])
}

/// Targets of these HPAs on these groups.
fn targets_of(hpas: &[(&str, &str)]) -> Arc<Targets> {
    let facts = |name: &str, group: &str| HpaFacts {
        namespace: "shop".into(),
        name: name.into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(&format!("group={group},topic=t")).unwrap(),
            target: None,
        }],
        ..HpaFacts::default()
    };
    let hpas: Vec<_> = hpas
        .iter()
        .map(|(name, group)| facts(name, group))
        .collect();
    let clusters = ["main".into()];
    Arc::new(Targets::merge(&clusters, &[], &hpas, BTreeSet::new()))
}

fn finding_event(name: &str, finding: &Finding) -> HpaEvent {
    HpaEvent {
        hpa: hpa(name),
        reason: EventReason::Finding(finding.clone()),
    }
}

fn findings(all: &[&Finding]) -> Arc<BTreeSet<Finding>> {
    Arc::new(all.iter().copied().cloned().collect())
}

fn begun(events: &[HpaEvent]) -> EventChanges {
    EventChanges {
        begun: events.to_vec(),
        ended: Vec::new(),
    }
}

fn ended(events: &[HpaEvent]) -> EventChanges {
    EventChanges {
        begun: Vec::new(),
        ended: events.to_vec(),
    }
}

#[test]
fn publishes_findings_on_every_affected_hpa() {
    let (cluster, group) = (ClusterName::from("main"), GroupId::from("g"));
    let mixed = Finding::new(FindingCode::MixedSubscriptions, (&cluster, &group), "m");
    let own = Finding::new(FindingCode::TopicsTwice, hpa("c"), "m");
    let info = Finding::new(FindingCode::ToleranceLeft, hpa("c"), "m");
    // Informational, but it begins and ends with the lag.
    let at_ceiling = Finding::new(FindingCode::AtCeiling, hpa("c"), "m");
    let mut events = FindingEvents::default();
    let none = findings(&[]);
    assert_eq!(events.update(&targets(), &none), EventChanges::default());
    let found = events.update(&targets(), &findings(&[&mixed, &own, &info]));
    let [on_a, on_b] = ["a", "b"].map(|name| finding_event(name, &mixed));
    let on_c = finding_event("c", &own);
    assert_eq!(found, begun(&[on_c.clone(), on_a.clone(), on_b.clone()]));
    // Found again.
    let found = events.update(&targets(), &findings(&[&mixed, &own]));
    assert_eq!(found, EventChanges::default());
    let found = events.update(&targets(), &findings(&[&mixed]));
    assert_eq!(found, ended(&[on_c]));
    let found = events.update(&targets(), &findings(&[&mixed, &at_ceiling]));
    let on_c = finding_event("c", &at_ceiling);
    assert_eq!(found, begun(std::slice::from_ref(&on_c)));
    let found = events.update(&targets(), &findings(&[&mixed]));
    assert_eq!(found, ended(&[on_c]));
    assert_eq!(events.update(&targets(), &none), ended(&[on_a, on_b]));
}

#[test]
fn findings_about_groups_follow_the_hpas_that_use_them() {
    let (cluster, group) = (ClusterName::from("main"), GroupId::from("g"));
    let mixed = Finding::new(FindingCode::MixedSubscriptions, (&cluster, &group), "m");
    let found = findings(&[&mixed]);
    let mut events = FindingEvents::default();
    let event = |name| finding_event(name, &mixed);
    for (hpas, expected) in [
        // No HPA uses the group yet.
        (&[("a", "other")][..], EventChanges::default()),
        (&[("a", "other"), ("b", "g")], begun(&[event("b")])),
        (&[("a", "g"), ("b", "g")], begun(&[event("a")])),
        (&[("a", "g"), ("b", "other")], ended(&[event("b")])),
        (&[("a", "g")], EventChanges::default()),
        (&[], ended(&[event("a")])),
    ] {
        let changes = events.update(&targets_of(hpas), &found);
        assert_eq!(changes, expected, "{hpas:?}");
    }
}

fn incident(cluster: &str, group: &str, kind: IncidentKind) -> LagIncident {
    LagIncident {
        cluster: cluster.into(),
        group: group.into(),
        topic: (kind != IncidentKind::GroupStuck).then(|| "t".into()),
        kind,
        first_partition: 0,
        partitions: 1,
        lost: Lag(7),
    }
}

#[test]
fn publishes_incidents_on_the_hpas_of_the_group() {
    let lost = incident("main", "g", IncidentKind::OffsetsLost);
    let incidents = [
        lost.clone(),
        incident("main", "other", IncidentKind::PartitionsStuck),
        incident("main", "nobody", IncidentKind::GroupStuck),
        incident("elsewhere", "g", IncidentKind::GroupStuck),
    ];
    let events = incident_events(&incidents, &targets());
    let found: Vec<_> = events
        .iter()
        .map(|event| (&*event.hpa.name, event.reason.name()))
        .collect();
    assert_eq!(found, [("a", "OffsetsLost"), ("b", "OffsetsLost")]);
    // However many messages are lost, the text is the same.
    let more = LagIncident {
        lost: Lag(8),
        ..lost
    };
    let more = EventReason::Incident(more);
    assert_eq!(events[0].reason.to_string(), more.to_string());
}

/// The event about a write of the cap to an HPA with 10 as the user's `maxReplicas`.
fn cap_event(ceiling: Option<u32>, held: Option<u32>, (from, to): (u32, u32)) -> EventReason {
    let fields = |max, ceiling| HpaFields {
        max,
        min: 1,
        ceiling,
        user: ceiling.map(|_| 10),
        explicit: None,
    };
    let rule = ceiling.map(|_| ParallelismRule::OneTopic);
    EventReason::about_cap(ceiling, fields(from, held), fields(to, ceiling), 10, rule).unwrap()
}

#[test]
fn only_a_changed_ceiling_is_an_event() {
    let fields = HpaFields {
        max: 3,
        min: 1,
        ceiling: Some(3),
        user: Some(10),
        explicit: None,
    };
    let about = |ceiling, before| EventReason::about_cap(ceiling, before, fields, 10, None);
    assert_eq!(about(Some(3), fields), None);
    let released = HpaFields {
        ceiling: Some(NO_CEILING),
        ..fields
    };
    assert_eq!(about(None, released), None, "the second step of a release");
}

#[test]
fn the_text_of_every_event() {
    let findings = [
        Finding::new(FindingCode::TopicsTwice, hpa("a"), "what is wrong"),
        Finding::new(FindingCode::AtCeiling, hpa("a"), "what the lag is worth"),
    ];
    let incidents = IncidentKind::ALL
        .iter()
        .filter(|kind| kind.concerns_hpas())
        .map(|kind| EventReason::Incident(incident("main", "g", *kind)));
    let others = [
        cap_event(Some(6), Some(3), (3, 6)),
        cap_event(Some(12), Some(3), (3, 10)),
        cap_event(Some(3), None, (10, 3)),
        cap_event(Some(12), None, (10, 10)),
        cap_event(None, Some(3), (3, 10)),
        EventReason::CapFought,
        EventReason::ScaledToZero,
        EventReason::Woken(1),
        EventReason::Woken(3),
        EventReason::ScaleAdvice(RateChange {
            from: 4,
            to: 6,
            is_served: true,
            because: "why".into(),
        }),
        EventReason::ScaleAdvice(RateChange {
            from: 6,
            to: 4,
            is_served: false,
            because: "why".into(),
        }),
    ];
    let lines = findings
        .into_iter()
        .map(EventReason::Finding)
        .chain(incidents)
        .chain(others)
        .map(|reason| {
            let is_warning = reason.is_warning();
            let event_type = if is_warning { "Warning" } else { "Normal" };
            format!("{event_type} {}: {reason}", reason.name())
        });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}
