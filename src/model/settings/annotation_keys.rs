//! The keys of the annotations that lagwise reads and writes on HPAs.

/// What every annotation of ours begins with.
pub const PREFIX: &str = "lagwise.dev/";

/// The annotation that marks an HPA whose workload lagwise has set to zero; its value is the time.
pub const ZEROED_SINCE: &str = "lagwise.dev/zeroed-since";

/// `enforce` or `advise`.
pub const CAP: &str = "lagwise.dev/cap";

/// The ceiling that is enforced, as lagwise writes it.
pub const CEILING: &str = "lagwise.dev/ceiling";

/// The `maxReplicas` that the HPA has without the cap.
pub const USER_MAX: &str = "lagwise.dev/user-max-replicas";

/// The user's number, said outright. Needed for one thing only: to lower `maxReplicas` to exactly
/// what the cap has made it, which no API server can tell from not touching it.
pub const EXPLICIT_MAX: &str = "lagwise.dev/max-replicas";

/// While it is `true` nothing is written about the HPA or what it scales.
pub const PAUSED: &str = "lagwise.dev/paused";
