//! Short names of the reasons, for metrics and sums.

use super::Difference;

impl Difference {
    /// Its name in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::OneBeyondPartitions { .. } => "one_beyond_partitions",
            Self::Unlimited { .. } => "unlimited",
            Self::TopicsAddedUp { .. } => "topics_added_up",
            Self::Threads { .. } => "threads",
            Self::WithinTolerance { .. } => "within_tolerance",
            Self::EvenSteps { .. } => "even_steps",
            Self::PartitionsWithLag { .. } => "partitions_with_lag",
            Self::Uncommitted { .. } => "uncommitted",
            Self::Deleted { .. } => "deleted",
            Self::Residual { .. } => "residual",
            Self::Stuck { .. } => "stuck",
            Self::OpenTransactions { .. } => "open_transactions",
            Self::Persistent { .. } => "persistent",
            Self::Inactive { .. } => "inactive",
            Self::KedaFails { .. } => "keda_fails",
            Self::LagwiseUnknown => "lagwise_unknown",
        }
    }
}
