//! Options of the reconciler.

use tokio::sync::watch;

use crate::k8s::zero_ledger::LedgerConfigMap;
use crate::model::findings::WriteFindings;

/// What the reconciler works with besides the snapshots.
#[derive(Debug)]
pub struct ReconcilerOptions {
    /// Whether only events are written.
    pub read_only: bool,
    /// Where it is recorded what is scaled to zero; `None` scales nothing to zero.
    pub ledger: Option<LedgerConfigMap>,
    /// Receives the findings about what is not written.
    pub findings: watch::Sender<WriteFindings>,
}
