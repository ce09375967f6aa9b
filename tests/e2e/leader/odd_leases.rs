//! Leases that somebody else has written.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{allow, leads};
use crate::daemon::{Daemon, Options};
use crate::testbed::Testbed;
use crate::testbed::poll::poll_until;

/// How long a daemon respects any Lease, and some time for a busy machine.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(300 + 90);
const WARNING_TIMEOUT: Duration = Duration::from_secs(90);

/// A Lease that claims to be valid for decades, and one that claims a day and was renewed in the future: the daemon
/// says so at once, and leads after the longest time that a Lease can have.
pub(super) fn are_taken_over(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let options = Options {
        leader: json!({"lease": "lagwise", "duration": "6s"}),
        ..Options::main(&kafka.bootstrap())
    };
    let begun = Instant::now();
    let mut daemons = Vec::new();
    for (seconds, renewed) in [
        (i32::MAX, "2026-01-01T00:00:00.000000Z"),
        (86_400, "2040-01-01T00:00:00.000000Z"),
    ] {
        let namespace = plane.namespace("lease")?;
        allow(plane, &namespace)?;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lagwise"},
            "spec": {
                "holderIdentity": "somebody_1-ff", "leaseDurationSeconds": seconds, "leaseTransitions": 3,
                "acquireTime": renewed, "renewTime": renewed,
            },
        });
        plane.apply(&namespace, &lease.to_string())?;
        let kubeconfig = plane.daemon_kubeconfig(&namespace)?;
        let watched = json!({"namespaces": [namespace]});
        let daemon = Daemon::start(testbed, &options, json!({}), watched, Some(&kubeconfig))?;
        daemons.push((seconds, daemon));
    }
    for (seconds, daemon) in &daemons {
        poll_until(WARNING_TIMEOUT, "the warning", || {
            let log = daemon.process.log();
            let said = log.contains("the Lease claims a longer duration than lagwise ever writes");
            ensure!(said, "nothing is said of {seconds} s");
            ensure!(!leads(daemon)?, "it leads already");
            Ok(())
        })?;
    }
    for (seconds, daemon) in &daemons {
        poll_until(TAKEOVER_TIMEOUT, "the daemon to lead", || {
            ensure!(leads(daemon)?, "it does not");
            Ok(())
        })?;
        println!(
            "a Lease of {seconds} s was taken over after {:.0?}",
            begun.elapsed()
        );
    }
    Ok(())
}
