//! Changes of the number of replicas that the rate policy decides on.

use std::fmt;

/// Another number of replicas of the rate policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateChange {
    pub from: u32,
    pub to: u32,
    /// Whether the number is served; otherwise it is only recommended.
    pub is_served: bool,
    /// Why, as a part of a sentence.
    pub because: String,
}

impl RateChange {
    /// This change and the `next` one as a single change; `None` if the next one does not follow on it.
    #[must_use]
    pub fn join(&self, next: &Self) -> Option<Self> {
        let follows = self.to == next.from && self.is_served == next.is_served;
        follows.then(|| Self {
            from: self.from,
            ..next.clone()
        })
    }
}

impl fmt::Display for RateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks = if self.is_served { "asks" } else { "would ask" };
        write!(
            f,
            "the rate policy {asks} for {} replicas instead of {}: {}",
            self.to, self.from, self.because
        )
    }
}
