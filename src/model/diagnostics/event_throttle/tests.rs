use super::*;
use crate::model::diagnostics::rate_change::RateChange;
use crate::model::findings::{Finding, FindingCode};

fn hpa(name: &str) -> HpaKey {
    HpaKey::new("shop", name)
}

fn finding(name: &str) -> HpaEvent {
    let finding = Finding::new(FindingCode::ValueTarget, hpa(name), "m");
    HpaEvent {
        hpa: hpa(name),
        reason: EventReason::Finding(finding),
    }
}

fn woken(name: &str, replicas: u32) -> HpaEvent {
    HpaEvent {
        hpa: hpa(name),
        reason: EventReason::Woken(replicas),
    }
}

fn advice(name: &str, from: u32, to: u32) -> HpaEvent {
    let change = RateChange {
        from,
        to,
        is_served: true,
        because: "m".into(),
    };
    HpaEvent {
        hpa: hpa(name),
        reason: EventReason::ScaleAdvice(change),
    }
}

/// Adds and removes lasting events, so that from now on there are these.
fn set_lasting(throttle: &mut EventThrottle, before: &[HpaEvent], now: &[HpaEvent]) {
    for event in before.iter().filter(|event| !now.contains(event)) {
        throttle.remove_lasting(event);
    }
    for event in now.iter().filter(|event| !before.contains(event)) {
        throttle.add_lasting(event.clone());
    }
}

fn drain(throttle: &mut EventThrottle, now: Instant) -> Vec<HpaEvent> {
    std::iter::from_fn(|| throttle.next(now)).collect()
}

#[test]
fn publishes_lasting_event_once_per_occurrence() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    let both = [finding("a"), finding("b")];
    set_lasting(&mut throttle, &[], &both);
    assert_eq!(drain(&mut throttle, began), both);
    for sweep in 1..1000 {
        let now = began + Duration::from_secs(5 * sweep);
        // Found again by every sweep.
        throttle.add_lasting(finding("a"));
        assert_eq!(drain(&mut throttle, now), [], "{sweep}");
    }
    let now = began + Duration::from_secs(5000);
    set_lasting(&mut throttle, &both, &[finding("b")]);
    assert_eq!(drain(&mut throttle, now), []);
    set_lasting(&mut throttle, &[finding("b")], &both);
    assert_eq!(drain(&mut throttle, now), [finding("a")]);
    // An event that was not published is retried while its cause lasts.
    throttle.mark_unpublished(&finding("a"));
    assert_eq!(drain(&mut throttle, now), [finding("a")]);
    throttle.mark_unpublished(&finding("a"));
    set_lasting(&mut throttle, &both, &[]);
    assert_eq!(drain(&mut throttle, now), []);
    // Its cause ended while it was being published.
    throttle.mark_failed(&finding("a"), now);
    assert_eq!(drain(&mut throttle, now + PAUSE), []);
}

#[test]
fn flapping_event_exhausts_only_its_own_hpas_rate() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    let mut published = 0;
    for second in 0..600 {
        let now = began + Duration::from_secs(second);
        throttle.remove_lasting(&finding("a"));
        published += drain(&mut throttle, now).len();
        throttle.add_lasting(finding("a"));
        published += drain(&mut throttle, now).len();
    }
    // A burst of ten, and one a minute.
    assert!((18..=20).contains(&published), "{published}");
    // Another HPA still has its own rate.
    let now = began + Duration::from_secs(599);
    assert!(throttle.enqueue(woken("b", 2)));
    assert_eq!(drain(&mut throttle, now), [woken("b", 2)]);
}

#[test]
fn limits_the_rate_over_all_hpas() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    let all: BTreeSet<_> = (0..200).map(|n| finding(&format!("h{n}"))).collect();
    set_lasting(&mut throttle, &[], &Vec::from_iter(all.clone()));
    let mut published = drain(&mut throttle, began);
    assert_eq!(published.len(), 50);
    for second in 1..=150 {
        let more = drain(&mut throttle, began + Duration::from_secs(second));
        assert_eq!(more.len(), 1, "{second}");
        published.extend(more);
    }
    assert_eq!(published.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn queue_is_bounded_and_hpas_do_not_block_one_another() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    let fits = (0..600)
        .filter(|n| throttle.enqueue(woken("a", *n)))
        .count();
    assert_eq!(fits, MAX_QUEUED_EVENTS);
    // The next ones exceed the rate of their HPA and do not block another HPA.
    let published = drain(&mut throttle, began);
    assert_eq!(
        published,
        (0..10).map(|n| woken("a", n)).collect::<Vec<_>>()
    );
    assert!(throttle.enqueue(woken("b", 1)));
    assert_eq!(drain(&mut throttle, began), [woken("b", 1)]);
    let later = began + Duration::from_secs(60);
    assert_eq!(drain(&mut throttle, later), [woken("a", 10)]);
}

fn event_in(namespace: &str, replicas: u32) -> HpaEvent {
    HpaEvent {
        hpa: HpaKey::new(namespace, format!("hpa-{replicas}")),
        reason: EventReason::Woken(replicas),
    }
}

/// Drains at the steady rate for this number of seconds, and counts the events by namespace.
fn published_by_namespace(throttle: &mut EventThrottle, seconds: u64) -> BTreeMap<Arc<str>, usize> {
    let began = Instant::now();
    let mut published: BTreeMap<_, usize> = BTreeMap::new();
    for second in 0..seconds {
        for event in drain(throttle, began + Duration::from_secs(second)) {
            *published.entry(event.hpa.namespace).or_default() += 1;
        }
    }
    published
}

#[test]
fn namespaces_take_turns_with_one_time_events() {
    let mut throttle = EventThrottle::default();
    for n in 0..300 {
        assert!(throttle.enqueue(event_in("a-greedy", n)));
    }
    for n in 0..20 {
        assert!(throttle.enqueue(event_in("b", n)) && throttle.enqueue(event_in("c", n)));
    }
    // 60 events in all, 20 in turn for each.
    let published = published_by_namespace(&mut throttle, 11);
    let expected = [("a-greedy".into(), 20), ("b".into(), 20), ("c".into(), 20)];
    assert_eq!(published, expected.into());
}

#[test]
fn namespaces_take_turns_with_lasting_events() {
    let mut throttle = EventThrottle::default();
    for n in 0..2000 {
        throttle.add_lasting(event_in("a-greedy", n));
    }
    throttle.add_lasting(event_in("z", 0));
    for n in 0..30 {
        throttle.add_lasting(event_in("m", n));
    }
    // 52 events in all.
    let published = published_by_namespace(&mut throttle, 3);
    let expected = [("a-greedy".into(), 26), ("m".into(), 25), ("z".into(), 1)];
    assert_eq!(published, expected.into());
}

#[test]
fn full_queue_drops_events_of_the_namespace_with_the_most() {
    let mut throttle = EventThrottle::default();
    for n in 0..600 {
        let fits = throttle.enqueue(event_in("greedy", n));
        assert_eq!(fits, n < 500, "{n}");
    }
    for n in 0..100 {
        // One of the other namespace is dropped for it.
        assert!(!throttle.enqueue(event_in("shop", n)));
    }
    let queued =
        |throttle: &EventThrottle, namespace: &str| throttle.pending[namespace].queue.len();
    assert_eq!(
        (queued(&throttle, "greedy"), queued(&throttle, "shop")),
        (400, 100)
    );
    assert_eq!(throttle.queued, MAX_QUEUED_EVENTS);
    for n in 100..600 {
        throttle.enqueue(event_in("shop", n));
    }
    assert_eq!(
        (queued(&throttle, "greedy"), queued(&throttle, "shop")),
        (250, 250)
    );
}

#[test]
fn queued_numbers_of_the_rate_policy_are_joined() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    // The burst of the HPA.
    for n in 0..10 {
        throttle.enqueue(woken("a", n));
    }
    drain(&mut throttle, began);
    for (from, to) in [(2, 4), (4, 6), (6, 5)] {
        assert!(throttle.enqueue(advice("a", from, to)));
    }
    assert!(throttle.enqueue(advice("b", 5, 7)));
    assert_eq!(drain(&mut throttle, began), [advice("b", 5, 7)]);
    // It follows on another number, as of another metric.
    assert!(throttle.enqueue(advice("a", 9, 8)));
    let later = began + Duration::from_secs(60);
    assert_eq!(drain(&mut throttle, later), [advice("a", 2, 5)]);
    // Back to the number that was published.
    assert!(throttle.enqueue(advice("a", 8, 9)));
    assert!(throttle.pending.is_empty() && throttle.queued == 0);
}

#[test]
fn full_queue_drops_numbers_of_the_rate_policy_first() {
    let mut throttle = EventThrottle::default();
    for n in 0..MAX_QUEUED_EVENTS {
        assert!(throttle.enqueue(advice(&format!("h{n}"), 1, 2)));
    }
    assert!(!throttle.enqueue(woken("a", 1)));
    assert!(!throttle.enqueue(advice("b", 1, 2)));
    assert!(!throttle.enqueue(event_in("other", 1)));
    let queue = &throttle.pending["shop"].queue;
    let newest: Vec<_> = queue.iter().rev().take(2).cloned().collect();
    assert_eq!(newest, [woken("a", 1), advice("h497", 1, 2)]);
    assert_eq!(
        (queue.len(), throttle.queued),
        (MAX_QUEUED_EVENTS - 1, MAX_QUEUED_EVENTS)
    );
}

#[test]
fn failure_pauses_only_its_namespace_for_a_bounded_time() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    for namespace in ["full", "shop"] {
        for n in 0..5 {
            throttle.enqueue(event_in(namespace, n));
        }
        throttle.add_lasting(event_in(namespace, 9));
    }
    let first = throttle.next(began).unwrap();
    assert_eq!(first, event_in("full", 0));
    throttle.mark_failed(&first, began);
    let others = drain(&mut throttle, began + PAUSE - Duration::from_secs(1));
    assert_eq!(others.len(), 6);
    assert!(others.iter().all(|event| &*event.hpa.namespace == "shop"));
    let later = drain(&mut throttle, began + PAUSE);
    assert_eq!(later.len(), 5);
    // A lasting event is tried again after each pause.
    for attempt in 1..4 {
        let now = began + PAUSE * attempt;
        throttle.mark_failed(&event_in("full", 9), now);
        assert_eq!(drain(&mut throttle, now), []);
        assert_eq!(drain(&mut throttle, now + PAUSE), [event_in("full", 9)]);
    }
    // The state is removed with the events.
    assert!(throttle.pending.is_empty() && throttle.queued == 0);
    assert!(throttle.next(began + PAUSE * 9).is_none() && throttle.paused.is_empty());
}
