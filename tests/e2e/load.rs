//! Many clients and many snapshots: every response is correct, memory does not grow, and Prometheus accepts the
//! metrics.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::Test;
use crate::background::{BackgroundTasks, TaskControl};
use crate::daemon::{Daemon, Options, metric_path, value_of};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const LONG: &[(&str, Test)] = &[
    (
        "load::many_clients_get_correct_values_in_bounded_memory",
        many_clients_get_correct_values_in_bounded_memory,
    ),
    (
        "load::memory_does_not_grow_with_requests",
        memory_does_not_grow_with_requests,
    ),
];

const CLIENTS: usize = 200;
/// Maximum clients that connect at once. The daemon performs at most 96 TLS handshakes with one address at a time.
const MAX_CONNECTING: usize = 64;
const LOAD_DURATION: Duration = Duration::from_secs(10);

/// 200 concurrent clients for ten seconds, each answer checked; then memory over 100 further snapshots.
fn many_clients_get_correct_values_in_bounded_memory(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let topic = unique("orders");
    kafka.create_topic(&topic, 6)?;
    kafka.produce_to(&topic, &[(0, 500), (3, 40)])?;
    let groups: Vec<(String, u64)> = (1..=10).map(|behind| (unique("group"), behind)).collect();
    for (group, behind) in &groups {
        let committed = 500 - i64::try_from(*behind)?;
        kafka.commit(
            group,
            &topic,
            &[(0, committed), (1, 0), (2, 0), (3, 40), (4, 0), (5, 0)],
        )?;
    }
    let targets = groups
        .iter()
        .map(|(group, _)| json!({"name": group, "group": group, "topics": [topic]}));
    let options = Options {
        targets: targets.collect(),
        // At the deadline of a shorter one, brokers and clients on two cores would decide.
        interval: "1s",
        ..Options::main(&kafka.bootstrap())
    };
    let mut daemon = Daemon::alone(testbed, &options)?;
    for (group, behind) in &groups {
        poll_until(Duration::from_secs(30), "every group to be read", || {
            assert_eq!(
                daemon.lag(&format!("group={group},topic={topic}"))?,
                *behind
            );
            Ok(())
        })?;
    }

    let urls: Vec<(String, u64)> = groups
        .iter()
        .map(|(group, behind)| {
            (
                daemon.url(&metric_path(
                    "default",
                    &format!("group={group},topic={topic}"),
                )),
                *behind,
            )
        })
        .collect();
    let runtime = tokio::runtime::Runtime::new()?;
    let answers = runtime.block_on(send_requests(Arc::new(urls)))?;
    println!("{answers} right answers to {CLIENTS} clients in {LOAD_DURATION:?}");
    daemon.process.expect_running()?;

    promtool_accepts(testbed, &daemon.metrics()?)?;
    memory_stays(&daemon)
}

async fn send_requests(urls: Arc<Vec<(String, u64)>>) -> Result<u64> {
    let answers = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + LOAD_DURATION;
    let connecting = Arc::new(Semaphore::new(MAX_CONNECTING));
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..CLIENTS {
        let (urls, answers) = (Arc::clone(&urls), Arc::clone(&answers));
        let connecting = Arc::clone(&connecting);
        clients.spawn(async move {
            // A separate connection; half of them use HTTP/1.1.
            let client = reqwest::Client::builder()
                .danger_accept_invalid_certs(true)
                .timeout(Duration::from_secs(20));
            let client = if i % 2 == 0 {
                client.http1_only()
            } else {
                client
            };
            let client = client.build()?;
            // Until the first answer, the client is connecting.
            let mut connecting = Some(connecting.acquire_owned().await?);
            for (url, expected) in urls.iter().cycle().skip(i) {
                if Instant::now() > until {
                    break;
                }
                let answer = client.get(url).send().await?;
                let code = answer.status();
                let body: Value = answer.json().await?;
                ensure!(
                    code == 200 && value_of(&body)? == *expected,
                    "{code}: {body}"
                );
                answers.fetch_add(1, Ordering::Relaxed);
                drop(connecting.take());
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(answers.load(Ordering::Relaxed))
}

/// Requests for arbitrary groups in arbitrary namespaces do not make memory grow.
fn memory_does_not_grow_with_requests(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("group"));
    kafka.create_topic(&topic, 1)?;
    kafka.produce(&topic, 0, 9)?;
    kafka.commit(&group, &topic, &[(0, 2)])?;
    let options = Options {
        targets: vec![json!({"name": group, "group": group, "topics": [topic]})],
        // At the deadline of a shorter one, brokers and clients on two cores would decide.
        interval: "1s",
        ..Options::main(&kafka.bootstrap())
    };
    let daemon = Daemon::alone(testbed, &options)?;
    let known = daemon.url(&metric_path(
        "default",
        &format!("group={group},topic={topic}"),
    ));
    let base = Arc::<str>::from(daemon.url("/"));
    let runtime = tokio::runtime::Runtime::new()?;
    let strangers = {
        let _inside = runtime.enter();
        BackgroundTasks::start(4, |seed, control| {
            ask_anything(base.clone(), seed as u64, control)
        })
    };
    // The bounded tables of namespaces, groups and callers are full after this number.
    poll_until(
        Duration::from_secs(120),
        "what is remembered to be full",
        || {
            let answers = strangers.rounds();
            ensure!(answers > 10_000, "{answers} answers");
            Ok(())
        },
    )?;
    let stays = memory_stays(&daemon);
    let (code, body) = runtime.block_on(async {
        let client = stranger()?;
        let answer = client.get(known).send().await?;
        anyhow::Ok((answer.status(), answer.json::<Value>().await?))
    })?;
    let answers = runtime.block_on(strangers.stop())?;
    println!("{answers} answers to strangers");
    ensure!(code == 200 && value_of(&body)? == 7, "{code}: {body}");
    ensure!(!daemon.process.log().contains("panicked"), "it panicked");
    stays
}

fn stranger() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .timeout(Duration::from_secs(20))
        .build()?)
}

/// Random namespaces, groups, topics, metrics and invalid requests: all are refused, none with a 5xx.
async fn ask_anything(base: Arc<str>, seed: u64, control: TaskControl) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let client = stranger()?;
    while !control.is_stopped() {
        let word = |random: &mut fastrand::Rng| {
            let length = random.usize(1..60);
            let word: String = (0..length).map(|_| random.lowercase()).collect();
            word
        };
        let path = match random.u8(..8) {
            0 => word(&mut random),
            1 => metric_path("default", &word(&mut random)),
            2 => metric_path(&word(&mut random), "group=(,"),
            3 => metric_path("default", "group=g").replace("kafka_lag", &word(&mut random)),
            n => {
                let mut selector = format!("group={}", word(&mut random));
                if n < 6 {
                    selector += &format!(",topic={}", word(&mut random));
                }
                metric_path(&word(&mut random), &selector)
            }
        };
        let answer = client
            .get(format!("{base}{}", path.trim_start_matches('/')))
            .bearer_auth(word(&mut random))
            .send()
            .await?;
        let code = answer.status().as_u16();
        let body = answer.text().await?;
        // 503: Kafka was read for this name, and did not answer in time.
        ensure!(
            [400, 404, 429, 503].contains(&code),
            "{path}: {code}: {body}"
        );
        control.count_round();
    }
    Ok(())
}

fn promtool_accepts(testbed: &Testbed, metrics: &str) -> Result<()> {
    let mut check = Command::new(&testbed.artifacts()?.promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting promtool")?;
    check
        .stdin
        .take()
        .context("no stdin")?
        .write_all(metrics.as_bytes())?;
    let output = check.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && stderr.is_empty(),
        "promtool: {stderr}"
    );
    Ok(())
}

/// Resident memory after 100 further polls is within 1 % of before. One window may catch the allocator growing to its
/// working size, so a later one may pass; a leak fails them all.
fn memory_stays(daemon: &Daemon) -> Result<()> {
    let resident = || daemon.process.memory("VmRSS");
    let polls = || -> Result<u64> {
        let metrics = daemon.metrics()?;
        let counted = |line: &str| {
            line.strip_prefix("lagwise_polls_total{")?
                .rsplit(' ')
                .next()?
                .parse::<u64>()
                .ok()
        };
        Ok(metrics.lines().filter_map(counted).sum())
    };
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (before, polled) = (resident()?, polls()?);
        poll_until(Duration::from_secs(120), "100 further polls", || {
            ensure!(polls()? >= polled + 100, "not yet");
            Ok(())
        })?;
        let after = resident()?;
        println!("resident memory {before} kB, after 100 further polls {after} kB");
        if after.saturating_sub(before) * 100 <= before {
            return Ok(());
        }
        seen.push((before, after));
    }
    anyhow::bail!("resident memory grows: {seen:?}")
}
