//! A user who may write HPAs in one namespace requests as much as the API server accepts. The metrics of other
//! namespaces must stay correct and fresh, and the daemon must stay within the memory limit of the chart.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::owner_scene::{Owner, OwnerScene, let_the_daemon_write};
use crate::daemon::Options;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The owner of a group, whose metric must not be affected, and the attacker bob, who may write HPAs in another
/// namespace.
pub(super) struct AttackScene<'a> {
    pub(super) scene: OwnerScene<'a>,
    options: Options,
    /// A topic with many partitions.
    wide: String,
    bob: String,
    /// The kubeconfig of bob.
    bob_kubeconfig: PathBuf,
}

impl<'a> AttackScene<'a> {
    pub(super) fn new(testbed: &'a Testbed) -> Result<Self> {
        let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
        let owner = Owner::new(kafka, plane)?;
        let (bob, wide) = (plane.namespace("bob")?, unique("wide"));
        kafka.create_topic(&wide, 200)?;
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
        let bob_kubeconfig = plane.account_kubeconfig(&bob, "bob")?;
        let options = Options {
            namespaces: vec![owner.namespace.clone(), bob.clone()],
            // A sweep of all groups that the budgets allow takes a second and more with the debug build.
            interval: "2s",
            // As far as it has the rights.
            enforce: json!({"enabled": true}),
            ..Options::main(&kafka.bootstrap())
        };
        Ok(Self {
            scene: OwnerScene::start(testbed, plane, owner, &options)?,
            options,
            wide,
            bob,
            bob_kubeconfig,
        })
    }

    /// Writes HPAs as bob.
    pub(super) fn write(&self, verb: &str, hpas: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": hpas}).to_string();
        let bob_kubeconfig = self.bob_kubeconfig.to_string_lossy();
        let args = [
            "--kubeconfig",
            &*bob_kubeconfig,
            "--namespace",
            &self.bob,
            verb,
            "--filename",
            "-",
        ];
        let plane = self.scene.plane;
        plane.kubectl_with_input(&args, &list).map(drop)
    }

    /// Deletes all HPAs of bob.
    pub(super) fn delete_all(&self) -> Result<()> {
        let args = [
            "delete",
            "hpa",
            "--all",
            "--namespace",
            &self.bob,
            "--wait=false",
        ];
        self.scene.plane.kubectl(&args)?;
        self.scene.daemon.wait_for_sweeps(2)
    }

    /// Restarts the daemon, and waits until the owner is served.
    pub(super) fn restart(&mut self, testbed: &Testbed) -> Result<()> {
        self.scene.restart(testbed, &self.options)
    }

    /// Lets the daemon write to the HPAs of both namespaces.
    pub(super) fn let_the_daemon_write(&self) -> Result<()> {
        let OwnerScene { plane, owner, .. } = &self.scene;
        let namespaces = [&*owner.namespace, &*self.bob];
        let_the_daemon_write(plane, &owner.namespace, &namespaces)
    }

    /// Number of ceilings that the daemon has written.
    pub(super) fn written(&self) -> Result<u64> {
        let metrics = self.scene.daemon.metrics()?;
        let family = "lagwise_cap_writes_total{outcome=\"written\"} ";
        let written = metrics.lines().find_map(|line| line.strip_prefix(family));
        written.map_or(Ok(0), |count| Ok(count.parse()?))
    }

    /// An HPA of bob, with one metric for each list of groups.
    pub(super) fn hpa(&self, name: &str, annotations: Value, groups: &[Vec<String>]) -> Value {
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

pub(super) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

/// Bob changes the annotations of his HPA between all sweeps: first to more annotations than the daemon keeps for one
/// HPA, then to as many as it keeps, for groups that the HPA selects, with regular expressions that take much memory.
pub(super) fn annotations_without_end_disturb_nobody(testbed: &Testbed) -> Result<()> {
    let attack = AttackScene::new(testbed)?;
    let many = |round: usize| {
        let keys = (0..1500).map(|i| format!("lagwise.dev/topic-regex.{round:04x}{i:08x}"));
        let annotations = keys.map(|key| (key, json!(r"\pL{24}")));
        attack.hpa(
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
        attack.hpa("flood", Value::Object(annotations), &[groups])
    };
    attack.write(
        "create",
        &[attack.hpa("flood", json!({}), &[names("g", 1)])],
    )?;
    let rounds: [(&str, &dyn Fn(usize) -> Value); 2] = [
        ("1500 annotations", &many),
        ("92 annotations of its groups", &named),
    ];
    for (what, hpa) in rounds {
        attack.scene.check_during(what, 60, || {
            for round in 0..3 {
                // Retried, because a write of the status by the HPA controller causes a conflict.
                poll_until(WAIT_TIMEOUT, "bob's write", || {
                    attack.write("replace", &[hpa(round)])
                })?;
                attack.scene.daemon.wait_for_sweeps(1)?;
                attack.scene.owner_is_served()?;
            }
            Ok(())
        })?;
        let found = attack.scene.findings("over_budget")?;
        ensure!(found > 0, "no finding about {what}");
    }
    Ok(())
}

/// Bob requests more and more groups of a topic with 200 partitions: in one selector, in many metrics of one HPA, and
/// with many HPAs.
pub(super) fn groups_without_end_leave_memory_to_others(testbed: &Testbed) -> Result<()> {
    let attack = AttackScene::new(testbed)?;
    let one = |name: &str, groups: &[Vec<String>]| attack.hpa(name, json!({}), groups);
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
        let before = attack.scene.findings("over_budget")?;
        attack.scene.check_during(what, 100, || {
            attack.write("create", &hpas)?;
            poll_until(WAIT_TIMEOUT, "a finding about it", || {
                let found = attack.scene.findings("over_budget")?;
                ensure!(found >= before + refused, "{found}");
                attack.scene.owner_is_served()
            })?;
            attack.scene.daemon.wait_for_sweeps(2)
        })?;
    }
    let metrics = attack.scene.daemon.metrics()?;
    println!("/metrics has {} kB", metrics.len() / 1000);
    for sample in [
        "lagwise_over_budget{scope=\"hpa\",resource=\"groups\"} 1",
        "lagwise_over_budget{scope=\"namespace\",resource=\"partitions\"} ",
    ] {
        ensure!(metrics.contains(sample), "no {sample}");
    }
    Ok(())
}

pub(super) fn two_thousand_hpas_of_one_namespace_leave_room_for_others(
    testbed: &Testbed,
) -> Result<()> {
    let attack = AttackScene::new(testbed)?;
    let hpa = |i: usize| attack.hpa(&format!("h{i}"), json!({}), &[names(&format!("g{i}-"), 1)]);
    let hpas: Vec<_> = (0..2000).map(hpa).collect();
    // Each HPA that is refused has a finding, which is logged once.
    attack.scene.check_during("2000 HPAs", 1100, || {
        for some in hpas.chunks(250) {
            attack.write("create", some)?;
            attack.scene.owner_is_served()?;
        }
        // 200 partitions each: the budget of a namespace has room for 1000.
        poll_until(WAIT_TIMEOUT, "findings about half of them", || {
            let metrics = attack.scene.daemon.metrics()?;
            let sample = "lagwise_over_budget{scope=\"namespace\",resource=\"partitions\"} 1000";
            ensure!(metrics.contains(sample), "no {sample}");
            attack.scene.owner_is_served()
        })
    })
}
