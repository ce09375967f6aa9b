//! Tenancy: HPAs of one namespace must not get or influence the lag of another namespace's consumer groups.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::{Daemon, Options, metric_path, value_of};
use crate::rows::work::Worker;
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

mod crowds;
mod floods;
mod fuzz;
mod hostile;
mod owner_scene;

pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "tenants::barred_hpas_read_and_write_nothing",
        barred_hpas_read_and_write_nothing,
    ),
    (
        "tenants::what_others_set_on_a_shared_group_counts_no_less_lag",
        what_others_set_on_a_shared_group_counts_no_less_lag,
    ),
    (
        "tenants::a_request_during_a_change_shows_no_lag_of_others",
        a_request_during_a_change_shows_no_lag_of_others,
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
        "tenants::a_restart_beside_huge_hpas_disturbs_nobody",
        crowds::a_restart_beside_huge_hpas_disturbs_nobody,
    ),
    (
        "tenants::many_hpas_of_every_kind_disturb_nobody",
        crowds::many_hpas_of_every_kind_disturb_nobody,
    ),
    (
        "tenants::a_thousand_hpas_leave_passes_to_others",
        crowds::a_thousand_hpas_leave_passes_to_others,
    ),
    (
        "tenants::two_thousand_hostile_hpas_disturb_nobody",
        fuzz::two_thousand_hostile_hpas,
    ),
];

const PARTITIONS: i32 = 6;
const LAG: usize = 450;
/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a lag is checked that must not change, over some seconds.
const ROUNDS: usize = 6;

/// Two HPAs of another namespace name the group of `owner`: one in its selector, one in an annotation. Both ask for an
/// enforced cap, as the HPA of the owner does, and for thresholds with which less lag counts.
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
    owner_scene::let_the_daemon_write(plane, &owner, &[&owner, &thief])?;
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
    let enforce = ["payments", "lagwise.dev/cap=enforce", "-n", &owner];
    plane.kubectl(&[&["annotate", "hpa"][..], &enforce].concat())?;
    let path = |namespace: &str, selector: &[(&str, &str)]| {
        let labels: Vec<_> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        metric_path(namespace, &labels.join(","))
    };
    poll_until(WAIT_TIMEOUT, "the owner's lag and the findings", || {
        let body = plane.get_raw(&path(&owner, &by_selector))?;
        ensure!(value_of(&body)? == LAG as u64, "{body}");
        let metrics = daemon.metrics()?;
        let findings = "lagwise_findings_total{kind=\"not_allowed\"} 2";
        ensure!(metrics.contains(findings), "no {findings}");
        Ok(())
    })?;
    poll_until(WAIT_TIMEOUT, "the owner's HPA to be capped", || {
        let hpa: Value = plane.get("hpa", "payments", Some(&owner))?;
        ensure!(hpa["spec"]["maxReplicas"] == PARTITIONS, "{hpa}");
        Ok(())
    })?;
    daemon.wait_for_sweeps(6)?;
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

/// Checks that lagwise has written nothing to an HPA, and that its maximum is the user's.
fn is_untouched(plane: &ControlPlane, namespace: &str, name: &str) -> Result<()> {
    let hpa: Value = plane.get("hpa", name, Some(namespace))?;
    let annotations = &hpa["metadata"]["annotations"];
    for key in ["lagwise.dev/ceiling", "lagwise.dev/user-max-replicas"] {
        ensure!(annotations[key].is_null(), "{annotations}");
    }
    ensure!(hpa["spec"]["maxReplicas"] == 20, "{hpa}");
    Ok(())
}

/// Two namespaces may use one group. One of them sets thresholds with which less lag counts, and the other sets none.
/// The lag of the other does not change, although the partition is stuck and its lag could be residual by these
/// thresholds, and both get a finding.
fn what_others_set_on_a_shared_group_counts_no_less_lag(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let owner = owner_scene::Owner::new(kafka, plane)?;
    let bob = plane.namespace("bob")?;
    let options = Options {
        namespaces: vec![owner.namespace.clone(), bob.clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (group, topic) = (owner.group.clone(), owner.topic.clone());
    let scene = owner_scene::OwnerScene::start(testbed, plane, owner, &options)?;
    let selector = [("group", &*group), ("topic", &*topic)];
    plane.apply(&bob, &workload("bobs", &selector))?;
    let annotate = |annotations: [&str; 2]| {
        let args = ["annotate", "hpa", "bobs", "--namespace", &bob];
        plane.kubectl(&[&args[..], &annotations].concat())
    };
    annotate([
        "lagwise.dev/stuck-after=1s",
        "lagwise.dev/stuck-counts=false",
    ])?;
    // Another partition makes progress.
    for _ in 0..ROUNDS {
        kafka.produce(&topic, 1, 1)?;
        let ends = kafka.end_offsets(&topic)?;
        kafka.commit(&group, &topic, &[(1, ends[1])])?;
        // The first may have begun before the commit.
        scene.daemon.wait_for_sweeps(2)?;
        scene.owner_is_served()?;
    }
    // A member that has the partition and does not get beyond its first record.
    let member = Worker::start(kafka, &group, &[&topic], &[], |worker| {
        worker.subscribe = true;
        worker.poison = Some((0, 0));
    })?;
    annotate([
        "lagwise.dev/residual-after=1s",
        "lagwise.dev/residual-max=1000000",
    ])?;
    poll_until(WAIT_TIMEOUT, "the member", || {
        let metrics = scene.daemon.metrics()?;
        let of_group = format!("consumergroup=\"{group}\"");
        let mut members = metrics.lines().filter(|line| {
            line.starts_with("kafka_consumergroup_members{") && line.contains(&of_group)
        });
        ensure!(members.any(|line| line.ends_with(" 1")), "there is none");
        Ok(())
    })?;
    for _ in 0..ROUNDS {
        scene.daemon.wait_for_sweeps(2)?;
        scene.owner_is_served()?;
    }
    // One for each HPA, and one about the group.
    poll_until(WAIT_TIMEOUT, "the findings", || {
        let found = scene.findings("conflicting_settings")?;
        ensure!(found >= 2, "{found} findings");
        scene.owner_is_served()
    })?;
    for (namespace, hpa) in [(&scene.owner.namespace, "payments"), (&bob, "bobs")] {
        poll_until(WAIT_TIMEOUT, "an event on the HPA of each side", || {
            let events = plane.events(namespace)?;
            let mut events = events.iter().filter(|e| e["regarding"]["name"] == hpa);
            let is_there = events.any(|event| event["reason"] == "ConflictingSettings");
            ensure!(is_there, "there is none on {namespace}/{hpa}");
            Ok(())
        })?;
    }
    member.leave()
}

/// A namespace requests a group of its own, and while the request waits for the first read, an HPA is created that maps
/// this name to the group of another namespace.
fn a_request_during_a_change_shows_no_lag_of_others(testbed: &Testbed) -> Result<()> {
    const TRIES: usize = 6;
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let owner = owner_scene::Owner::new(kafka, plane)?;
    let thief = plane.namespace("thief")?;
    let options = Options {
        tenancy: json!([
            {"namespaces": [owner.namespace], "groups": ["pay*"]},
            {"namespaces": [thief], "groups": ["bob*"]},
        ]),
        namespaces: vec![owner.namespace.clone(), thief.clone()],
        // A read may then take longer than a request waits for it.
        interval: "3s",
        ..Options::main(&kafka.bootstrap())
    };
    let (group, topic) = (owner.group.clone(), owner.topic.clone());
    let scene = owner_scene::OwnerScene::start(testbed, plane, owner, &options)?;
    let signal = |signal: &str| {
        let mut brokers = 1..=kafka.brokers();
        brokers.try_for_each(|broker| kafka.signal_broker(broker, signal))
    };
    let (mut bodies, mut hits) = (Vec::new(), 0);
    for number in 0..TRIES {
        let own = unique("bob");
        let name = format!("race{number}");
        let selector = [("group", own.as_str()), ("topic", topic.as_str())];
        let mut list: Value = serde_json::from_str(&workload(&name, &selector))?;
        let hpa = &mut list["items"][1];
        let key = match number % 2 {
            0 => "lagwise.dev/consumer-group".to_owned(),
            _ => format!("lagwise.dev/consumer-group.{own}"),
        };
        hpa["metadata"]["annotations"] = json!({key: group});
        let create = ["create", "--namespace", &thief, "--filename", "-"];
        let path = metric_path(&thief, &format!("group={own},topic={topic}"));
        // Kafka does not answer, so that the request waits.
        signal("STOP")?;
        let answer = thread::scope(|scope| -> Result<Result<Value>> {
            let requesting = scope.spawn(|| plane.get_raw(&path));
            let created = plane.kubectl_with_input(&create, &hpa.to_string());
            let answer = requesting.join();
            created?;
            answer.map_err(|_| anyhow!("the request panicked"))
        });
        signal("CONT")?;
        match answer? {
            Ok(body) => bodies.push(body),
            Err(error) => hits += usize::from(is_refused_by_tenancy(&error)),
        }
        poll_until(WAIT_TIMEOUT, "the request to be refused", || {
            let body = match plane.get_raw(&path) {
                Err(error) if is_refused_by_tenancy(&error) => return Ok(()),
                answer => answer?,
            };
            bodies.push(body.clone());
            bail!("{body}")
        })?;
    }
    let of_owner = bodies
        .iter()
        .filter(|body| value_of(body).is_ok_and(|lag| lag == LAG as u64));
    let of_owner = of_owner.count();
    println!(
        "{hits} of {TRIES} requests were decided by a change while they waited, {of_owner} answers with the lag of another \
         namespace (limit 0)"
    );
    ensure!(of_owner == 0, "{of_owner} answers with the owner's lag");
    ensure!(hits > 0, "no request waited during the change");
    poll_until(WAIT_TIMEOUT, "the owner's lag", || scene.owner_is_served())
}

fn is_refused_by_tenancy(error: &anyhow::Error) -> bool {
    error.to_string().contains("no entry of tenancy")
}

/// A namespace uses up the total budget of groups. Another namespace that comes later still gets its groups, and gives
/// them back when its HPAs are deleted.
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
        poll_until(WAIT_TIMEOUT, what, || {
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
    daemon.wait_for_sweeps(6)?;
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
