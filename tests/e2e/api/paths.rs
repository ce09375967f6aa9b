//! Responses for every path of the API, directly and through the API server; and that the rest of the cluster is not
//! affected.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::blocking::Client;
use serde_json::Value;

use super::callers::client;
use super::{BASE, Scene};
use crate::daemon::{Daemon, Options, metric_path, value_of};
use crate::testbed::kubernetes::EXTERNAL_METRICS_API;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::{Testbed, unique};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) fn master(scene: &Scene<'_>) -> Result<Client> {
    client(Some(
        scene
            .plane
            .pki
            .authority
            .client("root", Some("system:masters"))?,
    ))
}

pub(super) fn every_path_of_the_contract(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let master = master(&scene)?;
    let good = scene.metric(&scene.namespace);
    let (_, query) = good.split_once('?').context("no query")?;
    let namespace = &scene.namespace;
    for (path, direct, through) in [
        (good.clone(), 200, 200),
        (format!("{good}&limit=1&continue=x"), 200, 200),
        (format!("{good}&watch=1"), 405, 405),
        (format!("{BASE}/namespaces/{namespace}/kafka_lag"), 400, 400),
        (
            format!("{BASE}/namespaces/{namespace}/kafka_lag?labelSelector=a%3D%3D%3Db"),
            400,
            400,
        ),
        // A long prefix, the root's scope, no metric, extra slashes.
        (format!("/long/prefix{good}"), 404, 404),
        (format!("{BASE}/long{good}"), 404, 404),
        (format!("{BASE}/kafka_lag?{query}"), 404, 404),
        (format!("{BASE}/namespaces/{namespace}"), 404, 404),
        (format!("{BASE}/namespaces/{namespace}/"), 404, 404),
        (
            format!("{BASE}/namespaces/{namespace}/kafka_lag/more?{query}"),
            404,
            404,
        ),
        (
            format!("{BASE}/namespaces/{namespace}//kafka_lag?{query}"),
            404,
            404,
        ),
        (
            format!("{BASE}//namespaces/{namespace}/kafka_lag?{query}"),
            404,
            404,
        ),
        (
            format!("{BASE}/namespaces/{namespace}/other_metric?{query}"),
            404,
            404,
        ),
        (BASE.to_owned(), 200, 200),
        (format!("{BASE}/"), 200, 200),
        ("/apis/external.metrics.k8s.io".to_owned(), 200, 200),
    ] {
        for (url, expected) in [
            (scene.daemon.url(&path), direct),
            (scene.through(&path), through),
        ] {
            let answer = master
                .get(&url)
                .header("accept", "application/vnd.kubernetes.protobuf, */*")
                .send()?;
            let code = answer.status().as_u16();
            ensure!(!answer.headers().contains_key("retry-after"), "{url}");
            let is_ours =
                url.starts_with(&scene.daemon.url("")) || path.starts_with(&format!("{BASE}/"));
            let kind = answer.headers().get("content-type").cloned();
            let body = answer.text()?;
            ensure!(code == expected, "{url}: {code}, not {expected}: {body}");
            if is_ours {
                ensure!(
                    kind.as_ref().is_some_and(|kind| kind == "application/json"),
                    "{url}: {kind:?}"
                );
            }
        }
    }
    long_selectors_are_not_repeated(&scene, &master)?;
    one_item_and_one_of_two(testbed, &scene, &master)?;
    discovery(&scene, &master)
}

/// Errors about selectors of 50 kB are short.
fn long_selectors_are_not_repeated(scene: &Scene<'_>, master: &Client) -> Result<()> {
    const MAX_MESSAGE_BYTES: usize = 4096;
    let groups: Vec<_> = (0..6000).map(|i| format!("g{i:05}")).collect();
    let names: Vec<_> = (0..3000).map(|i| format!("x{i}!=y{i}")).collect();
    for selector in [
        format!("group in ({})", groups.join(",")),
        format!("group=a,{}", names.join(",")),
        format!("group={}", "g".repeat(50_000)),
    ] {
        let selector: String = form_urlencoded::byte_serialize(selector.as_bytes()).collect();
        let namespace = &scene.namespace;
        let path = format!("{BASE}/namespaces/{namespace}/kafka_lag?labelSelector={selector}");
        for url in [scene.daemon.url(&path), scene.through(&path)] {
            let answer = master.get(&url).send()?;
            let (code, body) = (answer.status().as_u16(), answer.text()?);
            let shown: String = body.chars().take(300).collect();
            // The second one names a group, of which nothing is known here.
            ensure!(matches!(code, 400 | 404 | 503), "{code}: {shown}");
            ensure!(
                body.len() <= MAX_MESSAGE_BYTES,
                "{} bytes: {shown}",
                body.len()
            );
        }
    }
    Ok(())
}

fn one_item_and_one_of_two(testbed: &Testbed, scene: &Scene<'_>, master: &Client) -> Result<()> {
    let kafka = testbed.kafka()?;
    let other = unique("payments");
    kafka.create_topic(&other, 1)?;
    kafka.produce(&other, 0, 5)?;
    kafka.commit(&scene.group, &other, &[(0, 1)])?;
    let (group, topic) = (&scene.group, &scene.topic);
    // The group's lag on one topic, on the other, on both, and on all that it has committed.
    let selectors = [
        (format!("group={group},topic={topic}"), 7),
        (format!("group={group},topic={topic},cluster=main"), 7),
        (format!("group={group},topic={other}"), 4),
        (format!("group={group},topic in ({other},{topic})"), 11),
        (format!("group={group}"), 11),
    ];
    let get = |url: &str| -> Result<Value> { Ok(master.get(url).send()?.json()?) };
    // The first read of a group that only requests use may take longer than a request waits, and the poll after a
    // commit longer than its interval.
    poll_until(Duration::from_secs(60), "all topics to be read", || {
        for (selector, expected) in &selectors {
            let url = scene.daemon.url(&metric_path(&scene.namespace, selector));
            let body = get(&url)?;
            ensure!(value_of(&body)? == *expected, "{url}: {body}");
        }
        Ok(())
    })?;
    for (selector, expected) in &selectors {
        let path = metric_path(&scene.namespace, selector);
        for url in [scene.daemon.url(&path), scene.through(&path)] {
            let body = get(&url)?;
            ensure!(value_of(&body)? == *expected, "{url}: {body}");
            ensure!(body["items"][0]["metricName"] == "kafka_lag", "{body}");
            ensure!(body["kind"] == "ExternalMetricValueList", "{body}");
        }
    }
    Ok(())
}

fn discovery(scene: &Scene<'_>, master: &Client) -> Result<()> {
    // In its old form, and for both the one placeholder.
    for url in [scene.daemon.url(BASE), scene.through(BASE)] {
        let body: Value = master.get(&url).send()?.json()?;
        ensure!(
            body["kind"] == "APIResourceList" && body["resources"][0]["name"] == "externalmetrics",
            "{body}"
        );
        ensure!(
            body["resources"].as_array().is_some_and(|r| r.len() == 1),
            "{body}"
        );
    }
    let get_unless = |tag: Option<&str>| {
        let request = master
            .get(scene.daemon.url("/apis"))
            .header("accept", AGGREGATED);
        let request = tag
            .into_iter()
            .fold(request, |request, tag| request.header("if-none-match", tag));
        request.send()
    };
    let first = get_unless(None)?;
    let tag = first.headers()["etag"].to_str()?.to_owned();
    ensure!(
        first.headers()["content-type"] == AGGREGATED,
        "{:?}",
        first.headers()
    );
    ensure!(
        get_unless(Some(&tag))?.status() == 304,
        "no 304 for what is known"
    );
    ensure!(
        get_unless(Some("\"other\""))?.status() == 200,
        "304 for what is not known"
    );
    // The aggregated discovery of the API server for the whole cluster, and its response when nothing has changed.
    let through = |tag: &str| {
        let request = master.get(scene.through("/apis"));
        let request = request.header("accept", AGGREGATED);
        request.header("if-none-match", tag).send()
    };
    let all = through("\"other\"")?;
    let tag = all.headers()["etag"].to_str()?.to_owned();
    ensure!(
        through(&tag)?.status() == 304,
        "no 304 through the API server"
    );
    let all: Value = all.json()?;
    let groups = all["items"].as_array().context("no items")?;
    let ours = groups
        .iter()
        .find(|group| group["metadata"]["name"] == "external.metrics.k8s.io");
    let ours = ours.context("the API server's own discovery lacks the group")?;
    ensure!(
        ours["versions"][0]["resources"][0]["resource"] == "externalmetrics",
        "{ours}"
    );
    ensure!(ours["versions"][0]["freshness"] == "Current", "{ours}");
    Ok(())
}

/// Discovery by kubectl, and the deletion of namespaces: with the daemon running, with Kafka down, and with the daemon
/// stopped.
pub(super) fn kubectl_and_namespace_deletion_work(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let deletes = |when: &str| -> Result<()> {
        let namespace = plane.namespace("doomed")?;
        let began = Instant::now();
        plane
            .kubectl(&["delete", "namespace", &namespace, "--timeout=90s"])
            .with_context(|| format!("deleting a namespace {when}"))?;
        println!("a namespace is deleted {when} within {:?}", began.elapsed());
        Ok(())
    };
    // Helm requests all discovery documents.
    let chart = small_chart(testbed)?;
    let installs = |when: &str| -> Result<()> {
        let namespace = plane.namespace("helm")?;
        let helm = |args: &[&str]| plane.helm(&[args, &["--namespace", &namespace]].concat());
        helm(&["install", "small", &chart.to_string_lossy()])
            .with_context(|| format!("installing a chart {when}"))?;
        plane.kubectl(&["get", "configmap", "small", "-n", &namespace])?;
        helm(&["uninstall", "small"]).map(drop)
    };
    let asks = |is_there: bool, when: &str| {
        // The API server takes some seconds to see that an API comes or goes.
        poll_until(Duration::from_secs(60), &format!("kubectl {when}"), || {
            let resources = plane.kubectl(&["api-resources"])?;
            let is_known = resources.contains("externalmetrics");
            ensure!(is_known == is_there, "{resources}");
            let services = plane.kubectl(&["get", "apiservices"])?;
            let mut lines = services.lines();
            let ours = lines.find(|line| line.starts_with(EXTERNAL_METRICS_API));
            let is_available = ours.map(|line| line.contains("True"));
            ensure!(is_available == is_there.then_some(true), "{services}");
            Ok(())
        })
    };
    let up = Scene::set(testbed, |_| {})?;
    asks(true, "with the daemon up")?;
    plane.get_raw(BASE)?;
    plane.get_raw(&up.metric(&up.namespace))?;
    deletes("with the daemon up")?;
    installs("with the daemon up")?;
    drop(up);
    let namespace = plane.namespace("kafkaless")?;
    let nowhere = format!("127.0.0.1:{}", free_port()?);
    let (daemon, api) = Daemon::registered(testbed, plane, &namespace, &Options::main(&nowhere))?;
    api.wait_available(Duration::from_secs(60))?;
    deletes("with Kafka down")?;
    installs("with Kafka down")?;
    asks(true, "with Kafka down")?;
    plane.get_raw(BASE)?;
    let refused = plane
        .get_raw(&metric_path(&namespace, "group=g,topic=t"))
        .unwrap_err()
        .to_string();
    ensure!(refused.contains("ServiceUnavailable"), "{refused}");
    drop(api);
    drop(daemon);
    asks(false, "after it is gone")?;
    ensure!(
        plane.get_raw(BASE).is_err(),
        "somebody answers after it is gone"
    );
    deletes("after it is gone")?;
    installs("after it is gone")
}

/// A chart of one ConfigMap.
fn small_chart(testbed: &Testbed) -> Result<PathBuf> {
    let folder = testbed.folder("small-chart")?;
    std::fs::create_dir(folder.join("templates"))?;
    std::fs::write(
        folder.join("Chart.yaml"),
        "apiVersion: v2\nname: small\nversion: 1.0.0\n",
    )?;
    std::fs::write(
        folder.join("templates/map.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: small}\n",
    )?;
    Ok(folder)
}
