//! Options of the reconciler.

use tokio::sync::watch;

use crate::k8s::zero_ledger::LedgerConfigMap;
use crate::model::findings::ReportedFindings;

#[derive(Debug)]
pub struct ReconcilerOptions {
    /// Whether only events are written.
    pub read_only: bool,
    /// The ledger of scale to zero; `None` scales nothing to zero.
    pub ledger: Option<LedgerConfigMap>,
    /// Receives the findings about writes that are not made.
    pub findings: watch::Sender<ReportedFindings>,
}
