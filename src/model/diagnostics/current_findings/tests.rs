use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::findings::FindingSubject;
use crate::model::fixtures;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget, RunningReplicas};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::Member;
use crate::model::kafka::topic_listing::testing::listing;
use crate::model::kafka::topic_listing::{TopicListing, Unlisted};
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::TopicName;
use crate::model::units::quantity::Milli;
use crate::model::units::topic_pattern::TopicPattern;

const OPTIONS: FindingOptions = FindingOptions {
    cap: CapMode::Advise,
    min_age: Duration::ZERO,
};

fn member(subscribed: Option<&str>, assigned: &[i32]) -> Member {
    Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/10.0.0.1".into(),
        subscribed: subscribed.map(|topics| topics.split(' ').map(TopicName::from).collect()),
        assigned: vec![("t".into(), assigned.to_vec())],
    }
}

/// The labels of the findings about a group with a commit on each of two partitions.
fn kinds(state: GroupState, kind: GroupKind, members: Vec<Member>) -> Vec<&'static str> {
    let row = (0, Ok(Some(5)), Ok(9));
    let mut read = fixtures::read(Duration::ZERO, "g", "t", &[row, row]);
    read.groups[0].plan.discover = true;
    read.groups[0].description = Ok(Arc::new(GroupDescription {
        kind,
        state,
        assignor: Some("range".into()),
        members,
        omitted_members: 0,
        subtopologies: Vec::new(),
    }));
    let snapshot = LagSnapshot {
        clusters: [(
            "main".into(),
            ClusterHistory::default().apply(read, Scope::Whole),
        )]
        .into(),
        ..LagSnapshot::default()
    }
    .evaluated(&ServingPolicy::default());
    let found = findings::<HpaFacts>(&snapshot.evaluations, &[], &[], OPTIONS);
    let subject = FindingSubject::from((&ClusterName::from("main"), &GroupId::from("g")));
    assert!(found.iter().all(|finding| finding.subject == subject));
    found.iter().map(|finding| finding.code.label()).collect()
}

/// The findings about an HPA of group `g`, which has this commit and this lag, and members or not.
fn unseen(running: RunningReplicas, commit: Option<i64>, members: Vec<Member>) -> Vec<String> {
    unseen_among(&["orders", "payments"], running, commit, members)
}

/// The same, where the Kafka cluster has these groups.
fn unseen_among(
    names: &[&str],
    running: RunningReplicas,
    commit: Option<i64>,
    members: Vec<Member>,
) -> Vec<String> {
    let mut read = fixtures::read(Duration::ZERO, "orderss", "t", &[(0, Ok(commit), Ok(9))]);
    read.group_names = Some(names.iter().copied().map(GroupId::from).collect());
    read.groups[0].description = Ok(Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state: GroupState::NotReady,
        assignor: None,
        members,
        omitted_members: 0,
        subtopologies: Vec::new(),
    }));
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    let hpa = HpaFacts {
        running,
        ..fixtures::hpa("h", "group=orderss,topic=t", target)
    };
    let names = ["main".into()];
    let targets = Targets::merge(&names, &[], std::slice::from_ref(&hpa), BTreeSet::new());
    let snapshot = LagSnapshot {
        clusters: [(
            "main".into(),
            ClusterHistory::default().apply(read, Scope::Whole),
        )]
        .into(),
        targets: Arc::new(targets),
        ..LagSnapshot::default()
    }
    .evaluated(&ServingPolicy::default());
    let now = fixtures::at(Duration::ZERO);
    let metrics = snapshot.at(&now).hpa_metrics();
    let found = metrics
        .iter()
        .flat_map(|m| find_unseen_groups(m, &snapshot.targets, OPTIONS.min_age));
    let late = metrics
        .iter()
        .flat_map(|m| find_unseen_groups(m, &snapshot.targets, Duration::from_secs(1)));
    assert_eq!(late.count(), 0);
    found.map(|finding| finding.message).collect()
}

#[test]
fn a_group_that_nothing_shows_to_exist_is_a_finding_while_replicas_run() {
    use RunningReplicas::{None as NoReplicas, One, Several, Unknown};
    let message = "group \"orderss\" on Kafka cluster \"main\" has neither members nor committed offsets on the topics that count, although replicas run (did you mean group orders?)";
    for (running, expected) in [
        (NoReplicas, &[][..]),
        (Unknown, &[]),
        (One, &[message]),
        (Several, &[message]),
    ] {
        assert_eq!(unseen(running, None, Vec::new()), expected, "{running:?}");
    }
    let exists = "group \"orderss\" on Kafka cluster \"main\" exists, but has neither members nor committed offsets on the topics that count, although replicas run";
    for names in [&["orderss"][..], &["orders", "orderss"]] {
        assert_eq!(unseen_among(names, Several, None, Vec::new()), [exists]);
    }
    assert!(unseen(One, Some(9), Vec::new()).is_empty());
    assert!(unseen(Several, None, vec![member(None, &[])]).is_empty());
}

#[test]
fn finds_idle_members_and_mixed_subscriptions_of_stable_groups() {
    use GroupKind::{Classic, Share};
    use GroupState::{Rebalancing, Stable};
    let two = || vec![member(Some("t"), &[0]), member(Some("t"), &[1])];
    let three = || [two(), vec![member(Some("t"), &[])]].concat();
    for (state, kind, members, expected) in [
        (Stable, Classic, two(), vec![]),
        (Stable, Classic, three(), vec!["members_beyond"]),
        (Rebalancing, Classic, three(), vec![]),
        (Stable, Share, three(), vec![]),
        (
            Stable,
            Classic,
            vec![member(Some("t"), &[0]), member(None, &[1])],
            vec![],
        ),
    ] {
        assert_eq!(
            kinds(state, kind, members.clone()),
            expected,
            "{state:?} {members:?}"
        );
    }
    let mixed = || vec![member(Some("t"), &[0]), member(Some("t u"), &[1])];
    assert_eq!(kinds(Stable, Classic, mixed()), ["mixed_subscriptions"]);
    assert_eq!(kinds(Stable, Share, mixed()), Vec::<&str>::new());
}

#[test]
fn finds_tolerances_that_exceed_or_miss_the_ceiling() {
    let facts = |max, up: Option<&str>, down: Option<&str>| HpaFacts {
        namespace: "n".into(),
        name: "h".into(),
        max_replicas: max,
        tolerance_up: up.and_then(Milli::parse),
        tolerance_down: down.and_then(Milli::parse),
        ..HpaFacts::default()
    };
    let zero = Some("0");
    for (max, up, down, ceiling, expected) in [
        (20, zero, zero, 12, vec![]),
        (
            20,
            None,
            None,
            12,
            vec!["tolerance_above", "tolerance_below"],
        ),
        (12, None, None, 12, vec!["tolerance_below"]),
        (12, zero, None, 12, vec![]),
        (20, zero, None, 12, vec!["tolerance_above"]),
        // Below eleven, one replica is more than a tenth.
        (10, None, None, 10, vec![]),
        (11, None, None, 11, vec!["tolerance_below"]),
        (6, None, None, 12, vec![]),
        (
            5,
            Some("500m"),
            zero,
            3,
            vec!["tolerance_above", "tolerance_below"],
        ),
    ] {
        let found = find_tolerance_against_ceiling(&facts(max, up, down), Replicas(ceiling));
        let labels: Vec<_> = found.iter().map(|finding| finding.code.label()).collect();
        assert_eq!(labels, expected, "{max} {up:?} {down:?} {ceiling}");
    }
}

fn described(state: GroupState) -> Arc<GroupDescription> {
    Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state,
        assignor: None,
        members: Vec::new(),
        omitted_members: 0,
        subtopologies: Vec::new(),
    })
}

/// Whether the expiry of a group's offsets is found on each of these days, with the state of the group on that day;
/// `true` restarts the daemon before.
fn expiry(days: &[(u64, Option<GroupState>, bool)], row: fixtures::PartitionReading) -> Vec<bool> {
    let mut history = ClusterHistory::default();
    let mut is_found = Vec::new();
    for (day, state, is_restarted) in days {
        let after = Duration::from_secs(day * 24 * 3600);
        if *is_restarted {
            let now = fixtures::at(after);
            let memory = history.export(&now);
            let saved = now.wall.duration_since(std::time::SystemTime::UNIX_EPOCH);
            let saved = u32::try_from(saved.unwrap().as_secs()).unwrap();
            history = ClusterHistory::default();
            history.import(&memory, saved, &now);
        }
        let mut read = fixtures::read(after, "g", "t", &[row]);
        read.groups[0].description = state.map(described).ok_or(Fault::NoAnswer);
        let snapshot = LagSnapshot {
            clusters: [("main".into(), history.apply(read, Scope::Whole))].into(),
            ..LagSnapshot::default()
        }
        .evaluated(&ServingPolicy::default());
        let found = findings::<HpaFacts>(&snapshot.evaluations, &[], &[], OPTIONS);
        is_found.push(found.iter().any(|f| f.code == FindingCode::OffsetsExpire));
    }
    is_found
}

#[test]
fn finds_offsets_that_expire_after_days_without_members() {
    use GroupState::{Empty, Stable};
    let row = (0, Ok(Some(9)), Ok(9));
    let days = |days: &[(u64, Option<GroupState>, bool)]| expiry(days, row);
    let empty = |day| (day, Some(Empty), false);
    assert_eq!(
        days(&[empty(0), empty(4), empty(5), empty(9)]),
        [false, false, true, true]
    );
    // A member joined in between.
    let back = (4, Some(Stable), false);
    assert_eq!(days(&[empty(0), back, empty(5), empty(9)]), [false; 4]);
    assert!(days(&[empty(0), back, empty(5), empty(10)])[3]);
    // The state was unknown in between, and the daemon was restarted.
    let (unknown, restarted) = ((3, None, false), (6, Some(Empty), true));
    assert_eq!(days(&[empty(0), unknown, restarted]), [false, false, true]);
    let none = (0, Ok(None), Ok(9));
    assert_eq!(expiry(&[empty(0), empty(9)], none), [false; 2]);
}

/// The labels of the findings about a group without members, whose HPA has these annotations.
fn without_members(
    state: GroupState,
    rows: &[fixtures::PartitionReading],
    annotations: &[(&str, &str)],
    min_age: Duration,
) -> Vec<&'static str> {
    let mut read = fixtures::read(Duration::ZERO, "g", "t", rows);
    read.groups[0].description = Ok(described(state));
    let hpa = hpa("h", "group=g,topic=t", "100", annotations);
    let snapshot = fixtures::evaluated(&[hpa], [read], Scope::Whole);
    let options = FindingOptions { min_age, ..OPTIONS };
    let found = findings::<HpaFacts>(&snapshot.evaluations, &[], &[], options);
    found.iter().map(|finding| finding.code.label()).collect()
}

fn hpa(name: &str, selector: &str, per: &str, annotations: &[(&str, &str)]) -> HpaFacts {
    let annotations = annotations.iter();
    HpaFacts {
        namespace: "shop".into(),
        name: name.into(),
        max_replicas: 2,
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse(selector).unwrap(),
            target: Milli::parse(per).map(MetricTarget::AverageValue),
        }],
        annotations: annotations
            .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
            .collect(),
        ..HpaFacts::default()
    }
}

#[test]
fn finds_lag_without_members_unless_scaled_to_zero() {
    use GroupState::{Empty, Rebalancing, Unjoined};
    let none = &[][..];
    let zero = &[("scale-to-zero", "true")][..];
    let (behind, done) = ((0, Ok(Some(5)), Ok(9)), (0, Ok(Some(9)), Ok(9)));
    let unknown = (0, Ok(Some(5)), Err(Fault::NoAnswer));
    let now = Duration::ZERO;
    for (state, rows, annotations, within, expected) in [
        (Empty, &[behind][..], none, now, &["no_members"][..]),
        (Empty, &[done], none, now, &[]),
        (Empty, &[behind, unknown], none, now, &[]),
        (Empty, &[behind], zero, now, &[]),
        // Consumers with manual assignment are never members.
        (Unjoined, &[behind], none, now, &[]),
        (Rebalancing, &[behind], none, now, &[]),
        // One reading does not reveal the age of the lag; a rollout may be running.
        (Empty, &[behind], none, Duration::from_secs(120), &[]),
    ] {
        let found = without_members(state, rows, annotations, within);
        assert_eq!(found, expected, "{state:?} {rows:?} {annotations:?}");
    }
}

/// The subjects of the findings that group `g` has lag and no members.
fn subjects_without_members(hpas: &[HpaFacts]) -> Vec<String> {
    let mut read = fixtures::read(Duration::ZERO, "g", "t", &[(0, Ok(Some(5)), Ok(9))]);
    read.groups[0].description = Ok(described(GroupState::Empty));
    let snapshot = fixtures::evaluated(hpas, [read], Scope::Whole);
    let found = findings::<HpaFacts>(&snapshot.evaluations, &[], &[], OPTIONS);
    let missing = found.iter().filter(|f| f.code == FindingCode::NoMembers);
    missing.map(|finding| finding.subject.path()).collect()
}

/// The HPAs whose topic regex is too wide, by what was listed for group `g`.
fn with_wide_pattern(hpas: &[HpaFacts], listing: TopicListing) -> Vec<String> {
    let mut read = fixtures::read(Duration::ZERO, "g", "t", &[(0, Ok(Some(5)), Ok(9))]);
    read.groups[0].description = Ok(described(GroupState::Empty));
    read.listings = [("g".into(), Arc::new(listing))].into();
    let snapshot = fixtures::evaluated(hpas, [read], Scope::Whole);
    let now = fixtures::at(Duration::ZERO);
    let metrics = snapshot.at(&now).hpa_metrics();
    let found = findings::<HpaFacts>(&snapshot.evaluations, &metrics, &[], OPTIONS);
    let wide = found
        .iter()
        .filter(|f| f.code == FindingCode::PatternTooWide);
    wide.map(|finding| finding.subject.path()).collect()
}

#[test]
fn only_hpas_with_too_wide_a_pattern_have_the_finding() {
    let wide = hpa("wide", "group=g,hpa=wide", "100", &[("topic-regex", "t.*")]);
    let narrow = hpa(
        "narrow",
        "group=g,hpa=narrow",
        "100",
        &[("topic-regex", "t1.*")],
    );
    let hpas = [wide, narrow];
    let pattern = TopicPattern::parse("t.*").unwrap();
    for (reason, expected) in [
        (Unlisted::TooMany, &["hpa/shop/wide"][..]),
        (Unlisted::OverBudget, &["hpa/shop/wide"]),
        (Unlisted::TooSlow, &[]),
        (Unlisted::Failed(Fault::NoAnswer), &[]),
    ] {
        let mut listed = listing("t1.*", Ok(&["t1"]));
        listed.refuse(pattern.clone(), reason);
        assert_eq!(with_wide_pattern(&hpas, listed), expected, "{reason}");
    }
    // A cluster that is too large concerns all.
    let too_large = Unlisted::Failed(Fault::OverBudget);
    let mut none = listing("t1.*", Err(too_large));
    none.refuse(pattern, too_large);
    let both = ["hpa/shop/narrow", "hpa/shop/wide"];
    assert_eq!(with_wide_pattern(&hpas, none), both);
}

#[test]
fn an_hpa_that_scales_to_zero_does_not_hide_missing_members_from_others() {
    let zero = [("scale-to-zero", "true")];
    let asleep = hpa("asleep", "group=g,topic=t", "100", &zero);
    let dozing = hpa("dozing", "group in (g,h),topic=t", "100", &zero);
    let up = hpa("up", "group=g,topic=t", "100", &[]);
    let mut twice = hpa("twice", "group=g,topic=t", "100", &[]);
    twice.metrics.push(up.metrics[0].clone());
    let elsewhere = hpa("elsewhere", "group=h,topic=t", "100", &[]);
    for (hpas, expected) in [
        (vec![], &["group/main/g"][..]),
        (vec![&up, &twice], &["group/main/g"]),
        (vec![&asleep], &[]),
        (vec![&asleep, &dozing, &elsewhere], &[]),
        (vec![&asleep, &up], &["hpa/shop/up"]),
        (
            vec![&dozing, &up, &twice, &elsewhere],
            &["hpa/shop/twice", "hpa/shop/up"],
        ),
    ] {
        let names: Vec<_> = hpas.iter().map(|hpa| hpa.name.clone()).collect();
        let hpas: Vec<_> = hpas.into_iter().cloned().collect();
        assert_eq!(subjects_without_members(&hpas), expected, "{names:?}");
    }
}

#[test]
fn finds_mistakes_behind_missing_values() {
    let read = fixtures::read(Duration::ZERO, "g", "t", &[(0, Ok(Some(5)), Ok(9))]);
    let mut missing = fixtures::read(Duration::ZERO, "g", "gone", &[(0, Ok(None), Ok(9))]);
    missing.topics = [("gone".into(), Err(Fault::TopicMissing))].into();
    let one = |selector: &str| vec![hpa("a", selector, "100", &[])];
    let two = |other: &str| {
        [
            one("group=g,topic=t"),
            vec![hpa("b", "group=g,topic=t", other, &[])],
        ]
        .concat()
    };
    for (observation, hpas, expected) in [
        (read.clone(), one("group=g,topic=t"), &[][..]),
        (read.clone(), two("100"), &[]),
        (read.clone(), two("200"), &["conflicting_targets"; 2]),
        // A group that was not read yet is no mistake.
        (read, one("group=other"), &[]),
        (missing, one("group=g,topic=gone"), &["topic_missing"]),
        (
            fixtures::nothing(Duration::ZERO, "g"),
            one("group=g"),
            &["nothing_to_read"],
        ),
    ] {
        let snapshot = fixtures::evaluated(&hpas, [observation], Scope::Whole);
        let now = fixtures::at(Duration::ZERO);
        let metrics = snapshot.at(&now).hpa_metrics();
        // Without the facts of the HPAs, so that their replica bounds add no findings.
        let found = findings::<HpaFacts>(&snapshot.evaluations, &metrics, &[], OPTIONS);
        assert_eq!(
            found
                .iter()
                .map(|finding| finding.code.label())
                .collect::<Vec<_>>(),
            expected
        );
    }
}
