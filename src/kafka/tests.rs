//! Settings of clusters: the check accepts exactly the settings with which a client can be built.

use proptest::prelude::*;
use proptest::sample::select;
use tokio::runtime::Runtime;

use super::*;

const NAMES: &[&str] = &[
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.extensions",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
    "broker.address.family",
    "socket.timeout.ms",
    "receive.message.max.bytes",
    "compression.type",
    "fetch.min.bytes",
    "debug",
    "ssl.ca.locaton",
];

const VALUES: &[&str] = &[
    "PLAINTEXT",
    "SSL",
    "SASL_SSL",
    "sasl_plaintext",
    "PLAIN",
    "SCRAM-SHA-512",
    "OAUTHBEARER",
    "AWS_MSK_IAM",
    "oidc",
    "none",
    "true",
    "v4",
    "5",
    "5s",
    "2000",
    "probe",
    "",
    "/no/such/file",
];

/// Mostly a login that could be right, so that later checks are reached too.
fn pairs() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let login = select(vec![
        vec![],
        vec![("security.protocol", "SSL")],
        vec![
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "u"),
            ("sasl.password", "p"),
        ],
        vec![("security.protocol", "SASL_PLAINTEXT")],
    ]);
    let other = prop::collection::vec((select(NAMES), select(VALUES)), 0..3);
    (login, other).prop_map(|(login, other)| [login, other].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_check_accepts_exactly_the_addresses_that_can_be_connected_to(
        pairs in pairs(),
        client in select(vec![ClientKind::Auto, ClientKind::Wire, ClientKind::Librdkafka]),
        has_token in prop::bool::weighted(0.2),
    ) {
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let servers = [("bootstrap.servers", "127.0.0.1:1")];
        let all = servers.into_iter().chain(pairs);
        let settings = ClientSettings {
            name: "main".into(),
            properties: all.map(|(name, value)| (name.into(), value.into())).collect(),
            token: has_token.then(|| TokenSettings::new(login::TokenSource::Gcp)),
            max_groups: 1,
            client,
            allowed_hosts: Vec::new(),
            renew: None,
        };
        let properties = settings.properties.clone();
        let checked = check(settings.clone(), true);
        let connected = KafkaSource::connect(settings).map(|source| source.client());
        // Of several wrong properties, librdkafka reports any.
        prop_assert_eq!(checked.as_ref().ok(), connected.as_ref().ok(), "{:?}: {:?}, {:?}", properties, checked, connected);
    }
}
