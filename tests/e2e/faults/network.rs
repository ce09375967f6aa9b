//! A broker behind a bad network, or a server that is not a Kafka broker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;

use super::{Scene, is_whole};
use crate::sources::{Sources, clients};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;
use crate::testbed::proxy::{Mode, Proxy};

/// The faulty broker.
const FAULTY: usize = 2;
/// Sweeps while the broker is faulty.
const SWEEPS: usize = 4;
/// Time within which everything is known again afterwards.
const RECOVERY: Duration = Duration::from_secs(20);

/// The two modes that differ most.
pub(crate) fn a_faulty_broker_affects_only_its_own_data(testbed: &Testbed) -> Result<()> {
    misbehave(testbed, &[Mode::Silent, Mode::HugeCounts])
}

/// All modes.
pub(crate) fn every_kind_of_faulty_broker(testbed: &Testbed) -> Result<()> {
    misbehave(
        testbed,
        &[
            Mode::Silent,
            Mode::Garbage,
            Mode::HugeFrame,
            Mode::HugeCounts,
            Mode::Hangup,
        ],
    )
}

fn misbehave(testbed: &Testbed, modes: &[Mode]) -> Result<()> {
    let kafka = testbed.three_brokers()?;
    let scene = Scene::set_up(kafka)?;
    let proxies: Vec<Proxy> = (1..=kafka.brokers())
        .map(|id| Proxy::of_broker(kafka, id, "PROXIED"))
        .collect::<Result<_>>()?;
    let bad = &proxies[FAULTY - 1];
    let bootstrap = kafka.listener_bootstrap("PROXIED");
    let properties: &[(&str, &str)] = &[("bootstrap.servers", &bootstrap)];
    for client in clients()? {
        let mut sources = Sources::with(&[client], properties)?;
        sources.expect(&scene.plan, &scene.truth)?;
        for mode in modes {
            let started = Instant::now();
            bad.set(*mode);
            one_mode(&scene, &mut sources)
                .with_context(|| format!("{client:?}, the broker is {mode:?}"))?;
            // A client that starts now finds the healthy brokers.
            let mut fresh = Sources::with(&[client], properties)?;
            poll_until(RECOVERY, "a new client to read the other brokers", || {
                scene.sweep(&mut fresh)?;
                scene.others_are_fresh(&fresh, FAULTY)
            })
            .with_context(|| format!("{client:?}, the broker is {mode:?}"))?;
            bad.set(Mode::Forward);
            let well = Instant::now();
            poll_until(RECOVERY, "all brokers to be read again", || {
                let seen = scene.sweep(&mut sources)?;
                ensure!(is_whole(&seen[0].1), "{}", seen[0].1);
                Ok(())
            })
            .with_context(|| format!("{client:?}, the broker was {mode:?}"))?;
            println!(
                "{client:?} {mode:?}: {:.1?}, of which {:.1?} until all was known",
                started.elapsed(),
                well.elapsed()
            );
        }
        sources.expect(&scene.plan, &scene.truth)?;
        let most = match client {
            // One client for the cluster and one for each group, each with a bootstrap connection.
            ClientKind::Librdkafka => (1 + scene.plan.groups.len()) * 2,
            _ => 1,
        };
        // Threads of a dropped client close its connections a moment later.
        poll_until(RECOVERY, "the surplus connections to be closed", || {
            let open: Vec<usize> = proxies.iter().map(Proxy::open).collect();
            ensure!(
                open.iter().all(|open| *open <= most),
                "{client:?}: {open:?} connections, more than {most} to a broker"
            );
            Ok(())
        })?;
        drop(sources);
    }
    Ok(())
}

fn one_mode(scene: &Scene, sources: &mut Sources) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..SWEEPS {
        seen = scene.sweep(sources)?;
        scene.others_are_fresh(sources, FAULTY)?;
    }
    // Nothing of the faulty broker is known, whatever it responds.
    let own = &scene.at[FAULTY - 1];
    for (client, seen) in seen {
        ensure!(
            !seen.contains(&format!("{} {}: 4 4", own.group, own.topic)),
            "{client:?} trusts the faulty broker: {seen}"
        );
    }
    Ok(())
}
