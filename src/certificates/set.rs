//! The stored form of the shared certificates: parsing, verification, and the result of a rotation step.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, Error as TlsError, RootCertStore};

use super::authority::{CertificateAuthority, validity_of};
use super::belongs_to;
use super::rotation::{Leaf, RotationStep, UsableCertificates, Validity};
use crate::crypto::provider;

/// CA bundle (PEM) that clients trust; the newest authority, which signs, comes first.
const BUNDLE: &str = "ca.crt";
/// Private key of the bundle's first authority.
const SIGNER_KEY: &str = "ca.key";
/// Server certificate.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Maximum number of authorities in a bundle, besides that of the served certificate. Only reached if the Secret is
/// deleted again and again, because each deletion leads to another authority.
const MAX_AUTHORITIES: usize = 4;

/// Content of the Secret: `ca.crt` (all authorities, newest first), `ca.key` (key of the newest one), `tls.crt` (server
/// certificate) and `tls.key` (its key), each PEM.
pub type SecretData = BTreeMap<String, String>;

/// The shared certificates, parsed.
pub struct CertificateSet {
    authorities: Vec<BundledAuthority>,
    signer: Option<CertificateAuthority>,
    leaf: Option<ServerCertificate>,
}

struct BundledAuthority {
    pem: String,
    der: CertificateDer<'static>,
    validity: Validity,
}

/// A usable server certificate.
struct ServerCertificate {
    certificate_pem: String,
    key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    validity: Validity,
    /// Index in the bundle of the authority that signed it.
    authority: usize,
}

/// Why the stored certificates cannot be used. The text stays the same while the cause does, so that it is logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// A missing entry.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An entry that is not PEM.
    #[error("{0} is not valid PEM")]
    Unreadable(&'static str),
    /// A key of another certificate.
    #[error("tls.key does not belong to tls.crt")]
    WrongKey,
    /// Expired or not yet valid.
    #[error("tls.crt has expired or is not valid yet")]
    WrongTime,
    /// A certificate for other names.
    #[error("tls.crt is not valid for the configured Service")]
    WrongName,
    /// Not signed by an authority of the bundle.
    #[error("tls.crt is not signed by a valid authority in ca.crt")]
    Untrusted,
}

impl fmt::Debug for CertificateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSet")
            .field("bundle", &self.bundle())
            .field("signer", &self.signer)
            .field(
                "certificate",
                &self.leaf.as_ref().map(|leaf| &leaf.certificate_pem),
            )
            .finish()
    }
}

impl CertificateSet {
    /// Parses the stored certificates and verifies them as a client at `now` that connects to `host`. Also returns the
    /// problem, if the server certificate cannot be used.
    #[must_use]
    pub fn read(
        data: &SecretData,
        host: &str,
        now: SystemTime,
    ) -> (Self, Option<CertificateProblem>) {
        let authorities = parse_bundle(data.get(BUNDLE).map_or("", String::as_str));
        let signer = authorities.first().and_then(|newest| {
            let key = data.get(SIGNER_KEY)?;
            CertificateAuthority::from_pem(&newest.pem, key)
        });
        let leaf = parse_leaf(data, &authorities, host, now);
        let problem = leaf.as_ref().err().copied();
        let set = Self {
            authorities,
            signer,
            leaf: leaf.ok(),
        };
        (set, problem)
    }

    /// The CA bundle (PEM).
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|a| a.pem.as_str()).collect()
    }

    /// Chain, key and validity of the server certificate; `None` if there is no usable one.
    #[must_use]
    pub fn server_certificate(
        &self,
    ) -> Option<(
        Vec<CertificateDer<'static>>,
        PrivateKeyDer<'static>,
        Validity,
    )> {
        let leaf = self.leaf.as_ref()?;
        Some((leaf.chain.clone(), leaf.key.clone_key(), leaf.validity))
    }

    /// The usable parts at `now`.
    #[must_use]
    pub fn usable(&self, now: SystemTime) -> UsableCertificates {
        UsableCertificates {
            signer: match (&self.signer, self.authorities.first()) {
                (Some(_), Some(newest)) => Some(newest.validity),
                _ => None,
            },
            leaf: self.leaf.as_ref().map(|leaf| Leaf {
                validity: leaf.validity,
                is_signed_by_newest: leaf.authority == 0 && self.signer.is_some(),
            }),
            has_expired: self.authorities.iter().any(|a| a.validity.is_expired(now)),
        }
    }

    /// The Secret's content after a rotation step, for a server with these names.
    ///
    /// # Errors
    /// An invalid name, or no randomness for a key.
    pub fn apply(
        &self,
        step: RotationStep,
        names: &[String],
        now: SystemTime,
    ) -> Result<SecretData, rcgen::Error> {
        let (signer, is_new) = match (step, &self.signer) {
            (RotationStep::NewLeaf | RotationStep::DropExpired, Some(signer)) => {
                (Some(signer.clone()), false)
            }
            (RotationStep::DropExpired, None) => (None, false),
            _ => (Some(CertificateAuthority::generate(now)?), true),
        };
        let newest = signer.as_ref().filter(|_| is_new);
        let mut bundle: Vec<&str> = newest
            .map(CertificateAuthority::certificate_pem)
            .into_iter()
            .collect();
        let leaf_authority = self.leaf.as_ref().map(|leaf| leaf.authority);
        for (index, authority) in self.authorities.iter().enumerate() {
            // The authority of the served certificate stays, even in a full bundle.
            let is_kept = bundle.len() < MAX_AUTHORITIES || leaf_authority == Some(index);
            if is_kept && !authority.validity.is_expired(now) {
                bundle.push(&authority.pem);
            }
        }
        let (certificate, key) = match (&self.leaf, &signer) {
            (Some(leaf), _) if !matches!(step, RotationStep::Begin | RotationStep::NewLeaf) => {
                (leaf.certificate_pem.clone(), leaf.key_pem.clone())
            }
            (_, Some(signer)) => {
                let signed = signer.sign(names, now)?;
                (signed.certificate_pem, signed.key_pem)
            }
            (_, None) => (String::new(), String::new()),
        };
        let bundle = bundle.concat();
        let key_of_signer = signer.map_or_else(String::new, |s| s.key_pem().to_owned());
        Ok(secret_data([bundle, key_of_signer, certificate, key]))
    }

    /// The Secret's content for this set.
    #[must_use]
    pub fn data(&self) -> SecretData {
        let (certificate, key) = match &self.leaf {
            Some(leaf) => (leaf.certificate_pem.clone(), leaf.key_pem.clone()),
            None => (String::new(), String::new()),
        };
        let signer = self.signer.as_ref();
        let signer = signer.map_or_else(String::new, |s| s.key_pem().to_owned());
        secret_data([self.bundle(), signer, certificate, key])
    }
}

fn secret_data([bundle, signer_key, certificate, key]: [String; 4]) -> SecretData {
    [
        (BUNDLE, bundle),
        (SIGNER_KEY, signer_key),
        (CERTIFICATE, certificate),
        (KEY, key),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text))
    .collect()
}

/// Parses a bundle; invalid entries are skipped.
fn parse_bundle(bundle: &str) -> Vec<BundledAuthority> {
    const END: &str = "-----END CERTIFICATE-----";
    let read = |text: &str| {
        let text = text.trim();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let validity = validity_of(&der)?;
        Some(BundledAuthority {
            pem: format!("{text}\n"),
            der,
            validity,
        })
    };
    bundle.split_inclusive(END).filter_map(read).collect()
}

/// Parses and verifies the server certificate.
fn parse_leaf(
    data: &SecretData,
    authorities: &[BundledAuthority],
    host: &str,
    now: SystemTime,
) -> Result<ServerCertificate, CertificateProblem> {
    let entry = |name| {
        let text = data.get(name).filter(|text| !text.trim().is_empty());
        text.ok_or(CertificateProblem::Missing(name))
    };
    let (certificate_pem, key_pem) = (entry(CERTIFICATE)?, entry(KEY)?);
    let unreadable = CertificateProblem::Unreadable(CERTIFICATE);
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| unreadable)?;
    let validity = chain
        .first()
        .and_then(|leaf| validity_of(leaf))
        .ok_or(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| CertificateProblem::Unreadable(KEY))?;
    if !belongs_to(chain.clone(), key.clone_key()) {
        return Err(CertificateProblem::WrongKey);
    }
    if validity.is_expired(now) || now < validity.begins {
        return Err(CertificateProblem::WrongTime);
    }
    let mut problem = CertificateProblem::Untrusted;
    let mut signed_by = None;
    for (index, authority) in authorities.iter().enumerate() {
        if authority.validity.is_expired(now) {
            continue;
        }
        match verify_chain(&authority.der, &chain, host, now) {
            Ok(()) => {
                signed_by = Some(index);
                break;
            }
            // Any other problem is more specific than that this authority did not sign the certificate.
            Err(found) if problem == CertificateProblem::Untrusted => problem = found,
            Err(_) => {}
        }
    }
    Ok(ServerCertificate {
        certificate_pem: certificate_pem.clone(),
        key_pem: key_pem.clone(),
        chain,
        key,
        validity,
        authority: signed_by.ok_or(problem)?,
    })
}

/// Verifies the chain as a client that trusts only this authority and connects to `host`.
fn verify_chain(
    authority: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    host: &str,
    now: SystemTime,
) -> Result<(), CertificateProblem> {
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.clone())
        .map_err(|_| CertificateProblem::Untrusted)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|_| CertificateProblem::Untrusted)?;
    let host = ServerName::try_from(host).map_err(|_| CertificateProblem::WrongName)?;
    let (leaf, issuers) = chain
        .split_first()
        .ok_or(CertificateProblem::Missing(CERTIFICATE))?;
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = UnixTime::since_unix_epoch(since);
    match verifier.verify_server_cert(leaf, issuers, &host, &[], now) {
        Ok(_) => Ok(()),
        Err(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Err(CertificateProblem::WrongName),
        Err(_) => Err(CertificateProblem::Untrusted),
    }
}

#[cfg(test)]
mod tests;
