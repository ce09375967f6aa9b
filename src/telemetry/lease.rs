//! Leader election.

use std::error::Error;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::IntGauge;

use super::register;

pub(super) static LEADS: LazyLock<IntGauge> = LazyLock::new(|| {
    register(IntGauge::new(
        "lagwise_leader",
        "1 while this daemon holds the Lease, otherwise 0; absent without a Lease",
    ))
});

/// This daemon has become the leader.
#[derive(Clone, Copy, Debug)]
pub struct LeadershipGained {
    pub term: u64,
}

impl LeadershipGained {
    pub fn emit(&self) {
        LEADS.set(1);
        tracing::info!(
            term = self.term,
            "became the leader: this daemon decides and writes"
        );
    }
}

/// This daemon is no longer the leader.
#[derive(Clone, Copy, Debug)]
pub struct LeadershipLost {
    /// The number of the term that is over.
    pub term: u64,
}

impl LeadershipLost {
    pub fn emit(&self) {
        LEADS.set(0);
        tracing::info!(term = self.term, "no longer the leader");
    }
}

/// The Lease could not be read or written, for a new reason.
#[derive(Debug)]
pub struct LeaseFailed<'a> {
    pub lease: &'a str,
    pub reason: &'a dyn Error,
}

impl LeaseFailed<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            lease = self.lease,
            reason = %self.reason,
            "cannot read or write the Lease of leader election: nothing is decided or written without it"
        );
    }
}

/// Another holder's Lease claims to be valid for longer than any daemon may configure.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTooLong<'a> {
    pub lease: &'a str,
    pub claimed: Duration,
    pub respected: Duration,
}

impl LeaseTooLong<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            lease = self.lease,
            claimed_seconds = self.claimed.as_secs(),
            respected_seconds = self.respected.as_secs(),
            "the Lease claims a longer duration than lagwise ever writes: somebody else has written it. \
             It is taken over once it has not changed for respected_seconds; delete the Lease to elect a \
             leader at once, and look for who else may update it"
        );
    }
}

/// The term of a new leader was written to the HPAs that it manages.
#[derive(Clone, Copy, Debug)]
pub struct TermWritten {
    pub term: u64,
    /// The number of HPAs.
    pub hpas: usize,
}

impl TermWritten {
    pub fn emit(&self) {
        tracing::info!(
            term = self.term,
            hpas = self.hpas,
            "wrote this leader's term to the HPAs that it manages"
        );
    }
}

/// The term could not be written to an HPA, for a new reason.
#[derive(Debug)]
pub struct TermUnwritten<'a> {
    pub reason: &'a dyn Error,
}

impl TermUnwritten<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "cannot write this leader's term to an HPA: trying again"
        );
    }
}
