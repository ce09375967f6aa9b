//! Random hostile HPAs are created, changed and deleted in many namespaces at once: the daemon stays within its memory
//! limit, and another namespace's HPA is served all the time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::Method;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use super::hostile::{Hostile, Names};
use super::owner_scene::{Owner, OwnerScene};
use crate::api::client;
use crate::daemon::{MAX_STALENESS, Options};
use crate::scale::workload;
use crate::testbed::control_plane::{ControlPlane, NativeZero};
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// Seed, to repeat a run as far as concurrency permits.
const SEED: &str = "LAGWISE_SEED";

/// Maximum attempts until the API server accepts an HPA. It refuses about a third.
const MAX_TRIES: usize = 20;

/// How often one line may be in the log, and what those of the access log have, of which there is a sample.
const REPEATED: usize = 10;
const ACCESS: &str = "lagwise::access";

/// How much there is of it.
struct Extent {
    namespaces: usize,
    /// HPAs that the API server accepts, of all namespaces.
    hpas: usize,
    /// The time over which their creation is spread.
    over: Duration,
}

pub(super) fn few_hostile_hpas(testbed: &Testbed) -> Result<()> {
    let extent = Extent {
        namespaces: 4,
        hpas: 150,
        over: Duration::from_secs(6),
    };
    run(testbed, testbed.control_plane()?, &extent)
}

/// On a control plane of its own, since thousands of HPAs keep its controllers busy.
pub(super) fn two_thousand_hostile_hpas(testbed: &Testbed) -> Result<()> {
    let extent = Extent {
        namespaces: 20,
        hpas: 2000,
        over: Duration::from_secs(50),
    };
    let plane = testbed.start_control_plane(NativeZero::On)?;
    run(testbed, &plane, &extent)
}

fn run(testbed: &Testbed, plane: &ControlPlane, extent: &Extent) -> Result<()> {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().context(SEED)?,
        Err(_) => SystemTime::UNIX_EPOCH.elapsed()?.as_secs(),
    };
    println!("{SEED}={seed}");
    let kafka = testbed.kafka()?;
    let owner = Owner::new(kafka, plane)?;
    let (prefix, wide, narrow) = (unique("hostile"), unique("hostile-t"), unique("hostile-t"));
    kafka.create_topic(&wide, 200)?;
    kafka.create_topic(&narrow, 6)?;
    let namespaces: Vec<_> = (0..extent.namespaces)
        .map(|i| format!("{prefix}-{i}"))
        .collect();
    let hpas = extent.hpas / extent.namespaces;
    let pace = extent.over / u32::try_from(hpas)?;
    let mut tenants = Vec::new();
    for (namespace, seed) in namespaces.iter().zip(seed..) {
        settle_in(plane, namespace, &owner.namespace)?;
        let groups: Vec<_> = (0..20).map(|i| format!("{prefix}-g{i}")).collect();
        let names = Names {
            groups,
            topics: vec![wide.clone(), narrow.clone()],
            foreign: vec![owner.group.clone(), owner.topic.clone()],
        };
        tenants.push(Tenant {
            url: format!(
                "{}/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers",
                plane.server
            ),
            client: client(Some(plane.pki.authority.client(namespace, None)?))?,
            hostile: Hostile::new(seed, names),
            hpas: Vec::new(),
            tally: BTreeMap::new(),
        });
    }
    // Every second one has to name its topics.
    let (free, strict): (Vec<_>, Vec<_>) =
        namespaces.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    let names =
        |of: Vec<(usize, &String)>| of.into_iter().map(|(_, n)| n.clone()).collect::<Vec<_>>();
    let options = Options {
        tenancy: json!([
            {"namespaces": [owner.namespace], "groups": ["pay*"]},
            {"namespaces": names(free), "groups": [format!("{prefix}*")]},
            {"namespaces": names(strict), "groups": [format!("{prefix}*")], "topics": [wide, narrow]},
        ]),
        // Those of other tests are none of its business.
        namespaces: [namespaces, vec![owner.namespace.clone()]].concat(),
        interval: "2s",
        ..Options::main(&kafka.bootstrap())
    };
    let scene = OwnerScene::start(testbed, plane, owner, &options)?;
    let user_max = || scene.hpa().map(|hpa| hpa["spec"]["maxReplicas"].clone());
    ensure!(user_max()? == 20, "{}", user_max()?);
    // Those of findings, as many as each namespace has, and what fails of an HPA.
    let lines = 150 * extent.namespaces + 2 * extent.hpas;
    scene.check_during("hostile HPAs", lines, || {
        while_served(&scene, || {
            let begun = Instant::now();
            at_once(&mut tenants, |tenant| tenant.create(hpas, pace))?;
            println!(
                "{} HPAs of {} namespaces in {:.1?} (meant to be {:?})",
                extent.hpas,
                extent.namespaces,
                begun.elapsed(),
                extent.over
            );
            at_once(&mut tenants, |tenant| tenant.disturb(hpas / 2))?;
            scene.daemon.wait_for_sweeps(3)?;
            at_once(&mut tenants, Tenant::delete_all)?;
            scene.daemon.wait_for_sweeps(3)
        })
    })?;
    println!("answers of the API server: {:?}", tally(&tenants));
    no_line_is_repeated(&scene.daemon.process.log())?;
    poll_until(
        Duration::from_secs(60),
        "the daemon to be idle again",
        || {
            let (before, pause) = (scene.cpu()?, Duration::from_secs(2));
            thread::sleep(pause);
            let used = scene.cpu()? - before;
            ensure!(used < pause / 4, "{used:?} of CPU in {pause:?}");
            Ok(())
        },
    )?;
    ensure!(user_max()? == 20, "{}", user_max()?);
    Ok(())
}

/// A namespace with a workload, in which the user of its name may write HPAs and nothing else, and the daemon what it
/// needs to cap them and to scale them to zero.
fn settle_in(plane: &ControlPlane, namespace: &str, daemon: &str) -> Result<()> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let version = format!("{GROUP}/v1");
    let role = |name: &str, rules: Value| json!({"apiVersion": version, "kind": "Role", "metadata": {"name": name}, "rules": rules});
    let binding = |name: &str, subject: Value| {
        let role = json!({"apiGroup": GROUP, "kind": "Role", "name": name});
        json!({"apiVersion": version, "kind": "RoleBinding", "metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    };
    let hpas = |verb: &str| json!({"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": [verb]});
    let scales = json!({"apiGroups": ["apps"], "resources": ["deployments/scale", "statefulsets/scale"], "verbs": ["get", "patch"]});
    let mut workload: Value = serde_json::from_str(&workload("workload", &[]))?;
    let documents = json!({"apiVersion": "v1", "kind": "List", "items": [
        role("tenant", json!([hpas("*")])),
        binding("tenant", json!({"apiGroup": GROUP, "kind": "User", "name": namespace})),
        role("lagwise", json!([hpas("get"), hpas("patch"), scales])),
        binding("lagwise", json!({"kind": "ServiceAccount", "name": "lagwise", "namespace": daemon})),
        workload["items"][0].take(),
    ]});
    plane.kubectl(&["create", "namespace", namespace])?;
    plane.apply(namespace, &documents.to_string())
}

/// What goes on is logged once, or once for each of a few changes of the HPA that it is about.
fn no_line_is_repeated(log: &str) -> Result<()> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    let lines = log.lines().filter(|line| !line.contains(ACCESS));
    for (_, line) in lines.filter_map(|line| line.split_once(' ')) {
        *times.entry(line).or_default() += 1;
    }
    let most = times.iter().max_by_key(|(_, times)| **times);
    let (line, times) = most.context("an empty log")?;
    ensure!(*times <= REPEATED, "{times} times: {line}");
    Ok(())
}

/// Does so while the owner is served, but for pauses that a busy machine explains.
fn while_served(scene: &OwnerScene<'_>, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut times, mut longest) = (0_u32, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                poll_until(MAX_STALENESS, "the owner to be served", || {
                    scene.owner_is_served()
                })?;
                longest = longest.max(begun.elapsed());
                times += 1;
                thread::sleep(Duration::from_secs(1));
            }
            println!("the owner was served right and fresh {times} times, at the latest after {longest:?}");
            Ok(())
        });
        let ran = run();
        done.store(true, Ordering::Relaxed);
        let watched = watcher
            .join()
            .map_err(|_| anyhow!("the watcher panicked"))?;
        ran.and(watched)
    })
}

/// A user with rights in one namespace.
struct Tenant {
    url: String,
    client: Client,
    hostile: Hostile,
    /// The names of the HPAs that there are.
    hpas: Vec<String>,
    /// How often each request had which answer.
    tally: BTreeMap<(&'static str, u16), usize>,
}

impl Tenant {
    /// Creates so many HPAs, not counting those that the API server refuses.
    fn create(&mut self, count: usize, pace: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut tries = 0;
        while self.hpas.len() < count {
            tries += 1;
            ensure!(
                tries < MAX_TRIES * count,
                "refused too often: {:?}",
                self.tally
            );
            self.create_one(tries)?;
            let due = begun + pace * u32::try_from(self.hpas.len())?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn create_one(&mut self, number: usize) -> Result<()> {
        let mut name = format!("h{number}");
        if self.hostile.chance(10) {
            name = format!("{name}.{}", "long-name.".repeat(30));
            name.truncate(252);
            name.push('x');
        }
        let hpa = self.hostile.hpa(&name);
        let url = self.url.clone();
        if self.send("create", Method::POST, &url, &hpa)? == 201 {
            self.hpas.push(name);
        }
        Ok(())
    }

    /// Changes, deletes and creates HPAs at random, so many times.
    fn disturb(&mut self, times: usize) -> Result<()> {
        for number in 0..times {
            if self.hpas.is_empty() {
                return Ok(());
            }
            let place = self.hostile.random.usize(..self.hpas.len());
            let url = format!("{}/{}", self.url, self.hpas[place]);
            match self.hostile.random.u8(..10) {
                0..3 => {
                    self.send("delete", Method::DELETE, &url, &Value::Null)?;
                    self.hpas.swap_remove(place);
                }
                3..5 => self.create_one(1_000_000 + number)?,
                5..7 => {
                    let hpa = self.hostile.hpa(&self.hpas[place]);
                    let patch =
                        json!({"metadata": {"annotations": hpa["metadata"]["annotations"]}});
                    self.send("patch", Method::PATCH, &url, &patch)?;
                }
                _ => {
                    for _ in 0..MAX_TRIES {
                        let hpa = self.hostile.hpa(&self.hpas[place]);
                        if self.send("replace", Method::PUT, &url, &hpa)? == 200 {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn delete_all(&mut self) -> Result<()> {
        let url = self.url.clone();
        let code = self.send("delete all", Method::DELETE, &url, &Value::Null)?;
        ensure!(code == 200, "deleting all: {code}");
        Ok(())
    }

    fn send(&mut self, what: &'static str, by: Method, url: &str, body: &Value) -> Result<u16> {
        let kind = match by {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = self.client.request(by, url).header("Content-Type", kind);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let answer = request.send()?;
        let code = answer.status().as_u16();
        // Read to its end, so that the connection is used again.
        let text = answer.text()?;
        ensure!(![401, 403].contains(&code), "{what}: {code}: {text}");
        *self.tally.entry((what, code)).or_default() += 1;
        Ok(code)
    }
}

/// Has all tenants do the same at once.
fn at_once(tenants: &mut [Tenant], run: impl Fn(&mut Tenant) -> Result<()> + Sync) -> Result<()> {
    crate::testbed::poll::at_once(tenants, run)
}

fn tally(tenants: &[Tenant]) -> BTreeMap<(&'static str, u16), usize> {
    let mut all = BTreeMap::new();
    for (answer, times) in tenants.iter().flat_map(|tenant| &tenant.tally) {
        *all.entry(*answer).or_default() += times;
    }
    all
}
