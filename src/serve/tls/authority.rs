//! A certificate authority of our own, for where nobody gives us a certificate.
//!
//! Clients trust the authority, so its certificate lasts for years while those that it signs are
//! replaced every few weeks, long before they end. Its PEM texts are all there is to it: whoever
//! shares them among replicas has all of them trusted alike.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long an authority lasts.
const AUTHORITY_LASTS: Duration = DAY.saturating_mul(3650);

/// How long a certificate that it signs lasts.
pub(super) const SIGNED_LASTS: Duration = DAY.saturating_mul(90);

/// How far back both begin, for callers whose clocks are late.
const BACKDATED: Duration = Duration::from_secs(3600);

const NAME: &str = "lagwise CA";

/// An authority: its certificate and its key.
#[derive(Clone)]
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// A certificate for a server, with its key.
pub(super) struct Signed {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No randomness to make a key of.
    pub fn generate(now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params();
        (params.not_before, params.not_after) = lasting(AUTHORITY_LASTS, now);
        Ok(Self {
            certificate_pem: params.self_signed(&key)?.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Its certificate, in PEM, for whoever is to trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for a server of these names (DNS names and IP addresses), made now.
    pub(super) fn sign(&self, names: &[String], now: SystemTime) -> Result<Signed, rcgen::Error> {
        let issuer = Issuer::new(params(), KeyPair::from_pem(&self.key_pem)?);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(names)?;
        (leaf.not_before, leaf.not_after) = lasting(SIGNED_LASTS, now);
        leaf.distinguished_name.push(DnType::CommonName, "lagwise");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &issuer)?;
        Ok(Signed {
            chain: vec![certificate.der().clone()],
            key: key.into(),
        })
    }
}

/// What an authority is, but for its time: the same for all, so that the key alone is enough to
/// sign with.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn lasting<T: From<SystemTime>>(lasts: Duration, now: SystemTime) -> (T, T) {
    let begins = now.checked_sub(BACKDATED).unwrap_or(now);
    let ends = now.checked_add(lasts).unwrap_or(now);
    (begins.into(), ends.into())
}

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) begins: SystemTime,
    pub(super) ends: SystemTime,
}

impl Validity {
    /// Of a certificate in DER; `None` where it cannot be read.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let at = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        let validity = certificate.validity();
        Some(Self {
            begins: at(validity.not_before)?,
            ends: at(validity.not_after)?,
        })
    }

    /// Whether it is over.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        now >= self.ends
    }

    /// Whether two thirds of its time are over, so that it should be replaced; likewise before it
    /// begins, for a clock that was set back.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let lasts = self.ends.duration_since(self.begins).unwrap_or_default();
        match now.duration_since(self.begins) {
            Ok(age) => age >= lasts / 3 * 2,
            Err(_) => true,
        }
    }

    /// The end in seconds since 1970.
    pub(super) fn ends_at(&self) -> i64 {
        let since = self.ends.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |s| i64::try_from(s.as_secs()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_at_two_thirds() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let validity = Validity {
            begins: at(1000),
            ends: at(1300),
        };
        for (now, due, over) in [
            (999, true, false),
            (1000, false, false),
            (1199, false, false),
            (1200, true, false),
            (1299, true, false),
            (1300, true, true),
            (9999, true, true),
        ] {
            let found = (validity.is_due(at(now)), validity.is_over(at(now)));
            assert_eq!(found, (due, over), "{now}");
        }
        assert_eq!(validity.ends_at(), 1300);
    }

    #[test]
    fn what_it_signs_is_due_within_its_time_and_not_at_once() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = Authority::generate(now).unwrap();
        let signed = authority.sign(&["localhost".to_owned()], now).unwrap();
        let validity = Validity::of(&signed.chain[0]).unwrap();
        assert_eq!(validity.ends, now + SIGNED_LASTS);
        assert!(!validity.is_due(now) && !validity.is_due(now + DAY * 59));
        assert!(validity.is_due(now + DAY * 61));
    }

    #[test]
    fn its_key_is_not_shown() {
        let authority = Authority::generate(SystemTime::now()).unwrap();
        let shown = format!("{authority:?}");
        assert!(shown.contains("BEGIN CERTIFICATE") && !shown.contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_certificate_has_no_validity() {
        assert_eq!(Validity::of(&[1, 2, 3]), None);
    }
}
