//! When the certificates that all replicas share are replaced, and in which order.
//!
//! Clients trust authorities and not the server's own certificate, so that one may be replaced at any
//! time by one of the same authority. An authority is replaced in two steps: first it stands in the
//! bundle that clients trust, beside the one before; only when they are known to have that bundle does
//! it sign what is served. The one before stays in the bundle until it is over.

use std::time::{Duration, SystemTime};

/// For how long clients must have had a bundle before something is served that only its newest
/// authority vouches for: more than the API server, and the other replicas, take to read it.
pub const SPREAD: Duration = Duration::from_secs(15);

/// The same where it cannot be seen what clients have: whoever hands the bundle on has so long.
pub const SPREAD_UNSEEN: Duration = Duration::from_secs(24 * 3600);

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub begins: SystemTime,
    /// The first moment after it.
    pub ends: SystemTime,
}

impl Validity {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        now >= self.ends
    }

    /// Whether two thirds of its time are over, so that it should be replaced; likewise before it
    /// begins, for a clock that was set back.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        let lasts = self.ends.duration_since(self.begins).unwrap_or_default();
        let third = lasts.checked_div(3).unwrap_or_default();
        match now.duration_since(self.begins) {
            Ok(age) => age >= third.saturating_mul(2),
            Err(_) => true,
        }
    }

    /// The end in seconds since 1970.
    #[must_use]
    pub fn ends_at(&self) -> i64 {
        let since = self.ends.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |s| i64::try_from(s.as_secs()).unwrap_or(i64::MAX))
    }
}

/// What of the shared certificates can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    /// The newest authority, if its key is there.
    pub signer: Option<Validity>,
    /// The server's certificate, if whoever trusts the bundle takes it.
    pub leaf: Option<Leaf>,
    /// Whether the bundle has authorities that are over.
    pub has_over: bool,
}

/// The server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its time.
    pub validity: Validity,
    /// Whether the newest authority signed it.
    pub is_of_signer: bool,
}

/// Whether clients have the bundle that goes with the shared certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// They have, for so long.
    Since(Duration),
    /// They have another.
    Pending,
    /// Nobody here tells them, or sees what they have.
    Unseen,
}

/// What to do about the shared certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// Everything anew: nobody can use what is there.
    Begin,
    /// A new authority joins the bundle; what is served stays.
    NewAuthority,
    /// The newest authority signs a new certificate to serve with.
    NewLeaf,
    /// Authorities that are over leave the bundle.
    DropOver,
}

impl RotationStep {
    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::NewAuthority => "new_authority",
            Self::NewLeaf => "new_certificate",
            Self::DropOver => "drop_authority",
        }
    }
}

/// The next step at `now`, if there is any to take.
#[must_use]
pub fn next(usable: &Usable, publication: Publication, now: SystemTime) -> Option<RotationStep> {
    let signer = usable.signer.filter(|signer| !signer.is_over(now));
    let Some(leaf) = usable.leaf else {
        // Nothing can be served with that any client trusts: there is nobody to wait for.
        return Some(signer.map_or(RotationStep::Begin, |_| RotationStep::NewLeaf));
    };
    let Some(signer) = signer.filter(|signer| !signer.is_due(now)) else {
        return Some(RotationStep::NewAuthority);
    };
    if leaf.is_of_signer {
        if leaf.validity.is_due(now) {
            return Some(RotationStep::NewLeaf);
        }
    } else if has_spread(publication, signer, now) {
        return Some(RotationStep::NewLeaf);
    }
    usable.has_over.then_some(RotationStep::DropOver)
}

fn has_spread(publication: Publication, signer: Validity, now: SystemTime) -> bool {
    match publication {
        Publication::Since(since) => since >= SPREAD,
        Publication::Pending => false,
        Publication::Unseen => {
            let age = now.duration_since(signer.begins).unwrap_or_default();
            age >= SPREAD_UNSEEN
        }
    }
}

#[cfg(test)]
mod tests;
