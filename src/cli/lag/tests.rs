use std::collections::BTreeMap;
use std::sync::Arc;

use clap::FromArgMatches;

use super::*;
use crate::model::fixtures::{self, PartitionReading};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::units::newtypes::GroupId;

fn parse(flags: &[&str]) -> LagArgs {
    let args = ["lag", "--bootstrap", "k:9092"].iter().chain(flags);
    let matches = LagArgs::augment_args(clap::Command::new("lag")).get_matches_from(args);
    LagArgs::from_arg_matches(&matches).unwrap()
}

fn member(client: &str, host: &str, partitions: &[i32]) -> Member {
    Member {
        id: format!("{client}-1").into(),
        instance: None,
        client: client.into(),
        host: host.into(),
        subscribed: Some(["orders".into()].into()),
        assigned: vec![("orders".into(), partitions.to_vec())],
    }
}

/// Reads a group on topic `orders`, with these members.
fn read(
    history: &mut ClusterHistory,
    seconds: u64,
    group: &str,
    rows: &[PartitionReading],
    members: &[Member],
) -> Arc<GroupSnapshot> {
    let after = Duration::from_secs(seconds);
    let mut observation = fixtures::read(after, group, "orders", rows);
    observation.groups[0].description = Ok(Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state: match members {
            [] => GroupState::Empty,
            _ => GroupState::Stable,
        },
        assignor: Some("range".into()),
        members: members.to_vec(),
        omitted_members: 0,
        subtopologies: Vec::new(),
    }));
    let snapshot = history.apply(observation, Scope::Partial);
    Arc::clone(&snapshot.groups[group])
}

fn ok(committed: i64, end: i64) -> PartitionReading {
    (0, Ok(Some(committed)), Ok(end))
}

const NO_COMMIT: PartitionReading = (0, Ok(None), Ok(500));
const UNKNOWN: PartitionReading = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));

type Readings = Vec<ClusterReading>;

/// Two readings of a cluster, ten seconds apart.
fn readings() -> (Readings, Readings) {
    // As if the topic of each group were another one.
    let mut histories: BTreeMap<String, ClusterHistory> = BTreeMap::new();
    let long = format!("projections-{}", "of-everything-".repeat(4));
    let workers = [
        member("worker-a", "/10.0.0.1", &[0]),
        member("worker-b", "/10.0.0.2", &[1]),
    ];
    let mut reading = |seconds: u64| {
        let grown = i64::try_from(seconds).unwrap();
        let mut read =
            |group: &str, rows: &[PartitionReading], members: &[Member]| -> (GroupId, _) {
                let history = histories.entry(group.to_owned()).or_default();
                (group.into(), read(history, seconds, group, rows, members))
            };
        let behind = [
            ok(100 + 50 * grown, 2000 + 20 * grown),
            ok(300, 300 + grown),
        ];
        let groups = [
            read("billing", &behind, &workers),
            read("mail", &[ok(5, 5), NO_COMMIT], &[]),
            read("partial", &[ok(7, 12), UNKNOWN], &workers[..1]),
            read("silent", &[NO_COMMIT], &workers[..1]),
            read(&long, &[ok(0, 3)], &[]),
        ];
        vec![ClusterReading {
            cluster: "main".into(),
            groups: groups.into(),
            unknown: Default::default(),
        }]
    };
    (reading(0), reading(10))
}

fn rendered(flags: &[&str]) -> RenderedRows {
    let args = parse(flags);
    let request = args.request();
    let (before, mut after) = readings();
    after[0]
        .groups
        .retain(|group, _| request.groups.matches(group.as_str()));
    let before = match args.rates_over {
        Some(_) => before,
        None => Vec::new(),
    };
    render(&args, &request, &after, &before).unwrap()
}

#[test]
fn a_whole_cluster_has_a_row_for_each_group() {
    let whole = rendered(&[]);
    insta::assert_snapshot!("groups", whole.text);
    assert!(!whole.is_known, "a partition has no leader");
    insta::assert_snapshot!("groups_with_rates", rendered(&["--for", "10s"]).text);
    let json = rendered(&["--summary", "-o", "json", "--for", "10s", "--top", "2"]);
    insta::assert_snapshot!("groups_json", json.text);
    insta::assert_snapshot!("groups_csv", rendered(&["--summary", "-o", "csv"]).text);
}

#[test]
fn partitions_have_their_members_and_rates() {
    let all = rendered(&["--partitions", "--for", "10s"]);
    insta::assert_snapshot!("partitions", all.text);
    let named = rendered(&["--group", "billing", "--group", "mail", "--for", "10s"]);
    insta::assert_snapshot!("partitions_of_groups", named.text);
    let json = rendered(&[
        "--for", "10s", "-o", "json", "--top", "2", "--sort", "group",
    ]);
    insta::assert_snapshot!("partitions_json", json.text);
    let csv = rendered(&["--for", "10s", "-o", "csv"]);
    insta::assert_snapshot!("partitions_csv", csv.text);
}

#[test]
fn rows_depend_on_the_request() {
    for (flags, is_summary) in [
        (&[][..], true),
        (&["--topic", "orders"], true),
        (&["--group", "orders-*"], true),
        (&["--group", "orders"], false),
        (&["--group", "orders", "--summary"], true),
        (&["--partitions"], false),
        (&["-o", "json"], false),
        (&["-o", "csv", "--summary"], true),
    ] {
        let args = parse(flags);
        assert_eq!(args.is_summary(&args.request()), is_summary, "{flags:?}");
    }
}

#[test]
fn sorts_by_lag_time_and_group() {
    let groups = |key: SortKey| {
        let (_, after) = readings();
        let request = parse(&[]).request();
        let mut rows = group_rows(&request, &after, &[]);
        sort_rows(&mut rows, key);
        let names = rows.iter().map(|row| row.group.chars().take(7).collect());
        names.collect::<Vec<String>>()
    };
    let by_name = ["billing", "mail", "partial", "project", "silent"];
    assert_eq!(groups(SortKey::Group), by_name);
    // Rows with an unknown lag come first, rows without a commit last.
    let by_lag = ["partial", "billing", "project", "mail", "silent"];
    assert_eq!(groups(SortKey::Lag), by_lag);
    let by_time = groups(SortKey::Time);
    assert_eq!((&*by_time[0], &*by_time[4]), ("partial", "silent"));
}

#[test]
fn top_rows_are_those_with_the_most_lag() {
    let top = rendered(&["--top", "2"]).text;
    assert!(top.contains("partial") && top.contains("billing"), "{top}");
    assert!(top.contains("2 of 5 groups"), "{top}");
    for wrong in ["0", "-1", "many"] {
        let command = LagArgs::augment_args(clap::Command::new("lag"));
        let args = ["lag", "--bootstrap", "k:9092", "--top", wrong];
        assert!(command.try_get_matches_from(args).is_err(), "{wrong}");
    }
}

#[test]
fn a_partition_without_a_commit_is_not_unknown() {
    for (group, is_known) in [("mail", true), ("silent", true), ("partial", false)] {
        assert_eq!(rendered(&["--group", group]).is_known, is_known, "{group}");
        let summary = rendered(&["--group", group, "--summary"]);
        assert_eq!(summary.is_known, is_known, "{group}");
    }
}

#[test]
fn named_group_shows_its_useful_parallelism() {
    let shown = rendered(&["--group", "billing"]).text;
    let expected =
        "group billing: stable; at most 2 members can have work: the topic's partitions\n";
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn watching_shows_a_clock() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289);
    assert_eq!(
        header(&parse(&["--watch"]), at),
        "lagwise lag  2024-05-06T07:08:09Z  every 2s"
    );
    assert_eq!(
        header(&parse(&["--watch", "--for", "1m30s"]), at),
        "lagwise lag  2024-05-06T07:08:09Z  every 1m30s, rates since the reading before"
    );
}

#[test]
fn timeout_is_capped_at_an_hour() {
    assert_eq!(
        crate::cli::timeout("500000000000y"),
        Ok(Duration::from_secs(3600))
    );
    assert_eq!(crate::cli::timeout("10s"), Ok(Duration::from_secs(10)));
    assert!(crate::cli::timeout("10").is_err());
    assert!(rate_interval("0s").is_err() && rate_interval("2h").is_err());
}

#[test]
fn topic_filter_keeps_groups_with_commits_on_it() {
    let mut history = ClusterHistory::default();
    let mut groups: Vec<(GroupId, Arc<GroupSnapshot>)> = Vec::new();
    for (group, rows) in [("reads", [ok(3, 8)]), ("other", [NO_COMMIT])] {
        groups.push((group.into(), read(&mut history, 0, group, &rows, &[])));
    }
    let live = member("live", "/10.0.0.1", &[0]);
    groups.push((
        "live".into(),
        read(&mut history, 0, "live", &[NO_COMMIT], &[live]),
    ));
    let readings = [ClusterReading {
        cluster: "main".into(),
        groups: groups.into_iter().collect(),
        unknown: Default::default(),
    }];
    for (flags, expected) in [
        (&["--topic", "orders"][..], &["live", "reads"][..]),
        (&["--topic", "ord*"], &["live", "other", "reads"]),
        (
            &["--topic", "orders", "--group", "other"],
            &["live", "other", "reads"],
        ),
        (&["--topic", "payments"], &[]),
    ] {
        let request = parse(flags).request();
        let partitions = partition_rows(&request, &readings, &[]);
        let groups: Vec<_> = partitions.iter().map(|row| row.group).collect();
        assert_eq!(groups, expected, "{flags:?}");
        let summaries = group_rows(&request, &readings, &[]);
        let groups: Vec<_> = summaries.iter().map(|row| row.group).collect();
        assert_eq!(groups, expected, "{flags:?}");
    }
}

#[test]
fn a_pattern_that_matches_no_topic_is_reported_once_all_is_known() {
    let (_, mut after) = readings();
    let unmatched = |reading: &ClusterReading, flags: &[&str]| {
        reading::unmatched_topics(&parse(flags).request(), reading)
    };
    let flags = ["--topic", "pay*", "--topic", "ord*", "--topic", "refunds"];
    assert_eq!(
        unmatched(&after[0], &flags),
        ["main: none of the groups reads a topic that matches pay*"]
    );
    assert!(unmatched(&after[0], &[]).is_empty());
    after[0]
        .unknown
        .insert("main: no broker is reachable".into());
    assert!(unmatched(&after[0], &flags).is_empty());
}

#[test]
fn lag_on_a_topic_that_the_group_has_left_is_noted() {
    let rows = [ok(3, 8), ok(4, 4)];
    let left = [
        Some("5 of the lag is on topics that its members no longer read: orders"),
        Some("the members no longer read this topic"),
    ];
    for (reads, expected) in [("orders", [None; 2]), ("payments", left)] {
        let mut observation = fixtures::read(Duration::ZERO, "moved", "orders", &rows);
        observation.groups[0].plan = GroupPlan::new("moved", Default::default());
        observation.groups[0].description = Ok(Arc::new(fixtures::member_of(reads)));
        let snapshot = ClusterHistory::default().apply(observation, Scope::Partial);
        let readings = [ClusterReading {
            cluster: "main".into(),
            groups: [("moved".into(), Arc::clone(&snapshot.groups["moved"]))].into(),
            unknown: Default::default(),
        }];
        let request = parse(&[]).request();
        let group = &group_rows(&request, &readings, &[])[0];
        assert_eq!(group.lag.map(|lag| lag.0), Some(5));
        let partitions = partition_rows(&request, &readings, &[]);
        let notes = [group.note.as_deref(), partitions[0].note.as_deref()];
        assert_eq!(notes, expected);
        assert_eq!(partitions[1].note, None);
    }
}
