//! What lagwise says of who leads.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntGauge;

use super::register;

pub(super) static LEADS: LazyLock<IntGauge> = LazyLock::new(|| {
    register(IntGauge::new(
        "lagwise_leader",
        "1 while this daemon holds the Lease, otherwise 0; absent without a Lease",
    ))
});

/// This daemon leads.
#[derive(Clone, Copy, Debug)]
pub struct LeadershipGained {
    /// The term's number.
    pub term: u64,
}

impl LeadershipGained {
    /// Logs.
    pub fn emit(&self) {
        LEADS.set(1);
        tracing::info!(term = self.term, "this daemon leads: it decides and writes");
    }
}

/// This daemon leads no longer.
#[derive(Clone, Copy, Debug)]
pub struct LeadershipLost {
    /// The number of the term that is over.
    pub term: u64,
}

impl LeadershipLost {
    /// Logs.
    pub fn emit(&self) {
        LEADS.set(0);
        tracing::info!(term = self.term, "this daemon leads no longer");
    }
}

/// The Lease could not be read or written.
#[derive(Debug)]
pub struct LeaseFailed<'a> {
    /// Its name.
    pub lease: &'a str,
    /// Why.
    pub reason: &'a dyn Error,
}

impl LeaseFailed<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            lease = self.lease,
            reason = %self.reason,
            "the Lease that says who leads cannot be used: without it nothing is written"
        );
    }
}

/// The term of a new leader was written on the HPAs that it manages.
#[derive(Clone, Copy, Debug)]
pub struct EpochWritten {
    /// The term's number.
    pub term: u64,
    /// On how many HPAs.
    pub hpas: usize,
}

impl EpochWritten {
    /// Logs.
    pub fn emit(&self) {
        tracing::info!(
            term = self.term,
            hpas = self.hpas,
            "HPAs that this daemon manages carry its term"
        );
    }
}

/// The term could not be written on an HPA.
#[derive(Debug)]
pub struct EpochUnwritten<'a> {
    /// Why.
    pub reason: &'a dyn Error,
}

impl EpochUnwritten<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "an HPA cannot be given the term of this leader: it is tried again"
        );
    }
}
