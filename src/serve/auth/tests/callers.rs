//! Who a request comes from, by certificate, headers and token.

use super::*;

#[tokio::test]
async fn identifies_callers() {
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
    let anonymous = || Ok(Caller::anonymous());
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
        ("forged headers", both(), vec![], MARY, anonymous()),
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
        ("no user name", both(), proxy(), &[], Err(NoUser)),
        (
            "no user name, with a token",
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
        ("trust unknown", None, proxy(), MARY, Err(TrustUnknown)),
        ("trust unknown, with a token", None, vec![], &[GOOD], tom()),
        ("trust unknown, anonymous", None, vec![], &[], anonymous()),
        (
            "unreadable CA of the front proxy",
            unreadable(),
            proxy(),
            MARY,
            Err(TrustUnreadable),
        ),
        (
            "unreadable CA of the front proxy, a user",
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
            "a user, without a CA for users",
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
            "a token, scheme in mixed case",
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
            anonymous(),
        ),
        (
            "another scheme",
            both(),
            vec![],
            &[("authorization", "Basic good")],
            anonymous(),
        ),
        ("no credentials", both(), vec![], &[], anonymous()),
    ] {
        let found = TestCluster::new(trust).authenticate(chain, pairs).await;
        assert_eq!(found.map(|c| Caller::clone(&c)), expected, "{case}");
    }
}

#[tokio::test]
async fn the_last_of_several_common_names_is_the_user() {
    let users = Issuer::new("users");
    let cluster = TestCluster::new(Some(ClusterTrust {
        front_proxy: None,
        client_ca_pem: Some(users.pem()),
    }));
    for (names, user) in [(["mary", "bob"], "bob"), (["system:admin", "eve"], "eve")] {
        let chain = vec![users.client_of_names(&names).certificate];
        let caller = cluster.authenticate(chain, &[]).await.unwrap();
        assert_eq!(caller.user, user, "{names:?}");
    }
}

#[tokio::test]
async fn the_last_of_several_common_names_says_who_is_the_front_proxy() {
    let ca = Issuer::new("front-proxy-ca");
    let cluster = TestCluster::new(Some(ClusterTrust {
        front_proxy: Some(front_proxy(&ca)),
        client_ca_pem: None,
    }));
    for (names, is_proxy) in [
        (["front-proxy-client", "eve"], false),
        (["eve", "front-proxy-client"], true),
    ] {
        let chain = vec![ca.client_of_names(&names).certificate];
        let found = cluster.authenticate(chain, MARY).await;
        assert_eq!(found.is_ok(), is_proxy, "{names:?}");
    }
}
