//! The page in a real browser, through `lagwise page`, of a daemon that reads a real Kafka.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Scene;
use crate::testbed::chromium::Browser;
use crate::testbed::kubelet::Kubelet;
use crate::testbed::poll::poll_until;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

const POD: &str = "lagwise-0";

/// The name of a group that would run a script if it were not shown as text, and that is written from right to left.
const HOSTILE_GROUP: &str = "<img src=x onerror=\"document.title='caught'\">\u{202e}gnillib";

/// Maximum length of a name that Kafka accepts for a topic.
const MAX_TOPIC_CHARS: usize = 249;

/// Both pages render, stay up to date, obey filters and keys, and load nothing from elsewhere.
pub(super) fn in_a_browser(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |options| {
        options.leader = json!({"lease": "lagwise", "duration": "6s"});
        options.environment = vec![("POD_NAME", POD.to_owned())];
    })?;
    let (plane, namespace) = (scene.plane, scene.namespace.as_str());
    let kubelet = Kubelet::start(plane)?;
    kubelet.run_pod(namespace, POD)?;
    let kafka = testbed.kafka()?;
    let mut long_topic = unique("long");
    long_topic.extend(std::iter::repeat_n('t', MAX_TOPIC_CHARS - long_topic.len()));
    kafka.create_topic(&long_topic, 2)?;
    kafka.produce(&long_topic, 1, 5)?;
    kafka.commit(HOSTILE_GROUP, &long_topic, &[(0, 0), (1, 2)])?;
    let hostile_names =
        json!({"lagwise.dev/consumer-group": HOSTILE_GROUP, "lagwise.dev/topics": long_topic});
    // HPAs with the same selector must have the same settings of the metric.
    let slo = json!({"lagwise.dev/slo": "1s"});
    for (name, topic, annotations) in [
        ("billing", scene.topic.as_str(), &slo),
        ("typo", "odrers", &slo),
        ("hostile", "", &hostile_names),
        (
            "paused",
            scene.topic.as_str(),
            &json!({"lagwise.dev/slo": "1s", "lagwise.dev/paused": "true"}),
        ),
        (
            "misspelled-annotation",
            scene.topic.as_str(),
            &json!({"lagwise.dev/slo": "1s", "lagwise.dev/stuck-afer": "2m"}),
        ),
    ] {
        let mut hpa = hpa(name, &scene.group, topic);
        hpa["metadata"]["annotations"] = annotations.clone();
        if name == "hostile" {
            // Labels cannot have such names, so its annotations have them.
            let metric = &mut hpa["spec"]["metrics"][0]["external"]["metric"];
            metric["selector"] = json!({"matchLabels": {"group": scene.group}});
        }
        plane.apply(namespace, &hpa.to_string())?;
    }
    let axe = testbed.artifacts()?.axe.as_ref();
    let axe = axe.context("no axe-core; tests/run brings it into the testbed")?;
    let axe = std::fs::read_to_string(axe)?;
    let folder = testbed.folder("page")?;
    let port = scene.daemon.admin_port.to_string();
    let kubeconfig = plane.kubeconfig().to_string_lossy().into_owned();
    let mut command = testbed.lagwise(&["page", "--no-open", "--admin-port", &port]);
    command.args(["--kubeconfig", &kubeconfig]);
    let mut page = Process::start("page", &folder, &command)?;
    let address = poll_until(Duration::from_secs(20), "the address of the page", || {
        page.expect_running()?;
        let log = page.log();
        let url = log
            .lines()
            .find(|line| line.starts_with("http://127.0.0.1:"));
        Ok(url.context("not printed yet")?.to_owned())
    })?;

    let mut browser = Browser::start(testbed)?;
    let row = format!("/hpas/{namespace}/billing");
    browser.open(&address)?;
    browser.wait_for("document.querySelector('#live').textContent === 'live'")?;
    browser.wait_for(&format!(
        "!!document.querySelector('tr[data-href=\"{row}\"]')"
    ))?;

    // Newer values arrive without a reload.
    browser.evaluate(
        "window.isSame = true, window.first = document.querySelector('header time').dateTime",
    )?;
    browser.wait_for("document.querySelector('header time').dateTime !== window.first")?;
    browser.wait_for("window.isSame === true")?;

    let names =
        "[...document.querySelectorAll('tr[data-href]')].map(row => row.dataset.href).join()";
    browser.evaluate("[...document.querySelectorAll('.counter')].find(a => a.textContent.includes('unknown')).click()")?;
    browser.wait_for("location.search === '?filter=unknown'")?;
    browser.wait_for(&format!(
        "({names}).includes('/typo') && !({names}).includes('billing')"
    ))?;
    browser.evaluate("history.back()")?;
    browser.wait_for(&format!(
        "location.search === '' && ({names}).includes('billing')"
    ))?;
    // Nobody produces, and nobody reads.
    browser.wait_for(&format!(
        "document.querySelector('tr[data-href=\"{row}\"] small.trend')?.textContent === 'steady'"
    ))?;
    browser.evaluate(
        "[...document.querySelectorAll('th a')].find(a => a.textContent === 'HPA').click()",
    )?;
    browser.wait_for("location.search === '?sort=name'")?;

    // Keys: search, choose, open, go back.
    browser.press("/")?;
    browser.wait_for("document.activeElement.id === 'search'")?;
    for key in ["b", "i", "l", "l", "i", "n", "g"] {
        browser.press(key)?;
    }
    browser.wait_for(&format!(
        "location.search === '?q=billing&sort=name' && ({names}) === '{row}'"
    ))?;
    browser.press("Escape")?;
    browser.press("j")?;
    browser.wait_for("document.querySelector('tr.chosen') !== null")?;
    browser.press("Enter")?;
    browser.wait_for(&format!(
        "location.pathname === '{row}' && document.readyState === 'complete'"
    ))?;
    browser.wait_for(
        "(document.querySelector('#chart-lag .line')?.getAttribute('d') ?? '').startsWith('M')",
    )?;
    same_numbers(&mut browser, &row)?;
    let detail = format!("{address}{}", row.trim_start_matches('/'));
    is_accessible(&mut browser, &axe, &address, &detail)?;
    let hostile = format!("{address}hpas/{namespace}/hostile");
    names_are_text(&mut browser, &hostile, &long_topic)?;
    keep_pictures(
        &mut browser,
        &[
            ("overview", address.as_str()),
            ("hpa", detail.as_str()),
            ("hostile", hostile.as_str()),
        ],
    )?;

    browser.set_window(1280, 1400, "light")?;
    browser.open(&detail)?;
    let zoomed = zoom(&mut browser)?;
    browser.open(&detail)?;
    browser.press("Escape")?;
    browser.wait_for("location.pathname === '/'")?;

    // It is complete without a script.
    let script = "Emulation.setScriptExecutionDisabled";
    browser.call(script, json!({"value": true}))?;
    browser.open(&format!("{address}?filter=unknown"))?;
    browser.wait_for(&format!("({names}).includes('/typo')"))?;
    browser.open(&format!("{detail}{}", zoomed.0))?;
    ensure!(shown_span(&mut browser)? == zoomed.1, "{zoomed:?}");
    browser.call(script, json!({"value": false}))?;
    let complaints = browser.complaints(&address)?;
    ensure!(complaints.is_empty(), "{complaints:#?}");

    // Without the stream the page says that it is not live. It reconnects by itself.
    let notice = "document.querySelector('#notice')";
    browser.block(&["*/api/stream"])?;
    browser.open(&address)?;
    browser.wait_for(&format!(
        "!{notice}.hidden && {notice}.textContent.startsWith('Not live: values of ')"
    ))?;
    browser.wait_for("document.querySelector('#live').textContent === 'not live'")?;
    browser.block(&[])?;
    browser.wait_for(&format!(
        "{notice}.hidden && document.querySelector('#live').textContent === 'live'"
    ))?;
    drop(browser);
    ensure!(
        page.stop(Duration::from_secs(10))?.success(),
        "{}",
        page.log()
    );
    Ok(())
}

fn hpa(name: &str, group: &str, topic: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "absent"},
            "maxReplicas": 50,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "kafka_lag", "selector": {"matchLabels": {"group": group, "topic": topic}}},
                "target": {"type": "AverageValue", "averageValue": "1"},
            }}],
        },
    })
}

/// The numbers on the page of an HPA are those of its JSON.
fn same_numbers(browser: &mut Browser, row: &str) -> Result<()> {
    let script = format!("fetch('/api{row}').then(answer => answer.json()).then(JSON.stringify)");
    let text = browser.evaluate(&script)?;
    let view: Value = serde_json::from_str(text.as_str().context("no JSON")?)?;
    ensure!(view["hpa"]["lag"] == 7, "{}", view["hpa"]);
    ensure!(view["explanation"]["metrics"][0]["lag"] == 7, "{view}");
    let shown = browser.evaluate("document.querySelector('.tile b').textContent")?;
    ensure!(shown == "7", "{shown}");
    ensure!(
        view["hpa"]["uncapped"] == 7 && view["hpa"]["desired"] == 2,
        "{}",
        view["hpa"]
    );
    Ok(())
}

/// The time that the charts cover, in seconds since 1970.
fn shown_span(browser: &mut Browser) -> Result<(u64, u64)> {
    let script =
        "(({from, to}) => [Number(from), Number(to)])(document.querySelector('#charts').dataset)";
    let span = browser.evaluate(script)?;
    let [from, to] = [0, 1].map(|place| span[place].as_u64());
    from.zip(to).with_context(|| format!("no span: {span}"))
}

/// Selects a time in a chart with the mouse, and a shorter one with the keyboard. Returns the query of the first, and
/// what it shows.
fn zoom(browser: &mut Browser) -> Result<(String, (u64, u64))> {
    let (from, to) = shown_span(browser)?;
    browser.drag("#chart-lag .picture", 0.25, 0.75)?;
    browser.wait_for("location.search.startsWith('?from=')")?;
    let selected = format!(
        "Number(document.querySelector('#charts').dataset.to) < {to} && document.querySelector('#latest') !== null"
    );
    browser.wait_for(&selected)?;
    let span = shown_span(browser)?;
    let (first, last) = (from + (to - from) / 4, to - (to - from) / 4);
    // The page moves on until the drag begins.
    ensure!(
        span.0.abs_diff(first) <= 20 && span.1.abs_diff(last) <= 20,
        "of {from} to {to}, {span:?} is shown"
    );
    let query = browser.evaluate("location.search")?;
    let query = query.as_str().context("no query")?.to_owned();
    browser.evaluate("document.querySelector('#charts').focus()")?;
    for _ in 0..30 {
        browser.press_with_shift("ArrowLeft")?;
    }
    browser.wait_for("document.querySelector('#chart-lag .selection') !== null")?;
    browser.press("Enter")?;
    browser.wait_for(&format!("location.search !== '{query}'"))?;
    browser.wait_for(&format!(
        "(({{from, to}}) => to - from < {})(document.querySelector('#charts').dataset)",
        span.1 - span.0
    ))?;
    // Going back shows the longer time, and from there one gets to the present.
    browser.evaluate("history.back()")?;
    browser.wait_for(&format!(
        "location.search === '{query}' && document.querySelector('#charts').dataset.from === '{}'",
        span.0
    ))?;
    browser.evaluate("document.querySelector('#latest').click()")?;
    browser.wait_for("location.search === '' && document.querySelector('#latest') === null")?;
    Ok((query, span))
}

/// Both pages have no serious issue in either colour scheme.
fn is_accessible(browser: &mut Browser, axe: &str, overview: &str, detail: &str) -> Result<()> {
    for address in [overview, detail] {
        for scheme in ["light", "dark"] {
            browser.set_window(1280, 1400, scheme)?;
            browser.open(address)?;
            browser.wait_for("document.querySelector('#live').textContent === 'live'")?;
            let issues = browser.accessibility_issues(axe)?;
            ensure!(issues.is_empty(), "{address}, {scheme}: {issues:#?}");
        }
    }
    // It would find one.
    browser.evaluate("document.body.append(document.createElement('input'))")?;
    let issues = browser.accessibility_issues(axe)?;
    ensure!(
        issues.len() == 1 && issues[0].starts_with("label: "),
        "{issues:#?}"
    );
    Ok(())
}

/// The names of group and topic are shown as text, and nothing in them is run.
fn names_are_text(browser: &mut Browser, address: &str, topic: &str) -> Result<()> {
    browser.set_window(360, 1600, "light")?;
    browser.open(address)?;
    browser.wait_for("document.querySelector('#live').textContent === 'live'")?;
    // The mark for right to left is shown as its escape, so that the letters stay in their order.
    let group = HOSTILE_GROUP.replace('\u{202e}', "\\u{202e}");
    for name in [group.as_str(), topic] {
        let name = serde_json::to_string(name)?;
        browser.wait_for(&format!(
            "[...document.querySelectorAll('#derivation code')].some(code => code.textContent === {name})"
        ))?;
    }
    browser.wait_for("document.images.length === 0 && document.title.endsWith('lagwise')")
}

/// The folder of the pictures that are kept.
pub(super) fn picture_folder() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page-pictures");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Saves screenshots of these pages for review. Nothing may be wider than the window.
fn keep_pictures(browser: &mut Browser, pages: &[(&str, &str)]) -> Result<()> {
    let folder = picture_folder()?;
    for (name, address) in pages {
        browser.open(address)?;
        // The part of the page that a large monitor shows.
        for (width, height) in [(360, 3600), (1280, 2400), (2560, 1800), (3840, 2160)] {
            for scheme in ["light", "dark", "print"] {
                browser.set_window(width, height, scheme)?;
                let wide = browser.evaluate("document.documentElement.scrollWidth")?;
                ensure!(
                    wide.as_u64() <= Some(u64::from(width)),
                    "{name} at {width}: {wide}"
                );
                let file: PathBuf = folder.join(format!("{name}-{width}-{scheme}.png"));
                browser.screenshot(&file)?;
            }
        }
    }
    println!("pictures of the page are in {}", folder.display());
    Ok(())
}
