//! Compares `lagwise lag` with Kafka's own `kafka-consumer-groups --describe`.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::Test;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::poll::poll_until;
use crate::testbed::topics::DescribedPartition;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "lag::lag_equals_that_of_kafkas_consumer_groups_command",
        lag_equals_that_of_kafkas_consumer_groups_command,
    ),
    (
        "lag::finds_all_groups_and_reports_unknown_data",
        finds_all_groups_and_reports_unknown_data,
    ),
    (
        "lag::names_of_others_are_only_text",
        names_of_others_are_only_text,
    ),
    ("lag::shows_members_and_rates", shows_members_and_rates),
];

/// A row of `lag -o json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    cluster: String,
    group: String,
    topic: String,
    partition: i32,
    log_start_offset: Option<i64>,
    committed_offset: Option<i64>,
    log_end_offset: Option<i64>,
    lag: Option<i64>,
    lag_seconds: Option<f64>,
    lag_seconds_is_lower_bound: bool,
    rule: String,
    note: Option<String>,
    useful_parallelism: Option<serde_json::Value>,
    group_state: Option<String>,
    members: Option<Vec<RowMember>>,
    rates: Option<RowRates>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowMember {
    member_id: String,
    #[expect(dead_code, reason = "part of the contract")]
    instance_id: Option<String>,
    client_id: String,
    host: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowRates {
    seconds: f64,
    produced_per_second: f64,
    consumed_per_second: f64,
    lag_velocity: f64,
    drain_seconds: Option<f64>,
}

type Key = (String, String, i32);

/// Fifty groups: with mixed offsets, with partitions without a commit, empty, and one with live members.
fn lag_equals_that_of_kafkas_consumer_groups_command(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.three_brokers()?;
    let topics: Vec<String> = (0..5).map(|_| unique("lag")).collect();
    kafka.create_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>(), 4)?;
    for (i, topic) in topics.iter().enumerate() {
        kafka.produce_to(topic, &[(0, 10 + i), (1, 3), (3, 40)])?;
    }
    let mut groups: Vec<String> = (0..49).map(|_| unique("group")).collect();
    for (i, group) in groups.iter().enumerate() {
        let all = [
            (0, i64::try_from(i % 10)?),
            (1, 3),
            (2, 0),
            (3, i64::try_from(i)?.min(40)),
        ];
        // Every third group leaves partitions without a commit; every fifth reads a second topic.
        let some = if i % 3 == 0 { &all[..2] } else { &all[..] };
        kafka.commit(group, &topics[i % 5], some)?;
        if i % 5 == 0 {
            kafka.commit(group, &topics[(i + 1) % 5], &all[..1])?;
        }
    }
    let live = unique("live");
    let options = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: live.clone(),
        topic: topics[0].clone(),
        per_second: 1000,
        properties: Vec::new(),
    };
    let mut fleet = ConsumerFleet::new(&testbed.folder("live")?, options);
    fleet.scale_to(2)?;
    groups.push(live.clone());
    poll_until(
        Duration::from_secs(60),
        "the live group to have caught up",
        || {
            let committed = kafka.committed(&live, &topics[0])?;
            ensure!(
                committed == [Some(10), Some(3), None, Some(40)],
                "{committed:?}"
            );
            Ok(())
        },
    )?;

    let described =
        kafka.describe_groups(&groups.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(
        described.iter().any(|row| row.consumer_id.is_some()),
        "no live member in {described:?}"
    );
    for client in ["wire", "librdkafka"] {
        same(testbed, client, &kafka.bootstrap(), &groups, &described)
            .with_context(|| format!("client: {client}"))?;
    }
    Ok(())
}

/// Compares the rows of `lagwise lag` with this client and those of Kafka's tool, for every partition.
fn same(
    testbed: &Testbed,
    client: &str,
    bootstrap: &str,
    groups: &[String],
    described: &[DescribedPartition],
) -> Result<()> {
    let config = json!({"clusters": [
        {"name": "default", "client": client, "properties": {"bootstrap.servers": bootstrap}},
    ]});
    let file = testbed.folder("lag")?.join("lagwise.yaml");
    std::fs::write(&file, config.to_string())?;
    let file = file.to_string_lossy();
    let mut args = vec!["lag", "--config", &file, "-o", "json"];
    for group in groups {
        args.extend(["--group", group]);
    }
    let output = testbed.lagwise(&args).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows: Vec<Row> = serde_json::from_slice(&output.stdout)?;
    let mut ours: BTreeMap<Key, &Row> = rows
        .iter()
        .map(|row| ((row.group.clone(), row.topic.clone(), row.partition), row))
        .collect();
    assert_eq!(ours.len(), rows.len(), "a row twice");

    let mut seen = std::collections::BTreeSet::new();
    for theirs in described {
        let key = (theirs.group.clone(), theirs.topic.clone(), theirs.partition);
        let row = ours
            .remove(&key)
            .with_context(|| format!("not in ours: {theirs:?}"))?;
        let found = (row.committed_offset, row.log_end_offset, row.lag);
        assert_eq!(
            found,
            (theirs.committed_offset, theirs.log_end_offset, theirs.lag),
            "{theirs:?} {row:?}"
        );
        assert_eq!(
            (row.cluster.as_str(), row.log_start_offset),
            ("default", Some(0))
        );
        let has_commit = row.committed_offset.is_some();
        assert_eq!(row.rule == "measured", has_commit, "{row:?}");
        assert_eq!(row.lag_seconds.is_some(), has_commit, "{row:?}");
        assert!(row.useful_parallelism.is_some() || !has_commit, "{row:?}");
        let members = row.members.as_deref();
        // librdkafka describes no group.
        assert_eq!(members.is_some(), client == "wire", "{row:?}");
        if let Some(members) = members {
            let owner = members.first().map(|member| member.member_id.as_str());
            assert_eq!(owner, theirs.consumer_id.as_deref(), "{row:?}");
        }
        assert!(row.rates.is_none(), "one reading has no rate: {row:?}");
        if row.lag == Some(0) {
            let age = (row.lag_seconds, row.lag_seconds_is_lower_bound);
            assert_eq!(age, (Some(0.0), false), "{row:?}");
        }
        seen.insert(theirs.group.clone());
    }
    assert_eq!(seen.len(), groups.len());
    // Kafka's tool leaves out the partitions that a group without members has no commit on; we say so.
    for row in ours.values() {
        assert_eq!(
            (row.committed_offset, row.lag, row.note.as_deref()),
            (None, None, Some("no commit")),
            "{row:?}"
        );
    }
    Ok(())
}

/// Runs `lagwise lag` without a configuration file.
fn run_lag(testbed: &Testbed, bootstrap: &str, args: &[&str]) -> Result<Output> {
    let all = [&["lag", "--bootstrap", bootstrap], args].concat();
    let output = testbed.lagwise(&all).output();
    output.context("running lagwise lag")
}

/// All groups of a cluster, without naming one; and groups whose lag is unknown.
fn finds_all_groups_and_reports_unknown_data(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("lag"), unique("group"));
    kafka.create_topic(&topic, 2)?;
    kafka.produce(&topic, 1, 7)?;
    kafka.commit(&group, &topic, &[(1, 5)])?;
    let bootstrap = kafka.bootstrap();
    let run = |args: &[&str]| run_lag(testbed, &bootstrap, args);

    let everything = run(&["-o", "json"])?;
    ensure!(
        everything.status.success(),
        "{}",
        String::from_utf8_lossy(&everything.stderr)
    );
    let rows: Vec<Row> = serde_json::from_slice(&everything.stdout)?;
    let lag = rows
        .iter()
        .find(|row| row.group == group && row.partition == 1)
        .and_then(|row| row.lag);
    assert_eq!(lag, Some(2));

    let missing = unique("nowhere");
    let partly = run(&[
        "--group", &group, "--topic", &topic, "--topic", &missing, "-o", "json",
    ])?;
    assert_eq!(partly.status.code(), Some(1));
    assert_eq!(
        serde_json::from_slice::<Vec<Row>>(&partly.stdout)?.len(),
        2,
        "the rest is still printed"
    );
    let stderr = String::from_utf8(partly.stderr)?;
    ensure!(
        stderr.contains(&missing) && stderr.contains("does not exist"),
        "{stderr}"
    );
    ensure!(
        !kafka.topics()?.contains(&missing),
        "asking for a topic created it"
    );

    assert_eq!(run(&["--group"])?.status.code(), Some(2));
    Ok(())
}

/// Kafka accepts any text as a group ID: here texts that clear the screen, forge a log line, reverse the text after
/// them, or are long. Tables show them escaped or cut, JSON and CSV show them unchanged.
fn names_of_others_are_only_text(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let topic = unique("lag");
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 3)?;
    let hostile = [
        format!("{}\x1b[2J\x1b]0;owned\x07", unique("screen")),
        format!("{}\r\n2026-01-01T00:00:00Z ERROR forged", unique("log")),
        format!("{}\u{202e}txet", unique("turned")),
        format!("{}{}", unique("long"), "g".repeat(3000)),
    ];
    for group in &hostile {
        kafka.commit(group, &topic, &[(0, 1)])?;
    }
    let bootstrap = kafka.bootstrap();
    let run = |output: &str| {
        let mut args = vec!["lag", "--bootstrap", &bootstrap, "-o", output];
        for group in &hostile {
            args.extend(["--group", group]);
        }
        testbed.lagwise(&args).output()
    };
    let table = String::from_utf8(run("table")?.stdout)?;
    for shown in [
        "\\u{1b}[2J",
        "\\r\\n2026",
        "\\u{202e}txet",
        "more characters)",
    ] {
        ensure!(table.contains(shown), "no {shown} in {table:?}");
    }
    let is_obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    ensure!(!table.contains(is_obeyed), "{table:?}");
    ensure!(
        table.lines().filter(|line| line.contains(&topic)).count() == hostile.len(),
        "{table}"
    );
    let rows: Vec<Row> = serde_json::from_slice(&run("json")?.stdout)?;
    let mut groups: Vec<&String> = rows.iter().map(|row| &row.group).collect();
    let mut all: Vec<&String> = hostile.iter().collect();
    groups.sort();
    all.sort();
    ensure!(groups == all, "{groups:?}");
    Ok(())
}

/// The member that owns a partition.
fn owner(row: &Row) -> Option<&str> {
    let first = row.members.as_ref()?.first()?;
    Some(&first.member_id)
}

/// A group that drains a backlog, and one whose members have nothing to commit yet.
fn shows_members_and_rates(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, empty) = (unique("lag"), unique("lag"));
    kafka.create_topics(&[&topic, &empty], 2)?;
    kafka.produce_to(&topic, &[(0, 5000), (1, 5000)])?;
    let prefix = unique("team");
    let (busy, idle) = (format!("{prefix}-busy"), format!("{prefix}-idle"));
    let fleet = |group: &str, topic: &str| -> Result<ConsumerFleet> {
        let options = ConsumerOptions {
            bootstrap: kafka.bootstrap(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            per_second: 50,
            properties: vec![("client.id".into(), format!("client-of-{group}"))],
        };
        let mut fleet = ConsumerFleet::new(&testbed.folder(group)?, options);
        fleet.scale_to(2)?;
        Ok(fleet)
    };
    let _running = (fleet(&busy, &topic)?, fleet(&idle, &empty)?);
    let bootstrap = kafka.bootstrap();
    let run = |args: &[&str]| run_lag(testbed, &bootstrap, args);
    poll_until(Duration::from_secs(90), "both members at work", || {
        let output = run(&["--group", &busy, "--for", "2s", "-o", "json"])?;
        let rows: Vec<Row> = serde_json::from_slice(&output.stdout)?;
        ensure!(rows.len() == 2, "{rows:?}");
        for row in &rows {
            ensure!(row.group_state.as_deref() == Some("stable"), "{row:?}");
            let Some([member]) = row.members.as_deref() else {
                anyhow::bail!("not one member: {row:?}");
            };
            ensure!(
                member.client_id == format!("client-of-{busy}") && member.host == "127.0.0.1",
                "{row:?}"
            );
            let rates = row
                .rates
                .as_ref()
                .with_context(|| format!("no rates: {row:?}"))?;
            ensure!(
                rates.seconds >= 2.0 && rates.produced_per_second == 0.0,
                "{row:?}"
            );
            ensure!(rates.consumed_per_second > 0.0, "{row:?}");
            ensure!(rates.lag_velocity == -rates.consumed_per_second, "{row:?}");
            // The remaining lag at this rate.
            let lag = f64::from(i32::try_from(row.lag.context("no lag")?)?);
            let drain = lag / rates.consumed_per_second;
            let shown = rates.drain_seconds.context("no time to drain")?;
            ensure!((shown - drain).abs() < 1.0, "{drain} {row:?}");
        }
        ensure!(
            owner(&rows[0]).is_some() && owner(&rows[0]) != owner(&rows[1]),
            "{rows:?}"
        );
        Ok(())
    })?;
    // Nothing committed is nothing unknown.
    poll_until(Duration::from_secs(60), "the idle group's members", || {
        let output = run(&["--group", &idle, "-o", "json"])?;
        ensure!(output.status.success(), "{output:?}");
        let rows: Vec<Row> = serde_json::from_slice(&output.stdout)?;
        ensure!(rows.len() == 2, "{rows:?}");
        for row in &rows {
            ensure!(row.lag.is_none() && owner(row).is_some(), "{row:?}");
        }
        Ok(())
    })?;
    let summary = run(&["--group", &format!("{prefix}-*"), "--sort", "lag"])?;
    ensure!(summary.status.success(), "{summary:?}");
    let table = String::from_utf8(summary.stdout)?;
    let line = |group: &str| {
        let found = table.lines().position(|line| line.contains(group));
        found.with_context(|| format!("no {group} in {table}"))
    };
    ensure!(line(&busy)? < line(&idle)?, "{table}");
    ensure!(table.contains("2 groups, lag "), "{table}");
    let nothing = run(&["--group", &format!("{prefix}-nobody-*")])?;
    ensure!(nothing.status.code() == Some(1), "{nothing:?}");
    ensure!(
        String::from_utf8_lossy(&nothing.stderr).contains("no group matches"),
        "{nothing:?}"
    );
    let nothing = run(&["--group", &busy, "--topic", &format!("{topic}-nothing-*")])?;
    ensure!(nothing.status.code() == Some(1), "{nothing:?}");
    ensure!(
        String::from_utf8_lossy(&nothing.stderr).contains("reads a topic that matches"),
        "{nothing:?}"
    );
    let csv = String::from_utf8(run(&["--group", &busy, "-o", "csv"])?.stdout)?;
    ensure!(
        csv.lines().count() == 3 && csv.starts_with("cluster,group,topic,partition,"),
        "{csv}"
    );
    Ok(())
}
