use super::*;
use crate::model::diagnostics::hpa_events::EventReason;
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

fn drain(throttle: &mut EventThrottle, now: Instant) -> Vec<HpaEvent> {
    std::iter::from_fn(|| throttle.next(now)).collect()
}

#[test]
fn publishes_lasting_event_once_per_occurrence() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    let both = || BTreeSet::from([finding("a"), finding("b")]);
    for sweep in 0..1000 {
        throttle.set_lasting(both());
        let now = began + Duration::from_secs(5 * sweep);
        let published = drain(&mut throttle, now);
        assert_eq!(published.len(), if sweep == 0 { 2 } else { 0 }, "{sweep}");
    }
    let now = began + Duration::from_secs(5000);
    throttle.set_lasting([finding("b")].into());
    assert_eq!(drain(&mut throttle, now), []);
    throttle.set_lasting(both());
    assert_eq!(drain(&mut throttle, now), [finding("a")]);
    // An event that could not be published is retried while its cause lasts.
    throttle.mark_unpublished(&finding("a"));
    assert_eq!(drain(&mut throttle, now), [finding("a")]);
    throttle.mark_unpublished(&finding("a"));
    throttle.set_lasting(BTreeSet::new());
    assert_eq!(drain(&mut throttle, now), []);
}

#[test]
fn flapping_event_exhausts_only_its_own_hpas_rate() {
    let began = Instant::now();
    let mut throttle = EventThrottle::default();
    let mut published = 0;
    for second in 0..600 {
        let now = began + Duration::from_secs(second);
        throttle.set_lasting(BTreeSet::new());
        published += drain(&mut throttle, now).len();
        throttle.set_lasting([finding("a")].into());
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
    throttle.set_lasting(all.clone());
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
    assert_eq!(fits, QUEUE_MAX);
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
