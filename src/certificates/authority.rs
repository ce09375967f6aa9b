//! lagwise's own certificate authority.
//!
//! Clients trust the authority, so its certificate lasts for years, while the certificates it signs are replaced after
//! two thirds of their lifetime ([`SIGNED_LIFETIME`]). Its state is two PEM texts in a Secret, which all replicas share.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::belongs_to;
use super::rotation::Validity;

const DAY: Duration = Duration::from_secs(24 * 3600);

const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(3650);

/// Lifetime of a server certificate.
const SIGNED_LIFETIME: Duration = DAY.saturating_mul(90);

/// Certificates are valid from this long before they are issued, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3600);

const NAME: &str = "lagwise CA";

/// A certificate authority: certificate and key.
#[derive(Clone)]
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: String,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// A server certificate and its key, both PEM.
#[allow(missing_debug_implementations, reason = "it is a secret")]
pub struct SignedCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl SignedCertificate {
    /// Parses the certificate and the key.
    ///
    /// # Errors
    /// Invalid PEM, which [`CertificateAuthority::sign`] never returns.
    pub fn parts(
        &self,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rustls::pki_types::pem::Error>
    {
        Ok((
            CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())?,
            PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?,
        ))
    }
}

impl CertificateAuthority {
    /// Generates an authority.
    ///
    /// # Errors
    /// The system has no randomness for a key.
    pub fn generate(now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params();
        (params.not_before, params.not_after) = validity_period(AUTHORITY_LIFETIME, now);
        Ok(Self {
            certificate_pem: params.self_signed(&key)?.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Parses a stored authority. `None` if the key does not belong to the certificate, or if lagwise did not create
    /// it: `sign` always writes the name of lagwise's authorities as the issuer, so a certificate signed with the key of
    /// another authority would not chain to that one.
    #[must_use]
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let own = params().distinguished_name;
        let is_named = own.iter().count() == certificate.subject().iter_attributes().count()
            && certificate
                .subject()
                .iter_common_name()
                .any(|name| name.as_str().is_ok_and(|name| name == NAME));
        let is_authority = is_named && certificate.is_ca() && KeyPair::from_pem(key_pem).is_ok();
        (is_authority && belongs_to(vec![der.clone()], key)).then(|| Self {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        })
    }

    /// Private key (PEM).
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Certificate (PEM), for clients to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a server certificate for these names (DNS names and IP addresses).
    ///
    /// # Errors
    /// An invalid name, or the system has no randomness for a key.
    pub fn sign(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<SignedCertificate, rcgen::Error> {
        let issuer = Issuer::new(params(), KeyPair::from_pem(&self.key_pem)?);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(names)?;
        (leaf.not_before, leaf.not_after) = validity_period(SIGNED_LIFETIME, now);
        leaf.distinguished_name.push(DnType::CommonName, "lagwise");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &issuer)?;
        Ok(SignedCertificate {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// Parameters of every authority of lagwise. Because they never differ, `sign` needs only the key.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn validity_period<T: From<SystemTime>>(lifetime: Duration, now: SystemTime) -> (T, T) {
    let begins = now.checked_sub(BACKDATED).unwrap_or(now);
    let ends = now.checked_add(lifetime).unwrap_or(now);
    (begins.into(), ends.into())
}

/// Validity of a DER certificate; `None` if it cannot be parsed.
#[must_use]
pub fn validity_of(der: &[u8]) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let at = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    let validity = certificate.validity();
    Some(Validity {
        begins: at(validity.not_before)?,
        ends: at(validity.not_after)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_certificate_is_due_after_two_thirds_of_its_lifetime() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = CertificateAuthority::generate(now).unwrap();
        let signed = authority.sign(&["localhost".to_owned()], now).unwrap();
        let validity = validity_of(&signed.parts().unwrap().0).unwrap();
        assert_eq!(validity.ends, now + SIGNED_LIFETIME);
        assert!(!validity.is_due(now) && !validity.is_due(now + DAY * 59));
        assert!(validity.is_due(now + DAY * 61));
    }

    #[test]
    fn debug_hides_the_key() {
        let authority = CertificateAuthority::generate(SystemTime::now()).unwrap();
        let text = format!("{authority:?}");
        assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE"));
    }

    #[test]
    fn invalid_der_has_no_validity() {
        assert_eq!(validity_of(&[1, 2, 3]), None);
    }

    #[test]
    fn loads_only_its_own_authorities() {
        let now = SystemTime::now();
        let (one, other) = (
            CertificateAuthority::generate(now).unwrap(),
            CertificateAuthority::generate(now).unwrap(),
        );
        let loaded = CertificateAuthority::from_pem(one.certificate_pem(), one.key_pem()).unwrap();
        assert_eq!(loaded.certificate_pem(), one.certificate_pem());
        let is_loaded = |certificate: &str, key: &str| {
            CertificateAuthority::from_pem(certificate, key).is_some()
        };
        assert!(!is_loaded(one.certificate_pem(), other.key_pem()));
        assert!(!is_loaded(one.certificate_pem(), ""));
        assert!(!is_loaded("", one.key_pem()));
        let signed = one.sign(&["localhost".to_owned()], now).unwrap();
        assert!(
            !is_loaded(&signed.certificate_pem, &signed.key_pem),
            "a server certificate"
        );
        let mut foreign = CertificateParams::default();
        foreign.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let foreign = foreign.self_signed(&key).unwrap().pem();
        assert!(!is_loaded(&foreign, &key.serialize_pem()), "another name");
    }
}
