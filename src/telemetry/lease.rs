//! Log lines and the gauge of leader election.

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

/// This daemon takes part in the election. The gauge exists from here on, so that a daemon that never leads counts as
/// 0.
#[derive(Clone, Copy, Debug)]
pub struct ElectionJoined;

impl ElectionJoined {
    pub fn emit(&self) {
        LEADS.set(0);
    }
}

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
            "cannot read or write the Lease of leader election: without it this daemon cannot become or stay the leader; trying again"
        );
    }
}

/// Another holder's Lease claims a longer duration than the configuration of any daemon allows.
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
            "the Lease claims a longer duration than lagwise ever writes, so something else has written it. This daemon \
             takes it over once it has not changed for respected_seconds. To elect a leader at once, delete the \
             Lease, and find out who else may update it"
        );
    }
}

/// The term of a new leader was written to the HPAs that it manages.
#[derive(Clone, Copy, Debug)]
pub struct TermWritten {
    pub term: u64,
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
pub struct TermWriteFailed<'a> {
    pub reason: &'a dyn Error,
}

impl TermWriteFailed<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = %self.reason,
            "cannot write this leader's term to an HPA: trying again"
        );
    }
}
