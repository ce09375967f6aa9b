//! Identifies callers by client certificate: the front proxy, which names the user in headers, or a
//! user of the cluster. Each has its own certificate authority and is verified separately, since a
//! user's certificate must never pass for the front proxy's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::cache::{Cache, CacheKey};
use super::{CallerIdentity, Unauthenticated};
use crate::authentication::access::{Caller, ClusterTrust, FrontProxyTrust};
use crate::serve::connections::PeerRank;
use crate::serve::tls;

/// How long a verified certificate is not verified again; verifying costs as much as some hundred
/// responses.
const VERIFIED_MAX_AGE: Duration = Duration::from_secs(10);

/// Owner of a verified certificate.
#[derive(Clone, Debug)]
enum CertificateOwner {
    FrontProxy,
    User(Arc<Caller>),
}

/// The certificate chain that a client presented in the TLS handshake, not empty, its own
/// certificate first. Not verified.
#[derive(Debug)]
pub(in crate::serve) struct PresentedChain {
    chain: Vec<CertificateDer<'static>>,
    /// Computed once for all requests of a connection.
    key: CacheKey,
}

impl PresentedChain {
    pub(in crate::serve) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        let key = CacheKey::digest(chain.iter().map(AsRef::as_ref));
        Self { chain, key }
    }
}

/// Verifies client certificates against the authorities that the cluster trusts.
#[derive(Debug)]
pub(super) struct CertificateVerifier {
    front_proxy: Option<FrontProxy>,
    users: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether a published authority contains no valid certificate.
    has_unreadable_ca: bool,
    checked: Cache<Result<CertificateOwner, Unauthenticated>>,
}

#[derive(Debug)]
struct FrontProxy {
    verifier: Arc<dyn ClientCertVerifier>,
    allowed_names: Vec<String>,
    username_headers: Vec<HeaderName>,
    uid_headers: Vec<HeaderName>,
    group_headers: Vec<HeaderName>,
    extra_prefixes: Vec<String>,
}

impl CertificateVerifier {
    pub(super) fn new(trust: &ClusterTrust) -> Self {
        let front_proxy = trust.front_proxy.as_ref().map(FrontProxy::new);
        let users = trust.client_ca_pem.as_deref().map(verifier);
        Self {
            has_unreadable_ca: matches!(front_proxy, Some(None)) || matches!(users, Some(None)),
            front_proxy: front_proxy.flatten(),
            users: users.flatten(),
            checked: Cache::new(VERIFIED_MAX_AGE),
        }
    }

    /// Identifies the caller by the presented certificates.
    pub(super) fn caller(
        &self,
        presented: &PresentedChain,
        headers: &HeaderMap,
    ) -> Result<CallerIdentity, Unauthenticated> {
        let PresentedChain { chain, key } = presented;
        let owner = self
            .checked
            .get_or_insert_with(*key, Instant::now(), || self.owner(chain))?;
        match (owner, &self.front_proxy) {
            (CertificateOwner::User(caller), _) => Ok(CallerIdentity {
                caller,
                rank: PeerRank::Known,
            }),
            (CertificateOwner::FrontProxy, Some(proxy)) => Ok(CallerIdentity {
                caller: Arc::new(proxy.caller(headers)?),
                rank: PeerRank::Trusted,
            }),
            (CertificateOwner::FrontProxy, None) => Err(Unauthenticated::UntrustedCertificate),
        }
    }

    fn owner(&self, chain: &[CertificateDer<'_>]) -> Result<CertificateOwner, Unauthenticated> {
        let mut refused = if self.has_unreadable_ca {
            Unauthenticated::TrustUnreadable
        } else {
            Unauthenticated::UntrustedCertificate
        };
        if let Some(proxy) = &self.front_proxy
            && verify(&*proxy.verifier, chain)
        {
            if proxy.allows(chain) {
                return Ok(CertificateOwner::FrontProxy);
            }
            refused = Unauthenticated::NameNotAllowed;
        }
        // One authority may sign both kinds; a certificate with another name than the front proxy's
        // may still be a user's.
        if let Some(users) = &self.users
            && verify(&**users, chain)
        {
            return match user(chain) {
                Some(caller) => Ok(CertificateOwner::User(Arc::new(caller))),
                None => Err(Unauthenticated::NamelessCertificate),
            };
        }
        Err(refused)
    }
}

fn verifier(pem: &str) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .build()
        .ok()
}

fn verify(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>]) -> bool {
    let Some((leaf, issuers)) = chain.split_first() else {
        return false;
    };
    verifier
        .verify_client_cert(leaf, issuers, UnixTime::now())
        .is_ok()
}

/// The user in a certificate: common name, with organizations as groups.
fn user(chain: &[CertificateDer<'_>]) -> Option<Caller> {
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let subject = leaf.subject();
    let groups = subject.iter_organization().map(|name| name.as_str());
    let caller = Caller {
        user: common_name(&leaf)?.to_owned(),
        groups: groups.filter_map(Result::ok).map(str::to_owned).collect(),
        ..Caller::default()
    };
    Some(caller.with_implied_group())
}

/// The last common name, as the API server reads it: a subject may have several.
fn common_name<'a>(leaf: &'a X509Certificate<'_>) -> Option<&'a str> {
    let name = leaf.subject().iter_common_name().last()?.as_str().ok()?;
    (!name.is_empty()).then_some(name)
}

impl FrontProxy {
    fn new(trust: &FrontProxyTrust) -> Option<Self> {
        let names = |names: &[String]| {
            let parsed = names.iter().map(|n| HeaderName::from_bytes(n.as_bytes()));
            parsed.filter_map(Result::ok).collect()
        };
        Some(Self {
            verifier: verifier(&trust.client_ca_pem)?,
            allowed_names: trust.allowed_names.clone(),
            username_headers: names(&trust.username_headers),
            uid_headers: names(&trust.uid_headers),
            group_headers: names(&trust.group_headers),
            extra_prefixes: trust
                .extra_prefixes
                .iter()
                .map(|prefix| prefix.to_ascii_lowercase())
                .filter(|prefix| !prefix.is_empty())
                .collect(),
        })
    }

    fn allows(&self, chain: &[CertificateDer<'_>]) -> bool {
        if self.allowed_names.is_empty() {
            return true;
        }
        let leaf = chain.first().map(|leaf| X509Certificate::from_der(leaf));
        let Some(Ok((_, leaf))) = leaf else {
            return false;
        };
        common_name(&leaf).is_some_and(|name| self.allowed_names.iter().any(|a| a == name))
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Unauthenticated> {
        let first = |names: &[HeaderName]| {
            let mut found = names.iter().filter_map(|name| headers.get(name));
            found.find_map(text)
        };
        let groups = self.group_headers.iter();
        let caller = Caller {
            user: first(&self.username_headers).ok_or(Unauthenticated::NoUser)?,
            uid: first(&self.uid_headers).unwrap_or_default(),
            groups: groups
                .flat_map(|name| headers.get_all(name))
                .filter_map(text)
                .collect(),
            extra: self.extra(headers),
        };
        Ok(caller.with_implied_group())
    }

    /// The extra fields sent by the front proxy: the rest of the header name, percent-decoded, is
    /// the key.
    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let mut prefixes = self.extra_prefixes.iter();
            let key = prefixes.find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
            let Some((key, value)) = key.and_then(|key| Some((key, text(value)?))) else {
                continue;
            };
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(value);
        }
        extra
    }
}

fn text(value: &HeaderValue) -> Option<String> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}
