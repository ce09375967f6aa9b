//! Annotations on the real HPA controller: replicas follow each of them within a sync, and an invalid value changes
//! nothing and is a finding.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Test;
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The tests of this file.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "annotations::replicas_follow_what_is_set_on_the_hpa",
    replicas_follow_what_is_set_on_the_hpa,
)];

const PARTITIONS: i32 = 13;

/// A step: the annotations that are set (`KEY=VALUE`) or removed (`KEY-`), the replicas that follow, and the rules of
/// the ceiling and the value in `/metrics`.
struct Step {
    annotations: &'static [&'static str],
    replicas: i32,
    ceiling: &'static str,
    rule: &'static str,
}

/// A lag of 550 at 100 per replica, on one of 13 partitions of a group that does not consume.
const STEPS: &[Step] = &[
    Step {
        annotations: &[],
        replicas: 6,
        ceiling: "13",
        rule: "as_measured",
    },
    Step {
        annotations: &["even=true"],
        replicas: 7,
        ceiling: "13",
        rule: "even",
    },
    Step {
        annotations: &["threads-per-replica=4"],
        replicas: 4,
        ceiling: "4",
        rule: "clamped",
    },
    // An annotation for this group alone takes precedence over the one for all groups.
    Step {
        annotations: &["even-", "threads-per-replica.billing=6"],
        replicas: 3,
        ceiling: "3",
        rule: "clamped",
    },
    Step {
        annotations: &[
            "threads-per-replica-",
            "threads-per-replica.billing-",
            "partitions=1-12",
        ],
        replicas: 1,
        ceiling: "12",
        rule: "as_measured",
    },
    Step {
        annotations: &["partitions-", "by=lagging"],
        replicas: 1,
        ceiling: "1",
        rule: "clamped",
    },
    // What cannot be used is as if it were not there, also where it is a number or a time beyond its bounds.
    Step {
        annotations: &[
            "by=lag",
            "evenn=true",
            "threads-per-replica=10001",
            "threads-per-replica.billing=0",
            "residual-max=18446744073709551615",
            "stuck-after=1ns",
        ],
        replicas: 6,
        ceiling: "13",
        rule: "as_measured",
    },
];

fn replicas_follow_what_is_set_on_the_hpa(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("annotations")?;
    let (topic, group) = (unique("orders"), unique("Billing Group/"));
    kafka.create_topic(&topic, PARTITIONS)?;
    let zeros: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &zeros)?;
    kafka.produce_to(&topic, &[(0, 550)])?;
    let options = Options::main(&kafka.bootstrap());
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    // The group's name is no label value, and no topic is named, so the topic with commits counts.
    plane.apply(&namespace, &workload("billing", &[("group", "billing")]))?;
    annotate(plane, &namespace, &[&format!("consumer-group={group}")])?;
    let series = ReplicaSeries::record(plane, &namespace, "billing")?;
    for step in STEPS {
        annotate(plane, &namespace, step.annotations)?;
        let shown = format!("{} replicas after {:?}", step.replicas, step.annotations);
        poll_until(Duration::from_secs(120), &shown, || {
            let now = series.now();
            ensure!(now == step.replicas, "{now}: {:?}", series.values());
            expect_metrics(&daemon, &namespace, step)
        })?;
    }
    let most = series.max();
    ensure!(most <= PARTITIONS, "{:?}", series.values());
    let metrics = daemon.metrics()?;
    for finding in ["bad_annotation\"} 5", "unknown_annotation\"} 1"] {
        let counted = format!("lagwise_findings_total{{kind=\"{finding}");
        ensure!(metrics.contains(&counted), "no {counted}");
    }
    println!(
        "status.replicas as annotations came and went: {:?}",
        series.values()
    );
    Ok(())
}

fn annotate(plane: &ControlPlane, namespace: &str, annotations: &[&str]) -> Result<()> {
    if annotations.is_empty() {
        return Ok(());
    }
    let ours: Vec<_> = annotations
        .iter()
        .map(|annotation| format!("lagwise.dev/{annotation}"))
        .collect();
    let mut args = vec!["annotate", "hpa", "billing", "--overwrite", "-n", namespace];
    args.extend(ours.iter().map(String::as_str));
    plane.kubectl(&args).map(drop)
}

/// The HPA's ceiling and the rule of its value in `/metrics`.
fn expect_metrics(daemon: &Daemon, namespace: &str, step: &Step) -> Result<()> {
    let metrics = daemon.metrics()?;
    let of_hpa = format!("{{namespace=\"{namespace}\",hpa=\"billing\"");
    let line = |family: &str| {
        let mut lines = metrics.lines();
        let found = lines.find(|line| line.starts_with(&format!("{family}{of_hpa}")));
        found.unwrap_or_default().to_owned()
    };
    let (ceiling, value) = (line("lagwise_target_ceiling"), line("lagwise_target_value"));
    ensure!(
        ceiling.ends_with(&format!(" {}", step.ceiling)),
        "{ceiling}"
    );
    ensure!(
        value.contains(&format!("rule=\"{}\"", step.rule)),
        "{value}"
    );
    Ok(())
}
