//! Outages of the API server that the daemon depends on: the daemon continues to read Kafka, refuses callers without a
//! recent review with a reason, never hangs, and recovers without a restart.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::blocking::Client;
use serde_json::{Value, json};

use super::callers::client;
use super::{BASE, Scene};
use crate::daemon::{metric_path, value_of};
use crate::testbed::api_proxy::{ApiProxy, Fault, RequestKind};
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::proxy::{Mode, Proxy};
use crate::testbed::{Testbed, unique};

/// Maximum time of a response, whatever the API server does: the timeout of a review, and a margin for a busy machine.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(10);

/// Timeout until everything works again: the longest backoff, and a margin.
const RECOVERY: Duration = Duration::from_secs(180);

/// Clients that send requests directly to the daemon.
struct DirectClients<'a> {
    scene: &'a Scene<'a>,
    plain: Client,
    master: Client,
}

impl<'a> DirectClients<'a> {
    fn new(scene: &'a Scene<'a>) -> Result<Self> {
        let authority = &scene.plane.pki.authority;
        Ok(Self {
            scene,
            plain: client(None)?,
            master: client(Some(authority.client("root", Some("system:masters"))?))?,
        })
    }

    /// Requests the group's lag with a token. Checks the time, and that the status is not 500. Returns status and body.
    fn bearer(&self, token: &str) -> Result<(u16, String)> {
        let url = self
            .scene
            .daemon
            .url(&self.scene.metric(&self.scene.namespace));
        let began = Instant::now();
        let answer = self.plain.get(url).bearer_auth(token).send()?;
        let (code, body) = (answer.status().as_u16(), answer.text()?);
        ensure!(
            began.elapsed() < MAX_RESPONSE_TIME,
            "{:?}: {code}",
            began.elapsed()
        );
        ensure!([200, 503].contains(&code), "{code}: {body}");
        Ok((code, body))
    }

    /// Requests the value as a caller that needs no review (group `system:masters`). It is read from memory, so this
    /// must succeed whatever the API server does.
    fn master(&self, selector: &str) -> Result<u64> {
        let path = metric_path(&self.scene.namespace, selector);
        let began = Instant::now();
        let answer = self.master.get(self.scene.daemon.url(&path)).send()?;
        let (code, body) = (answer.status().as_u16(), answer.text()?);
        ensure!(
            began.elapsed() < MAX_RESPONSE_TIME,
            "{:?}: {code}",
            began.elapsed()
        );
        ensure!(code == 200, "{code}: {body}");
        value_of(&serde_json::from_str(&body)?)
    }

    fn selector(&self) -> String {
        format!("group={},topic={}", self.scene.group, self.scene.topic)
    }

    /// Checks that the daemon still reads Kafka: one more record adds one to the lag.
    fn check_reading_of_kafka(&self, testbed: &Testbed) -> Result<()> {
        let before = self.master(&self.selector())?;
        testbed.kafka()?.produce(&self.scene.topic, 1, 1)?;
        poll_until(Duration::from_secs(60), "the record to be counted", || {
            let now = self.master(&self.selector())?;
            ensure!(now == before + 1, "{now}, not one more than {before}");
            Ok(())
        })
    }

    /// An HPA on the group's lag with a target of 1 per replica. If the daemon knows the HPA, it answers 2, for 2
    /// partitions, otherwise the whole lag.
    fn create_hpa(&self, name: &str) -> Result<()> {
        let labels = json!({"group": self.scene.group, "topic": self.scene.topic, "hpa": name});
        let hpa = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "absent"},
                "maxReplicas": 50,
                "metrics": [{"type": "External", "external": {
                    "metric": {"name": "kafka_lag", "selector": {"matchLabels": labels}},
                    "target": {"type": "AverageValue", "averageValue": "1"},
                }}],
            },
        });
        self.scene
            .plane
            .apply(&self.scene.namespace, &hpa.to_string())
    }

    /// Whether the daemon has seen that HPA.
    fn is_known(&self, hpa: &str) -> Result<bool> {
        Ok(self.master(&format!("{},hpa={hpa}", self.selector()))? == 2)
    }

    fn wait_until_known(&self, hpa: &str) -> Result<()> {
        poll_until(RECOVERY, "the new HPA to be known", || {
            ensure!(self.is_known(hpa)?, "not yet");
            Ok(())
        })
    }

    fn wait_until_admitted(&self, token: &str) -> Result<()> {
        poll_until(RECOVERY, "the reader to be admitted again", || {
            let (code, body) = self.bearer(token)?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })
    }

    /// Waits until the cached review of a token has expired, while the API server answers no new one.
    fn wait_until_review_expires(&self, token: &str) -> Result<()> {
        let timeout = Duration::from_secs(60);
        poll_until(timeout, "the cached review to expire", || {
            let (code, body) = self.bearer(token)?;
            ensure!(code == 503, "{code}: {body}");
            Ok(())
        })
    }

    /// Checks that the daemon runs, and has not panicked.
    fn check_daemon(&self) -> Result<()> {
        let log = self.scene.daemon.process.log();
        ensure!(!log.contains("panicked"), "it panicked");
        self.scene.daemon.metrics().map(drop)
    }
}

/// 429 with a long `Retry-After` and 500 to reviews, listings and watches, and no answer at all to reviews.
pub(super) fn errors_of_the_api_server_are_tolerated(testbed: &Testbed) -> Result<()> {
    let proxy = ApiProxy::start(testbed.control_plane()?)?;
    let scene = Scene::set_by(testbed, |_| {}, |own| proxy.kubeconfig(&own))?;
    let clients = DirectClients::new(&scene)?;
    let known = unique("known");
    clients.create_hpa(&known)?;
    clients.wait_until_known(&known)?;
    for fault in [
        Fault::Refuse(429, Some(3600)),
        Fault::Refuse(500, None),
        Fault::Hang,
    ] {
        let (token, unseen) = (scene.token("reader")?, scene.token("reader")?);
        clients.wait_until_admitted(&token)?;
        proxy.set(&[RequestKind::Review], fault);
        // The timeout and retry of a listing without a response are covered by tests with a simulated clock.
        if fault != Fault::Hang {
            proxy.set(&[RequestKind::List, RequestKind::Watch], fault);
            proxy.cut();
        }
        // A caller with a recent review is served for a while; others are refused with a reason.
        let (code, body) = clients.bearer(&token)?;
        ensure!(code == 200, "{fault:?}: {code}: {body}");
        let (code, body) = clients.bearer(&unseen)?;
        ensure!(code == 503, "{fault:?}: {code}: {body}");
        let reason = match fault {
            Fault::Refuse(code, _) => code.to_string(),
            Fault::Hang => "does not answer".to_owned(),
        };
        ensure!(body.contains(&reason), "{fault:?}: {body}");
        ensure!(!body.contains(&unseen), "the error contains the token");
        clients.check_reading_of_kafka(testbed)?;
        ensure!(clients.is_known(&known)?, "{fault:?}: the HPA is forgotten");
        clients.wait_until_review_expires(&token)?;
        ensure!(clients.is_known(&known)?, "{fault:?}: the HPA is forgotten");
        let new = unique("new");
        clients.create_hpa(&new)?;
        let is_cut_off = fault != Fault::Hang;
        ensure!(
            !is_cut_off || !clients.is_known(&new)?,
            "{fault:?}: the HPA is known without a watch"
        );
        proxy.clear_faults();
        let began = Instant::now();
        clients.wait_until_admitted(&token)?;
        let admitted = began.elapsed();
        clients.wait_until_known(&new)?;
        println!(
            "after {fault:?}: admitted within {admitted:?}, a new HPA known within {:?}",
            began.elapsed()
        );
    }
    clients.check_daemon()
}

/// Only watches are refused or cut; and the rights to list are revoked and granted again.
pub(super) fn watches_are_cut_and_rights_are_revoked(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let proxy = ApiProxy::start(plane)?;
    let scene = Scene::set_by(testbed, |_| {}, |own| proxy.kubeconfig(&own))?;
    let clients = DirectClients::new(&scene)?;
    let token = scene.token("reader")?;
    let hpa = |when: &str| -> Result<()> {
        let (name, began) = (unique("hpa"), Instant::now());
        clients.create_hpa(&name)?;
        clients.wait_until_known(&name)?;
        println!("{when}, a new HPA is known within {:?}", began.elapsed());
        Ok(())
    };
    hpa("with the watches up")?;
    for round in 0..3 {
        proxy.cut();
        hpa(&format!("after cut {round}"))?;
    }
    // A watch that is refused for an hour, while listings are answered: occasional listings must suffice.
    let listings = proxy.count(RequestKind::List);
    proxy.set(&[RequestKind::Watch], Fault::Refuse(429, Some(3600)));
    proxy.cut();
    hpa("while watches are refused")?;
    let listings = proxy.count(RequestKind::List) - listings;
    ensure!(listings < 40, "{listings} listings meanwhile");
    proxy.clear_faults();
    hpa("once watches are answered again")?;

    // No right to list HPAs, and none to read the ConfigMap.
    let name = format!("lagwise-{}", scene.namespace);
    let removed = unique("removed");
    plane.kubectl(&["delete", "clusterrolebinding", &name])?;
    plane.kubectl(&["delete", "rolebinding", &name, "--namespace=kube-system"])?;
    proxy.cut();
    poll_until(RECOVERY, "the missing right to be logged", || {
        let log = scene.daemon.process.log();
        ensure!(log.contains("is forbidden"), "not yet");
        Ok(())
    })?;
    clients.create_hpa(&removed)?;
    clients.check_reading_of_kafka(testbed)?;
    clients.wait_until_admitted(&token)?;
    ensure!(
        !clients.is_known(&removed)?,
        "the HPA is known without a watch"
    );
    plane.kubectl(&[
        "create",
        "clusterrolebinding",
        &name,
        &format!("--clusterrole={name}"),
        &format!("--serviceaccount={}:lagwise", scene.namespace),
    ])?;
    plane.kubectl(&[
        "create",
        "rolebinding",
        &name,
        "--namespace=kube-system",
        "--role=extension-apiserver-authentication-reader",
        &format!("--serviceaccount={}:lagwise", scene.namespace),
    ])?;
    clients.wait_until_known(&removed)?;
    let log = scene.daemon.process.log();
    let lines = log.matches("is forbidden").count();
    ensure!(lines <= 4, "the missing right is logged {lines} times");
    clients.check_daemon()
}

/// The network to the API server drops all responses, then cuts every connection, then works again.
pub(super) fn a_silent_network_is_tolerated(testbed: &Testbed) -> Result<()> {
    let (proxy, port) = network(testbed)?;
    let scene = Scene::set_by(testbed, |_| {}, |own| through(testbed, &own, port))?;
    let clients = DirectClients::new(&scene)?;
    let token = scene.token("reader")?;
    clients.wait_until_admitted(&token)?;
    for mode in [Mode::Silent, Mode::Hangup] {
        proxy.set(mode);
        let (code, body) = clients.bearer(&scene.token("reader")?)?;
        ensure!(code == 503, "{mode:?}: {code}: {body}");
        ensure!(body.contains("does not answer"), "{mode:?}: {body}");
        clients.check_reading_of_kafka(testbed)?;
        let name = unique("hpa");
        clients.create_hpa(&name)?;
        proxy.set(Mode::Forward);
        clients.wait_until_admitted(&token)?;
        clients.wait_until_known(&name)?;
    }
    clients.check_daemon()
}

/// The network fails silently and no request is sent: the daemon still ends the watch.
pub(super) fn a_silent_watch_is_ended(testbed: &Testbed) -> Result<()> {
    let (proxy, port) = network(testbed)?;
    let scene = Scene::set_by(testbed, |_| {}, |own| through(testbed, &own, port))?;
    let clients = DirectClients::new(&scene)?;
    let (before, after) = (unique("before"), unique("after"));
    clients.create_hpa(&before)?;
    clients.wait_until_known(&before)?;
    let began = Instant::now();
    proxy.set(Mode::Silent);
    poll_until(Duration::from_secs(300), "the watches to be ended", || {
        let log = scene.daemon.process.log();
        let lost = log.matches("Kubernetes watch failed").count();
        ensure!(lost >= 2, "{lost} of them");
        Ok(())
    })?;
    println!("silent watches are ended after {:?}", began.elapsed());
    ensure!(clients.is_known(&before)?, "the HPA is forgotten");
    clients.create_hpa(&after)?;
    proxy.set(Mode::Forward);
    clients.wait_until_known(&after)?;
    clients.check_daemon()
}

/// A proxy that simulates the network to the API server, and its port.
fn network(testbed: &Testbed) -> Result<(Proxy, u16)> {
    let server = &testbed.control_plane()?.server;
    let target = server.rsplit(':').next().context("no port")?.parse()?;
    let port = free_port()?;
    Ok((Proxy::start(port, target)?, port))
}

/// A copy of a kubeconfig that leads through that network.
fn through(testbed: &Testbed, own: &Path, port: u16) -> Result<PathBuf> {
    let text = std::fs::read_to_string(own)?;
    let path = own.with_file_name(format!("{}.kubeconfig", unique("through-a-network")));
    let here = format!("https://127.0.0.1:{port}");
    let server = &testbed.control_plane()?.server;
    std::fs::write(&path, text.replace(server, &here))?;
    Ok(path)
}

/// The API server is killed and restarted.
pub(super) fn the_api_server_is_restarted(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let (plane, clients) = (scene.plane, DirectClients::new(&scene)?);
    let (token, unseen) = (scene.token("reader")?, scene.token("reader")?);
    let (before, after) = (unique("before"), unique("after"));
    clients.create_hpa(&before)?;
    clients.wait_until_known(&before)?;
    clients.wait_until_admitted(&token)?;
    plane.kill_api_server();
    let (code, body) = clients.bearer(&unseen)?;
    ensure!(code == 503, "{code}: {body}");
    clients.check_reading_of_kafka(testbed)?;
    ensure!(clients.is_known(&before)?, "the HPA is forgotten");
    clients.wait_until_review_expires(&token)?;
    // Requests of the front proxy are still trusted: its CA was read before.
    let proxy = client(Some(
        plane.pki.front_proxy.client("front-proxy-client", None)?,
    ))?;
    let discovery = proxy
        .get(scene.daemon.url(BASE))
        .header("x-remote-user", "root")
        .header("x-remote-group", "system:masters")
        .send()?;
    ensure!(discovery.status() == 200, "{}", discovery.status());
    plane.start_api_server()?;
    let began = Instant::now();
    clients.wait_until_admitted(&token)?;
    clients.create_hpa(&after)?;
    clients.wait_until_known(&after)?;
    poll_until(RECOVERY, "the aggregated API to be back", || {
        let body: Value = plane.get_raw(&scene.metric(&scene.namespace))?;
        value_of(&body).map(drop)
    })?;
    println!(
        "recovered {:?} after the start of the API server",
        began.elapsed()
    );
    clients.check_daemon()
}
