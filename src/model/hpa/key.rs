//! The identity of an HPA.

use std::sync::Arc;

/// An HPA's namespace and name.
pub type HpaKey = (Arc<str>, Arc<str>);
