//! The page of a thousand HPAs in a real browser: the time of the server, when the browser paints, and the memory of
//! the daemon.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::page::picture_folder;
use crate::daemon::{Daemon, Options};
use crate::testbed::chromium::Browser;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::{BINARY, Testbed, unique};

const FEW: usize = 10;
const MANY: usize = 1_000;
const NAMESPACES: usize = 4;
const PARTITIONS: i32 = 36;
/// Partitions of the topic that is drawn as a strip.
const WIDE: i32 = 1_200;
/// Consumer groups that commit at the same time.
const COMMITTERS: usize = 8;
/// Times that each page is opened.
const OPENED: usize = 7;

/// Maximum time until the browser has painted, also in a build without optimization.
const MAX_PAINT_MILLIS: f64 = 1_000.0;
/// Maximum time of the server for its answer, if the build is named by [`BINARY`], such as a release build.
/// (`cargo bench --bench page` has the same bound.)
const MAX_SERVER_MILLIS: f64 = 50.0;
/// Maximum memory of the daemon per HPA: the figure in the guide for its history.
const MAX_KB_PER_HPA: u64 = 100;

/// What opening a page takes, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct PageTimes {
    /// From the request to the first byte of the response.
    server: f64,
    /// From the start of the navigation to the first content on the screen.
    paint: f64,
}

/// Opens the overview with few and with many HPAs, and the page of an HPA on many partitions.
pub(super) fn in_a_browser(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespaces = (0..NAMESPACES).map(|_| plane.namespace("crowd"));
    let namespaces = namespaces.collect::<Result<Vec<_>>>()?;
    let (topic, wide, prefix) = (unique("orders"), unique("wide"), unique("crowd"));
    kafka.create_topic(&topic, PARTITIONS)?;
    let counts: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 9)).collect();
    kafka.produce_to(&topic, &counts)?;
    let groups: Vec<_> = (0..MANY).map(|i| format!("{prefix}-{i}")).collect();
    commit_all(kafka, &groups, &topic)?;
    let options = Options {
        namespaces: namespaces.clone(),
        interval: "4s",
        ..Options::main(&kafka.bootstrap())
    };
    let (daemon, _api) = Daemon::registered(testbed, plane, &namespaces[0], &options)?;
    let create = |numbers: std::ops::Range<usize>| -> Result<()> {
        for (place, namespace) in namespaces.iter().enumerate() {
            let own = numbers.clone().filter(|i| i % NAMESPACES == place);
            let hpas: Vec<_> = own
                .map(|i| hpa(&format!("billing-{i}"), &groups[i], &topic))
                .collect();
            apply(plane, namespace, &hpas)?;
        }
        wait_until_known(&daemon, numbers.end)
    };
    let address = format!("http://127.0.0.1:{}/", daemon.admin_port);
    let mut browser = Browser::start(testbed)?;
    browser.set_window(1280, 1400, "light")?;

    create(0..FEW)?;
    let memory_of_few = daemon.process.memory("VmRSS")?;
    let few = open(&mut browser, &address)?;
    create(FEW..MANY)?;
    let memory_of_many = daemon.process.memory("VmRSS")?;
    let many = open(&mut browser, &address)?;
    println!("overview of {FEW} HPAs: {few:.0?}");
    println!(
        "overview of {MANY} HPAs on {PARTITIONS} partitions each: {many:.0?}; {:.1} times the server's time and {:.1} \
         times the time to paint of {FEW}",
        many.server / few.server,
        many.paint / few.paint,
    );
    let growth = memory_of_many.saturating_sub(memory_of_few) / u64::try_from(MANY - FEW)?;
    println!(
        "memory: {memory_of_few} kB with {FEW} HPAs, {memory_of_many} kB with {MANY}: {growth} kB for each"
    );
    ensure!(many.paint < MAX_PAINT_MILLIS, "{many:?}");
    let is_strict = std::env::var_os(BINARY).is_some();
    ensure!(!is_strict || many.server < MAX_SERVER_MILLIS, "{many:?}");
    ensure!(growth < MAX_KB_PER_HPA, "{growth} kB for each HPA");
    keep_picture(&mut browser, "thousand-hpas")?;

    // The browser stays responsive during live updates of this number of HPAs.
    browser.evaluate("window.first = document.querySelector('header time').dateTime")?;
    browser.wait_for("document.querySelector('header time').dateTime !== window.first")?;
    browser.press("/")?;
    browser.wait_for("document.activeElement.id === 'search'")?;

    kafka.create_topic(&wide, WIDE)?;
    kafka.produce_to(&wide, &[(7, 900), (8, 40), (1_100, 300)])?;
    let group = unique("wide");
    let offsets: Vec<_> = (0..WIDE).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &wide, &offsets)?;
    apply(plane, &namespaces[0], &[hpa("wide", &group, &wide)])?;
    wait_until_known(&daemon, MANY + 1)?;
    let detail = format!("{address}hpas/{}/wide", namespaces[0]);
    let times = open(&mut browser, &detail)?;
    println!("HPA on {WIDE} partitions: {times:.0?}");
    ensure!(times.paint < MAX_PAINT_MILLIS, "{times:?}");
    browser.wait_for("document.querySelectorAll('svg.strip').length === 1")?;
    browser.evaluate("document.querySelector('svg.strip').scrollIntoView({block: 'center'})")?;
    keep_picture(&mut browser, "strip")?;
    drop(browser);
    kafka.delete_topic(&wide)
}

/// Commits for all groups, a few at a time.
fn commit_all(kafka: &KafkaCluster, groups: &[String], topic: &str) -> Result<()> {
    let begun = Instant::now();
    let commit = |group: &String, behind: usize| {
        let behind = i64::try_from(behind % 10)?;
        let offsets: Vec<_> = (0..PARTITIONS).map(|p| (p, 9 - behind)).collect();
        kafka.commit(group, topic, &offsets)
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..COMMITTERS)
            .map(|first| {
                scope.spawn(move || {
                    let own = groups.iter().enumerate().skip(first);
                    let mut own = own.step_by(COMMITTERS);
                    own.try_for_each(|(i, group)| commit(group, i))
                })
            })
            .collect();
        let mut ended = started.into_iter().map(|thread| thread.join());
        ended.try_for_each(|done| done.map_err(|_| anyhow!("a thread that commits panicked"))?)
    })?;
    println!(
        "{} groups have committed after {:.1?}",
        groups.len(),
        begun.elapsed()
    );
    Ok(())
}

fn apply(plane: &ControlPlane, namespace: &str, hpas: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": hpas});
    let arguments = ["create", "--namespace", namespace, "--filename", "-"];
    plane.kubectl_with_input(&arguments, &list.to_string())?;
    Ok(())
}

fn hpa(name: &str, group: &str, topic: &str) -> Value {
    let labels = json!({"group": group, "topic": topic});
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "absent"},
            "maxReplicas": 50,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "kafka_lag", "selector": {"matchLabels": labels}},
                "target": {"type": "AverageValue", "averageValue": "10"},
            }}],
        },
    })
}

/// Waits until there is this number of HPAs, the lag of each is known, and each has a point in its history.
fn wait_until_known(daemon: &Daemon, count: usize) -> Result<()> {
    poll_until(Duration::from_secs(180), "the lag of all HPAs", || {
        let (code, body) = http_get(daemon.admin_port, "/api/hpas")?;
        ensure!(code == 200, "{code}: {body:.200}");
        let overview: Value = serde_json::from_str(&body)?;
        let hpas = overview["hpas"].as_array().context("no HPAs")?;
        let known = hpas.iter().filter(|hpa| !hpa["lag"].is_null()).count();
        ensure!(known == count, "{known} of {count}");
        ensure!(
            overview["without_history"] == 0,
            "{}",
            overview["without_history"]
        );
        ensure!(!overview["known_since"].is_null(), "no history yet");
        Ok(())
    })
}

/// Opens a page several times, of which the fastest is least disturbed by what else the machine does.
fn open(browser: &mut Browser, address: &str) -> Result<PageTimes> {
    let mut all = Vec::new();
    for _ in 0..OPENED {
        browser.open("about:blank")?;
        browser.open(address)?;
        let times = browser.evaluate(
            "new Promise(done => new PerformanceObserver((list, observer) => { \
             const paint = list.getEntriesByName('first-contentful-paint')[0]; \
             if (!paint) return; \
             observer.disconnect(); \
             const [page] = performance.getEntriesByType('navigation'); \
             done([page.responseStart - page.requestStart, paint.startTime]); \
             }).observe({type: 'paint', buffered: true}))",
        )?;
        let [server, paint] = [0, 1].map(|place| times[place].as_f64());
        let (server, paint) = server.zip(paint).context("the browser reports no times")?;
        all.push(PageTimes { server, paint });
    }
    all.sort_by(|a, b| a.paint.total_cmp(&b.paint));
    println!("{address}: {all:.0?}");
    all.first().copied().context("it was not opened")
}

fn keep_picture(browser: &mut Browser, name: &str) -> Result<()> {
    browser.screenshot(&picture_folder()?.join(format!("{name}-1280-light.png")))
}
