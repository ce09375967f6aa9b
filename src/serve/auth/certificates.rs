//! Identifies callers by client certificate: the front proxy, which names the user in headers, or a user of the
//! cluster. Each has a separate CA and is verified separately, since a user's certificate must never pass for the front
//! proxy's.

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

/// How long the outcome of verifying a chain is cached. Verifying costs as much as some hundred
/// responses.
const MAX_VERIFIED_AGE: Duration = Duration::from_secs(10);

/// Owner of a verified certificate.
#[derive(Clone, Debug)]
enum CertificateOwner {
    FrontProxy,
    User(Arc<Caller>),
}

/// The certificate chain that a client presented in the TLS handshake: not empty, the client's own
/// certificate first, and not verified.
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

/// Verifies client certificates against the CAs that the cluster trusts.
#[derive(Debug)]
pub(super) struct CertificateVerifier {
    front_proxy: Option<FrontProxy>,
    users: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether the cluster publishes a CA without a valid certificate in it.
    has_unreadable_ca: bool,
    verified: Cache<CertificateOwner>,
    /// Separate from `verified`, so that forged chains do not evict verified ones.
    refused: Cache<Unauthenticated>,
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
            verified: Cache::new(MAX_VERIFIED_AGE),
            refused: Cache::new(MAX_VERIFIED_AGE),
        }
    }

    /// Identifies the caller by the presented certificates.
    pub(super) fn caller(
        &self,
        presented: &PresentedChain,
        headers: &HeaderMap,
    ) -> Result<CallerIdentity, Unauthenticated> {
        let owner = self.cached_owner(presented)?;
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

    /// The owner of a chain, from the cache or verified now. No lock is held while verifying, so that a forged
    /// chain does not hold up other callers.
    fn cached_owner(
        &self,
        presented: &PresentedChain,
    ) -> Result<CertificateOwner, Unauthenticated> {
        let PresentedChain { chain, key } = presented;
        let now = Instant::now();
        if let Some(owner) = self.verified.get(*key, now) {
            return Ok(owner);
        }
        if let Some(reason) = self.refused.get(*key, now) {
            return Err(reason);
        }
        let owner = self.verify_owner(chain);
        match &owner {
            Ok(owner) => self.verified.insert(*key, now, owner.clone()),
            Err(reason) => self.refused.insert(*key, now, *reason),
        }
        owner
    }

    fn verify_owner(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<CertificateOwner, Unauthenticated> {
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
        // One CA may sign both kinds, so a certificate whose name is not allowed for the front proxy may
        // still be a user's.
        if let Some(users) = &self.users
            && verify(&**users, chain)
        {
            return match user_of(chain) {
                Some(caller) => Ok(CertificateOwner::User(Arc::new(caller))),
                None => Err(Unauthenticated::NamelessCertificate),
            };
        }
        Err(refused)
    }
}

/// Verifies chains against the certificates of a PEM file; `None` if it has none.
pub(in crate::serve) fn verifier(pem: &str) -> Option<Arc<dyn ClientCertVerifier>> {
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

/// The user in a certificate: its common name, with its organizations as groups.
fn user_of(chain: &[CertificateDer<'_>]) -> Option<Caller> {
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

    /// The extra fields of the user. A key is what follows the prefix in the name of a header,
    /// percent-decoded.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::tls::testing::Issuer;

    /// Whether the front proxy's certificate is still cached after many chains made of `parts`.
    fn stays_cached_beside(parts: impl Fn(usize) -> Vec<Vec<u8>>) -> bool {
        let ca = Issuer::new("front-proxy-ca");
        let verifier = CertificateVerifier::new(&ClusterTrust {
            front_proxy: Some(FrontProxyTrust {
                client_ca_pem: ca.pem(),
                allowed_names: Vec::new(),
                username_headers: vec!["X-Remote-User".to_owned()],
                uid_headers: Vec::new(),
                group_headers: Vec::new(),
                extra_prefixes: Vec::new(),
            }),
            client_ca_pem: None,
        });
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("mary"));
        let presented = |chain: Vec<Vec<u8>>| {
            PresentedChain::new(chain.into_iter().map(CertificateDer::from).collect())
        };
        let proxy = presented(vec![ca.client("front-proxy-client").certificate]);
        verifier.caller(&proxy, &headers).unwrap();
        for n in 0..5_000 {
            assert!(verifier.caller(&presented(parts(n)), &headers).is_err());
        }
        verifier.verified.get(proxy.key, Instant::now()).is_some()
    }

    #[test]
    fn refused_certificates_do_not_displace_verified_ones() {
        assert!(stays_cached_beside(|n| vec![n.to_be_bytes().to_vec()]));
    }

    #[test]
    fn refused_chains_do_not_displace_verified_ones() {
        let other = Issuer::new("other")
            .client("front-proxy-client")
            .certificate;
        assert!(stays_cached_beside(|n| vec![
            other.clone(),
            n.to_be_bytes().to_vec()
        ]));
    }
}
