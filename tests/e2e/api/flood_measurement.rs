//! The effect of a flood on the requests of other callers, compared with its effect on a bystander.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;

use super::Scene;
use crate::background::{BackgroundTasks, apart};
use crate::bystander::Bystander;
use crate::latencies::Latencies;

/// How long other callers are measured during the flood.
pub(super) const FLOOD_DURATION: Duration = Duration::from_secs(12);
/// How long other callers are measured before the flood.
const UNDISTURBED: Duration = Duration::from_secs(4);

/// Measurements before a flood. Those during it are compared with them.
pub(super) struct FloodMeasurement<'a> {
    scene: &'a Scene<'a>,
    token: &'a str,
    bystander: Bystander,
    undisturbed: ProbeRequests,
    bystander_undisturbed: Latencies,
    /// CPU time that the daemon has used before the flood.
    cpu: Duration,
}

/// Measurements during a flood.
pub(super) struct FloodEffect {
    /// Rounds of the tasks of the flood.
    pub(super) rounds: usize,
    /// Requests of other callers.
    pub(super) sent: usize,
    refused: usize,
    /// CPU time of the daemon, and latencies before and during the flood.
    pub(super) figures: String,
}

impl<'a> FloodMeasurement<'a> {
    /// Measures requests with a token, and a bystander that takes as long to answer, without a flood.
    pub(super) fn begin(runtime: &Runtime, scene: &'a Scene<'a>, token: &'a str) -> Result<Self> {
        let probe = |time| runtime.block_on(probe_requests(scene, token, time));
        let usual = probe(Duration::from_secs(1))?;
        let bystander = Bystander::start(usual.answers.p50())?;
        let undisturbed = probe(UNDISTURBED)?;
        let bystander_undisturbed = bystander.take();
        Ok(Self {
            scene,
            token,
            bystander,
            undisturbed,
            bystander_undisturbed,
            cpu: scene.daemon.process.cpu()?,
        })
    }

    /// Measures the same during a flood, and ends it.
    pub(super) async fn end(&self, flood: BackgroundTasks) -> Result<FloodEffect> {
        self.bystander.take();
        let probes = apart(probe_requests(self.scene, self.token, FLOOD_DURATION));
        let bystander = self.bystander.take();
        let rounds = flood.stop().await?;
        let ProbeRequests {
            sent,
            refused,
            answers,
        } = probes?;
        let cpu = self.scene.daemon.process.cpu()? - self.cpu;
        let latencies = answers.beside_bystander(
            &self.undisturbed.answers,
            (&bystander, &self.bystander_undisturbed),
        )?;
        let figures = format!(
            "{:.1} s of CPU; requests of others: {} alone, {sent} beside them; {latencies}",
            cpu.as_secs_f64(),
            self.undisturbed.sent
        );
        Ok(FloodEffect {
            rounds,
            sent,
            refused,
            figures,
        })
    }
}

impl FloodEffect {
    /// Checks that no request of another caller was refused.
    pub(super) fn check(&self) -> Result<()> {
        let Self { sent, refused, .. } = self;
        ensure!(*refused == 0, "{refused} of {sent} requests refused");
        Ok(())
    }
}

#[derive(Debug, Default)]
struct ProbeRequests {
    sent: usize,
    refused: usize,
    answers: Latencies,
}

/// Sends requests that no cache can answer, with a token, and through the API server as an administrator.
async fn probe_requests(scene: &Scene<'_>, token: &str, time: Duration) -> Result<ProbeRequests> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .timeout(Duration::from_secs(30))
        .build()?;
    let until = Instant::now() + time;
    let metric = scene.metric(&scene.namespace);
    let mut probes = ProbeRequests::default();
    while Instant::now() < until {
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In another namespace the API server refuses the reader, so the expected status is 403.
        let other = metric.replace("/namespaces/", &format!("/namespaces/q{n}-"));
        for (path, expected) in [(&other, 403), (&metric, 200)] {
            let began = Instant::now();
            let answer = client.get(scene.daemon.url(path)).bearer_auth(token).send();
            let code = answer.await.map(|answer| answer.status().as_u16());
            probes.sent += 1;
            if !matches!(code, Ok(code) if code == expected) {
                println!("{path}: {code:?}, not {expected}");
                probes.refused += 1;
            }
            probes.answers.add(began.elapsed());
        }
        let plane = scene.plane;
        let body = tokio::task::block_in_place(|| plane.get_raw(&metric));
        probes.sent += 1;
        if body.is_err() {
            println!("by the API server: {body:?}");
            probes.refused += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(probes)
}
