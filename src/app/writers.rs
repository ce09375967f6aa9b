//! What writes to the Kubernetes cluster.

use super::Tasks;
use crate::k8s;
use crate::k8s::writing::Writing;

/// Starts what writes to HPAs and to what they scale.
pub(super) fn spawn(writing: Writing, tasks: &mut Tasks) {
    let (capping, zeroing, claiming) = (writing.clone(), writing.clone(), writing);
    tasks.spawn(async move {
        k8s::epoch::keep(claiming).await;
        ("writer of the term", Ok(()))
    });
    tasks.spawn(async move {
        k8s::cap::keep(capping).await;
        ("writer of the cap", Ok(()))
    });
    tasks.spawn(async move {
        k8s::zero::keep(zeroing).await;
        ("keeper of what sleeps", Ok(()))
    });
}
