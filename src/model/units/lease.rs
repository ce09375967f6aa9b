//! Bounds of the Lease by which daemons elect a leader.

use std::time::Duration;

/// Minimum duration of a Lease.
pub const MIN_LEASE_DURATION: Duration = Duration::from_secs(3);

/// Maximum duration of a Lease. A Lease that claims to be valid for longer was not written by lagwise, and is taken
/// over after this time.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(300);
