//! Authentication and authorization of requests.
//!
//! Identities are tried in this order: a client certificate of the cluster's front proxy, whose
//! headers then name the user; a client certificate of a user; a bearer token; otherwise the
//! anonymous user. Client certificates are optional in the TLS handshake and verified here, because
//! callers come without one or with one of an unrelated issuer. User headers from anyone but the
//! front proxy are ignored.

mod cache;
mod certificates;
mod limits;
mod reviews;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, header};
use certificates::CertificateVerifier;
use reviews::CachedReviews;
use tokio::sync::{OnceCell, watch};

use crate::authentication::access::{Action, Caller, ClusterTrust};
use crate::authentication::{Authenticator, ReviewError};
use crate::serve::connections::PeerRank;

pub(super) use certificates::{PresentedChain, verifier};

/// How requests are authenticated and authorized.
#[derive(Clone, Debug)]
pub enum RequestAuth {
    /// Not at all: for loopback listeners.
    None,
    /// By the Kubernetes cluster.
    Kubernetes {
        /// Certificate authorities that the cluster trusts; `None` until they are read.
        trust: watch::Receiver<Option<ClusterTrust>>,
        /// Token and access reviews.
        reviewer: Arc<dyn Authenticator>,
    },
}

/// Why a request could not be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The ConfigMap with the trusted certificates has not been read yet.
    #[error(
        "client certificates cannot be verified yet: ConfigMap \
         kube-system/extension-apiserver-authentication has not been read"
    )]
    TrustUnknown,
    /// The ConfigMap contains no valid certificate.
    #[error(
        "client certificates cannot be verified: requestheader-client-ca-file or client-ca-file in \
         ConfigMap kube-system/extension-apiserver-authentication holds no valid certificate"
    )]
    TrustUnreadable,
    /// A client certificate of an unknown issuer.
    #[error(
        "the client certificate is not signed by any certificate authority that the cluster trusts"
    )]
    UntrustedCertificate,
    /// A certificate of the front proxy's issuer, but for another name.
    #[error("the client certificate's common name is not in requestheader-allowed-names")]
    NameNotAllowed,
    /// A user's certificate without a user name.
    #[error("the client certificate has no common name")]
    NamelessCertificate,
    /// A front proxy request without a user.
    #[error("the front proxy sent no user name")]
    NoUser,
    /// A token that the cluster rejects.
    #[error("the cluster rejects the bearer token")]
    InvalidToken,
    /// The token could not be reviewed.
    #[error("cannot check the bearer token: {0}")]
    Unreviewed(ReviewError),
}

impl Unauthenticated {
    /// Whether the same request may succeed later (503 instead of 401).
    pub(super) fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::TrustUnknown | Self::TrustUnreadable | Self::Unreviewed(_)
        )
    }
}

/// An authenticated caller, or the anonymous one.
#[derive(Clone, Debug)]
pub(super) struct CallerIdentity {
    pub(super) caller: Arc<Caller>,
    /// Rank of the peer that sends the request of the caller.
    pub(super) rank: PeerRank,
}

/// Authenticates and authorizes requests.
#[derive(Debug)]
pub(super) struct AccessControl {
    /// The cluster's trust and reviews; `None` if everything is allowed.
    cluster: Option<ClusterAuth>,
    /// The anonymous caller.
    anonymous: Arc<Caller>,
}

#[derive(Debug)]
struct ClusterAuth {
    trust_cache: RwLock<TrustCache>,
    reviews: CachedReviews,
    /// This daemon's user name in the cluster, looked up once.
    self_subject: OnceCell<String>,
}

/// The certificate authorities that the cluster trusts, and the verifier built from them. Cached
/// because building it parses certificates.
#[derive(Debug)]
struct TrustCache {
    trust: watch::Receiver<Option<ClusterTrust>>,
    certificates: Option<Arc<CertificateVerifier>>,
}

impl TrustCache {
    fn new(trust: watch::Receiver<Option<ClusterTrust>>) -> Self {
        let mut trust_cache = Self {
            trust,
            certificates: None,
        };
        trust_cache.reload();
        trust_cache
    }

    /// Whether the cluster published other authorities since.
    fn is_outdated(&self) -> bool {
        // If the publisher has ended, the last value stays valid.
        self.trust.has_changed().unwrap_or(false)
    }

    fn reload(&mut self) {
        let trust = self.trust.borrow_and_update();
        self.certificates = trust
            .as_ref()
            .map(|trust| Arc::new(CertificateVerifier::new(trust)));
    }
}

impl AccessControl {
    pub(super) fn new(mode: RequestAuth) -> Self {
        let cluster = match mode {
            RequestAuth::None => None,
            RequestAuth::Kubernetes { trust, reviewer } => Some(ClusterAuth {
                trust_cache: RwLock::new(TrustCache::new(trust)),
                reviews: CachedReviews::new(reviewer),
                self_subject: OnceCell::new(),
            }),
        };
        let anonymous = Arc::new(Caller::anonymous());
        Self { cluster, anonymous }
    }

    /// The caller that the connection's client certificate identifies; `None` without a certificate. Does not wait
    /// for the API server.
    pub(super) fn identify_by_certificate(
        &self,
        presented: Option<&PresentedChain>,
        headers: &HeaderMap,
    ) -> Option<Result<CallerIdentity, Unauthenticated>> {
        let Some(cluster) = &self.cluster else {
            return Some(Ok(CallerIdentity {
                caller: Arc::clone(&self.anonymous),
                rank: PeerRank::Known,
            }));
        };
        let presented = presented?;
        let certificates = cluster.certificates().ok_or(Unauthenticated::TrustUnknown);
        Some(certificates.and_then(|c| c.caller(presented, headers)))
    }

    /// Authenticates a request by what [`identify_by_certificate`](Self::identify_by_certificate) returned, or else
    /// by its headers. `peer` is the address it comes from, `rank` the trust level of its connection so far.
    pub(super) async fn authenticate(
        &self,
        by_certificate: Option<Result<CallerIdentity, Unauthenticated>>,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        rank: PeerRank,
    ) -> Result<CallerIdentity, Unauthenticated> {
        let refused = match by_certificate {
            Some(Ok(identity)) => return Ok(identity),
            Some(Err(reason)) => Some(reason),
            None => None,
        };
        // As in Kubernetes' own servers, a useless certificate does not prevent a token from
        // counting.
        if let (Some(cluster), Some(token)) = (&self.cluster, bearer_token(headers)) {
            return match cluster.reviews.authenticate(token, peer, rank).await {
                Ok(Some(caller)) => Ok(CallerIdentity {
                    caller,
                    rank: PeerRank::Known,
                }),
                Ok(None) => Err(refused.unwrap_or(Unauthenticated::InvalidToken)),
                Err(error) => Err(Unauthenticated::Unreviewed(error)),
            };
        }
        match refused {
            Some(reason) => Err(reason),
            None => Ok(CallerIdentity {
                caller: Arc::clone(&self.anonymous),
                rank: PeerRank::Unknown,
            }),
        }
    }

    /// Whether everything is allowed without authentication.
    pub(super) fn is_open(&self) -> bool {
        self.cluster.is_none()
    }

    /// Whether the caller has the same identity as this daemon, and so is another replica. Always
    /// true if nothing is authenticated. Never true for the service account `default`, which every
    /// pod of the namespace has that names no other.
    ///
    /// # Errors
    /// The review of this daemon's own identity failed.
    pub(super) async fn is_peer(&self, caller: &Caller) -> Result<bool, ReviewError> {
        match &self.cluster {
            None => Ok(true),
            Some(cluster) => {
                let name = cluster
                    .self_subject
                    .get_or_try_init(|| cluster.reviews.self_subject());
                let name = name.await?;
                Ok(*name == caller.user && !is_default_account(name))
            }
        }
    }

    /// Whether the caller may perform the action. `peer` is the address of the caller.
    ///
    /// # Errors
    /// The access review failed.
    pub(super) async fn authorize(
        &self,
        identity: &CallerIdentity,
        action: &Action,
        peer: Option<IpAddr>,
    ) -> Result<bool, ReviewError> {
        match &self.cluster {
            None => Ok(true),
            Some(_) if identity.caller.is_master() => Ok(true),
            Some(cluster) => cluster.reviews.authorize(identity, action, peer).await,
        }
    }
}

/// Whether a user is the service account of pods that name none.
fn is_default_account(user: &str) -> bool {
    let account = user.strip_prefix("system:serviceaccount:");
    account.is_some_and(|account| account.ends_with(":default"))
}

impl ClusterAuth {
    fn certificates(&self) -> Option<Arc<CertificateVerifier>> {
        let trust_cache = self
            .trust_cache
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if !trust_cache.is_outdated() {
            return trust_cache.certificates.clone();
        }
        drop(trust_cache);
        let mut trust_cache = self
            .trust_cache
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if trust_cache.is_outdated() {
            trust_cache.reload();
        }
        trust_cache.certificates.clone()
    }
}

/// The bearer token of the first `Authorization` header, if it holds one.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// An authenticator whose answers a test sets.
#[cfg(test)]
pub(super) mod testing {
    use std::collections::{HashMap, HashSet};
    use std::sync::Mutex;
    use std::time::Duration;

    use futures::future::BoxFuture;

    use super::*;
    use crate::authentication::access::Object;

    /// The user name of this daemon.
    pub(in crate::serve) const OWN_NAME: &str = "system:serviceaccount:lagwise:lagwise";

    #[derive(Debug, Default)]
    struct FakeState {
        tokens: HashMap<String, String>,
        allowed: HashSet<(String, &'static str, String)>,
        fails: Option<ReviewError>,
        slow: Duration,
        calls: usize,
        own_name: Option<String>,
    }

    #[derive(Debug, Default)]
    pub(in crate::serve) struct FakeAuthenticator(Mutex<FakeState>);

    impl FakeAuthenticator {
        /// Adds a token of this user.
        pub(in crate::serve) fn token(&self, token: &str, user: &str) {
            let mut state = self.0.lock().unwrap();
            state.tokens.insert(token.to_owned(), user.to_owned());
        }

        /// Allows the user or group this verb on a path or on `namespace/resource`.
        pub(in crate::serve) fn allow(&self, who: &str, verb: &'static str, object: &str) {
            let allowed = (who.to_owned(), verb, object.to_owned());
            self.0.lock().unwrap().allowed.insert(allowed);
        }

        pub(in crate::serve) fn fail(&self, error: Option<ReviewError>) {
            self.0.lock().unwrap().fails = error;
        }

        pub(in crate::serve) fn rename_self(&self, name: &str) {
            self.0.lock().unwrap().own_name = Some(name.to_owned());
        }

        pub(in crate::serve) fn slow(&self, by: Duration) {
            self.0.lock().unwrap().slow = by;
        }

        pub(in crate::serve) fn call_count(&self) -> usize {
            self.0.lock().unwrap().calls
        }

        fn review<V: Send + 'static>(
            &self,
            answer: impl FnOnce(&FakeState) -> V,
        ) -> BoxFuture<'static, Result<V, ReviewError>> {
            let mut state = self.0.lock().unwrap();
            state.calls += 1;
            let (slow, answer) = (
                state.slow,
                state.fails.map_or_else(|| Ok(answer(&state)), Err),
            );
            Box::pin(async move {
                tokio::time::sleep(slow).await;
                answer
            })
        }
    }

    impl Authenticator for FakeAuthenticator {
        fn authenticate(
            &self,
            token: String,
        ) -> BoxFuture<'static, Result<Option<Caller>, ReviewError>> {
            self.review(|state| {
                let user = state.tokens.get(&token)?.clone();
                Some(Caller {
                    user,
                    ..Caller::default()
                })
            })
        }

        fn self_subject(&self) -> BoxFuture<'static, Result<String, ReviewError>> {
            self.review(|state| state.own_name.clone().unwrap_or(OWN_NAME.to_owned()))
        }

        fn authorize(
            &self,
            caller: Caller,
            action: Action,
        ) -> BoxFuture<'static, Result<bool, ReviewError>> {
            self.review(|state| {
                let object = match action.object {
                    Object::Path(path) => path,
                    Object::Resource {
                        resource,
                        namespace,
                        ..
                    } => format!("{namespace}/{resource}"),
                };
                let mut who = std::iter::once(caller.user).chain(caller.groups);
                who.any(|who| state.allowed.contains(&(who, action.verb, object.clone())))
            })
        }
    }
}

#[cfg(test)]
mod tests;
