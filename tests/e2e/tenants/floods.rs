//! A user who may write HPAs in one namespace, and asks for as much as the API server accepts. What others get has to
//! stay right and fresh, and the daemon within the memory limit of the chart.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options, metric_path, value_of};
use crate::probes::Probes;
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::kubernetes::RegisteredApi;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

pub(crate) const LONG: &[(&str, Test)] = &[
    // Its 200,000 group-partitions would take the cores from the lanes beside it.
    (
        "tenants::groups_without_end_leave_memory_to_others",
        groups_without_end_leave_memory_to_others,
    ),
    (
        "tenants::two_thousand_hpas_of_one_namespace_leave_room_for_others",
        two_thousand_hpas_of_one_namespace_leave_room_for_others,
    ),
];

/// Memory limit of the chart.
const MEMORY_LIMIT_KB: u64 = 256 * 1024;
/// Age of the data from which an HPA is no longer served, and well below it.
const FRESH: f64 = 5.0;
const LAG: usize = 450;
const WITHIN: Duration = Duration::from_secs(60);

/// The owner of a group, whose metric must not suffer, and bob, who may write HPAs in a namespace of his own.
struct Neighbours<'a> {
    plane: &'a ControlPlane,
    daemon: Daemon,
    _api: RegisteredApi<'a>,
    owner: String,
    group: String,
    topic: String,
    /// A topic with many partitions.
    wide: String,
    bob: String,
    /// The kubeconfig of bob, with his rights only.
    bobs: PathBuf,
}

impl<'a> Neighbours<'a> {
    fn new(testbed: &'a Testbed) -> Result<Self> {
        let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
        let (owner, bob) = (plane.namespace("owner")?, plane.namespace("bob")?);
        let (topic, group, wide) = (unique("payments"), unique("pay"), unique("wide"));
        kafka.create_topic(&topic, 6)?;
        kafka.create_topic(&wide, 200)?;
        let zeros: Vec<_> = (0..6).map(|partition| (partition, 0)).collect();
        kafka.commit(&group, &topic, &zeros)?;
        kafka.produce_to(&topic, &[(0, LAG)])?;
        for args in [
            vec!["create", "serviceaccount", "bob"],
            vec![
                "create",
                "role",
                "hpas",
                "--verb=*",
                "--resource=horizontalpodautoscalers.autoscaling",
            ],
            vec![
                "create",
                "rolebinding",
                "hpas",
                "--role=hpas",
                &format!("--serviceaccount={bob}:bob"),
            ],
        ] {
            plane.kubectl(&[args, vec!["--namespace", &bob]].concat())?;
        }
        let bobs = plane.account_kubeconfig(&bob, "bob")?;
        let options = Options {
            namespaces: vec![owner.clone(), bob.clone()],
            // A sweep of all groups that the budgets allow takes a second and more with the debug build.
            interval: "2s",
            ..Options::main(&kafka.bootstrap())
        };
        let (daemon, api) = Daemon::registered(testbed, plane, &owner, &options)?;
        plane.apply(
            &owner,
            &workload("payments", &[("group", &group), ("topic", &topic)]),
        )?;
        let neighbours = Self {
            plane,
            daemon,
            _api: api,
            owner,
            group,
            topic,
            wide,
            bob,
            bobs,
        };
        poll_until(WITHIN, "the owner's lag", || neighbours.owner_is_served())?;
        Ok(neighbours)
    }

    /// Writes HPAs as bob.
    fn write(&self, verb: &str, hpas: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": hpas}).to_string();
        let bobs = self.bobs.to_string_lossy();
        let args = [
            "--kubeconfig",
            &*bobs,
            "--namespace",
            &self.bob,
            verb,
            "--filename",
            "-",
        ];
        self.plane.kubectl_with_input(&args, &list).map(drop)
    }

    /// The owner's metric has the right value, from a recent reading.
    fn owner_is_served(&self) -> Result<()> {
        let selector = format!("group={},topic={}", self.group, self.topic);
        let body = self.plane.get_raw(&metric_path(&self.owner, &selector))?;
        ensure!(value_of(&body)? == LAG as u64, "{body}");
        let metrics = self.daemon.metrics()?;
        let of_group = format!("consumergroup=\"{}\"", self.group);
        let mut ages = metrics
            .lines()
            .filter(|line| line.starts_with("lagwise_data_age_seconds{"));
        let age = ages
            .find(|line| line.contains(&of_group))
            .context("no age")?;
        let age: f64 = age.rsplit(' ').next().context("no age")?.parse()?;
        ensure!(age < FRESH, "the reading is {age} s old");
        Ok(())
    }

    /// Number of findings so far.
    fn findings(&self, kind: &str) -> Result<u64> {
        let metrics = self.daemon.metrics()?;
        let family = format!("lagwise_findings_total{{kind=\"{kind}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&*family));
        found.map_or(Ok(0), |count| Ok(count.parse()?))
    }

    /// Runs `attack` while `/livez` is probed, then checks the probes, the owner's metric, the memory and the log.
    fn endure(
        &self,
        what: &str,
        max_lines: usize,
        attack: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let done = AtomicBool::new(false);
        let lines = self.daemon.process.log().lines().count();
        thread::scope(|scope| {
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
            let probes = probes
                .join()
                .map_err(|_| anyhow::anyhow!("the probes panicked"))??;
            attacked?;
            self.owner_is_served()?;
            let memory = self.memory("VmHWM:")?;
            let lines = self.daemon.process.log().lines().count() - lines;
            println!(
                "{what}: memory at most {memory} kB (limit {MEMORY_LIMIT_KB} kB); {probes}; {lines} log lines (limit {max_lines})"
            );
            ensure!(memory < MEMORY_LIMIT_KB, "{what}: {memory} kB");
            probes.check().context(what.to_owned())?;
            ensure!(
                lines <= max_lines,
                "{what}: {lines} log lines (limit {max_lines})"
            );
            Ok(())
        })
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.daemon.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let memory = line.and_then(|line| line.split_whitespace().next());
        Ok(memory.context("no such field")?.parse()?)
    }

    /// An HPA of bob's with these selectors.
    fn hpa(&self, name: &str, annotations: Value, groups: &[Vec<String>]) -> Value {
        let metric = |groups: &Vec<String>| {
            json!({
                "type": "External",
                "external": {
                    "metric": {"name": "kafka_lag", "selector": {"matchExpressions": [
                        {"key": "group", "operator": "In", "values": groups},
                        {"key": "topic", "operator": "In", "values": [self.wide]},
                    ]}},
                    "target": {"type": "AverageValue", "averageValue": "10"},
                },
            })
        };
        json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": 1,
                "maxReplicas": 20,
                "metrics": groups.iter().map(metric).collect::<Vec<_>>(),
            },
        })
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

/// Bob's HPA gets other annotations at every look of the daemon: more than it keeps of one HPA, and as many as it does,
/// of groups that the HPA selects, with expressions that take much memory.
pub(super) fn annotations_without_end_disturb_nobody(testbed: &Testbed) -> Result<()> {
    let neighbours = Neighbours::new(testbed)?;
    let many = |round: usize| {
        let keys = (0..1500).map(|i| format!("lagwise.dev/topic-regex.{round:04x}{i:08x}"));
        let annotations = keys.map(|key| (key, json!(r"\pL{24}")));
        neighbours.hpa(
            "flood",
            Value::Object(annotations.collect()),
            &[names("g", 1)],
        )
    };
    let named = |round: usize| {
        let groups = names("g", 32);
        let keys = groups
            .iter()
            .map(|group| format!("lagwise.dev/topic-regex.{group}"));
        let pattern = format!("[a-z]{{200}}|round-{round}");
        let mut annotations: serde_json::Map<_, _> =
            keys.map(|key| (key, json!(pattern))).collect();
        let unknown = (0..60).map(|i| format!("lagwise.dev/unknown-{round:04x}{i:04x}"));
        annotations.extend(unknown.map(|key| (key, json!("x".repeat(60)))));
        neighbours.hpa("flood", Value::Object(annotations), &[groups])
    };
    neighbours.write(
        "create",
        &[neighbours.hpa("flood", json!({}), &[names("g", 1)])],
    )?;
    let rounds: [(&str, &dyn Fn(usize) -> Value); 2] = [
        ("1500 annotations", &many),
        ("92 annotations of its groups", &named),
    ];
    for (what, hpa) in rounds {
        neighbours.endure(what, 60, || {
            for round in 0..3 {
                // Until the HPA controller has not just written its status.
                poll_until(WITHIN, "bob's write", || {
                    neighbours.write("replace", &[hpa(round)])
                })?;
                neighbours.daemon.let_it_look(1)?;
                neighbours.owner_is_served()?;
            }
            Ok(())
        })?;
    }
    let found = neighbours.findings("over_budget")?;
    ensure!(found > 0, "no finding about the size of the HPA");
    Ok(())
}

/// Bob asks for ever more groups of a topic with 200 partitions: in one selector, in many of one HPA, and by many HPAs.
pub(super) fn groups_without_end_leave_memory_to_others(testbed: &Testbed) -> Result<()> {
    let neighbours = Neighbours::new(testbed)?;
    let one = |name: &str, groups: &[Vec<String>]| neighbours.hpa(name, json!({}), groups);
    let chunks: Vec<_> = names("g", 2000).chunks(32).map(<[_]>::to_vec).collect();
    let hpas = |count: usize| -> Vec<_> {
        let hpa = |i| one(&format!("h{i}"), &[names(&format!("g{i}-"), 32)]);
        (0..count).map(hpa).collect()
    };
    for (what, hpas, refused) in [
        (
            "2000 groups in one selector",
            vec![one("a", &[names("g", 2000)])],
            1,
        ),
        (
            "20000 groups in one selector",
            vec![one("b", &[names("g", 20_000)])],
            1,
        ),
        ("2000 groups in 63 metrics", vec![one("c", &chunks)], 1),
        // 40 x 32 x 200 partitions: more than the budget of a namespace.
        ("1280 groups of 40 HPAs", hpas(40), 1),
    ] {
        let before = neighbours.findings("over_budget")?;
        neighbours.endure(what, 100, || {
            neighbours.write("create", &hpas)?;
            poll_until(WITHIN, "a finding about it", || {
                let found = neighbours.findings("over_budget")?;
                ensure!(found >= before + refused, "{found}");
                neighbours.owner_is_served()
            })?;
            neighbours.daemon.let_it_look(2)
        })?;
    }
    let metrics = neighbours.daemon.metrics()?;
    println!("/metrics has {} kB", metrics.len() / 1000);
    for sample in [
        "lagwise_over_budget{scope=\"hpa\",resource=\"groups\"} 1",
        "lagwise_over_budget{scope=\"namespace\",resource=\"partitions\"} ",
    ] {
        ensure!(metrics.contains(sample), "no {sample}");
    }
    Ok(())
}

fn two_thousand_hpas_of_one_namespace_leave_room_for_others(testbed: &Testbed) -> Result<()> {
    let neighbours = Neighbours::new(testbed)?;
    let hpa =
        |i: usize| neighbours.hpa(&format!("h{i}"), json!({}), &[names(&format!("g{i}-"), 1)]);
    let hpas: Vec<_> = (0..2000).map(hpa).collect();
    // Each HPA that is refused has a finding, which is logged once.
    neighbours.endure("2000 HPAs", 1100, || {
        for some in hpas.chunks(250) {
            neighbours.write("create", some)?;
            neighbours.owner_is_served()?;
        }
        // 200 partitions each: the budget of a namespace has room for 1000.
        poll_until(WITHIN, "findings about half of them", || {
            let metrics = neighbours.daemon.metrics()?;
            let sample = "lagwise_over_budget{scope=\"namespace\",resource=\"partitions\"} 1000";
            ensure!(metrics.contains(sample), "no {sample}");
            neighbours.owner_is_served()
        })
    })
}
