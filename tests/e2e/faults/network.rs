//! A broker behind a bad network, or a server that is not a Kafka broker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;

use super::{Scene, is_whole};
use crate::sources::{Sources, clients};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;
use crate::testbed::proxy::{Mode, Proxy};

/// The broker that misbehaves.
const BAD: usize = 2;
/// Sweeps while the broker misbehaves.
const LOOKS: usize = 4;
/// Timeout until everything is known again afterwards.
const RECOVERY: Duration = Duration::from_secs(20);

/// The two modes that differ most.
pub(crate) fn a_broker_that_misbehaves_costs_its_own(testbed: &Testbed) -> Result<()> {
    misbehave(testbed, &[Mode::Silent, Mode::HugeCounts])
}

/// All modes.
pub(crate) fn every_way_to_misbehave(testbed: &Testbed) -> Result<()> {
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
    let bad = &proxies[BAD - 1];
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
            // One that has to begin now finds the brokers that are well.
            let mut fresh = Sources::with(&[client], properties)?;
            poll_until(RECOVERY, "a new source to know the rest", || {
                scene.sweep(&mut fresh)?;
                scene.others_are_fresh(&fresh, BAD)
            })
            .with_context(|| format!("{client:?}, the broker is {mode:?}"))?;
            bad.set(Mode::Forward);
            let well = Instant::now();
            poll_until(RECOVERY, "all of it again", || {
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
            // The client itself and one for each group, each with one to bootstrap by.
            ClientKind::Librdkafka => (1 + scene.plan.groups.len()) * 2,
            _ => 1,
        };
        // Those of a source that is gone by now are closed by the client's own threads, a moment later.
        poll_until(RECOVERY, "no more connections than it needs", || {
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
    for _ in 0..LOOKS {
        seen = scene.sweep(sources)?;
        scene.others_are_fresh(sources, BAD)?;
    }
    // The broker's own is unknown, whatever it says.
    let own = &scene.at[BAD - 1];
    for (client, seen) in seen {
        ensure!(
            !seen.contains(&format!("{} {}: 4 4", own.group, own.topic)),
            "{client:?} knows what it cannot know: {seen}"
        );
    }
    Ok(())
}
