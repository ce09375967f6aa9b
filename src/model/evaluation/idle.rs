//! Time since which each HPA has had no demand.

use std::collections::BTreeMap;

use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;

/// Time since which each HPA that may be scaled to zero has had no demand.
pub type IdleSince = BTreeMap<HpaKey, Moment>;
