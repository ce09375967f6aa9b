//! HPAs that exceed limits and budgets.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::hpa::bounded_facts::bound;
use crate::model::targets::budgets::Amounts;
use crate::model::targets::lookup::resolve;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::selector_size::SelectorTooLarge;
use crate::model::units::metric::LAG_METRIC;

fn names(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|i| format!("n{i:05}")).collect();
    names.join(",")
}

fn resolve_groups(targets: &Targets, selector: &str) -> Result<usize, NoValueReason> {
    resolve_in("shop", targets, selector)
}

fn resolve_in(namespace: &str, targets: &Targets, selector: &str) -> Result<usize, NoValueReason> {
    let query = MetricQuery {
        namespace,
        metric: LAG_METRIC,
        selector: &Selector::parse(selector).unwrap(),
    };
    resolve(&query, targets).map(|resolved| resolved.groups.len())
}

fn messages(targets: &Targets) -> Vec<(&'static str, &str)> {
    let findings = targets.findings();
    findings
        .map(|finding| (finding.code.code(), finding.message.as_str()))
        .collect()
}

#[test]
fn metrics_are_planned_up_to_the_same_limit_as_they_are_served() {
    let groups = |count| (format!("group in ({})", names(count)), count);
    let topics = |count| (format!("group=g,topic in ({})", names(count)), 1);
    for ((selector, count), too_large) in [
        (groups(32), None),
        (groups(33), Some(SelectorTooLarge::Groups(33))),
        (groups(200), Some(SelectorTooLarge::Groups(200))),
        (topics(256), None),
        (topics(257), Some(SelectorTooLarge::Topics(257))),
    ] {
        let facts = bound(hpa("a", &selector, ONE));
        let targets = merge(&["m"], &[facts]);
        let ad_hoc = merge(&["m"], &[]);
        let planned = targets.plan(&"m".into(), |_| BTreeSet::new()).groups.len();
        match too_large {
            None => {
                assert_eq!(
                    (planned, messages(&targets).len()),
                    (count, 0),
                    "{selector}"
                );
                assert_eq!(resolve_groups(&targets, &selector), Ok(count));
                assert_eq!(resolve_groups(&ad_hoc, &selector), Ok(count));
            }
            Some(too_large) => {
                let message = format!("its Kafka metric is not read: {too_large}");
                assert_eq!(
                    (planned, messages(&targets)),
                    (0, vec![("LW042", &*message)])
                );
                let refused = Err(NoValueReason::SelectorTooLarge(too_large));
                assert_eq!(resolve_groups(&targets, &selector), refused);
                assert_eq!(resolve_groups(&ad_hoc, &selector), refused);
            }
        }
    }
}

#[test]
fn an_hpa_that_is_too_large_is_refused_with_one_finding() {
    let mut facts = hpa("a", "group=g", ONE);
    for i in 0..1500 {
        let key = format!("lagwise.dev/topic-regex.{i:04x}");
        facts.annotations.insert(key, r"\pL{24}".to_owned());
    }
    let targets = merge(&["m"], &[bound(facts)]);
    let found = messages(&targets);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("1500 annotations"), "{found:?}");
    assert_eq!(targets.all().count(), 0);
    let refused = resolve_groups(&targets, "group=g").unwrap_err();
    assert_eq!(refused.to_string(), found[0].1);
}

#[test]
fn an_hpa_whose_only_selector_is_too_large_has_a_finding_too() {
    let facts = bound(hpa("a", &format!("group in ({})", names(20_000)), ONE));
    let targets = merge(&["m"], &[facts]);
    let found = messages(&targets);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("16384"), "{found:?}");
    let refused = SelectorTooLarge::Groups(20_000);
    let answer = resolve_groups(&targets, &format!("group in ({})", names(20_000)));
    assert_eq!(answer, Err(NoValueReason::SelectorTooLarge(refused)));
}

#[test]
fn annotations_for_unknown_names_are_one_finding_and_not_parsed() {
    let mut facts = hpa("a", "group=g", ONE);
    for (key, value) in [
        ("topic-regex.a", "("),
        ("topic-regex.b", "["),
        ("even.c", "nonsense"),
        ("topics.d", "t"),
        ("topic-regex.g", "orders-.*"),
    ] {
        facts
            .annotations
            .insert(format!("lagwise.dev/{key}"), value.to_owned());
    }
    let targets = merge(&["m"], &[facts]);
    let expected = "annotations lagwise.dev/even.c, lagwise.dev/topic-regex.a, lagwise.dev/topic-regex.b and 1 more have no effect: no metric of the HPA selects a group or target of that name";
    assert_eq!(messages(&targets), [("LW011", expected)]);
    let target = targets.all().next().unwrap();
    assert_eq!(target.settings.pattern().unwrap().as_str(), "orders-.*");
}

/// Budgets with these numbers of groups, and enough of everything else.
fn budgets(hpa: u64, namespace: u64, total: u64) -> Budgets {
    let amounts = |groups| Amounts {
        groups,
        topics: 1000,
        pattern_bytes: 1_000_000,
        partitions: 1000,
    };
    Budgets {
        hpa: amounts(hpa),
        namespace: amounts(namespace),
        total: amounts(total),
        partition_series: 0,
    }
}

/// An HPA that uses this many groups, which no other HPA uses.
fn sized(namespace: &str, name: &str, groups: usize, created: i64) -> Arc<HpaFacts> {
    let groups: Vec<_> = (0..groups)
        .map(|i| format!("{namespace}-{name}-{i}"))
        .collect();
    let facts = hpa(name, &format!("group in ({})", groups.join(",")), ONE);
    Arc::new(HpaFacts {
        namespace: namespace.into(),
        created: Some(created),
        ..facts
    })
}

fn empty(budgets: Budgets) -> Targets {
    let options = TargetOptions {
        budgets,
        ..TargetOptions::default()
    };
    Targets::new(&clusters(&["m"]), options, None)
}

#[test]
fn a_namespace_has_only_its_budget_and_older_hpas_come_first() {
    let hpas = (0..10).map(|i| sized("shop", &format!("h{i}"), 1, 100 - i));
    let other = sized("other", "only", 2, 1000);
    let map: HpaMap = hpas.chain([other]).collect();
    let targets = empty(budgets(5, 4, 100)).with_hpas(&map, None);
    let planned: Vec<_> = targets.of_hpas().map(|target| &*target.label).collect();
    let oldest = ["shop-h6-0", "shop-h7-0", "shop-h8-0", "shop-h9-0"];
    assert_eq!(planned[2..], oldest);
    let exceeded: Vec<_> = targets.exceeded_budgets().into_iter().collect();
    assert_eq!(exceeded.len(), 1);
    assert_eq!(exceeded[0].1, 6);
    let refused = resolve_groups(&targets, "group=shop-h0-0").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "nothing is read for the HPA: with it, the HPAs of its namespace would ask for more than 4 consumer groups (budgets.namespace.groups in the configuration of lagwise)"
    );
    let found = messages(&targets);
    assert_eq!(found.len(), 6);
    assert!(
        found
            .iter()
            .all(|(code, message)| *code == "LW042" && **message == refused.to_string())
    );
    // When an HPA is deleted, the oldest refused one is admitted.
    let mut fewer = map.clone();
    fewer.remove(&HpaKey::new("shop", "h9"));
    let after = targets.with_hpas(&fewer, None);
    assert_eq!(resolve_groups(&after, "group=shop-h5-0"), Ok(1));
    assert_eq!(after.of_hpa(&HpaKey::new("shop", "h5")).len(), 1);
    assert_eq!(messages(&after).len(), 5);
}

#[test]
fn the_largest_namespace_makes_room_for_others_and_gets_it_back() {
    let large = (0..10).map(|i| sized("large", &format!("h{i}"), 1, i));
    let mut map: HpaMap = large.collect();
    let alone = empty(budgets(5, 10, 10)).with_hpas(&map, None);
    assert_eq!((alone.of_hpas().count(), messages(&alone).len()), (10, 0));
    let small = sized("small", "h", 2, 1000);
    map.insert(small.key(), Arc::clone(&small));
    let both = alone.with_hpas(&map, None);
    let refused = "nothing is read for the HPA: with it, all HPAs would ask for more than 10 consumer groups, and no namespace that uses more can make room for it (budgets.total.groups in the configuration of lagwise)";
    assert_eq!(messages(&both), [("LW042", refused); 2]);
    for name in ["h8", "h9"] {
        assert!(both.of_hpa(&HpaKey::new("large", name)).is_empty());
        let answer = resolve_in("large", &both, &format!("group=large-{name}-0"));
        assert_eq!(answer.unwrap_err().to_string(), refused);
    }
    assert_eq!(resolve_in("small", &both, "group=small-h-0"), Ok(1));
    // A change of something else in a refused or an admitted HPA changes nothing.
    let mut touched = HpaFacts::clone(&sized("large", "h9", 1, 9));
    touched.max_replicas = 99;
    map.insert(touched.key(), Arc::new(touched));
    let again = both.with_hpas(&map, None);
    assert_eq!(messages(&again), messages(&both));
    map.remove(&small.key());
    let without = again.with_hpas(&map, None);
    assert_eq!(
        (without.of_hpas().count(), messages(&without).len()),
        (10, 0)
    );
    // After a restart, when all HPAs come at once, the budget is shared in the same way.
    map.insert(small.key(), small);
    let restarted = empty(budgets(5, 10, 10)).with_hpas(&map, None);
    assert_eq!(messages(&restarted), messages(&both));
    let has_h9 = |targets: &Targets| !targets.of_hpa(&HpaKey::new("large", "h9")).is_empty();
    assert_eq!((has_h9(&restarted), has_h9(&both)), (false, false));
}

proptest! {
    #[test]
    fn budgets_hold_and_what_is_admitted_stays_admitted_while_there_is_room(
        steps in vec(
            vec((0..3usize, 0..4usize, prop::option::of(1..8usize), 0..9i64), 1..5),
            1..12,
        ),
    ) {
        let (of_hpa, of_namespace, in_all) = (6, 8, 16);
        let mut targets = empty(budgets(of_hpa, of_namespace, in_all));
        let mut map = HpaMap::default();
        for step in steps {
            let before = targets.clone();
            for (namespace, name, groups, created) in step {
                let (namespace, name) = (["a", "b", "c"][namespace], ["w", "x", "y", "z"][name]);
                match groups {
                    Some(groups) => {
                        let facts = sized(namespace, name, groups, created);
                        map.insert(facts.key(), facts);
                    }
                    None => {
                        map.remove(&HpaKey::new(namespace, name));
                    }
                }
            }
            targets = targets.with_hpas(&map, None);
            let mut used: BTreeMap<Arc<str>, u64> = BTreeMap::new();
            for target in targets.of_hpas() {
                *used.entry(Arc::clone(&target.hpa().unwrap().namespace)).or_default() += 1;
            }
            prop_assert!(used.values().sum::<u64>() <= in_all);
            prop_assert!(used.values().all(|used| *used <= of_namespace));
            for (key, facts) in &map {
                let found = targets.findings().filter(|f| f.subject == key.into()).count();
                let is_admitted = !targets.of_hpa(key).is_empty();
                prop_assert_eq!(found, usize::from(!is_admitted), "{}", key);
                prop_assert!(targets.of_hpa(key).len() <= 6);
                let is_same = before.facts().get(key).is_some_and(|before| before.metrics == facts.metrics);
                let was_in = !before.of_hpa(key).is_empty();
                // An HPA is evicted only to make room for a namespace with a smaller share.
                let demand = before.of_hpa(key).len() as u64;
                let has_room = used.values().sum::<u64>() + demand <= in_all
                    && used.get(&key.namespace).copied().unwrap_or(0) + demand <= of_namespace;
                let is_evicted = was_in && is_same && !is_admitted;
                prop_assert!(!(is_evicted && has_room), "{} was evicted", key);
            }
        }
    }
}
