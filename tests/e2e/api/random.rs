//! Random requests to a running daemon, each sent directly and through the API server.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use reqwest::blocking::Client;

use super::paths::master;
use super::{BASE, Scene};
use crate::daemon::{metric_path, value_of};
use crate::testbed::{Testbed, is_full_tier};

const THREADS: usize = 4;

/// Number of requests by their status codes: directly, and through the API server.
type Codes = BTreeMap<[u16; 2], usize>;

/// Sends random requests, more of them in the full tier, while Kafka is healthy. None gets a 5xx either way, and each
/// gets the value that the oracle predicts, if it predicts one. The daemon still lives and serves afterwards.
pub(super) fn random_requests(testbed: &Testbed) -> Result<()> {
    let requests = if is_full_tier() { 10_000 } else { 1_000 };
    let scene = Scene::set(testbed, |_| {})?;
    let master = master(&scene)?;
    let mut codes = Codes::new();
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..THREADS)
            .map(|seed| {
                scope.spawn({
                    let (scene, master) = (&scene, &master);
                    move || send_requests(scene, master, seed, requests / THREADS)
                })
            })
            .collect();
        for client in clients {
            let counts = client.join().map_err(|_| anyhow!("a client panicked"))??;
            for (code, times) in counts {
                *codes.entry(code).or_default() += times;
            }
        }
        Ok(())
    })?;
    println!("codes of {requests} random requests, directly and through the API server: {codes:?}");
    let path = scene.metric(&scene.namespace);
    let answer = master.get(scene.daemon.url(&path)).send()?;
    ensure!(answer.status() == 200, "afterwards: {}", answer.status());
    Ok(())
}

/// Sends the requests of one client.
fn send_requests(scene: &Scene<'_>, master: &Client, seed: usize, rounds: usize) -> Result<Codes> {
    let mut random = fastrand::Rng::with_seed(u64::try_from(seed)?);
    let mut codes = Codes::new();
    for round in 0..rounds {
        let is_known = round % 2 == 0;
        let path = match (is_known, round % 8) {
            (true, _) => metric_path(&scene.namespace, &right_selector(scene, &mut random)),
            (false, 1) => random_path(scene, &mut random),
            (false, _) => metric_path(&scene.namespace, &any_selector(scene, &mut random)),
        };
        let mut seen = [0; 2];
        for (url, seen) in [scene.daemon.url(&path), scene.through(&path)]
            .into_iter()
            .zip(&mut seen)
        {
            let answer = master.get(&url).send()?;
            let (code, body) = (answer.status().as_u16(), answer.text()?);
            *seen = code;
            ensure!(code < 500, "{url}: {code}: {body}");
            if is_known {
                ensure!(code == 200, "{url}: {code}: {body}");
                let value = value_of(&serde_json::from_str(&body)?)?;
                ensure!(value == 7, "{url}: {value}");
            }
        }
        // The limit of new groups may have refused one of the two.
        ensure!(
            seen[0] == seen[1] || seen.contains(&429),
            "{path}: {seen:?}"
        );
        *codes.entry(seen).or_default() += 1;
    }
    Ok(codes)
}

/// One that selects the seven messages of the scene.
fn right_selector(scene: &Scene<'_>, random: &mut fastrand::Rng) -> String {
    let (group, topic) = (&scene.group, &scene.topic);
    match random.u8(..6) {
        0 => format!("group={group}"),
        1 => format!("group in ({group}),topic in ({topic},{topic})"),
        2 => format!("group={group},topic={topic},cluster!=other"),
        3 => format!("topic={topic},group=={group}"),
        4 => format!("group={group},topic notin (a,b)"),
        _ => format!("group={group},topic"),
    }
}

fn any_selector(scene: &Scene<'_>, random: &mut fastrand::Rng) -> String {
    let pieces = [
        "group",
        "topic",
        "cluster",
        "=",
        "==",
        "!=",
        " in ",
        "notin",
        "(",
        ")",
        ",",
        "!",
        &scene.group,
        &scene.topic,
        "ö",
        "%",
    ];
    let count = random.usize(..8);
    (0..count)
        .map(|_| pieces[random.usize(..pieces.len())])
        .collect()
}

/// A path below that of the API, because the API server does not forward others to the daemon.
fn random_path(scene: &Scene<'_>, random: &mut fastrand::Rng) -> String {
    let pieces = [
        "/",
        "namespaces",
        "/namespaces/",
        &scene.namespace,
        "kafka_lag",
        "kafka_desired_replicas",
        "externalmetrics",
        "%2F",
        "%00",
        "%ff",
        "..",
        "?watch=1",
        "?labelSelector=",
        "&limit=1",
        "ö",
    ];
    let count = random.usize(..8);
    let rest: String = (0..count)
        .map(|_| pieces[random.usize(..pieces.len())])
        .collect();
    format!("{BASE}/{rest}")
}
