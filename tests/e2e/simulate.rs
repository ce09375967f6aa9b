//! `lagwise record` and `lagwise simulate` with a real Kafka and a real browser.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::testbed::chromium::Browser;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::poll::poll_until;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "simulate::a_recording_of_kafka_and_one_of_a_daemon_replay",
        a_recording_of_kafka_and_one_of_a_daemon_replay,
    ),
    (
        "simulate::the_report_opens_in_a_browser",
        the_report_opens_in_a_browser,
    ),
];

/// Both end at a signal, record the same messages, and can be continued after a line that was cut.
fn a_recording_of_kafka_and_one_of_a_daemon_replay(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("recorded"), unique("recorded"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce_to(&topic, &[(0, 400), (1, 300), (2, 300)])?;
    let folder = testbed.folder("record")?;
    let options = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: group.clone(),
        topic: topic.clone(),
        per_second: 50,
        properties: Vec::new(),
    };
    let mut fleet = ConsumerFleet::new(&folder, options);
    fleet.scale_to(2)?;
    poll_until(Duration::from_secs(60), "the first commits", || {
        let committed = kafka.committed(&group, &topic)?;
        ensure!(committed.iter().all(Option::is_some), "{committed:?}");
        Ok(())
    })?;
    let daemon = Daemon::alone(
        testbed,
        &Options {
            targets: vec![json!({"name": "recorded", "group": group, "topics": [topic]})],
            ..Options::main(&kafka.bootstrap())
        },
    )?;
    let address = format!("http://127.0.0.1:{}", daemon.admin_port);
    let files = ["kafka", "daemon"].map(|name| folder.join(format!("{name}.jsonl")));
    let bootstrap = kafka.bootstrap();
    let wheres = [["--bootstrap", &bootstrap], ["--daemon", &address]];
    let start = |file: &Path, whence: &[&str; 2], more: &[&str]| {
        let mut command = testbed.lagwise(&["record", "--group", &group, "--interval", "1s"]);
        command.args(whence).args(more).arg(file);
        Process::start("record", &folder, &command)
    };
    let samples = |file: &Path| -> Result<usize> {
        Ok(std::fs::read_to_string(file)?
            .lines()
            .count()
            .saturating_sub(1))
    };
    for (file, whence) in files.iter().zip(&wheres) {
        let mut recording = start(file, whence, &[])?;
        poll_until(Duration::from_secs(60), "four samples", || {
            recording.expect_running()?;
            let found = samples(file)?;
            ensure!(found >= 4, "{found}");
            Ok(())
        })?;
        ensure!(
            recording.stop(Duration::from_secs(10))?.success(),
            "{}",
            recording.log()
        );
        // As if it had been killed while it wrote.
        let mut text = std::fs::read(file)?;
        let whole = samples(file)?;
        text.truncate(text.len() - 7);
        std::fs::write(file, &text)?;
        // More messages, which the second recording has to see.
        kafka.produce_to(&topic, &[(0, 60)])?;
        let mut recording = start(file, whence, &["--append", "--for", "3s"])?;
        let ended = poll_until(Duration::from_secs(60), "the end of --for", || {
            recording.exited()?.context("it runs")
        })?;
        ensure!(ended.success(), "{}", recording.log());
        let found = samples(file)?;
        ensure!(found > whole, "{found} samples after {whole}");
    }
    for file in &files {
        let replayed = simulate(testbed, file, &["--policy", "rate", "--policy", "static"])?;
        let trace = &replayed["trace"];
        ensure!(trace["group"] == group.as_str(), "{trace}");
        ensure!(
            trace["recorded"]["whole"]["replica_minutes"].as_f64() > Some(0.0),
            "{trace}"
        );
        // The messages that were produced during the run, and some earlier ones that were not processed yet.
        let messages = trace["messages"].as_u64();
        ensure!((Some(60)..=Some(1120)).contains(&messages), "{trace}");
        // Two consumers of 50 messages per second each; how far behind they were decides how well that is seen.
        let each = trace["capacity"]["messages_per_second"].as_f64();
        ensure!((Some(1.0)..=Some(75.0)).contains(&each), "{trace}");
    }
    // One that is not a group of this cluster leaves no file.
    let wrong = folder.join("wrong.jsonl");
    let mut command = testbed.lagwise(&["record", "--group", "no-such-group"]);
    let output = command.args(wheres[0]).arg(&wrong).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && !wrong.exists(), "{error}");
    ensure!(
        error.contains("group no-such-group has no committed offset"),
        "{error}"
    );
    Ok(())
}

/// What `simulate` says of a trace.
fn simulate(testbed: &Testbed, trace: &Path, more: &[&str]) -> Result<Value> {
    let mut command: Command = testbed.lagwise(&["simulate", "-o", "json", "--trace"]);
    // A short recording may have no minute in which the group processed messages.
    let output = command.arg(trace).args(more).output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if error.contains("add --capacity") {
        let mut command =
            testbed.lagwise(&["simulate", "-o", "json", "--capacity", "50", "--trace"]);
        let output = command.arg(trace).args(more).output()?;
        return Ok(serde_json::from_slice(&output.stdout)?);
    }
    ensure!(output.status.success(), "{error}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// It shows every policy in the plot, needs no script, loads nothing, and fits into narrow and wide windows, by day and
/// by night.
fn the_report_opens_in_a_browser(testbed: &Testbed) -> Result<()> {
    let file = testbed.folder("report")?.join("report.html");
    let mut command = testbed.lagwise(&["simulate", "--scenario", "step", "--scenario", "flash"]);
    for policy in ["rate", "flink", "lag-200", "keda-even-100", "static"] {
        command.args(["--policy", policy]);
    }
    let output = command.arg("--report").arg(&file).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let mut browser = Browser::start(testbed)?;
    browser.call(
        "Emulation.setScriptExecutionDisabled",
        json!({"value": true}),
    )?;
    let url = format!("file://{}", file.display());
    browser.open(&url)?;
    for (selector, expected) in [
        ("#pareto circle", 5),
        ("#pareto path.front", 1),
        ("#scores tr", 6),
        ("#costs tr", 3),
        ("details.course", 10),
        ("details[open]", 2),
        ("details[open] .picture", 6),
        ("script, link, img", 0),
    ] {
        let count = browser.evaluate(&format!("document.querySelectorAll('{selector}').length"))?;
        ensure!(
            count == expected,
            "{selector}: {count} instead of {expected}"
        );
    }
    let overlapping = browser.evaluate(
        "(() => { const all = [...document.querySelectorAll('#pareto g text')].map(it => it.getBoundingClientRect()); \
         return all.some((a, i) => all.slice(i + 1).some(b => a.left < b.right && b.left < a.right && a.top + 3 < b.bottom \
         && b.top + 3 < a.bottom)); })()",
    )?;
    ensure!(overlapping == false, "labels of the plot cover each other");
    keep_pictures(&mut browser)?;
    let complaints = browser.complaints(&url)?;
    ensure!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

fn keep_pictures(browser: &mut Browser) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page-pictures");
    std::fs::create_dir_all(&folder)?;
    for (width, height) in [(360, 1600), (1280, 2200)] {
        for scheme in ["light", "dark"] {
            browser.set_window(width, height, scheme)?;
            let wide = browser.evaluate("document.documentElement.scrollWidth")?;
            ensure!(
                wide.as_u64() <= Some(u64::from(width)),
                "at {width}: {wide}"
            );
            let file: PathBuf = folder.join(format!("report-{width}-{scheme}.png"));
            browser.screenshot(&file)?;
        }
    }
    println!("pictures of the report are in {}", folder.display());
    Ok(())
}
