//! Findings about settings of the configuration that give secrets away.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use crate::model::findings::{Finding, FindingCode, FindingSubject};
use crate::model::units::newtypes::ClusterName;

/// Settings of secrets and of the connections that carry them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityFacts {
    pub logins: Vec<LoginFacts>,
    /// Address of the external scaler, if it serves everybody who reaches it.
    pub open_scaler: Option<SocketAddr>,
    /// URL of the upstream server of external metrics, if its certificate is not verified.
    pub unverified_upstream: Option<String>,
    /// Files with secrets that every user of the machine may read.
    pub open_files: Vec<OpenSecretFile>,
}

/// How lagwise connects and logs in to a Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFacts {
    /// The cluster's position in the configuration, such as `clusters[0]`.
    pub key: String,
    pub cluster: ClusterName,
    pub is_encrypted: bool,
    /// The SASL mechanism; `None` without SASL.
    pub mechanism: Option<String>,
    /// Whether a broker's certificate must be of a known authority.
    pub verifies_issuer: bool,
    /// Whether a broker's certificate must have its host name.
    pub verifies_host: bool,
    /// Whether the configuration says which authority signs the brokers' certificates.
    pub names_authority: bool,
    /// Whether the hosts are listed to which lagwise may log in.
    pub limits_hosts: bool,
    /// The endpoint for tokens, if there is one: the key below `key`, and the URL.
    pub token_url: Option<(&'static str, String)>,
}

/// A file with a secret that every user of the machine may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSecretFile {
    /// The key of the configuration that names it.
    pub key: String,
    pub path: String,
}

/// Checks for one kind of insecure setting. Returns its key, below that of the cluster, and the message.
type LoginRule = fn(&LoginFacts) -> Option<(&'static str, String)>;

/// Every kind of insecure login.
const LOGIN_RULES: [(FindingCode, LoginRule); 5] = [
    (FindingCode::LoginUnencrypted, find_unencrypted),
    (FindingCode::BrokersUnverified, find_unverified_issuer),
    (FindingCode::BrokersUnverified, find_unverified_host),
    (FindingCode::TokenUrlUnencrypted, find_unencrypted_token_url),
    (FindingCode::LoginToAnyHost, find_unlimited_hosts),
];

/// Finds settings that give secrets away.
#[must_use]
pub fn find_in_settings(facts: &SecurityFacts) -> BTreeSet<Finding> {
    let of_logins = facts.logins.iter().flat_map(|login| {
        LOGIN_RULES.iter().filter_map(|(code, find)| {
            let (key, message) = find(login)?;
            let subject = FindingSubject::Setting(format!("{}.{key}", login.key));
            Some(Finding::new(*code, subject, message))
        })
    });
    let of_files = facts.open_files.iter().map(|file| {
        let subject = FindingSubject::Setting(file.key.clone());
        let message = format!(
            "every user of the machine may read the file {} with a secret",
            file.path
        );
        Finding::new(FindingCode::SecretFileOpen, subject, message)
    });
    let scaler = facts.open_scaler.filter(|address| {
        // Every user of the machine may read the admin endpoints as well.
        !address.ip().to_canonical().is_loopback()
    });
    let of_scaler = scaler.map(|address| {
        let subject = FindingSubject::Setting("server.external_scaler.auth".to_owned());
        let message = format!(
            "the external scaler does not authenticate its callers, so everyone who reaches {address} may ask for the lag of every namespace"
        );
        Finding::new(FindingCode::ScalerOpen, subject, message)
    });
    let of_upstream = facts.unverified_upstream.as_ref().map(|url| {
        let key = "server.external_metrics.upstream.insecure_skip_verify";
        let subject = FindingSubject::Setting(key.to_owned());
        let message = format!(
            "the certificate of the upstream {url} is not verified, so anybody who can answer in its place gets the token of lagwise"
        );
        Finding::new(FindingCode::UpstreamUnverified, subject, message)
    });
    let of_server = of_scaler.into_iter().chain(of_upstream);
    of_logins.chain(of_files).chain(of_server).collect()
}

/// A file for the upstream server of external metrics cannot be used. `key` is its key below
/// `server.external_metrics.upstream`; `None` for the files of certificates, which are used together.
#[must_use]
pub fn find_unusable_upstream_file(key: Option<&str>, problem: &str) -> Finding {
    const UPSTREAM: &str = "server.external_metrics.upstream";
    let key = key.map_or_else(|| UPSTREAM.to_owned(), |key| format!("{UPSTREAM}.{key}"));
    let subject = FindingSubject::Setting(key);
    Finding::new(FindingCode::UpstreamFileUnusable, subject, problem)
}

fn find_unencrypted(login: &LoginFacts) -> Option<(&'static str, String)> {
    let mechanism = login.mechanism.as_deref().filter(|_| !login.is_encrypted)?;
    // SCRAM and Kerberos prove that they know the secret, and do not send it.
    let sent = match mechanism {
        "PLAIN" => "password",
        "OAUTHBEARER" => "token",
        _ => return None,
    };
    let message = format!(
        "the {sent} for Kafka cluster {:?} is sent unencrypted: {mechanism} without TLS",
        login.cluster
    );
    Some(("properties.security.protocol", message))
}

fn find_unverified_issuer(login: &LoginFacts) -> Option<(&'static str, String)> {
    (login.is_encrypted && !login.verifies_issuer).then(|| {
        let message = format!(
            "certificates of the brokers of Kafka cluster {:?} are not verified, so anybody can pose as a broker",
            login.cluster
        );
        ("properties.enable.ssl.certificate.verification", message)
    })
}

fn find_unverified_host(login: &LoginFacts) -> Option<(&'static str, String)> {
    let is_found = login.is_encrypted && login.verifies_issuer && !login.verifies_host;
    is_found.then(|| {
        let message = format!(
            "the host names in the certificates of the brokers of Kafka cluster {:?} are not verified, so anybody \
             with a certificate of the same authority can pose as a broker",
            login.cluster
        );
        ("properties.ssl.endpoint.identification.algorithm", message)
    })
}

fn find_unencrypted_token_url(login: &LoginFacts) -> Option<(&'static str, String)> {
    let (key, url) = login.token_url.as_ref()?;
    let is_open = http_host(url).is_some_and(|host| !is_loopback(host));
    is_open.then(|| {
        let message = format!(
            "the client secret and the tokens for Kafka cluster {:?} are sent unencrypted: an http:// URL of another host",
            login.cluster
        );
        (*key, message)
    })
}

fn find_unlimited_hosts(login: &LoginFacts) -> Option<(&'static str, String)> {
    let mechanism = login.mechanism.as_deref().filter(|_| !login.limits_hosts)?;
    // A client certificate and Kerberos prove who lagwise is to one host, and are of no use elsewhere. SCRAM lets a
    // host guess the password as often as it likes.
    let gives_secret =
        matches!(mechanism, "PLAIN" | "OAUTHBEARER") || mechanism.starts_with("SCRAM");
    let is_verified = login.is_encrypted && login.verifies_issuer && login.verifies_host;
    let is_found = gives_secret && !(is_verified && login.names_authority);
    is_found.then(|| {
        let message = format!(
            "lagwise logs in by {mechanism} to every host that a broker of Kafka cluster {:?} advertises",
            login.cluster
        );
        ("allowed_broker_hosts", message)
    })
}

/// The host of an `http://` URL; `None` for a URL of another scheme.
fn http_host(url: &str) -> Option<&str> {
    const SCHEME: &str = "http://";
    let (scheme, rest) = url.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    match address.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => address.split(':').next(),
    }
}

fn is_loopback(host: &str) -> bool {
    let is_address = |host: &str| {
        host.parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
    };
    host.eq_ignore_ascii_case("localhost") || is_address(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secure() -> LoginFacts {
        LoginFacts {
            key: "clusters[0]".into(),
            cluster: "main".into(),
            is_encrypted: true,
            mechanism: Some("PLAIN".into()),
            verifies_issuer: true,
            verifies_host: true,
            names_authority: false,
            limits_hosts: true,
            token_url: Some(("token.oidc.token_url", "https://id.example.com/t".into())),
        }
    }

    fn found(login: LoginFacts) -> Vec<(FindingCode, String)> {
        let facts = SecurityFacts {
            logins: vec![login],
            ..SecurityFacts::default()
        };
        let found = find_in_settings(&facts).into_iter();
        found
            .map(|finding| (finding.code, finding.subject.path()))
            .collect()
    }

    #[test]
    fn passwords_and_tokens_need_encryption() {
        let login = |mechanism: Option<&str>, is_encrypted| LoginFacts {
            mechanism: mechanism.map(str::to_owned),
            is_encrypted,
            ..secure()
        };
        let open = [(
            FindingCode::LoginUnencrypted,
            "config/clusters[0].properties.security.protocol".to_owned(),
        )];
        for mechanism in ["PLAIN", "OAUTHBEARER"] {
            assert_eq!(found(login(Some(mechanism), false)), open);
            assert_eq!(found(login(Some(mechanism), true)), []);
        }
        for mechanism in [None, Some("SCRAM-SHA-512"), Some("GSSAPI")] {
            assert_eq!(found(login(mechanism, false)), [], "{mechanism:?}");
        }
    }

    #[test]
    fn the_scaler_needs_authentication_where_others_reach_it() {
        for (address, is_open) in [
            (Some("0.0.0.0:9443"), true),
            (Some("10.0.0.7:9443"), true),
            (Some("[::]:9443"), true),
            (Some("127.0.0.1:9443"), false),
            (Some("[::1]:9443"), false),
            (Some("[::ffff:127.0.0.1]:9443"), false),
            (None, false),
        ] {
            let found = find_in_settings(&SecurityFacts {
                open_scaler: address.map(|address| address.parse().unwrap()),
                ..SecurityFacts::default()
            });
            let codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
            let expected = is_open.then_some(FindingCode::ScalerOpen);
            assert_eq!(codes, Vec::from_iter(expected), "{address:?}");
        }
    }

    #[test]
    fn brokers_have_to_be_verified_where_there_is_tls() {
        let login = |is_encrypted, verifies_issuer, verifies_host| LoginFacts {
            is_encrypted,
            verifies_issuer,
            verifies_host,
            mechanism: None,
            ..secure()
        };
        let keys = |login| -> Vec<_> {
            let found = found(login).into_iter();
            found.map(|(_, subject)| subject).collect()
        };
        let issuer = "config/clusters[0].properties.enable.ssl.certificate.verification";
        let host = "config/clusters[0].properties.ssl.endpoint.identification.algorithm";
        assert_eq!(keys(login(true, false, true)), [issuer]);
        assert_eq!(keys(login(true, false, false)), [issuer]);
        assert_eq!(keys(login(true, true, false)), [host]);
        assert_eq!(keys(login(false, false, false)), [""; 0]);
    }

    #[test]
    fn token_urls_are_https_unless_on_loopback() {
        for (url, is_open) in [
            ("http://id.example.com/t", true),
            ("HTTP://id.example.com", true),
            ("http://10.0.0.1:8080/t", true),
            ("http://localhost@id.example.com/t", true),
            ("http://localhost.example.com/t", true),
            ("http://[fd00::1]/t", true),
            ("https://id.example.com/t", false),
            ("http://localhost:8080/t", false),
            ("http://127.0.0.9/t", false),
            ("http://user@[::1]:1/t", false),
            ("http://[::ffff:127.0.0.1]/t", false),
            ("größe", false),
        ] {
            let login = LoginFacts {
                token_url: Some(("token.oidc.token_url", url.into())),
                ..secure()
            };
            let expected = (
                FindingCode::TokenUrlUnencrypted,
                "config/clusters[0].token.oidc.token_url".to_owned(),
            );
            let expected = Vec::from_iter(is_open.then_some(expected));
            assert_eq!(found(login), expected, "{url}");
        }
    }

    #[test]
    fn hosts_are_limited_by_a_list_or_by_a_separate_ca() {
        let login = |mechanism: Option<&str>, names_authority| LoginFacts {
            mechanism: mechanism.map(str::to_owned),
            names_authority,
            limits_hosts: false,
            ..secure()
        };
        let open = [(
            FindingCode::LoginToAnyHost,
            "config/clusters[0].allowed_broker_hosts".to_owned(),
        )];
        for mechanism in ["PLAIN", "OAUTHBEARER", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            assert_eq!(found(login(Some(mechanism), false)), open, "{mechanism}");
            assert_eq!(found(login(Some(mechanism), true)), [], "{mechanism}");
        }
        for mechanism in [None, Some("GSSAPI")] {
            assert_eq!(found(login(mechanism, false)), [], "{mechanism:?}");
        }
        let scram = login(Some("SCRAM-SHA-512"), true);
        for unverified in [
            LoginFacts {
                is_encrypted: false,
                ..scram.clone()
            },
            LoginFacts {
                verifies_issuer: false,
                ..scram.clone()
            },
            LoginFacts {
                verifies_host: false,
                ..scram.clone()
            },
        ] {
            assert!(
                found(unverified.clone()).contains(&open[0]),
                "{unverified:?}"
            );
            let limited = LoginFacts {
                limits_hosts: true,
                ..unverified
            };
            assert!(!found(limited).contains(&open[0]));
        }
    }

    #[test]
    fn no_message_shows_a_url() {
        let login = LoginFacts {
            is_encrypted: false,
            token_url: Some((
                "token.oidc.token_url",
                "http://me:hunter2@id/?k=hunter2".into(),
            )),
            ..secure()
        };
        let facts = SecurityFacts {
            logins: vec![login],
            ..SecurityFacts::default()
        };
        let found = find_in_settings(&facts);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|f| !f.to_string().contains("hunter2")));
    }
}
