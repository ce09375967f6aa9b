//! Who asks, and whether they may.
//!
//! In this order: a client certificate of the cluster's front proxy, whose headers then say for
//! whom it asks; a client certificate of a user; a bearer token; else nobody in particular. Client
//! certificates are optional at TLS and judged here, since callers come without one or with one
//! of another issuer. Headers from anyone but the front proxy mean nothing.

mod cache;
mod certificates;
mod reviews;

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, header};
use certificates::Certificates;
use reviews::Reviews;
use tokio::sync::{OnceCell, watch};

use crate::authentication::access::{Action, Caller, ClusterTrust};
use crate::authentication::{Authenticator, ReviewError};

pub(super) use certificates::Presented;

/// Whose word is taken for who asks and what they may do.
#[derive(Clone, Debug)]
pub enum AuthMode {
    /// Anybody may ask: for loopback listeners.
    None,
    /// The Kubernetes cluster's.
    Kubernetes {
        /// Whose certificates it vouches for; `None` until that has been read.
        trust: watch::Receiver<Option<ClusterTrust>>,
        /// What it says about tokens and access.
        reviewer: Arc<dyn Authenticator>,
    },
}

/// Why it is not known who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The cluster's ConfigMap has not been read yet.
    #[error(
        "client certificates cannot be judged yet: ConfigMap \
         kube-system/extension-apiserver-authentication has not been read"
    )]
    TrustUnknown,
    /// The ConfigMap holds no certificate that can be read.
    #[error(
        "client certificates cannot be judged: requestheader-client-ca-file or client-ca-file in \
         ConfigMap kube-system/extension-apiserver-authentication holds no valid certificate"
    )]
    TrustUnreadable,
    /// A client certificate of somebody else.
    #[error("the client certificate is not valid for any authority of the cluster")]
    UntrustedCertificate,
    /// A client certificate of the front proxy's authority, for another purpose.
    #[error("the client certificate's common name is not an allowed name of the front proxy")]
    NameNotAllowed,
    /// A user's certificate without the user's name.
    #[error("the client certificate names no user")]
    NamelessCertificate,
    /// The front proxy named nobody.
    #[error("the front proxy named no user")]
    NoUser,
    /// A token of nobody.
    #[error("the bearer token is not valid for the cluster")]
    InvalidToken,
    /// Whose token it is could not be found out.
    #[error("the bearer token cannot be checked: {0}")]
    Unreviewed(ReviewError),
}

impl Unauthenticated {
    /// Whether the same request may succeed later.
    pub(super) fn is_passing(self) -> bool {
        matches!(
            self,
            Self::TrustUnknown | Self::TrustUnreadable | Self::Unreviewed(_)
        )
    }
}

/// Finds out who asks and what they may do.
#[derive(Debug)]
pub(super) struct Access {
    /// Who knows; `None` where anybody may ask.
    cluster: Option<ClusterAuth>,
    /// The caller of whom nothing is known.
    anonymous: Arc<Caller>,
}

#[derive(Debug)]
struct ClusterAuth {
    judging: RwLock<Authorizer>,
    reviews: Reviews,
    /// By what the cluster knows this daemon: asked for once.
    own_name: OnceCell<String>,
}

/// Whose certificates the cluster vouches for, and what was made of it when it was last looked at: that
/// parses certificates.
#[derive(Debug)]
struct Authorizer {
    trust: watch::Receiver<Option<ClusterTrust>>,
    certificates: Option<Arc<Certificates>>,
}

impl Authorizer {
    fn new(trust: watch::Receiver<Option<ClusterTrust>>) -> Self {
        let mut judging = Self {
            trust,
            certificates: None,
        };
        judging.look();
        judging
    }

    /// Whether the cluster has published something else since.
    fn is_old(&self) -> bool {
        // Where nobody is left to publish anything, the last word holds.
        self.trust.has_changed().unwrap_or(false)
    }

    fn look(&mut self) {
        let trust = self.trust.borrow_and_update();
        self.certificates = trust
            .as_ref()
            .map(|trust| Arc::new(Certificates::new(trust)));
    }
}

impl Access {
    pub(super) fn new(mode: AuthMode) -> Self {
        let cluster = match mode {
            AuthMode::None => None,
            AuthMode::Kubernetes { trust, reviewer } => Some(ClusterAuth {
                judging: RwLock::new(Authorizer::new(trust)),
                reviews: Reviews::new(reviewer),
                own_name: OnceCell::new(),
            }),
        };
        let anonymous = Arc::new(Caller::anonymous());
        Self { cluster, anonymous }
    }

    /// Who asks, by the connection's client certificate and the request's headers.
    pub(super) async fn authenticate(
        &self,
        presented: Option<&Presented>,
        headers: &HeaderMap,
    ) -> Result<Arc<Caller>, Unauthenticated> {
        let Some(cluster) = &self.cluster else {
            return Ok(Arc::clone(&self.anonymous));
        };
        let mut refused = None;
        if let Some(presented) = presented {
            let certificates = cluster.certificates().ok_or(Unauthenticated::TrustUnknown);
            match certificates.and_then(|c| c.caller(presented, headers)) {
                Ok(caller) => return Ok(caller),
                Err(reason) => refused = Some(reason),
            }
        }
        // As with Kubernetes' own servers, a token still counts beside a certificate of no use.
        if let Some(token) = bearer_token(headers) {
            match cluster.reviews.who(token).await {
                Ok(Some(caller)) => return Ok(caller),
                Ok(None) => refused = refused.or(Some(Unauthenticated::InvalidToken)),
                Err(error) => return Err(Unauthenticated::Unreviewed(error)),
            }
        }
        match refused {
            Some(reason) => Err(reason),
            None => Ok(Arc::clone(&self.anonymous)),
        }
    }

    /// Whether everybody may ask.
    pub(super) fn is_open(&self) -> bool {
        self.cluster.is_none()
    }

    /// Whether the caller is known to the cluster by the same name as this daemon: another one of its
    /// installation. Where nobody is known, everybody is.
    ///
    /// # Errors
    /// Why it cannot be found out.
    pub(super) async fn is_peer(&self, caller: &Caller) -> Result<bool, ReviewError> {
        match &self.cluster {
            None => Ok(true),
            Some(cluster) => {
                let name = cluster
                    .own_name
                    .get_or_try_init(|| cluster.reviews.own_name());
                Ok(*name.await? == caller.user)
            }
        }
    }

    /// Whether the caller may do this.
    ///
    /// # Errors
    /// Why it cannot be found out.
    pub(super) async fn may(&self, caller: &Caller, action: &Action) -> Result<bool, ReviewError> {
        match &self.cluster {
            None => Ok(true),
            Some(_) if caller.is_master() => Ok(true),
            Some(cluster) => cluster.reviews.may(caller, action).await,
        }
    }
}

impl ClusterAuth {
    fn certificates(&self) -> Option<Arc<Certificates>> {
        let judging = self.judging.read().unwrap_or_else(PoisonError::into_inner);
        if !judging.is_old() {
            return judging.certificates.clone();
        }
        drop(judging);
        let mut judging = self.judging.write().unwrap_or_else(PoisonError::into_inner);
        if judging.is_old() {
            judging.look();
        }
        judging.certificates.clone()
    }
}

/// The token of the first `Authorization` header, where that holds one.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A cluster whose answers a test sets.
#[cfg(test)]
pub(super) mod testing {
    use std::collections::{HashMap, HashSet};
    use std::sync::Mutex;
    use std::time::Duration;

    use futures::future::BoxFuture;

    use super::*;
    use crate::authentication::access::Object;

    /// By what it knows whoever asks it.
    pub(in crate::serve) const OWN_NAME: &str = "system:serviceaccount:lagwise:lagwise";

    #[derive(Debug, Default)]
    struct State {
        tokens: HashMap<String, String>,
        allowed: HashSet<(String, &'static str, String)>,
        fails: Option<ReviewError>,
        slow: Duration,
        asked: usize,
    }

    #[derive(Debug, Default)]
    pub(in crate::serve) struct Pretended(Mutex<State>);

    impl Pretended {
        /// A token of that user.
        pub(in crate::serve) fn token(&self, token: &str, user: &str) {
            let mut state = self.0.lock().unwrap();
            state.tokens.insert(token.to_owned(), user.to_owned());
        }

        /// Lets the user, or everyone of the group, do this to a path or to `namespace/resource`.
        pub(in crate::serve) fn allow(&self, who: &str, verb: &'static str, object: &str) {
            let allowed = (who.to_owned(), verb, object.to_owned());
            self.0.lock().unwrap().allowed.insert(allowed);
        }

        pub(in crate::serve) fn fail(&self, error: Option<ReviewError>) {
            self.0.lock().unwrap().fails = error;
        }

        pub(in crate::serve) fn slow(&self, by: Duration) {
            self.0.lock().unwrap().slow = by;
        }

        pub(in crate::serve) fn asked(&self) -> usize {
            self.0.lock().unwrap().asked
        }

        fn ask<V: Send + 'static>(
            &self,
            answer: impl FnOnce(&State) -> V,
        ) -> BoxFuture<'static, Result<V, ReviewError>> {
            let mut state = self.0.lock().unwrap();
            state.asked += 1;
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

    impl Authenticator for Pretended {
        fn who(&self, token: String) -> BoxFuture<'static, Result<Option<Caller>, ReviewError>> {
            self.ask(|state| {
                let user = state.tokens.get(&token)?.clone();
                Some(Caller {
                    user,
                    ..Caller::default()
                })
            })
        }

        fn own_name(&self) -> BoxFuture<'static, Result<String, ReviewError>> {
            self.ask(|_| OWN_NAME.to_owned())
        }

        fn may(
            &self,
            caller: Caller,
            action: Action,
        ) -> BoxFuture<'static, Result<bool, ReviewError>> {
            self.ask(|state| {
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
