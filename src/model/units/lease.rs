//! Bounds of the Lease by which daemons elect a leader.

use std::time::Duration;

/// The shortest duration of a Lease.
pub const LEASE_DURATION_MIN: Duration = Duration::from_secs(3);

/// The longest duration of a Lease. A Lease that claims to be valid for longer was not written by lagwise, and is
/// taken over after this time.
pub const LEASE_DURATION_MAX: Duration = Duration::from_secs(300);
