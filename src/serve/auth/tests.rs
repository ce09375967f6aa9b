//! Tests of authentication and authorization with a fake cluster.

mod authorization;
mod callers;
mod trust;

use axum::http::HeaderName;
use rustls::pki_types::CertificateDer;

use super::testing::FakeAuthenticator;
use super::*;
use crate::authentication::access::{
    ANONYMOUS, AUTHENTICATED, FrontProxyTrust, Object, UNAUTHENTICATED,
};
use crate::serve::tls::testing::Issuer;

fn front_proxy(ca: &Issuer) -> FrontProxyTrust {
    FrontProxyTrust {
        client_ca_pem: ca.pem(),
        allowed_names: vec!["front-proxy-client".to_owned()],
        username_headers: vec!["X-Remote-User".to_owned(), "X-Other-User".to_owned()],
        uid_headers: vec!["X-Remote-Uid".to_owned()],
        group_headers: vec!["X-Remote-Group".to_owned()],
        extra_prefixes: vec!["X-Remote-Extra-".to_owned()],
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

/// The access control of a cluster in which the token `good` belongs to Tom.
struct TestCluster {
    trust: watch::Sender<Option<ClusterTrust>>,
    server: Arc<FakeAuthenticator>,
    access: AccessControl,
}

impl TestCluster {
    fn new(trust: Option<ClusterTrust>) -> Self {
        let server = Arc::new(FakeAuthenticator::default());
        server.token("good", "tom");
        let (sender, receiver) = watch::channel(trust);
        let access = AccessControl::new(RequestAuth::Kubernetes {
            trust: receiver,
            reviewer: server.clone(),
        });
        Self {
            trust: sender,
            server,
            access,
        }
    }

    async fn authenticate(
        &self,
        chain: Vec<Vec<u8>>,
        pairs: &[(&'static str, &str)],
    ) -> Result<Arc<Caller>, Unauthenticated> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let presented = (!chain.is_empty()).then(|| PresentedChain::new(chain));
        let headers = headers(pairs);
        let identified = self
            .access
            .identify_by_certificate(presented.as_ref(), &headers);
        let found = self
            .access
            .authenticate(identified, &headers, None, PeerRank::Unknown)
            .await;
        found.map(|identity| identity.caller)
    }
}

fn known(caller: Caller) -> CallerIdentity {
    CallerIdentity {
        caller: Arc::new(caller),
        rank: PeerRank::Known,
    }
}

/// Headers of the front proxy for user Mary.
const MARY: &[(&str, &str)] = &[("x-remote-user", "mary"), ("x-remote-group", "dev")];

fn caller(user: &str, groups: &[&str]) -> Caller {
    Caller {
        user: user.to_owned(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        ..Caller::default()
    }
}

#[tokio::test]
async fn replicas_have_an_account_that_no_other_pod_has() {
    const OWN: &str = "system:serviceaccount:default:lagwise";
    const DEFAULT: &str = "system:serviceaccount:kafka:default";
    for (own, user, expected) in [
        (OWN, OWN, true),
        (OWN, DEFAULT, false),
        (DEFAULT, DEFAULT, false),
        (
            "system:serviceaccount:default:default",
            "system:serviceaccount:default:default",
            false,
        ),
        ("kubernetes-admin", "kubernetes-admin", true),
    ] {
        let cluster = TestCluster::new(None);
        cluster.server.rename_self(own);
        let is_peer = cluster.access.is_peer(&caller(user, &[])).await;
        assert_eq!(is_peer, Ok(expected), "{own} {user}");
    }
}
