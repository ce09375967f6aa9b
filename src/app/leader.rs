//! Which of several daemons leads: by a Lease, where the configuration names one or a pod is expected
//! to have one.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::{LEASE, Tasks, in_pod};
use crate::config::Config;
use crate::k8s;
use crate::k8s::lease::LeaseOptions;
use crate::leading::Leadership;
use crate::model::lease::LeaseRules;

/// The Lease, where the configuration names none.
const LEASE_NAME: &str = "lagwise";

/// Stands for election, where there is anything to be elected by.
pub(super) fn elect(
    config: &Config,
    client: Option<&k8s::client::Client>,
    step_down: watch::Receiver<bool>,
    tasks: &mut Tasks,
) -> Option<Leadership> {
    let named = config.leader.lease.clone();
    let name = named.or_else(|| in_pod().then(|| LEASE_NAME.to_owned()))?;
    let (terms, told) = watch::channel(None);
    let keeping = k8s::lease::keep(LeaseOptions {
        client: client?.clone(),
        name,
        identity: identity(),
        rules: LeaseRules {
            duration: config.leader.duration,
        },
        terms,
        stop: step_down,
    });
    tasks.spawn(async move {
        keeping.await;
        (LEASE, Ok(()))
    });
    Some(Leadership::new(told))
}

/// A name that no other daemon has, nor this one after a restart: a pod keeps its name then.
fn identity() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    format!(
        "{}_{}-{:x}",
        pod.unwrap_or_else(|_| "lagwise".into()),
        std::process::id(),
        since.map_or(0, |since| since.as_nanos())
    )
}
