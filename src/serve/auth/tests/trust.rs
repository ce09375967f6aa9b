//! Headers of the front proxy, and changes of the authorities that the cluster trusts.

use super::*;

#[tokio::test]
async fn passes_on_all_user_headers_of_the_front_proxy() {
    let ca = Issuer::new("front-proxy-ca");
    let cluster = TestCluster::new(Some(ClusterTrust {
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
    let found = cluster.authenticate(chain, &pairs).await.unwrap();
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
async fn anonymous_user_of_the_front_proxy_stays_anonymous() {
    let ca = Issuer::new("front-proxy-ca");
    let cluster = TestCluster::new(Some(ClusterTrust {
        front_proxy: Some(front_proxy(&ca)),
        client_ca_pem: None,
    }));
    let pairs = [
        ("x-remote-user", ANONYMOUS),
        ("x-remote-group", UNAUTHENTICATED),
    ];
    let chain = vec![ca.client("front-proxy-client").certificate];
    let found = cluster.authenticate(chain, &pairs).await.unwrap();
    assert_eq!(found.groups, [UNAUTHENTICATED]);
}

#[tokio::test]
async fn new_ca_replaces_the_old_one() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let trust = |ca: &Issuer| {
        Some(ClusterTrust {
            front_proxy: Some(front_proxy(ca)),
            client_ca_pem: None,
        })
    };
    let cluster = TestCluster::new(trust(&old));
    let chain = |ca: &Issuer| vec![ca.client("front-proxy-client").certificate];
    let (one, other) = (chain(&old), chain(&new));
    let accepted = async || {
        (
            cluster.authenticate(one.clone(), MARY).await.is_ok(),
            cluster.authenticate(other.clone(), MARY).await.is_ok(),
        )
    };
    assert_eq!(accepted().await, (true, false));
    // Cached verifications of the old CA are dropped.
    cluster.trust.send_replace(trust(&new));
    assert_eq!(accepted().await, (false, true));
}
