//! Who asks: the identity that the cluster's front proxy vouches for.
//!
//! The API aggregator forwards requests with a client certificate of its own and the user's name
//! in headers. The certificate is optional at TLS and verified here, since later kinds of callers
//! come without one or with one of another issuer.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderName};
use axum_server::tls::TlsInfo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls;
use crate::model::access::FrontProxyTrust;

/// The group that Kubernetes adds to everyone who is known, and the one of everyone who is not.
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";

/// Whose word is taken for who asks.
#[derive(Clone, Debug)]
pub enum AuthMode {
    /// Anybody may ask: for loopback listeners.
    None,
    /// The front proxy's, as the cluster publishes it; `None` until it has been read.
    FrontProxy(watch::Receiver<Option<FrontProxyTrust>>),
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's name.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

/// Why it is not known who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The cluster's ConfigMap has not been read yet.
    #[error(
        "the front proxy's CA is not known yet: ConfigMap \
         kube-system/extension-apiserver-authentication has not been read"
    )]
    TrustUnknown,
    /// The ConfigMap holds no certificate that can be read.
    #[error(
        "the front proxy's CA cannot be read: requestheader-client-ca-file in ConfigMap \
         kube-system/extension-apiserver-authentication holds no valid certificate"
    )]
    TrustUnreadable,
    /// No client certificate.
    #[error(
        "a client certificate of the cluster's front proxy is needed: ask through the Kubernetes API server"
    )]
    NoCertificate,
    /// A client certificate of somebody else.
    #[error("the client certificate is not valid for the cluster's front proxy CA")]
    UntrustedCertificate,
    /// A client certificate of the right CA, for another purpose.
    #[error("the client certificate's common name is not an allowed name of the front proxy")]
    NameNotAllowed,
    /// The front proxy named nobody.
    #[error("the front proxy named no user")]
    NoUser,
}

/// Finds out who asks.
#[derive(Debug)]
pub(super) struct Authenticator {
    mode: AuthMode,
    /// The verifier of the trust last seen: building one parses certificates.
    built: RwLock<Option<Built>>,
}

#[derive(Debug)]
struct Built {
    trust: FrontProxyTrust,
    proxy: Option<Arc<FrontProxy>>,
}

impl Authenticator {
    pub(super) fn new(mode: AuthMode) -> Self {
        Self {
            mode,
            built: RwLock::new(None),
        }
    }

    /// Who asks, by the connection's client certificate and the request's headers.
    pub(super) fn authenticate(
        &self,
        tls: Option<&TlsInfo>,
        headers: &HeaderMap,
    ) -> Result<Caller, Unauthenticated> {
        let AuthMode::FrontProxy(trust) = &self.mode else {
            return Ok(Caller {
                user: ANONYMOUS.to_owned(),
                groups: vec![UNAUTHENTICATED.to_owned()],
            });
        };
        let proxy = match &*trust.borrow() {
            Some(trust) => self.proxy(trust).ok_or(Unauthenticated::TrustUnreadable)?,
            None => return Err(Unauthenticated::TrustUnknown),
        };
        let chain = tls.map_or(&[][..], |tls| tls.peer_certificates.as_slice());
        proxy.verify(chain)?;
        proxy.caller(headers)
    }

    fn proxy(&self, trust: &FrontProxyTrust) -> Option<Arc<FrontProxy>> {
        let built = self.built.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = &*built
            && built.trust == *trust
        {
            return built.proxy.clone();
        }
        drop(built);
        let proxy = FrontProxy::new(trust).map(Arc::new);
        *self.built.write().unwrap_or_else(PoisonError::into_inner) = Some(Built {
            trust: trust.clone(),
            proxy: proxy.clone(),
        });
        proxy
    }
}

/// A front proxy's trust, ready to verify with.
#[derive(Debug)]
struct FrontProxy {
    verifier: Arc<dyn ClientCertVerifier>,
    allowed_names: Vec<String>,
    username_headers: Vec<HeaderName>,
    group_headers: Vec<HeaderName>,
}

impl FrontProxy {
    fn new(trust: &FrontProxyTrust) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_slice_iter(trust.client_ca_pem.as_bytes());
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .build()
                .ok()?;
        let names = |names: &[String]| {
            let parsed = names.iter().map(|n| HeaderName::from_bytes(n.as_bytes()));
            parsed.filter_map(Result::ok).collect()
        };
        Some(Self {
            verifier,
            allowed_names: trust.allowed_names.clone(),
            username_headers: names(&trust.username_headers),
            group_headers: names(&trust.group_headers),
        })
    }

    fn verify(&self, chain: &[Vec<u8>]) -> Result<(), Unauthenticated> {
        let (leaf, issuers) = chain.split_first().ok_or(Unauthenticated::NoCertificate)?;
        let issuers: Vec<_> = issuers
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        self.verifier
            .verify_client_cert(
                &CertificateDer::from(leaf.as_slice()),
                &issuers,
                UnixTime::now(),
            )
            .map_err(|error| {
                tracing::debug!(%error, "client certificate refused");
                Unauthenticated::UntrustedCertificate
            })?;
        if self.allowed_names.is_empty() {
            return Ok(());
        }
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|_| Unauthenticated::UntrustedCertificate)?;
        let name = leaf
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        match name {
            Some(name) if self.allowed_names.iter().any(|allowed| allowed == name) => Ok(()),
            _ => Err(Unauthenticated::NameNotAllowed),
        }
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Unauthenticated> {
        let text = |value: &axum::http::HeaderValue| {
            let text = String::from_utf8(value.as_bytes().to_vec()).ok()?;
            (!text.is_empty()).then_some(text)
        };
        let user = self
            .username_headers
            .iter()
            .find_map(|name| headers.get(name).and_then(text))
            .ok_or(Unauthenticated::NoUser)?;
        let mut groups: Vec<String> = self
            .group_headers
            .iter()
            .flat_map(|name| headers.get_all(name))
            .filter_map(text)
            .collect();
        let known = user != ANONYMOUS && !groups.iter().any(|g| g == UNAUTHENTICATED);
        if known && !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Ok(Caller { user, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::tls::testing::Issuer;

    fn trust(ca: &Issuer) -> FrontProxyTrust {
        FrontProxyTrust {
            client_ca_pem: ca.pem(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username_headers: vec!["X-Remote-User".to_owned(), "X-Other-User".to_owned()],
            group_headers: vec!["X-Remote-Group".to_owned()],
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn authenticate(
        trust: Option<FrontProxyTrust>,
        chain: Vec<Vec<u8>>,
        pairs: &[(&'static str, &str)],
    ) -> Result<Caller, Unauthenticated> {
        let (_keep, trust) = watch::channel(trust);
        let mut tls = TlsInfo::default();
        tls.peer_certificates = chain;
        Authenticator::new(AuthMode::FrontProxy(trust)).authenticate(Some(&tls), &headers(pairs))
    }

    const MARY: &[(&str, &str)] = &[("x-remote-user", "mary"), ("x-remote-group", "dev")];

    #[test]
    fn table() {
        let (ca, other) = (Issuer::new("front-proxy-ca"), Issuer::new("other"));
        let proxy = || vec![ca.client("front-proxy-client").certificate];
        let mary = Caller {
            user: "mary".to_owned(),
            groups: vec!["dev".to_owned(), AUTHENTICATED.to_owned()],
        };
        let known = || Some(trust(&ca));
        let any_name = || {
            let mut trust = trust(&ca);
            trust.allowed_names.clear();
            Some(trust)
        };
        let unreadable = || {
            let mut trust = trust(&ca);
            trust.client_ca_pem = "not a certificate".to_owned();
            Some(trust)
        };
        let anybody = || vec![ca.client("anybody").certificate];
        for (case, trust, chain, pairs, expected) in [
            ("the front proxy", known(), proxy(), MARY, Ok(mary.clone())),
            ("any name", any_name(), anybody(), MARY, Ok(mary.clone())),
            (
                "another name",
                known(),
                anybody(),
                MARY,
                Err(Unauthenticated::NameNotAllowed),
            ),
            (
                "another issuer",
                known(),
                vec![other.client("front-proxy-client").certificate],
                MARY,
                Err(Unauthenticated::UntrustedCertificate),
            ),
            (
                "garbage",
                known(),
                vec![vec![1, 2, 3]],
                MARY,
                Err(Unauthenticated::UntrustedCertificate),
            ),
            (
                "forged headers",
                known(),
                vec![],
                MARY,
                Err(Unauthenticated::NoCertificate),
            ),
            (
                "nobody named",
                known(),
                proxy(),
                &[],
                Err(Unauthenticated::NoUser),
            ),
            (
                "an empty name",
                known(),
                proxy(),
                &[("x-remote-user", "")],
                Err(Unauthenticated::NoUser),
            ),
            (
                "nothing known",
                None,
                proxy(),
                MARY,
                Err(Unauthenticated::TrustUnknown),
            ),
            (
                "no CA",
                unreadable(),
                proxy(),
                MARY,
                Err(Unauthenticated::TrustUnreadable),
            ),
            (
                "a later header",
                known(),
                proxy(),
                &[("x-other-user", "mary"), ("x-remote-group", "dev")],
                Ok(mary.clone()),
            ),
        ] {
            assert_eq!(authenticate(trust, chain, pairs), expected, "{case}");
        }
    }

    #[test]
    fn an_expired_certificate_is_refused() {
        let ca = Issuer::new("front-proxy-ca");
        let chain = vec![ca.expired_client("front-proxy-client").certificate];
        let found = authenticate(Some(trust(&ca)), chain, MARY);
        assert_eq!(found, Err(Unauthenticated::UntrustedCertificate));
    }

    #[test]
    fn the_anonymous_stay_so() {
        let ca = Issuer::new("front-proxy-ca");
        let chain = vec![ca.client("front-proxy-client").certificate];
        let pairs = [
            ("x-remote-user", ANONYMOUS),
            ("x-remote-group", UNAUTHENTICATED),
        ];
        let caller = authenticate(Some(trust(&ca)), chain, &pairs).unwrap();
        assert_eq!(caller.groups, [UNAUTHENTICATED]);
    }

    #[test]
    fn a_new_ca_replaces_the_old_one() {
        let (old, new) = (Issuer::new("old"), Issuer::new("new"));
        let (sender, receiver) = watch::channel(Some(trust(&old)));
        let authenticator = Authenticator::new(AuthMode::FrontProxy(receiver));
        let ask = |ca: &Issuer| {
            let mut tls = TlsInfo::default();
            tls.peer_certificates = vec![ca.client("front-proxy-client").certificate];
            authenticator
                .authenticate(Some(&tls), &headers(MARY))
                .is_ok()
        };
        assert_eq!((ask(&old), ask(&new)), (true, false));
        sender.send_replace(Some(trust(&new)));
        assert_eq!((ask(&old), ask(&new)), (false, true));
    }

    #[test]
    fn without_authentication_everybody_is_anonymous() {
        let caller = Authenticator::new(AuthMode::None).authenticate(None, &headers(MARY));
        assert_eq!(caller.unwrap().user, ANONYMOUS);
    }
}
