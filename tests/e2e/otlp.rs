//! The export to an OpenTelemetry collector: a real one gets what `/metrics` shows, and one that hangs disturbs
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::serve::open_telemetry_name;
use regex::Regex;
use serde_json::json;

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "otlp::a_collector_that_hangs_disturbs_no_sweep",
    a_collector_that_hangs_disturbs_no_sweep,
)];

/// Long scenarios: they need a collector, which only the whole run builds.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "otlp::a_collector_gets_the_figures_of_the_metrics",
    a_collector_gets_the_figures_of_the_metrics,
)];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A sample: the name, the labels and the value.
type Sample = (String, BTreeMap<String, String>, String);

/// The daemon with a group of three partitions, which exports there.
fn exporting(testbed: &Testbed, port: u16) -> Result<Daemon> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 30), (1, 20), (2, 1)])?;
    kafka.commit(&group, &topic, &[(0, 3), (1, 20), (2, 0)])?;
    let options = Options {
        targets: vec![json!({"name": "billing", "group": group, "topics": [topic]})],
        otlp: json!({"endpoint": format!("http://127.0.0.1:{port}"), "interval": "1s", "timeout": "500ms"}),
        ..Options::main(&kafka.bootstrap())
    };
    let daemon = Daemon::alone(testbed, &options)?;
    poll_until(WAIT_TIMEOUT, "the lag", || {
        let metrics = daemon.metrics()?;
        let is_read = metrics.contains("kafka_consumergroup_lag_sum{");
        ensure!(is_read, "no lag: {metrics}");
        Ok(())
    })?;
    Ok(daemon)
}

fn a_collector_gets_the_figures_of_the_metrics(testbed: &Testbed) -> Result<()> {
    let program = testbed.artifacts()?.collector.as_ref();
    let program =
        program.context("the collector is not built; tests/testbed/build collector builds it")?;
    let (folder, port) = (testbed.folder("collector")?, free_port()?);
    let config = json!({
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
        "exporters": {"debug": {"verbosity": "detailed", "use_internal_logger": false,
            "sampling_initial": 10_000, "sampling_thereafter": 1}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["debug"]}},
        },
    });
    let file = folder.join("collector.json");
    fs::write(&file, config.to_string())?;
    let mut command = Command::new(program);
    command.arg(format!("--config={}", file.display()));
    let mut collector = Process::start("collector", &folder, &command)?;
    let daemon = exporting(testbed, port)?;
    let family = Regex::new(r"(?m)^# TYPE (\S+) ")?;
    poll_until(WAIT_TIMEOUT, "the figures at the collector", || {
        collector.expect_running()?;
        let metrics = daemon.metrics()?;
        let log = collector.log();
        let received = received(&log)?;
        // No client produces or commits, so these do not change.
        let expected = samples_of_kafka(&metrics)?;
        ensure!(expected.len() >= 16, "only {} samples", expected.len());
        let missing: Vec<_> = expected.difference(&received).collect();
        ensure!(missing.is_empty(), "not received: {missing:#?}");
        let exposed = metrics.lines().filter(|line| !line.starts_with('#'));
        let exposed: BTreeSet<&str> = exposed.filter_map(|line| line.split('{').next()).collect();
        for found in family.captures_iter(&metrics) {
            let (_, [name]) = found.extract();
            // A family without a sample has no metric.
            let has_samples = exposed.contains(name);
            let sent = format!("-> Name: {}\n", open_telemetry_name(name));
            ensure!(
                !has_samples || log.contains(&sent),
                "{name} was not received"
            );
        }
        for text in [
            "service.name: Str(lagwise)",
            "-> Name: lagwise_poll_duration_seconds\n",
        ] {
            ensure!(log.contains(text), "{text} was not received");
        }
        let sent = "lagwise_otlp_exports_total{outcome=\"sent\"} ";
        ensure!(metrics.contains(sent), "{sent}: {metrics}");
        Ok(())
    })
}

/// What `/metrics` says of Kafka, by the names of OpenTelemetry.
fn samples_of_kafka(metrics: &str) -> Result<BTreeSet<Sample>> {
    let line = Regex::new(r"(?m)^(kafka_\w+)\{(.*)\} (\S+)$")?;
    let label = Regex::new(r#"(\w+)="([^"]*)""#)?;
    let samples = line.captures_iter(metrics).map(|found| {
        let (_, [name, labels, value]) = found.extract();
        let labels = label.captures_iter(labels).map(|found| {
            let (_, [key, value]) = found.extract();
            let key = key.replace("consumergroup", "group");
            (key, value.to_owned())
        });
        let name = open_telemetry_name(name).to_owned();
        (name, labels.collect(), value.to_owned())
    });
    Ok(samples.collect())
}

/// The numeric samples that the collector has printed.
fn received(log: &str) -> Result<BTreeSet<Sample>> {
    let attribute = Regex::new(r"^\s+-> ([\w.]+): (?:Str|Int)\((.*)\)$")?;
    let mut samples = BTreeSet::new();
    let (mut name, mut attributes) = (String::new(), BTreeMap::new());
    for line in log.lines() {
        if let Some(found) = line.strip_prefix("     -> Name: ") {
            found.clone_into(&mut name);
        } else if line.starts_with("NumberDataPoints #") {
            attributes.clear();
        } else if let Some(found) = attribute.captures(line) {
            let (_, [key, value]) = found.extract();
            attributes.insert(key.to_owned(), value.to_owned());
        } else if let Some(value) = line.strip_prefix("Value: ") {
            samples.insert((name.clone(), attributes.clone(), value.to_owned()));
        }
    }
    Ok(samples)
}

fn a_collector_that_hangs_disturbs_no_sweep(testbed: &Testbed) -> Result<()> {
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let port = silent.local_addr()?.port();
    let daemon = exporting(testbed, port)?;
    // The first sweeps may be incomplete, since the topic is new.
    let incomplete = "lagwise_polls_total{cluster=\"main\",outcome=\"incomplete\"}";
    let before = daemon.sum_of(incomplete)?;
    let failed = "lagwise_otlp_exports_total{outcome=\"no_answer\"}";
    poll_until(WAIT_TIMEOUT, "three exports to fail", || {
        let count = daemon.sum_of(failed)?;
        ensure!(count >= 3, "{count}");
        Ok(())
    })?;
    daemon.wait_for_sweeps(4)?;
    let more = daemon.sum_of(incomplete)? - before;
    ensure!(more == 0, "{more} incomplete sweeps");
    let log = daemon.process.log();
    let lines = log.matches("cannot export metrics to the OpenTelemetry collector");
    ensure!(lines.count() == 1, "not one line: {log}");
    // Then nothing listens there.
    drop(silent);
    poll_until(WAIT_TIMEOUT, "the other reason in the log", || {
        let log = daemon.process.log();
        let is_logged = log.contains("cannot connect to the collector");
        ensure!(is_logged, "{log}");
        Ok(())
    })?;
    daemon.wait_for_sweeps(2)
}
