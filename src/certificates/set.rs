//! The shared certificates as they are kept: what of them can be used, and what follows a step.

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
use super::rotation::{Leaf, RotationStep, Usable, Validity};
use super::{belongs_to, provider};

/// The bundle of authorities that clients trust, in PEM: the newest one, which signs, comes first.
const BUNDLE: &str = "ca.crt";
/// The private key of the bundle's first authority.
const SIGNER_KEY: &str = "ca.key";
/// The certificate that is served with.
const CERTIFICATE: &str = "tls.crt";
/// Its private key.
const KEY: &str = "tls.key";

/// The most authorities of a bundle: that many follow one another only where a Secret is deleted again
/// and again.
const AUTHORITIES_MAX: usize = 4;

/// What is kept, by name: `ca.crt` (all authorities, the newest first), `ca.key` (the newest one's
/// key), `tls.crt` and `tls.key` (what is served with), each in PEM.
pub type Data = BTreeMap<String, String>;

/// The shared certificates, read.
pub struct CertificateSet {
    authorities: Vec<Trusted>,
    signer: Option<CertificateAuthority>,
    leaf: Option<Served>,
}

/// An authority of the bundle.
struct Trusted {
    pem: String,
    der: CertificateDer<'static>,
    validity: Validity,
}

/// What can be served with.
struct Served {
    certificate_pem: String,
    key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    validity: Validity,
    /// Whose it is, by place in the bundle.
    authority: usize,
}

/// Why it cannot be served with what is kept, in words that stay the same while the cause does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// An entry is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// An entry holds something else.
    #[error("its {0} cannot be read as PEM")]
    Unreadable(&'static str),
    /// The key is another's.
    #[error("its tls.key does not belong to its tls.crt")]
    WrongKey,
    /// Nobody takes the certificate any more, or yet.
    #[error("its tls.crt is over, or not valid yet")]
    WrongTime,
    /// The certificate is for other servers.
    #[error("its tls.crt is not for the configured Service")]
    WrongName,
    /// Nobody who trusts the bundle takes the certificate.
    #[error("its tls.crt is not signed by an authority in its ca.crt that still holds")]
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
    /// Reads what is kept, as a client would judge it at `now` that wants a server of this name; and
    /// why it cannot be served with, where that is so.
    #[must_use]
    pub fn read(data: &Data, host: &str, now: SystemTime) -> (Self, Option<Unusable>) {
        let authorities = authorities(data.get(BUNDLE).map_or("", String::as_str));
        let signer = authorities.first().and_then(|newest| {
            let key = data.get(SIGNER_KEY)?;
            CertificateAuthority::from_pem(&newest.pem, key)
        });
        let leaf = leaf(data, &authorities, host, now);
        let reason = leaf.as_ref().err().copied();
        let set = Self {
            authorities,
            signer,
            leaf: leaf.ok(),
        };
        (set, reason)
    }

    /// The authorities that clients should trust, in PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|a| a.pem.as_str()).collect()
    }

    /// What to serve with and until when it holds; `None` where there is nothing.
    #[must_use]
    pub fn served(
        &self,
    ) -> Option<(
        Vec<CertificateDer<'static>>,
        PrivateKeyDer<'static>,
        Validity,
    )> {
        let leaf = self.leaf.as_ref()?;
        Some((leaf.chain.clone(), leaf.key.clone_key(), leaf.validity))
    }

    /// What of it can be used at `now`.
    #[must_use]
    pub fn usable(&self, now: SystemTime) -> Usable {
        Usable {
            signer: match (&self.signer, self.authorities.first()) {
                (Some(_), Some(newest)) => Some(newest.validity),
                _ => None,
            },
            leaf: self.leaf.as_ref().map(|leaf| Leaf {
                validity: leaf.validity,
                is_of_signer: leaf.authority == 0 && self.signer.is_some(),
            }),
            has_over: self.authorities.iter().any(|a| a.validity.is_over(now)),
        }
    }

    /// What is to be kept after a step, for a server of these names.
    ///
    /// # Errors
    /// A name that no certificate can bear, or no randomness to make a key of.
    pub fn after(
        &self,
        step: RotationStep,
        names: &[String],
        now: SystemTime,
    ) -> Result<Data, rcgen::Error> {
        let (signer, is_new) = match (step, &self.signer) {
            (RotationStep::NewLeaf | RotationStep::DropOver, Some(signer)) => {
                (Some(signer.clone()), false)
            }
            (RotationStep::DropOver, None) => (None, false),
            _ => (Some(CertificateAuthority::generate(now)?), true),
        };
        let newest = signer.as_ref().filter(|_| is_new);
        let mut bundle: Vec<&str> = newest
            .map(CertificateAuthority::certificate_pem)
            .into_iter()
            .collect();
        let vouching = self.leaf.as_ref().map(|leaf| leaf.authority);
        for (place, authority) in self.authorities.iter().enumerate() {
            let has_room = bundle.len() < AUTHORITIES_MAX || vouching == Some(place);
            if has_room && !authority.validity.is_over(now) {
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
        Ok(data([bundle, key_of_signer, certificate, key]))
    }

    /// What is to be kept so that it is this set again.
    #[must_use]
    pub fn data(&self) -> Data {
        let (certificate, key) = match &self.leaf {
            Some(leaf) => (leaf.certificate_pem.clone(), leaf.key_pem.clone()),
            None => (String::new(), String::new()),
        };
        let signer = self.signer.as_ref();
        let signer = signer.map_or_else(String::new, |s| s.key_pem().to_owned());
        data([self.bundle(), signer, certificate, key])
    }
}

fn data([bundle, signer_key, certificate, key]: [String; 4]) -> Data {
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

/// The certificates of a bundle; what is none is left out.
fn authorities(bundle: &str) -> Vec<Trusted> {
    const END: &str = "-----END CERTIFICATE-----";
    let read = |text: &str| {
        let text = text.trim();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let validity = validity_of(&der)?;
        Some(Trusted {
            pem: format!("{text}\n"),
            der,
            validity,
        })
    };
    bundle.split_inclusive(END).filter_map(read).collect()
}

fn leaf(
    data: &Data,
    authorities: &[Trusted],
    host: &str,
    now: SystemTime,
) -> Result<Served, Unusable> {
    let entry = |name| {
        let text = data.get(name).filter(|text| !text.trim().is_empty());
        text.ok_or(Unusable::Missing(name))
    };
    let (certificate_pem, key_pem) = (entry(CERTIFICATE)?, entry(KEY)?);
    let unreadable = Unusable::Unreadable(CERTIFICATE);
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| unreadable)?;
    let validity = chain
        .first()
        .and_then(|leaf| validity_of(leaf))
        .ok_or(unreadable)?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| Unusable::Unreadable(KEY))?;
    if !belongs_to(chain.clone(), key.clone_key()) {
        return Err(Unusable::WrongKey);
    }
    if validity.is_over(now) || now < validity.begins {
        return Err(Unusable::WrongTime);
    }
    let mut reason = Unusable::Untrusted;
    let mut of_authority = None;
    for (place, authority) in authorities.iter().enumerate() {
        if authority.validity.is_over(now) {
            continue;
        }
        match vouches(&authority.der, &chain, host, now) {
            Ok(()) => {
                of_authority = Some(place);
                break;
            }
            Err(unusable) if reason == Unusable::Untrusted => reason = unusable,
            Err(_) => {}
        }
    }
    Ok(Served {
        certificate_pem: certificate_pem.clone(),
        key_pem: key_pem.clone(),
        chain,
        key,
        validity,
        authority: of_authority.ok_or(reason)?,
    })
}

/// Whether a client that trusts this authority alone takes the chain for a server of that name.
fn vouches(
    authority: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    host: &str,
    now: SystemTime,
) -> Result<(), Unusable> {
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.clone())
        .map_err(|_| Unusable::Untrusted)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|_| Unusable::Untrusted)?;
    let host = ServerName::try_from(host).map_err(|_| Unusable::WrongName)?;
    let (leaf, issuers) = chain.split_first().ok_or(Unusable::Missing(CERTIFICATE))?;
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = UnixTime::since_unix_epoch(since);
    match verifier.verify_server_cert(leaf, issuers, &host, &[], now) {
        Ok(_) => Ok(()),
        Err(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Err(Unusable::WrongName),
        Err(_) => Err(Unusable::Untrusted),
    }
}

#[cfg(test)]
mod tests;
