//! Whom a client certificate makes known: the front proxy, which speaks for others, or a user of
//! the cluster. The two have authorities of their own, each checked by itself: a user's
//! certificate must never pass for the front proxy's.

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

use super::Unauthenticated;
use super::cache::{Cache, CacheKey};
use crate::authentication::access::{Caller, ClusterTrust, FrontProxyTrust};
use crate::serve::tls;

/// How long a certificate that was checked is not checked again. Checking costs as much as some
/// hundred answers.
const CHECKED_LASTS: Duration = Duration::from_secs(10);

/// Whose certificate it is.
#[derive(Clone, Debug)]
enum Bearer {
    FrontProxy,
    User(Arc<Caller>),
}

/// The certificates that a client presented at TLS, at least one, its own first. Not verified.
#[derive(Debug)]
pub(in crate::serve) struct Presented {
    chain: Vec<CertificateDer<'static>>,
    /// Made once for all requests of a connection.
    key: CacheKey,
}

impl Presented {
    pub(in crate::serve) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        let key = CacheKey::of(chain.iter().map(AsRef::as_ref));
        Self { chain, key }
    }
}

/// A cluster's trust, ready to verify with.
#[derive(Debug)]
pub(super) struct Certificates {
    front_proxy: Option<FrontProxy>,
    users: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether an authority that was published holds no certificate that can be read.
    is_spoilt: bool,
    checked: Cache<Result<Bearer, Unauthenticated>>,
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

impl Certificates {
    pub(super) fn new(trust: &ClusterTrust) -> Self {
        let front_proxy = trust.front_proxy.as_ref().map(FrontProxy::new);
        let users = trust.client_ca_pem.as_deref().map(verifier);
        Self {
            is_spoilt: matches!(front_proxy, Some(None)) || matches!(users, Some(None)),
            front_proxy: front_proxy.flatten(),
            users: users.flatten(),
            checked: Cache::new(CHECKED_LASTS),
        }
    }

    /// Who asks, by the certificates that the client presented.
    pub(super) fn caller(
        &self,
        presented: &Presented,
        headers: &HeaderMap,
    ) -> Result<Arc<Caller>, Unauthenticated> {
        let Presented { chain, key } = presented;
        let bearer = self
            .checked
            .get_or_make(*key, Instant::now(), || self.bearer(chain))?;
        match (bearer, &self.front_proxy) {
            (Bearer::User(caller), _) => Ok(caller),
            (Bearer::FrontProxy, Some(proxy)) => proxy.caller(headers).map(Arc::new),
            (Bearer::FrontProxy, None) => Err(Unauthenticated::UntrustedCertificate),
        }
    }

    fn bearer(&self, chain: &[CertificateDer<'_>]) -> Result<Bearer, Unauthenticated> {
        let mut refused = if self.is_spoilt {
            Unauthenticated::TrustUnreadable
        } else {
            Unauthenticated::UntrustedCertificate
        };
        if let Some(proxy) = &self.front_proxy
            && verify(&*proxy.verifier, chain)
        {
            if proxy.allows(chain) {
                return Ok(Bearer::FrontProxy);
            }
            refused = Unauthenticated::NameNotAllowed;
        }
        // Where one authority signs both, whoever is not the front proxy may still be a user.
        if let Some(users) = &self.users
            && verify(&**users, chain)
        {
            return match user(chain) {
                Some(caller) => Ok(Bearer::User(Arc::new(caller))),
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

/// The user that a certificate names: its common name, with its organisations as groups.
fn user(chain: &[CertificateDer<'_>]) -> Option<Caller> {
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let subject = leaf.subject();
    let groups = subject.iter_organization().map(|name| name.as_str());
    let caller = Caller {
        user: common_name(&leaf)?.to_owned(),
        groups: groups.filter_map(Result::ok).map(str::to_owned).collect(),
        ..Caller::default()
    };
    Some(caller.known())
}

fn common_name<'a>(leaf: &'a X509Certificate<'_>) -> Option<&'a str> {
    let name = leaf.subject().iter_common_name().next()?.as_str().ok()?;
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
        Ok(caller.known())
    }

    /// What else the front proxy tells: the rest of a header's name, escaped as in a URL, is a key.
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
