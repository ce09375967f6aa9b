//! Keys of the annotations that lagwise writes on HPAs. The keys that a person writes are those of
//! [`SETTINGS`](super::SETTINGS).

/// Prefix of every annotation of lagwise.
pub const PREFIX: &str = "lagwise.dev/";

/// Time at which lagwise scaled the workload of the HPA to zero, while it is at zero. Only shown, since everybody who
/// may write the HPA can set it: see [`zero_ledger`](crate::model::decisions::zero_ledger).
pub const ZEROED_SINCE: &str = "lagwise.dev/zeroed-since";

/// The replica ceiling that is enforced.
pub const CEILING: &str = "lagwise.dev/ceiling";

/// The user's `maxReplicas`, while the HPA is capped.
pub const USER_MAX: &str = "lagwise.dev/user-max-replicas";

/// Term of the leader that manages the HPA.
pub const TERM: &str = "lagwise.dev/epoch";

/// Every annotation that lagwise writes, with its description.
pub const WRITTEN: [(&str, &str); 4] = [
    (
        CEILING,
        "Replica ceiling that the admission policy applies.",
    ),
    (USER_MAX, "Your own `maxReplicas`, while the HPA is capped."),
    (
        ZEROED_SINCE,
        "Time at which lagwise scaled the workload to zero. For people only: what lagwise wakes is in its own ledger.",
    ),
    (TERM, "Term of the leader that last took over the HPA."),
];
