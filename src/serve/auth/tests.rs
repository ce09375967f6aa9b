use axum::http::HeaderName;
use rustls::pki_types::CertificateDer;

use super::testing::FakeAuthenticator;
use super::*;
use crate::authentication::access::{ANONYMOUS, AUTHENTICATED, FrontProxyTrust, UNAUTHENTICATED};
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

/// A cluster in which the token `good` is Tom's.
struct Rig {
    trust: watch::Sender<Option<ClusterTrust>>,
    server: Arc<FakeAuthenticator>,
    access: AccessControl,
}

impl Rig {
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

    async fn ask(
        &self,
        chain: Vec<Vec<u8>>,
        pairs: &[(&'static str, &str)],
    ) -> Result<Arc<Caller>, Unauthenticated> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let presented = (!chain.is_empty()).then(|| PresentedChain::new(chain));
        let headers = headers(pairs);
        self.access.authenticate(presented.as_ref(), &headers).await
    }
}

const MARY: &[(&str, &str)] = &[("x-remote-user", "mary"), ("x-remote-group", "dev")];

fn caller(user: &str, groups: &[&str]) -> Caller {
    Caller {
        user: user.to_owned(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        ..Caller::default()
    }
}

#[tokio::test]
async fn table() {
    let (ca, users, other) = (
        Issuer::new("front-proxy-ca"),
        Issuer::new("users"),
        Issuer::new("other"),
    );
    let proxy = || vec![ca.client("front-proxy-client").certificate];
    let both = || {
        Some(ClusterTrust {
            front_proxy: Some(front_proxy(&ca)),
            client_ca_pem: Some(users.pem()),
        })
    };
    let with = |change: &dyn Fn(&mut ClusterTrust)| {
        let mut trust = both();
        change(trust.as_mut().unwrap());
        trust
    };
    let any_name = || with(&|t| t.front_proxy.as_mut().unwrap().allowed_names.clear());
    let unreadable =
        || with(&|t| t.front_proxy.as_mut().unwrap().client_ca_pem = "no certificate".to_owned());
    let one_authority = || with(&|t| t.client_ca_pem = Some(ca.pem()));
    let no_proxy = || with(&|t| t.front_proxy = None);
    let no_users = || with(&|t| t.client_ca_pem = None);
    let mary = || Ok(caller("mary", &["dev", AUTHENTICATED]));
    let anna = || Ok(caller("anna", &["ops", AUTHENTICATED]));
    let tom = || Ok(caller("tom", &[AUTHENTICATED]));
    let nobody = || Ok(Caller::anonymous());
    let user = |name: &str| vec![users.user(name, "ops").certificate];
    const GOOD: (&str, &str) = ("authorization", "Bearer good");
    const BAD: (&str, &str) = ("authorization", "Bearer bad");
    use Unauthenticated::*;
    for (case, trust, chain, pairs, expected) in [
        ("the front proxy", both(), proxy(), MARY, mary()),
        ("the front proxy alone", no_users(), proxy(), MARY, mary()),
        (
            "the front proxy, with a token",
            both(),
            proxy(),
            &[MARY[0], MARY[1], GOOD],
            mary(),
        ),
        (
            "any name",
            any_name(),
            vec![ca.client("anybody").certificate],
            MARY,
            mary(),
        ),
        (
            "another name",
            both(),
            vec![ca.client("anybody").certificate],
            MARY,
            Err(NameNotAllowed),
        ),
        (
            "another issuer",
            both(),
            vec![other.client("front-proxy-client").certificate],
            MARY,
            Err(UntrustedCertificate),
        ),
        (
            "a user's issuer",
            both(),
            vec![users.client("front-proxy-client").certificate],
            MARY,
            Ok(caller("front-proxy-client", &[AUTHENTICATED])),
        ),
        (
            "expired",
            both(),
            vec![ca.expired_client("front-proxy-client").certificate],
            MARY,
            Err(UntrustedCertificate),
        ),
        (
            "garbage",
            both(),
            vec![vec![1, 2, 3]],
            MARY,
            Err(UntrustedCertificate),
        ),
        (
            "garbage, with a token",
            both(),
            vec![vec![1, 2, 3]],
            &[GOOD],
            tom(),
        ),
        (
            "garbage, with a bad token",
            both(),
            vec![vec![1, 2, 3]],
            &[BAD],
            Err(UntrustedCertificate),
        ),
        ("forged headers", both(), vec![], MARY, nobody()),
        (
            "forged headers of a user",
            both(),
            user("anna"),
            MARY,
            anna(),
        ),
        (
            "forged headers with a token",
            both(),
            vec![],
            &[MARY[0], MARY[1], GOOD],
            tom(),
        ),
        ("nobody named", both(), proxy(), &[], Err(NoUser)),
        (
            "nobody named, with a token",
            both(),
            proxy(),
            &[GOOD],
            tom(),
        ),
        (
            "an empty name",
            both(),
            proxy(),
            &[("x-remote-user", "")],
            Err(NoUser),
        ),
        (
            "a later header",
            both(),
            proxy(),
            &[("x-other-user", "mary"), ("x-remote-group", "dev")],
            mary(),
        ),
        ("nothing known", None, proxy(), MARY, Err(TrustUnknown)),
        ("nothing known, with a token", None, vec![], &[GOOD], tom()),
        ("nothing known, anonymous", None, vec![], &[], nobody()),
        (
            "no CA that can be read",
            unreadable(),
            proxy(),
            MARY,
            Err(TrustUnreadable),
        ),
        (
            "no CA that can be read, a user",
            unreadable(),
            user("anna"),
            MARY,
            anna(),
        ),
        (
            "no front proxy",
            no_proxy(),
            proxy(),
            MARY,
            Err(UntrustedCertificate),
        ),
        ("a user", both(), user("anna"), &[], anna()),
        (
            "a user, with a token",
            both(),
            user("anna"),
            &[GOOD],
            anna(),
        ),
        (
            "a user, without users",
            no_users(),
            user("anna"),
            &[],
            Err(UntrustedCertificate),
        ),
        (
            "a user without a name",
            both(),
            user(""),
            &[],
            Err(NamelessCertificate),
        ),
        (
            "a user of the only authority",
            one_authority(),
            vec![ca.user("anna", "ops").certificate],
            MARY,
            anna(),
        ),
        (
            "the proxy of the only authority",
            one_authority(),
            proxy(),
            MARY,
            mary(),
        ),
        ("a token", both(), vec![], &[GOOD], tom()),
        (
            "a token, in other letters",
            both(),
            vec![],
            &[("authorization", "bEARER good")],
            tom(),
        ),
        ("a bad token", both(), vec![], &[BAD], Err(InvalidToken)),
        (
            "no token",
            both(),
            vec![],
            &[("authorization", "Bearer ")],
            nobody(),
        ),
        (
            "another scheme",
            both(),
            vec![],
            &[("authorization", "Basic good")],
            nobody(),
        ),
        ("nothing", both(), vec![], &[], nobody()),
    ] {
        let found = Rig::new(trust).ask(chain, pairs).await;
        assert_eq!(found.map(|c| Caller::clone(&c)), expected, "{case}");
    }
}

#[tokio::test]
async fn all_that_the_front_proxy_says_is_passed_on() {
    let ca = Issuer::new("front-proxy-ca");
    let rig = Rig::new(Some(ClusterTrust {
        front_proxy: Some(front_proxy(&ca)),
        client_ca_pem: None,
    }));
    let pairs = [
        ("x-remote-user", "mary"),
        ("x-remote-uid", "7"),
        ("x-remote-group", "a"),
        ("x-remote-group", "b"),
        ("x-remote-extra-scopes", "one"),
        ("x-remote-extra-scopes", "two"),
        ("x-remote-extra-example.org%2fkind", "three"),
        ("x-remote-other", "ignored"),
    ];
    let chain = vec![ca.client("front-proxy-client").certificate];
    let found = rig.ask(chain, &pairs).await.unwrap();
    let list = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    let expected = Caller {
        user: "mary".to_owned(),
        uid: "7".to_owned(),
        groups: list(&["a", "b", AUTHENTICATED]),
        extra: [
            ("scopes".to_owned(), list(&["one", "two"])),
            ("example.org/kind".to_owned(), list(&["three"])),
        ]
        .into(),
    };
    assert_eq!(*found, expected);
}

#[tokio::test]
async fn the_anonymous_stay_so() {
    let ca = Issuer::new("front-proxy-ca");
    let rig = Rig::new(Some(ClusterTrust {
        front_proxy: Some(front_proxy(&ca)),
        client_ca_pem: None,
    }));
    let pairs = [
        ("x-remote-user", ANONYMOUS),
        ("x-remote-group", UNAUTHENTICATED),
    ];
    let chain = vec![ca.client("front-proxy-client").certificate];
    let found = rig.ask(chain, &pairs).await.unwrap();
    assert_eq!(found.groups, [UNAUTHENTICATED]);
}

#[tokio::test]
async fn a_new_ca_replaces_the_old_one() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let trust = |ca: &Issuer| {
        Some(ClusterTrust {
            front_proxy: Some(front_proxy(ca)),
            client_ca_pem: None,
        })
    };
    let rig = Rig::new(trust(&old));
    let chain = |ca: &Issuer| vec![ca.client("front-proxy-client").certificate];
    let (one, other) = (chain(&old), chain(&new));
    let ask = async || {
        (
            rig.ask(one.clone(), MARY).await.is_ok(),
            rig.ask(other.clone(), MARY).await.is_ok(),
        )
    };
    assert_eq!(ask().await, (true, false));
    // What was found out about certificates under the old one does not outlive it.
    rig.trust.send_replace(trust(&new));
    assert_eq!(ask().await, (false, true));
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_lets_nobody_in() {
    let rig = Rig::new(None);
    rig.server.fail(Some(ReviewError::NoRight));
    let found = rig.ask(vec![], &[("authorization", "Bearer good")]).await;
    let expected = Unauthenticated::Unreviewed(ReviewError::NoRight);
    assert_eq!(found, Err(expected));
    assert!(expected.is_passing() && !Unauthenticated::InvalidToken.is_passing());
}

#[tokio::test]
async fn masters_need_no_review() {
    let rig = Rig::new(None);
    let action = Action {
        verb: "get",
        object: crate::authentication::access::Object::Path("/version".to_owned()),
    };
    let masters = caller("x", &["system:masters"]);
    assert_eq!(rig.access.authorize(&masters, &action).await, Ok(true));
    assert_eq!(rig.server.call_count(), 0);
    let mary = caller("mary", &[]);
    assert_eq!(rig.access.authorize(&mary, &action).await, Ok(false));
    rig.server.fail(Some(ReviewError::NoAnswer));
    let john = caller("john", &[]);
    let found = rig.access.authorize(&john, &action).await;
    assert_eq!(found, Err(ReviewError::NoAnswer));
}

#[tokio::test]
async fn without_authentication_everybody_is_anonymous_and_may() {
    let access = AccessControl::new(RequestAuth::None);
    let found = access.authenticate(None, &headers(MARY)).await.unwrap();
    assert_eq!(*found, Caller::anonymous());
    let action = Action {
        verb: "list",
        object: crate::authentication::access::Object::Path("/".to_owned()),
    };
    assert_eq!(access.authorize(&found, &action).await, Ok(true));
}
