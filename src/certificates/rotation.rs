//! Rules for rotating the shared certificates.
//!
//! Clients trust authorities, not the server certificate itself. So the server certificate may be replaced at any time
//! by another one of the same authority. An authority is replaced in two steps. First the new authority joins the old
//! one in the bundle that clients trust. Once clients are known to have this bundle, the new authority signs the server
//! certificate. The old authority stays in the bundle until it expires.

use std::time::{Duration, SystemTime};

/// How long a bundle must have been published before its newest authority may sign the served
/// certificate: longer than the API server and the other replicas take to read it.
pub const SPREAD: Duration = Duration::from_secs(15);

/// The same if publication cannot be observed: the time that people or tools have to publish the bundle.
pub const SPREAD_UNSEEN: Duration = Duration::from_secs(24 * 3600);

/// Validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First valid moment.
    pub begins: SystemTime,
    /// First moment after it.
    pub ends: SystemTime,
}

impl Validity {
    /// Whether it has expired.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.ends
    }

    /// Whether it should be replaced: two thirds of its period are over, or it has not begun
    /// because the clock was set back.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        let lasts = self.ends.duration_since(self.begins).unwrap_or_default();
        let third = lasts.checked_div(3).unwrap_or_default();
        match now.duration_since(self.begins) {
            Ok(age) => age >= third.saturating_mul(2),
            Err(_) => true,
        }
    }

    /// Expiry in seconds since 1970.
    #[must_use]
    pub fn ends_at(&self) -> i64 {
        let since = self.ends.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |s| i64::try_from(s.as_secs()).unwrap_or(i64::MAX))
    }
}

/// The usable parts of the shared certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsableCertificates {
    /// The newest authority, if its key is present.
    pub signer: Option<Validity>,
    /// The server certificate, if clients of the bundle accept it.
    pub leaf: Option<Leaf>,
    /// Whether the bundle contains expired authorities.
    pub has_expired: bool,
}

/// A server certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub validity: Validity,
    /// Whether the newest authority signed it.
    pub is_signed_by_newest: bool,
}

/// Whether clients have the current bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Published for this long.
    Since(Duration),
    /// Another bundle is published.
    Pending,
    /// Publication cannot be observed.
    Unseen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// Create everything: nothing present is usable.
    Begin,
    /// Add a new authority to the bundle; the served certificate stays.
    NewAuthority,
    /// Issue a new server certificate from the newest authority.
    NewLeaf,
    /// Remove expired authorities from the bundle.
    DropExpired,
}

impl RotationStep {
    /// Name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::NewAuthority => "new_authority",
            Self::NewLeaf => "new_certificate",
            Self::DropExpired => "drop_authority",
        }
    }
}

/// The next step at `now`, if one is due.
#[must_use]
pub fn next_step(
    usable: &UsableCertificates,
    publication: Publication,
    now: SystemTime,
) -> Option<RotationStep> {
    let signer = usable.signer.filter(|signer| !signer.is_expired(now));
    let Some(leaf) = usable.leaf else {
        // No client trusts the certificate, so there is no client to wait for.
        return Some(signer.map_or(RotationStep::Begin, |_| RotationStep::NewLeaf));
    };
    let Some(signer) = signer.filter(|signer| !signer.is_due(now)) else {
        return Some(RotationStep::NewAuthority);
    };
    if leaf.is_signed_by_newest {
        if leaf.validity.is_due(now) {
            return Some(RotationStep::NewLeaf);
        }
    } else if has_spread(publication, signer, now) {
        return Some(RotationStep::NewLeaf);
    }
    usable.has_expired.then_some(RotationStep::DropExpired)
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
