//! Starts what writes to Kubernetes.

use super::Tasks;
use crate::k8s;
use crate::k8s::write_guard::WriteGuard;

/// Starts the reconciler of HPAs. With `read_only` it writes nothing but events.
pub(super) fn spawn(guard: WriteGuard, read_only: bool, tasks: &mut Tasks) {
    tasks.spawn(async move {
        k8s::reconciler::run(guard, read_only).await;
        ("HPA reconciler", Ok(()))
    });
}
