use super::*;
use crate::model::fixtures::at;

fn trigger(namespace: &str, name: &str, metadata: &[(&str, &str)]) -> Arc<ExternalTrigger> {
    let parsed = ExternalTrigger::parse(namespace, name, metadata.iter().copied());
    Arc::new(parsed.unwrap())
}

fn billing(lag: &str) -> Arc<ExternalTrigger> {
    trigger("shop", "billing", &[("group", "g"), ("lagThreshold", lag)])
}

fn second(seconds: u64) -> Instant {
    at(Duration::from_secs(seconds)).monotonic
}

fn key() -> HpaKey {
    HpaKey::new("shop", "keda-hpa-billing")
}

fn hpa_of_keda(max_replicas: u32) -> HpaMap {
    let facts = HpaFacts {
        namespace: "shop".into(),
        name: "keda-hpa-billing".into(),
        controller: Some("ScaledObject/billing".into()),
        max_replicas,
        ..HpaFacts::default()
    };
    HpaMap::from_iter([Arc::new(facts)])
}

#[test]
fn an_hpa_that_does_not_exist_yet_has_the_metrics() {
    let mut triggers = ExternalTriggers::default();
    assert!(triggers.insert(billing("100"), second(0)));
    let all = triggers.add_to(&HpaMap::default());
    let facts = all.get(&key()).unwrap();
    assert!(billing("100").is_in(facts) && !billing("200").is_in(facts));
    assert_eq!(facts.controller.as_deref(), Some("ScaledObject/billing"));
}

#[test]
fn the_hpa_of_keda_keeps_its_bounds_and_follows_changes() {
    let mut triggers = ExternalTriggers::default();
    triggers.insert(billing("100"), second(0));
    let most = |all: &HpaMap| all.get(&key()).unwrap().max_replicas;
    let first = triggers.add_to(&hpa_of_keda(24));
    assert_eq!(most(&first), 24);
    let same = triggers.add_to(&hpa_of_keda(24));
    assert!(Arc::ptr_eq(
        first.get(&key()).unwrap(),
        same.get(&key()).unwrap()
    ));
    assert_eq!(most(&triggers.add_to(&hpa_of_keda(12))), 12);
}

#[test]
fn an_hpa_that_keda_does_not_own_is_unchanged() {
    let mut triggers = ExternalTriggers::default();
    triggers.insert(billing("100"), second(0));
    let facts = HpaFacts {
        controller: None,
        ..(**hpa_of_keda(24).get(&key()).unwrap()).clone()
    };
    let hpas = HpaMap::from_iter([Arc::new(facts)]);
    let all = triggers.add_to(&hpas);
    assert!(all.get(&key()).unwrap().metrics.is_empty());
}

#[test]
fn a_changed_trigger_replaces_its_former_version() {
    let mut triggers = ExternalTriggers::default();
    triggers.insert(billing("100"), second(0));
    assert!(!triggers.insert(billing("100"), second(1)));
    assert!(triggers.insert(billing("200"), second(2)));
    let all = triggers.add_to(&HpaMap::default());
    let facts = all.get(&key()).unwrap();
    assert!(billing("200").is_in(facts));
    assert_eq!(facts.metrics.len(), 1);
}

#[test]
fn triggers_without_requests_expire() {
    let mut triggers = ExternalTriggers::default();
    triggers.insert(billing("100"), second(0));
    assert!(!triggers.expire(second(899)));
    assert!(triggers.expire(second(900)));
    assert!(triggers.add_to(&HpaMap::default()).is_empty());
}

#[test]
fn a_namespace_with_thousands_of_scaled_objects_takes_room_from_itself_only() {
    let mut triggers = ExternalTriggers::default();
    let metadata = [("group", "g"), ("lagThreshold", "1")];
    triggers.insert(trigger("small", "a", &metadata), second(0));
    for number in 0..u64::try_from(MAX_SCALED_OBJECTS).unwrap() + 10 {
        let name = format!("o{number}");
        triggers.insert(trigger("large", &name, &metadata), second(number + 1));
    }
    let all = triggers.add_to(&HpaMap::default());
    assert_eq!(all.len(), MAX_SCALED_OBJECTS);
    assert!(all.get(&HpaKey::new("small", "keda-hpa-a")).is_some());
    assert!(all.get(&HpaKey::new("large", "keda-hpa-o0")).is_none());
}

#[test]
fn a_namespace_with_large_triggers_takes_room_from_itself_only() {
    let mut triggers = ExternalTriggers::default();
    let small = [("group", "g"), ("lagThreshold", "1")];
    triggers.insert(trigger("small", "a", &small), second(0));
    let topics: Vec<_> = (0..200).map(|number| format!("t{number:034}")).collect();
    let topics = topics.join(",");
    let large = [("group", "g"), ("lagThreshold", "1"), ("topics", &*topics)];
    for number in 0..3_000 {
        let name = format!("o{number}");
        triggers.insert(trigger("large", &name, &large), second(number + 1));
    }
    assert!((MAX_TRIGGER_BYTES - 50_000..=MAX_TRIGGER_BYTES).contains(&triggers.bytes()));
    let all = triggers.add_to(&HpaMap::default());
    assert!(all.get(&HpaKey::new("small", "keda-hpa-a")).is_some());
    assert!(all.get(&HpaKey::new("large", "keda-hpa-o0")).is_none());
    assert!(all.get(&HpaKey::new("large", "keda-hpa-o2999")).is_some());
    assert!(triggers.expire(second(10_000)));
    assert_eq!(triggers.bytes(), 0);
}

#[test]
fn the_triggers_of_a_scaled_object_are_bounded() {
    let mut triggers = ExternalTriggers::default();
    for number in 0..40 {
        let group = format!("g{number}");
        let metadata = [("group", &*group), ("lagThreshold", "1")];
        triggers.insert(trigger("shop", "billing", &metadata), second(number));
    }
    let all = triggers.add_to(&HpaMap::default());
    assert_eq!(all.get(&key()).unwrap().metrics.len(), MAX_TRIGGERS);
}

#[test]
fn the_settings_of_a_former_version_do_not_stay() {
    let version = |more: &[(&str, &str)]| {
        let metadata = [("group", "g"), ("lagThreshold", "1")];
        let metadata: Vec<_> = metadata.iter().chain(more).copied().collect();
        trigger("shop", "billing", &metadata)
    };
    let plain = version(&[]);
    for former in [
        &[("metric", "desired")][..],
        &[("topic", "payments"), ("even", "true")],
    ] {
        let mut triggers = ExternalTriggers::default();
        assert!(triggers.insert(version(former), second(0)));
        assert!(triggers.insert(Arc::clone(&plain), second(1)));
        let all = triggers.add_to(&HpaMap::default());
        assert!(plain.is_in(all.get(&key()).unwrap()), "{former:?}");
        assert!(!triggers.insert(Arc::clone(&plain), second(2)));
    }
}
