//! Samples from readings.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::fixtures::{self, PartitionReading};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::Observation;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::units::newtypes::GroupId;

#[test]
fn values_that_kafka_does_not_report_are_unknown() {
    let rows: [PartitionReading; 3] = [
        (0, Ok(Some(5)), Ok(7)),
        (0, Ok(None), Ok(9)),
        (0, Err(Fault::NoAnswer), Ok(9)),
    ];
    let observation = fixtures::read(Duration::ZERO, "billing", "orders", &rows);
    let snapshot = ClusterHistory::default().apply(observation, Scope::Partial);
    let read = &snapshot.groups[&GroupId::from("billing")];
    let topics = read.topics.iter();
    let topics =
        topics.filter_map(|(topic, read)| Some((topic.to_string(), read.latest.as_deref().ok()?)));
    let sample = sample_of_group(read, topics);
    let expected = vec![(Some(7), Some(5)), (Some(9), None), (Some(9), None)];
    assert_eq!(
        sample.topics,
        BTreeMap::from([("orders".to_owned(), expected)])
    );
    // The fixture describes no group.
    assert_eq!((sample.members, sample.stable), (None, None));
}

#[test]
fn a_sample_has_the_reasons_for_what_it_lacks() {
    let mut observation = fixtures::read(
        Duration::ZERO,
        "billing",
        "orders",
        &[(0, Ok(Some(5)), Ok(7))],
    );
    let mut committed = observation.groups[0].committed.clone().unwrap();
    let commits = committed.get("orders").unwrap().clone();
    committed.insert("payments".into(), commits);
    observation.groups[0].committed = Ok(committed);
    let denied = Err(Fault::TopicDenied);
    observation.topics.insert("payments".into(), denied);
    let read_from = |observation: &Observation, topics: &[&str], unknown: &[&str]| {
        let snapshot = ClusterHistory::default().apply(observation.clone(), Scope::Partial);
        let topics = Vec::from_iter(topics.iter().map(|topic| (*topic).to_owned()));
        let request = LagRequest {
            groups: NameFilter::new(&["billing".to_owned()]),
            topics: NameFilter::new(&topics),
        };
        let groups = snapshot.groups.iter();
        let reading = ClusterReading {
            cluster: "main".into(),
            groups: groups
                .map(|(name, read)| (name.clone(), Arc::clone(read)))
                .collect(),
            unknown: unknown.iter().map(|reason| (*reason).to_owned()).collect(),
        };
        sample_of_reading("billing", &request, &reading)
    };
    let mut described = observation.clone();
    described.groups[0].description = Ok(Arc::new(fixtures::member_of("orders")));
    let read = |topics: &[&str], unknown: &[&str]| read_from(&described, topics, unknown);
    let reasons = [
        "main: broker 2 is unreachable",
        "main: topic payments: no access",
    ];
    let partial = read(&[], &reasons).unwrap();
    assert_eq!(Vec::from_iter(partial.sample.topics.keys()), ["orders"]);
    assert_eq!(partial.missing, reasons);
    assert_eq!(read(&["orders"], &[]).unwrap().missing, [""; 0]);
    let undescribed = read_from(&observation, &["orders"], &[]).unwrap();
    assert_eq!(undescribed.sample.members, None);
    let rows = [
        (0, Ok(Some(5)), Ok(7)),
        (0, Ok(Some(5)), Err(Fault::LeaderUnknown)),
    ];
    let mut partly = fixtures::read(Duration::ZERO, "billing", "orders", &rows);
    partly.groups[0].description = described.groups[0].description.clone();
    let partly = read_from(&partly, &[], &[]).unwrap();
    let expected = format!(
        "main: topic orders: partitions are unknown: {}",
        Fault::LeaderUnknown
    );
    assert_eq!(partly.missing, [expected]);
    assert_eq!(partly.sample.topics["orders"].len(), 2);
    let refusal = read(&["payments"], &reasons).unwrap_err();
    assert_eq!(refusal.to_string(), reasons.join("; "));
}

fn explanation(topics: Value) -> Explanation {
    let group = json!({"cluster": "main", "group": "billing", "members": 3, "threads": 1, "topics": topics});
    let metric = json!({"metric": "kafka_lag", "selector": "", "groups": [group]});
    let all = json!({"of": "", "at": "", "metrics": [metric], "findings": [], "not_knowable": []});
    serde_json::from_value(all).unwrap()
}

#[test]
fn a_daemon_reports_when_it_read() {
    let topics = json!([
        {"topic": "orders", "read_seconds_ago": 4, "partitions": [
            {"partition": 0, "committed_offset": 5, "log_end_offset": 7, "rule": ""},
            {"partition": 2, "log_end_offset": 9, "rule": ""},
        ]},
        {"topic": "payments", "incomplete": "no leader", "partitions": [
            {"partition": 0, "committed_offset": 1, "log_end_offset": 1, "rule": ""},
        ]},
        {"topic": "others", "partitions": [{"partition": 0, "log_end_offset": 1, "rule": ""}]},
    ]);
    let filter = NameFilter::new(&["orders".to_owned(), "pay*".to_owned()]);
    let (cluster, read) = sample_of_explanation(&explanation(topics), &filter).unwrap();
    assert_eq!(cluster, "main");
    assert_eq!((read.milliseconds_ago, read.is_delayed), (4000, true));
    assert_eq!(read.missing, ["topic payments: no leader"]);
    assert_eq!((read.sample.members, read.sample.stable), (Some(3), None));
    let expected = vec![(Some(7), Some(5)), (None, None), (Some(9), None)];
    assert_eq!(
        read.sample.topics,
        BTreeMap::from([("orders".to_owned(), expected)])
    );
}

#[test]
fn a_partition_beyond_all_numbers_is_refused() {
    let all = NameFilter::new(&[]);
    for partition in [usize::MAX, usize::MAX - 1, MAX_TRACE_PARTITIONS] {
        let topics = json!([{"topic": "orders", "partitions": [
            {"partition": partition, "log_end_offset": 1, "rule": ""},
        ]}]);
        let refusal = sample_of_explanation(&explanation(topics), &all).unwrap_err();
        assert!(
            refusal.to_string().contains("topic orders has"),
            "{refusal}"
        );
    }
}

#[test]
fn a_daemon_without_offsets_is_reported_with_its_reason() {
    let all = NameFilter::new(&[]);
    let refusal = |topics| {
        sample_of_explanation(&explanation(topics), &all)
            .unwrap_err()
            .to_string()
    };
    let partition = json!({"partition": 0, "rule": ""});
    assert_eq!(
        refusal(json!([{"topic": "orders", "incomplete": "no leader", "partitions": [partition]}])),
        "the daemon knows no offsets of group billing: no leader"
    );
    assert!(
        refusal(json!([])).ends_with("it has no committed offset on these topics; check the names")
    );
    let left_out =
        json!([{"topic": "orders", "partitions_left_out": 2, "partitions": [partition]}]);
    assert!(refusal(left_out).contains("too many partitions for the response of a daemon"));
}
