//! Soak test with churn: groups, topics, HPAs, certificates and brokers are added and removed while all metrics are
//! requested. Every response is checked against the test's own writes to Kafka.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};

use super::BASE;
use super::certificates::swap;
use crate::daemon::{Daemon, MAX_STALENESS, Options, metric_path, value_of};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::pki::Identity;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, is_full_tier, unique};

/// The Service that the API server reaches the daemon by.
const SERVICE: &str = "lagwise";

const READERS: u64 = 6;

/// Approximate number of groups at any time.
const GROUPS: usize = 8;

/// Records written to each of a topic's two partitions.
const RECORDS: i64 = 100;

/// Tolerance between the timestamps of the daemon and the times that the test recorded.
const SLACK: Duration = Duration::from_secs(1);

/// How much more memory the last third of the time may take than the second, in percent. In short runs, caches with a
/// lifetime of minutes are still being filled.
const GROWTH: (u64, u64) = (4, 2);

/// Duration: a minute, or ten in the full tier.
pub(super) fn with_churn(testbed: &Testbed) -> Result<()> {
    let full = is_full_tier();
    let duration = Duration::from_secs(if full { 600 } else { 60 });
    let (kafka, plane) = (testbed.three_brokers()?, testbed.control_plane()?);
    let namespace = plane.namespace("soak")?;
    let folder = testbed.folder("soak-tls")?;
    let authority_pem = replace_certificate(plane, &namespace, &folder)?;
    let external = json!({
        "tls": {"cert_file": folder.join("tls.crt"), "key_file": folder.join("tls.key")},
    });
    let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
    let options = Options::main(&kafka.bootstrap());
    let daemon = Daemon::start(testbed, &options, external, json!({}), Some(&kubeconfig))?;
    let api = plane.register_api(&namespace, SERVICE, daemon.api_port, &authority_pem)?;
    api.wait_available(Duration::from_secs(60))?;

    let state = Arc::new(SoakState::default());
    let churn = Churn {
        kafka,
        plane,
        namespace: &namespace,
        folder: &folder,
        state: &state,
    };
    for _ in 0..GROUPS / 2 {
        churn.add_group()?;
    }
    let requester = Requester {
        direct: daemon.url(""),
        through: plane.server.clone(),
        namespace: namespace.clone(),
        root: plane.pki.authority.client("root", Some("system:masters"))?,
    };
    churn.wait_until_values_are_correct(&daemon, &requester)?;
    let (_, idle) = usage(&daemon)?;

    let requester = Arc::new(requester);
    let runtime = tokio::runtime::Runtime::new()?;
    let readers: Vec<_> = (0..READERS)
        .map(|seed| runtime.spawn(read(Arc::clone(&requester), Arc::clone(&state), seed)))
        .collect();
    let began = Instant::now();
    let samples = churn.run(&daemon, duration)?;
    state.stop.store(true, Ordering::Relaxed);
    for reader in readers {
        runtime.block_on(reader)??;
    }
    drop(runtime);
    let tally = state.tally().clone();
    println!(
        "{:?}: {} changes, answers {:?}",
        began.elapsed(),
        samples.len(),
        tally.counts
    );
    ensure!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n"));
    let correct = tally.counts.get("correct value").copied().unwrap_or(0);
    ensure!(
        correct >= 20 * duration.as_secs(),
        "{correct} correct values"
    );
    churn.wait_until_values_are_correct(&daemon, &requester)?;
    check_memory_growth(&samples, if full { GROWTH.1 } else { GROWTH.0 })?;
    poll_until(
        Duration::from_secs(60),
        "the descriptors to be closed",
        || {
            let (_, open) = usage(&daemon)?;
            ensure!(open <= idle + 4, "{open} open, {idle} at first");
            Ok(())
        },
    )?;
    let (_, open) = usage(&daemon)?;
    println!("descriptors: {idle} before, {open} after");
    let log = daemon.process.log();
    ensure!(!log.contains("panicked"), "it panicked");
    Ok(())
}

/// The correct lags, and the responses so far.
#[derive(Default)]
struct SoakState {
    groups: Mutex<Vec<Arc<Group>>>,
    tally: Mutex<Tally>,
    stop: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    counts: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl SoakState {
    fn groups(&self) -> MutexGuard<'_, Vec<Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, what: impl Into<String>) {
        *self.tally().counts.entry(what.into()).or_default() += 1;
    }

    fn record_wrong(&self, what: String) {
        let mut tally = self.tally();
        // The first ones suffice.
        if tally.wrong.len() < 10 {
            tally.wrong.push(what);
        }
    }
}

/// A group, and its lag at all times.
struct Group {
    name: String,
    topic: String,
    spans: Mutex<Vec<Span>>,
    has_hpa: AtomicBool,
}

/// A time in which a lag was, or may have been, correct; `None` where there was no topic.
#[derive(Clone, Copy, Debug)]
struct Span {
    lag: Option<u64>,
    from: Instant,
    until: Option<Instant>,
}

impl Group {
    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an action that changes the lag. While it runs, both the old and the new lag are correct.
    fn change(&self, lag: Option<u64>, by: impl FnOnce() -> Result<()>) -> Result<()> {
        self.spans().push(Span {
            lag,
            from: Instant::now(),
            until: None,
        });
        by()?;
        let mut spans = self.spans();
        if let [.., before, _] = spans.as_mut_slice() {
            before.until = Some(Instant::now());
        }
        Ok(())
    }

    /// Whether this value is correct for a request that was sent and answered at these times, if it may be from a
    /// reading of the allowed age.
    fn could_be(&self, lag: Option<u64>, sent: Instant, received: Instant) -> bool {
        let oldest = sent.checked_sub(MAX_STALENESS + SLACK);
        self.spans().iter().any(|span| {
            let is_recent = span.until.zip(oldest).is_none_or(|(until, at)| until >= at);
            span.lag == lag && span.from <= received && is_recent
        })
    }

    fn is_deleted_for(&self, time: Duration) -> bool {
        let last = self.spans().last().copied();
        last.is_some_and(|span| span.lag.is_none() && span.from.elapsed() > time)
    }

    fn exists(&self) -> bool {
        self.spans().last().is_some_and(|span| span.lag.is_some())
    }
}

/// Changes groups, topics, HPAs, certificates and brokers.
struct Churn<'a> {
    kafka: &'a KafkaCluster,
    plane: &'a ControlPlane,
    namespace: &'a str,
    folder: &'a Path,
    state: &'a SoakState,
}

impl Churn<'_> {
    /// Adds a topic, a group with lag on it, and an HPA whose target per replica is so large that nothing is clamped.
    fn add_group(&self) -> Result<()> {
        let (name, topic) = (unique("soak-group"), unique("soak-topic"));
        let group = Arc::new(Group {
            name,
            topic,
            spans: Mutex::default(),
            has_hpa: AtomicBool::new(false),
        });
        self.kafka.create_topic(&group.topic, 2)?;
        let each = usize::try_from(RECORDS)?;
        self.kafka
            .produce_to(&group.topic, &[(0, each), (1, each)])?;
        self.commit(&group, [RECORDS / 2, RECORDS / 2])?;
        self.apply_hpa(&group)?;
        let mut groups = self.state.groups();
        // Groups that were removed long ago need not be requested any more.
        groups.retain(|group| !group.is_deleted_for(2 * MAX_STALENESS));
        groups.push(group);
        Ok(())
    }

    fn commit(&self, group: &Group, at: [i64; 2]) -> Result<()> {
        let lag = u64::try_from(2 * RECORDS - at[0] - at[1])?;
        group.change(Some(lag), || {
            self.kafka
                .commit(&group.name, &group.topic, &[(0, at[0]), (1, at[1])])
        })
    }

    fn apply_hpa(&self, group: &Group) -> Result<()> {
        let labels = json!({"group": group.name, "topic": group.topic});
        let hpa = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": group.name},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "absent"},
                "maxReplicas": 50,
                "metrics": [{"type": "External", "external": {
                    "metric": {"name": "kafka_lag", "selector": {"matchLabels": labels}},
                    "target": {"type": "AverageValue", "averageValue": "1000000"},
                }}],
            },
        });
        self.plane.apply(self.namespace, &hpa.to_string())?;
        group.has_hpa.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn delete_hpa(&self, group: &Group) -> Result<()> {
        group.has_hpa.store(false, Ordering::Relaxed);
        let namespace = ["--namespace", self.namespace];
        self.plane
            .kubectl(&[&["delete", "hpa", &group.name], &namespace[..]].concat())
            .map(drop)
    }

    /// Makes changes without a pause. Returns memory and descriptors after each change, with its time.
    fn run(&self, daemon: &Daemon, duration: Duration) -> Result<Vec<(Duration, u64, usize)>> {
        let began = Instant::now();
        let mut random = fastrand::Rng::with_seed(11);
        let mut samples = Vec::new();
        // Each broker is stopped in turn, and started again later.
        let turn = (duration / 12).max(Duration::from_secs(15));
        let mut down = None;
        for step in 0.. {
            if began.elapsed() >= duration {
                break;
            }
            let turns = began.elapsed().as_secs() / turn.as_secs();
            let wanted = (turns % 3 == 1).then(|| usize::try_from(turns / 3 % 3 + 1));
            let wanted = wanted.transpose()?;
            if wanted != down {
                match (down, wanted) {
                    (Some(id), _) => self.kafka.start_broker(id)?,
                    (None, Some(id)) => self.kafka.stop_broker(id)?,
                    (None, None) => {}
                }
                down = if down.is_some() { None } else { wanted };
            }
            self.change(step, down.is_none(), &mut random)?;
            let (memory, open) = usage(daemon)?;
            samples.push((began.elapsed(), memory, open));
        }
        if let Some(id) = down {
            self.kafka.start_broker(id)?;
        }
        Ok(samples)
    }

    fn change(&self, step: usize, all_up: bool, random: &mut fastrand::Rng) -> Result<()> {
        let existing: Vec<_> = self
            .state
            .groups()
            .iter()
            .filter(|group| group.exists())
            .cloned()
            .collect();
        let one = random.choice(&existing).context("no group")?;
        match step % 8 {
            // A topic gets all its replicas only while all brokers are up.
            0 if all_up && existing.len() < GROUPS => self.add_group(),
            2 => self.delete_hpa_of_one(&existing),
            4 if existing.len() > GROUPS / 2 && all_up => {
                one.change(None, || self.kafka.delete_topic(&one.topic))
            }
            5 => existing
                .iter()
                .filter(|group| !group.has_hpa.load(Ordering::Relaxed))
                .try_for_each(|group| self.apply_hpa(group)),
            6 => replace_certificate(self.plane, self.namespace, self.folder).map(drop),
            _ => self.commit(one, [random.i64(0..=RECORDS), random.i64(0..=RECORDS)]),
        }
    }

    fn delete_hpa_of_one(&self, existing: &[Arc<Group>]) -> Result<()> {
        let has_one = |group: &&Arc<Group>| group.has_hpa.load(Ordering::Relaxed);
        match existing.iter().find(has_one) {
            Some(group) => self.delete_hpa(group),
            None => Ok(()),
        }
    }

    /// Checks that every group has its correct value once nothing changes any more.
    fn wait_until_values_are_correct(&self, daemon: &Daemon, requester: &Requester) -> Result<()> {
        let groups = self.state.groups().clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = requester.client()?;
        for group in groups.iter().filter(|group| group.exists()) {
            if !group.has_hpa.load(Ordering::Relaxed) {
                self.apply_hpa(group)?;
            }
            let lag = group.spans().last().and_then(|span| span.lag);
            let url = daemon.url(&requester.metric(group));
            poll_until(Duration::from_secs(90), "the lag to be served", || {
                let (code, body) = runtime.block_on(get(&client, &url))?;
                ensure!(code == 200, "{code}: {body}");
                let served = value_of(&serde_json::from_str(&body)?)?;
                ensure!(Some(served) == lag, "{served}, not {lag:?}");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Sends requests.
struct Requester {
    direct: String,
    through: String,
    namespace: String,
    root: Identity,
}

impl Requester {
    fn client(&self) -> Result<Client> {
        let pem = format!("{}{}", self.root.certificate, self.root.key);
        Ok(Client::builder()
            .danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(30))
            .identity(reqwest::Identity::from_pem(pem.as_bytes())?)
            .build()?)
    }

    fn metric(&self, group: &Group) -> String {
        let selector = format!("group={},topic={}", group.name, group.topic);
        metric_path(&self.namespace, &selector)
    }
}

async fn get(client: &Client, url: &str) -> Result<(u16, String)> {
    let answer = client.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Sends requests until it is stopped.
async fn read(requester: Arc<Requester>, state: Arc<SoakState>, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = requester.client()?;
    while !state.stop.load(Ordering::Relaxed) {
        if random.u8(..) < 8 {
            client = requester.client()?;
        }
        match random.u8(..10) {
            0 => {
                let path = metric_path("elsewhere", &format!("group=unknown-{}", random.u16(..)));
                let (code, body) = get(&client, &format!("{}{path}", requester.direct)).await?;
                state.count(format!("unknown group: {code}"));
                if ![404, 429, 503].contains(&code) {
                    state.record_wrong(format!("{path}: {code}: {body}"));
                }
            }
            1 => {
                let (path, expected) = match random.u8(..3) {
                    0 => (BASE.to_owned(), 200),
                    1 => (metric_path(&requester.namespace, "group=,(("), 400),
                    _ => (format!("{BASE}/nothing"), 404),
                };
                let (code, body) = get(&client, &format!("{}{path}", requester.direct)).await?;
                state.count(format!("others: {code}"));
                if code != expected {
                    state.record_wrong(format!("{path}: {code}: {body}"));
                }
            }
            n => {
                let Some(group) = random.choice(&*state.groups()).cloned() else {
                    continue;
                };
                let server = if n == 2 {
                    &requester.through
                } else {
                    &requester.direct
                };
                let url = format!("{server}{}", requester.metric(&group));
                let sent = Instant::now();
                let (code, body) = get(&client, &url).await?;
                check_response(&state, &group, sent, code, &body);
            }
        }
    }
    Ok(())
}

fn check_response(state: &SoakState, group: &Group, sent: Instant, code: u16, body: &str) {
    let received = Instant::now();
    let served = serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|body| value_of(&body).ok());
    let is_correct = match code {
        200 => served.is_some() && group.could_be(served, sent, received),
        404 => group.could_be(None, sent, received),
        // The value is unknown, which the response reports.
        429 | 503 => true,
        _ => false,
    };
    match (is_correct, code) {
        (true, 200) => state.count("correct value"),
        (true, code) => state.count(format!("no value: {code}")),
        (false, code) => state.record_wrong(format!(
            "{} is answered {code} {body}; it is {:?}",
            group.name,
            group.spans()
        )),
    }
}

/// Replaces the daemon's certificate files. Returns the certificate of the CA.
fn replace_certificate(plane: &ControlPlane, namespace: &str, folder: &Path) -> Result<String> {
    let serving = plane.serving_certificate(namespace, SERVICE)?;
    let identity = Identity {
        certificate: std::fs::read_to_string(&serving.cert_file)?,
        key: std::fs::read_to_string(&serving.key_file)?,
    };
    swap(folder, &unique("version"), &identity, &serving.ca_pem)?;
    Ok(serving.ca_pem)
}

/// Resident memory in kB, and how many descriptors are open.
fn usage(daemon: &Daemon) -> Result<(u64, usize)> {
    let process = Path::new("/proc").join(daemon.process.pid().to_string());
    let memory = daemon.process.memory("VmRSS")?;
    Ok((memory, std::fs::read_dir(process.join("fd"))?.count()))
}

/// Compares the median memory of the last third of the samples with that of the third before.
fn check_memory_growth(samples: &[(Duration, u64, usize)], percent: u64) -> Result<()> {
    let median = |samples: &[(Duration, u64, usize)]| {
        let mut sorted: Vec<u64> = samples.iter().map(|(_, memory, _)| *memory).collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().context("no samples")
    };
    let third = samples.len() / 3;
    let (middle, last) = (
        median(&samples[third..2 * third])?,
        median(&samples[2 * third..])?,
    );
    let most = samples.iter().map(|(.., open)| open).max();
    println!(
        "resident memory: {} kB at first, {middle} kB and {last} kB in the last two thirds; at most {most:?} descriptors",
        samples.first().map_or(0, |(_, memory, _)| *memory)
    );
    ensure!(
        last.saturating_sub(middle) * 100 <= middle * percent,
        "resident memory grows from {middle} kB to {last} kB"
    );
    Ok(())
}
