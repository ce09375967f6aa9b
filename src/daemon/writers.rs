//! Starts what writes to Kubernetes.

use tokio::sync::watch;

use super::{Tasks, in_pod};
use crate::config::Config;
use crate::k8s;
use crate::k8s::reconciler::ReconcilerOptions;
use crate::k8s::write_guard::WriteGuard;
use crate::k8s::zero_ledger::LedgerConfigMap;
use crate::model::findings::ReportedFindings;

/// Default name of the ConfigMap with the ledger of scale to zero.
pub(super) const LEDGER_CONFIG_MAP: &str = "lagwise-zero";

/// Starts the reconciler of HPAs. `findings` receives its findings.
pub(super) fn spawn(
    guard: WriteGuard,
    config: &Config,
    findings: watch::Sender<ReportedFindings>,
    tasks: &mut Tasks,
) {
    let zero = &config.scale_to_zero;
    let named = zero.config_map.clone();
    let name = named.or_else(|| in_pod().then(|| LEDGER_CONFIG_MAP.to_owned()));
    let name = name.filter(|_| zero.enabled);
    let options = ReconcilerOptions {
        read_only: config.cap.read_only,
        ledger: name.map(|name| LedgerConfigMap::new(guard.client.clone(), name)),
        findings,
    };
    tasks.spawn(async move {
        k8s::reconciler::run(guard, options).await;
        ("HPA reconciler", Ok(()))
    });
}
