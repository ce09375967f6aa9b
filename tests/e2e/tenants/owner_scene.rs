//! The owner: a namespace whose metric must stay correct and fresh while other namespaces attack, with the daemon
//! within its memory limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::daemon::{Daemon, MAX_STALENESS, Options, metric_path, value_of};
use crate::latencies::Latencies;
use crate::probes::Probes;
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::kubernetes::RegisteredApi;
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::{Testbed, unique};

/// Maximum memory of the daemon: the memory limit of the chart.
const MAX_MEMORY_KB: u64 = 256 * 1024;
/// Maximum age of the owner's reading; well below `poll.max_staleness`.
const MAX_AGE_SECONDS: f64 = 5.0;
const LAG: usize = 450;
const PARTITIONS: i32 = 6;
/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the latency of the owner's metric is measured before an attack.
const UNDISTURBED: Duration = Duration::from_secs(4);
/// Pause between two requests for the owner's metric.
const PAUSE: Duration = Duration::from_millis(20);

/// A namespace with a group that has a lag of [`LAG`].
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) group: String,
    pub(super) topic: String,
}

impl Owner {
    pub(super) fn new(kafka: &KafkaCluster, plane: &ControlPlane) -> Result<Self> {
        let owner = Self {
            namespace: plane.namespace("owner")?,
            group: unique("pay"),
            topic: unique("payments"),
        };
        kafka.create_topic(&owner.topic, PARTITIONS)?;
        let zeros: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
        kafka.commit(&owner.group, &owner.topic, &zeros)?;
        kafka.produce_to(&owner.topic, &[(0, LAG)])?;
        Ok(owner)
    }

    /// The path of its metric.
    fn metric(&self) -> String {
        let selector = format!("group={},topic={}", self.group, self.topic);
        metric_path(&self.namespace, &selector)
    }
}

/// The owner's HPA, and the daemon that serves it.
pub(super) struct OwnerScene<'a> {
    pub(super) plane: &'a ControlPlane,
    pub(super) daemon: Daemon,
    api: Option<RegisteredApi<'a>>,
    pub(super) owner: Owner,
}

impl<'a> OwnerScene<'a> {
    /// Starts the daemon, creates the owner's HPA and waits until it is served.
    pub(super) fn start(
        testbed: &Testbed,
        plane: &'a ControlPlane,
        owner: Owner,
        options: &Options,
    ) -> Result<Self> {
        let (daemon, api) = Daemon::registered(testbed, plane, &owner.namespace, options)?;
        let selector = [("group", &*owner.group), ("topic", &*owner.topic)];
        plane.apply(&owner.namespace, &workload("payments", &selector))?;
        let scene = Self {
            plane,
            daemon,
            api: Some(api),
            owner,
        };
        poll_until(WAIT_TIMEOUT, "the owner's lag", || scene.owner_is_served())?;
        Ok(scene)
    }

    /// Ends the daemon, starts another one, and waits until the owner is served.
    pub(super) fn restart(&mut self, testbed: &Testbed, options: &Options) -> Result<()> {
        self.daemon.process.kill();
        // Unregistered before it is registered again.
        self.api = None;
        let namespace = &self.owner.namespace;
        let (daemon, api) = Daemon::registered(testbed, self.plane, namespace, options)?;
        (self.daemon, self.api) = (daemon, Some(api));
        poll_until(WAIT_TIMEOUT, "the owner's lag", || self.owner_is_served())
    }

    /// Checks that the owner's metric has the correct value, from a recent reading.
    pub(super) fn owner_is_served(&self) -> Result<()> {
        let body = self.plane.get_raw(&self.owner.metric())?;
        let value = value_of(&body)?;
        if value != LAG as u64 {
            // A missing or stale response may become correct by waiting, a wrong one does not.
            return Err(Hopeless(format!("{value}, not {LAG}: {body}")).into());
        }
        let metrics = self.daemon.metrics()?;
        let of_group = format!("consumergroup=\"{}\"", self.owner.group);
        let mut ages = metrics
            .lines()
            .filter(|line| line.starts_with("lagwise_data_age_seconds{"));
        let age = ages
            .find(|line| line.contains(&of_group))
            .context("no age")?;
        let age: f64 = age.rsplit(' ').next().context("no age")?.parse()?;
        ensure!(age < MAX_AGE_SECONDS, "the reading is {age} s old");
        Ok(())
    }

    /// The owner's HPA.
    pub(super) fn hpa(&self) -> Result<Value> {
        self.plane
            .get("hpa", "payments", Some(&self.owner.namespace))
    }

    /// Number of findings so far.
    pub(super) fn findings(&self, kind: &str) -> Result<u64> {
        let metrics = self.daemon.metrics()?;
        let family = format!("lagwise_findings_total{{kind=\"{kind}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&*family));
        found.map_or(Ok(0), |count| Ok(count.parse()?))
    }

    /// Requests the owner's metric through the API server until `is_over`, and returns the latencies. Retries a missing
    /// value, because Kafka may respond too late on a busy machine.
    fn ask_until(&self, is_over: impl Fn() -> bool) -> Result<Latencies> {
        let path = self.owner.metric();
        let mut latencies = Latencies::default();
        let mut missing = 0;
        while !is_over() {
            let begun = Instant::now();
            poll_until(MAX_STALENESS, "the owner's metric", || {
                let body = self.plane.get_raw(&path).inspect_err(|_| missing += 1)?;
                let value = value_of(&body)?;
                if value != LAG as u64 {
                    return Err(Hopeless(format!("{value}, not {LAG}: {body}")).into());
                }
                Ok(())
            })?;
            latencies.add(begun.elapsed());
            thread::sleep(PAUSE);
        }
        if missing > 0 {
            println!(
                "the owner's metric was missing {missing} times, and there again within {MAX_STALENESS:?}"
            );
        }
        Ok(latencies)
    }

    /// Requests the owner's HPA until `is_over`, and returns the latencies. The API server answers by itself, so this
    /// is the bystander of the metric: what its answers wait for there, among them requests of the attackers, those of
    /// the metric wait for too.
    fn ask_for_hpa_until(&self, is_over: impl Fn() -> bool) -> Result<Latencies> {
        let namespace = &self.owner.namespace;
        let path = format!(
            "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/payments"
        );
        let mut latencies = Latencies::default();
        while !is_over() {
            let begun = Instant::now();
            self.plane.get_raw(&path)?;
            latencies.add(begun.elapsed());
            thread::sleep(PAUSE);
        }
        Ok(latencies)
    }

    /// Runs `attack` while it probes `/livez` and requests the owner's metric, whose values must all be correct. Then
    /// checks the probes, the age of the owner's reading, the memory and the number of log lines.
    pub(super) fn check_during(
        &self,
        what: &str,
        max_lines: usize,
        attack: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let done = AtomicBool::new(false);
        let lines = self.daemon.process.log().lines().count();
        let start = Instant::now();
        let is_over = || start.elapsed() > UNDISTURBED;
        let before: Result<_> = thread::scope(|scope| {
            let others = scope.spawn(|| self.ask_for_hpa_until(is_over));
            Ok((self.ask_until(is_over)?, joined(others)?))
        });
        let before = before?;
        let (cpu, begun) = (self.cpu()?, Instant::now());
        let is_done = || done.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let answers = scope.spawn(|| self.ask_until(is_done));
            let others = scope.spawn(|| self.ask_for_hpa_until(is_done));
            let probes = scope.spawn(|| {
                let mut probes = Probes::default();
                while !done.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let (code, body) = http_get(self.daemon.probe_port, "/livez")?;
                    ensure!(code == 200, "{code}: {body}");
                    probes.add(begun.elapsed());
                    // The interval of probes, so that they are no load of their own.
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(probes)
            });
            let attacked = attack();
            done.store(true, Ordering::Relaxed);
            let (probes, answers, others) = (joined(probes), joined(answers), joined(others));
            attacked?;
            let (probes, answers) = (probes?, answers.context(what.to_owned())?);
            let answers = answers.beside_bystander(&before.0, (&others?, &before.1))?;
            self.owner_is_served()?;
            let memory = self.daemon.process.memory("VmHWM")?;
            let log = self.daemon.process.log();
            let lines = log.lines().count() - lines;
            println!(
                "{what}: the owner's metric {answers}; memory at most {memory} kB (limit {MAX_MEMORY_KB} kB); {:.1} s of CPU in {:.1} s; {probes}; {lines} log lines (limit {max_lines})",
                (self.cpu()? - cpu).as_secs_f64(),
                begun.elapsed().as_secs_f64(),
            );
            ensure!(!log.contains("panicked"), "{what}: it panicked");
            ensure!(memory < MAX_MEMORY_KB, "{what}: {memory} kB");
            probes.check().context(what.to_owned())?;
            ensure!(
                lines <= max_lines,
                "{what}: {lines} log lines (limit {max_lines})"
            );
            Ok(())
        })
    }

    /// The CPU time that the daemon has used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        self.daemon.process.cpu()
    }
}

/// Lets the daemon of a namespace write to the HPAs of these namespaces.
pub(super) fn let_the_daemon_write(
    plane: &ControlPlane,
    daemon: &str,
    namespaces: &[&str],
) -> Result<()> {
    let account = format!("--serviceaccount={daemon}:lagwise");
    for namespace in namespaces {
        let hpas = "--resource=horizontalpodautoscalers.autoscaling";
        for args in [
            ["create", "role", "cap", "--verb=get,patch", hpas],
            ["create", "rolebinding", "cap", "--role=cap", &*account],
        ] {
            plane.kubectl(&[&args[..], &["--namespace", *namespace]].concat())?;
        }
    }
    // Whether the admission policy of the cap is installed.
    let name = format!("cap-{daemon}");
    let role = format!("--clusterrole={name}");
    let policies = "--resource=mutatingadmissionpolicies.admissionregistration.k8s.io,mutatingadmissionpolicybindings.admissionregistration.k8s.io";
    let only = "--resource-name=lagwise-cap";
    plane.kubectl(&["create", "clusterrole", &name, "--verb=get", policies, only])?;
    plane.kubectl(&["create", "clusterrolebinding", &name, &role, &account])?;
    Ok(())
}

/// The result of a thread.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let result = thread.join();
    result.map_err(|_| anyhow!("a thread of the scenario panicked"))?
}
