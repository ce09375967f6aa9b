//! Why the requests of an HPA are refused.

use super::budgets::BudgetExceeded;
use super::tenancy::TenancyError;
use crate::model::findings::FindingCode;
use crate::model::hpa::limits::HpaTooLarge;

/// Why the requests of an HPA are refused, and nothing is read for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenialReason {
    /// Its namespace may not use the group.
    #[error(transparent)]
    NotAllowed(TenancyError),
    /// The HPA exceeds the limits of what is kept of one HPA.
    #[error("nothing is read for the HPA: {0}")]
    HpaTooLarge(HpaTooLarge),
    /// The HPA exceeds a budget.
    #[error("nothing is read for the HPA: {0}")]
    OverBudget(BudgetExceeded),
}

impl DenialReason {
    /// The finding about the HPA.
    #[must_use]
    pub fn finding_code(&self) -> FindingCode {
        match self {
            Self::NotAllowed(_) => FindingCode::NotAllowed,
            Self::HpaTooLarge(_) | Self::OverBudget(_) => FindingCode::OverBudget,
        }
    }
}
