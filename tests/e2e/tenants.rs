//! Namespaces of one cluster that must not reach one another's consumer groups, by what they write on their HPAs.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options, metric_path, value_of};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

mod floods;
mod fuzz;
mod honest;
mod hostile;

pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "tenants::barred_hpas_read_and_write_nothing",
        barred_hpas_read_and_write_nothing,
    ),
    (
        "tenants::a_namespace_that_comes_later_gets_its_share",
        a_namespace_that_comes_later_gets_its_share,
    ),
    (
        "tenants::annotations_without_end_disturb_nobody",
        floods::annotations_without_end_disturb_nobody,
    ),
    (
        "tenants::few_hostile_hpas_disturb_nobody",
        fuzz::few_hostile_hpas,
    ),
];

pub(crate) const LONG: &[(&str, Test)] = &[
    // Its 200,000 group-partitions would take the cores from the lanes beside it.
    (
        "tenants::groups_without_end_leave_memory_to_others",
        floods::groups_without_end_leave_memory_to_others,
    ),
    (
        "tenants::two_thousand_hpas_of_one_namespace_leave_room_for_others",
        floods::two_thousand_hpas_of_one_namespace_leave_room_for_others,
    ),
    (
        "tenants::two_thousand_hostile_hpas_disturb_nobody",
        fuzz::two_thousand_hostile_hpas,
    ),
];

const PARTITIONS: i32 = 6;
const LAG: usize = 450;
const WITHIN: Duration = Duration::from_secs(60);

/// Two HPAs of another namespace name the group of `owner`: one by its selector, one by an annotation behind a
/// selector of its own. Both want the cap enforced, and thresholds that would count less lag.
fn barred_hpas_read_and_write_nothing(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let (owner, thief) = (plane.namespace("owner")?, plane.namespace("thief")?);
    let (topic, group, own) = (unique("payments"), unique("pay"), unique("bob"));
    kafka.create_topic(&topic, PARTITIONS)?;
    let zeros: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &zeros)?;
    kafka.produce_to(&topic, &[(0, LAG)])?;
    let options = Options {
        tenancy: json!([
            {"namespaces": [owner.as_str()], "groups": ["pay*"]},
            {"namespaces": [thief.as_str()], "groups": ["bob*"]},
        ]),
        namespaces: vec![owner.clone(), thief.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, _api) = Daemon::registered(testbed, plane, &owner, &options)?;
    plane.apply(
        &owner,
        &workload("payments", &[("group", &group), ("topic", &topic)]),
    )?;
    let by_selector = [("group", group.as_str()), ("topic", topic.as_str())];
    let by_annotation = [("group", own.as_str()), ("topic", topic.as_str())];
    plane.apply(&thief, &workload("selector", &by_selector))?;
    plane.apply(&thief, &workload("annotation", &by_annotation))?;
    for hpa in ["selector", "annotation"] {
        let consumer_group = format!("lagwise.dev/consumer-group={group}");
        let mut args = vec!["annotate", "hpa", hpa, "-n", &thief];
        args.extend([
            "lagwise.dev/cap=enforce",
            "lagwise.dev/stuck-after=1s",
            "lagwise.dev/stuck-counts=false",
            "lagwise.dev/residual-after=1s",
            "lagwise.dev/residual-max=1000000",
        ]);
        args.extend((hpa == "annotation").then_some(consumer_group.as_str()));
        plane.kubectl(&args)?;
    }
    let path = |namespace: &str, selector: &[(&str, &str)]| {
        let labels: Vec<_> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        metric_path(namespace, &labels.join(","))
    };
    poll_until(WITHIN, "the owner's lag and the findings", || {
        let body = plane.get_raw(&path(&owner, &by_selector))?;
        ensure!(value_of(&body)? == LAG as u64, "{body}");
        let metrics = daemon.metrics()?;
        let findings = "lagwise_findings_total{kind=\"not_allowed\"} 2";
        ensure!(metrics.contains(findings), "no {findings}");
        Ok(())
    })?;
    daemon.let_it_look(6)?;
    for selector in [&by_selector, &by_annotation] {
        let refused = plane.get_raw(&path(&thief, selector)).err();
        let text = refused.map(|error| error.to_string()).unwrap_or_default();
        ensure!(text.contains("no entry of tenancy"), "not refused: {text}");
    }
    for hpa in ["selector", "annotation"] {
        is_untouched(plane, &thief, hpa)?;
    }
    let body = plane.get_raw(&path(&owner, &by_selector))?;
    ensure!(value_of(&body)? == LAG as u64, "{body}");
    let metrics = daemon.metrics()?;
    let of_thief = format!("namespace=\"{thief}\"");
    let series: Vec<_> = metrics.lines().filter(|l| l.contains(&of_thief)).collect();
    ensure!(series.is_empty(), "{series:?}");
    Ok(())
}

/// Nothing that lagwise writes on an HPA is there, and its maximum is as the user wrote it.
fn is_untouched(plane: &ControlPlane, namespace: &str, name: &str) -> Result<()> {
    let hpa: Value = plane.get("hpa", name, Some(namespace))?;
    let annotations = &hpa["metadata"]["annotations"];
    for key in ["lagwise.dev/ceiling", "lagwise.dev/user-max-replicas"] {
        ensure!(annotations[key].is_null(), "{annotations}");
    }
    ensure!(hpa["spec"]["maxReplicas"] == 20, "{hpa}");
    Ok(())
}

/// A namespace uses up the total budget of groups. Another one that comes later gets what it asks for, and gives it
/// back when it leaves.
fn a_namespace_that_comes_later_gets_its_share(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let (early, late) = (plane.namespace("early")?, plane.namespace("late")?);
    let topic = unique("shared");
    kafka.create_topic(&topic, 1)?;
    kafka.produce_to(&topic, &[(0, LAG)])?;
    let options = Options {
        budgets: json!({"total": {"groups": 6}}),
        namespaces: vec![early.clone(), late.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, _api) = Daemon::registered(testbed, plane, &early, &options)?;
    let start = |namespace: &str, name: &str| -> Result<String> {
        let group = unique(name);
        kafka.commit(&group, &topic, &[(0, 0)])?;
        let selector = [("group", group.as_str()), ("topic", topic.as_str())];
        plane.apply(namespace, &workload(name, &selector))?;
        Ok(metric_path(
            namespace,
            &format!("group={group},topic={topic}"),
        ))
    };
    let of_early = (0..6).map(|n| start(&early, &format!("e{n}")));
    let of_early = of_early.collect::<Result<Vec<_>>>()?;
    // How many of these are answered, with the lag that one partition can use. The others are refused with the reason.
    let served = |paths: &[String]| -> Result<usize> {
        let mut served = 0;
        for path in paths {
            match plane.get_raw(path) {
                Ok(body) => {
                    ensure!(value_of(&body)? > 0, "{path}: {body}");
                    served += 1;
                }
                Err(error) => {
                    let is_refused = error.to_string().contains("can make room for it");
                    ensure!(is_refused, "{path}: {error}");
                }
            }
        }
        Ok(served)
    };
    let expect = |what: &str, paths: &[String], count: usize| {
        poll_until(WITHIN, what, || {
            let served = served(paths)?;
            ensure!(served == count, "{served} are served");
            Ok(())
        })
    };
    expect("all of the early namespace", &of_early, 6)?;
    let of_late = [start(&late, "l0")?, start(&late, "l1")?];
    expect("all of the late namespace", &of_late, 2)?;
    expect("the rest of the early namespace", &of_early, 4)?;
    // It stays so: each refusal is one finding, which does not come again.
    daemon.let_it_look(6)?;
    ensure!(served(&of_early)? == 4 && served(&of_late)? == 2);
    let metrics = daemon.metrics()?;
    for expected in [
        "lagwise_findings_total{kind=\"over_budget\"} 2",
        "lagwise_over_budget{scope=\"total\",resource=\"groups\"} 2",
    ] {
        ensure!(metrics.contains(expected), "no {expected}");
    }
    plane.kubectl(&["delete", "hpa", "l0", "l1", "-n", &late])?;
    expect("all of the early namespace again", &of_early, 6)
}
