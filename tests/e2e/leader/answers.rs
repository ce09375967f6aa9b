//! Followers respond with the leader's values, also while the leader hands over, is killed or is suspended.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{WAIT_TIMEOUT, allow, leads};
use crate::daemon::{Daemon, Options, metric_path, value_of};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// Duration of the Lease.
const LEASE: Duration = Duration::from_secs(6);

/// Polls one URL as the HPA controller does, but more often.
struct Traffic {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    requests: JoinHandle<Vec<Answer>>,
}

#[derive(Debug)]
struct Answer {
    at: Instant,
    /// The value, or the status code or error instead.
    value: Result<u64, String>,
}

impl Traffic {
    fn start(url: String, token: &str) -> Result<Self> {
        let client = TokenClient::new(token)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let requests = thread::spawn(move || {
            let mut answers = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let value = client.get_value(&url);
                let at = Instant::now();
                answers.push(Answer { at, value });
                counted.fetch_add(1, Ordering::Relaxed);
                // The pace of the requests; nothing waits for it.
                thread::sleep(Duration::from_millis(30));
            }
            answers
        });
        Ok(Self {
            stop,
            count,
            requests,
        })
    }

    /// Waits for this number of further responses.
    fn more(&self, answers: usize) -> Result<()> {
        let enough = self.count.load(Ordering::Relaxed) + answers;
        poll_until(WAIT_TIMEOUT, "more answers", || {
            let count = self.count.load(Ordering::Relaxed);
            ensure!(count >= enough, "{count} of {enough}");
            Ok(())
        })
    }

    fn end(self) -> Result<Vec<Answer>> {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.requests.join();
        answers.map_err(|_| anyhow::anyhow!("the thread that sends requests panicked"))
    }
}

/// Sends requests with a token.
struct TokenClient {
    client: reqwest::blocking::Client,
    token: String,
}

impl TokenClient {
    fn new(token: &str) -> Result<Self> {
        let client = reqwest::blocking::Client::builder()
            .danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(20))
            .build()?;
        Ok(Self {
            client,
            token: token.to_owned(),
        })
    }

    fn get_value(&self, url: &str) -> Result<u64, String> {
        let request = self.client.get(url).bearer_auth(&self.token);
        let answer = request.send().map_err(|error| format!("{error:?}"))?;
        let code = answer.status().as_u16();
        let text = answer.text().map_err(|error| error.to_string())?;
        let body = serde_json::from_str::<Value>(&text);
        match body.map(|body| value_of(&body)) {
            Ok(Ok(value)) if code == 200 => Ok(value),
            _ => Err(format!("{code}: {text}")),
        }
    }
}

fn errors(answers: &[Answer]) -> Vec<&Answer> {
    answers.iter().filter(|a| a.value.is_err()).collect()
}

/// While the lag grows, no response has a smaller value than one before, whichever daemon sent it.
fn never_back(answers: &[Answer]) -> Result<()> {
    let mut last = 0;
    for answer in answers {
        if let Ok(value) = answer.value {
            ensure!(value >= last, "{last}, and then {value}");
            last = value;
        }
    }
    Ok(())
}

/// The connections of a process to these ports that are open.
fn connections(pid: u32, ports: &BTreeSet<u16>) -> Result<usize> {
    let mut own = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        if let Ok(target) = fs::read_link(entry?.path()) {
            own.insert(target.to_string_lossy().into_owned());
        }
    }
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let port = fields[2].rsplit(':').next().unwrap_or_default();
            let is_open = fields[3] == "01";
            let is_kafka = ports.contains(&u16::from_str_radix(port, 16)?);
            let is_own = own.contains(&format!("socket:[{}]", fields[9]));
            count += usize::from(is_open && is_kafka && is_own);
        }
    }
    Ok(count)
}

fn wait_until_leads(daemon: &Daemon) -> Result<()> {
    poll_until(WAIT_TIMEOUT, "it to lead", || {
        ensure!(leads(daemon)?, "it does not");
        Ok(())
    })
}

pub(super) fn one_answers_for_all(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("brain")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 3)?;
    kafka.produce(&topic, 0, 10)?;
    kafka.commit(&group, &topic, &[(0, 0), (1, 0), (2, 0)])?;
    let servers = kafka.bootstrap();
    let ports = servers
        .split(',')
        .map(|server| Ok(server.rsplit(':').next().context("no port")?.parse()?))
        .collect::<Result<BTreeSet<u16>>>()?;
    allow(plane, &namespace)?;
    let reader = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reads"},
            "rules": [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["kafka_lag"], "verbs": ["list"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reads"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reads"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
        },
    ]});
    plane.apply(&namespace, &reader.to_string())?;
    let token = plane.kubectl(&["create", "token", "reader", "--namespace", &namespace])?;
    let token = token.trim();
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let certificate = plane.serving_certificate(&namespace, "lagwise")?;
    let options = Options {
        leader: json!({"lease": "lagwise", "duration": humantime::format_duration(LEASE).to_string()}),
        targets: vec![json!({
            "name": "billing", "namespaces": [namespace], "cluster": "main", "group": group, "lag_per_replica": 10,
        })],
        ..Options::main(&servers)
    };
    let start = || {
        let tls =
            json!({"tls": {"cert_file": certificate.cert_file, "key_file": certificate.key_file}});
        let watched = json!({"namespaces": [namespace]});
        Daemon::start(testbed, &options, tls, watched, Some(&kubeconfig))
    };
    let selector = format!("cluster=main,group={group},topic={topic}");
    let path = metric_path(&namespace, &selector);
    let client = TokenClient::new(token)?;
    let get_value = |daemon: &Daemon| client.get_value(&daemon.url(&path));
    let wait_until_value = |daemon: &Daemon, expected: u64| {
        poll_until(WAIT_TIMEOUT, &format!("the lag {expected}"), || {
            let value = get_value(daemon);
            ensure!(value == Ok(expected), "{value:?}");
            Ok(())
        })
    };

    let mut first = start()?;
    wait_until_leads(&first)?;
    wait_until_value(&first, 10)?;
    let mut second = start()?;
    // A follower forwards to the leader, and does not read Kafka.
    wait_until_value(&second, 10)?;
    ensure!(!leads(&second)?, "both lead");
    let of = |daemon: &Daemon| connections(daemon.process.pid(), &ports);
    ensure!(of(&first)? > 0, "the leader has no connection to Kafka");
    ensure!(of(&second)? == 0, "a follower is connected to Kafka");
    let refused = TokenClient::new("nobody")?.get_value(&second.url(&path));
    ensure!(
        refused.as_ref().is_err_and(|text| text.starts_with("401")),
        "a follower admits a caller with an invalid token: {refused:?}"
    );
    let stranger = metric_path("default", &selector);
    let refused = client.get_value(&second.url(&stranger));
    ensure!(
        refused.as_ref().is_err_and(|text| text.starts_with("403")),
        "a follower answers a caller without the right: {refused:?}"
    );
    // The leader's refusals are passed on with their text.
    let unknown = metric_path(&namespace, "cluster=other,group=g,topic=t");
    let (by_leader, by_follower) = (
        client.get_value(&first.url(&unknown)),
        client.get_value(&second.url(&unknown)),
    );
    ensure!(
        by_leader == by_follower && by_leader.as_ref().is_err_and(|t| t.starts_with("404")),
        "{by_leader:?} and {by_follower:?}"
    );

    // Both get requests in turn while the lag grows: each response has the value of the leader.
    let mut answers = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        kafka.produce(&topic, 1, 1)?;
        for daemon in [&first, &second] {
            let (at, value) = (Instant::now(), get_value(daemon));
            answers.push(Answer { at, value });
        }
    }
    ensure!(errors(&answers).is_empty(), "{:?}", errors(&answers));
    never_back(&answers)?;
    let total: u64 = kafka.end_offsets(&topic)?.iter().sum::<i64>().try_into()?;
    println!("in turn: {} answers, up to {total}", answers.len());
    wait_until_value(&second, total)?;

    // Graceful handover: clients of the other daemon and of the API server notice nothing.
    let api = plane.register_api(&namespace, "lagwise", second.api_port, &certificate.ca_pem)?;
    api.wait_available(Duration::from_secs(60))?;
    let direct = Traffic::start(second.url(&path), token)?;
    let aggregated = Traffic::start(format!("{}{path}", plane.server), token)?;
    kafka.produce(&topic, 1, 5)?;
    wait_until_value(&second, total + 5)?;
    for traffic in [&direct, &aggregated] {
        traffic.more(20)?;
    }
    let stopping = Instant::now();
    first.process.stop(Duration::from_secs(10))?;
    wait_until_leads(&second)?;
    println!("SIGTERM: the next leads after {:?}", stopping.elapsed());
    kafka.produce(&topic, 1, 5)?;
    wait_until_value(&second, total + 10)?;
    for traffic in [&direct, &aggregated] {
        traffic.more(20)?;
    }
    for (name, traffic) in [("direct", direct), ("aggregated", aggregated)] {
        let answers = traffic.end()?;
        println!("SIGTERM, {name}: {} answers", answers.len());
        let failed = errors(&answers);
        ensure!(failed.is_empty(), "{name}: {failed:?}");
        never_back(&answers)?;
    }
    drop(api);
    ensure!(of(&second)? > 0, "the leader has no connection to Kafka");

    // Killed: errors for as long as the Lease holds, and not longer.
    let third = start()?;
    wait_until_value(&third, total + 10)?;
    let direct = Traffic::start(third.url(&path), token)?;
    direct.more(20)?;
    let killed = Instant::now();
    second.process.kill();
    wait_until_leads(&third)?;
    kafka.produce(&topic, 1, 5)?;
    wait_until_value(&third, total + 15)?;
    direct.more(20)?;
    let answers = direct.end()?;
    never_back(&answers)?;
    let failed = errors(&answers);
    let last = failed.last().map_or(killed, |last| last.at);
    println!(
        "kill: {} of {} answers failed, the last after {:?}",
        failed.len(),
        answers.len(),
        last.duration_since(killed)
    );
    // Twice as long, since the machine may be busy.
    ensure!(
        last.duration_since(killed) < LEASE * 2,
        "errors for {:?}",
        last.duration_since(killed)
    );
    for answer in failed {
        let text = answer.value.as_ref().err().context("an answer")?;
        ensure!(text.starts_with("503"), "{text}");
    }

    // Suspended for longer than its Lease: it never serves its old values again.
    let fourth = start()?;
    wait_until_value(&fourth, total + 15)?;
    third.process.signal("STOP")?;
    wait_until_leads(&fourth)?;
    kafka.produce(&topic, 1, 5)?;
    wait_until_value(&fourth, total + 20)?;
    let direct = Traffic::start(third.url(&path), token)?;
    third.process.signal("CONT")?;
    wait_until_value(&third, total + 20)?;
    direct.more(20)?;
    let answers = direct.end()?;
    let values: BTreeSet<u64> = answers
        .iter()
        .filter_map(|a| a.value.clone().ok())
        .collect();
    ensure!(values == BTreeSet::from([total + 20]), "{values:?}");
    poll_until(WAIT_TIMEOUT, "the one held up to leave Kafka", || {
        let open = of(&third)?;
        ensure!(open == 0, "{open} connections");
        Ok(())
    })?;
    poll_until(WAIT_TIMEOUT, "one to lead", || {
        ensure!(leads(&fourth)? && !leads(&third)?, "not one");
        Ok(())
    })
}
