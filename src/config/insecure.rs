//! Settings that give secrets away.

use std::collections::BTreeSet;
use std::path::Path;

use super::secrets::Environment;
use super::{ClusterConfig, Config, ScalerAuth, TokenSourceConfig};
use crate::model::diagnostics::setting_findings::{
    LoginFacts, OpenSecretFile, SecurityFacts, find_in_settings,
};
use crate::model::findings::Finding;

/// Properties that name files with secrets.
const SECRET_FILES: [&str; 3] = [
    "ssl.key.location",
    "ssl.keystore.location",
    "sasl.kerberos.keytab",
];

/// The property with the URL of librdkafka's own token source.
const TOKEN_URL: &str = "sasl.oauthbearer.token.endpoint.url";

impl Config {
    /// Finds settings that give secrets away. They are allowed, so they are findings and not problems of the file.
    #[must_use]
    pub fn find_insecure_settings(&self, environment: &dyn Environment) -> BTreeSet<Finding> {
        let indexed = self.clusters.iter().enumerate();
        let keyed = indexed.map(|(at, cluster)| (format!("clusters[{at}]"), cluster));
        let clusters = Vec::from_iter(keyed);
        let logins = clusters.iter().map(|(key, cluster)| login_of(key, cluster));
        let mut files = Vec::new();
        for (at, cluster) in &clusters {
            let of_cluster = secret_files(cluster).into_iter();
            files.extend(of_cluster.map(|(key, file)| (format!("{at}.{key}"), file)));
        }
        let server = &self.server;
        for (listener, tls) in [
            ("external_metrics", &server.external_metrics.tls),
            ("external_scaler", &server.external_scaler.tls),
        ] {
            if let Some(tls) = tls {
                let key = format!("server.{listener}.tls.key_file");
                files.push((key, &tls.key_file));
            }
        }
        if let Some(upstream) = &self.server.external_metrics.upstream {
            let certificate = upstream.client_certificate.as_ref();
            let key_file = certificate.map(|certificate| &certificate.key_file);
            for (key, file) in [
                ("token_file", upstream.token_file.as_ref()),
                ("client_certificate.key_file", key_file),
            ] {
                let key = format!("server.external_metrics.upstream.{key}");
                files.extend(file.map(|file| (key, file.as_path())));
            }
        }
        if let Some(file) = &self.otlp.token_file {
            files.push(("otlp.token_file".to_owned(), file));
        }
        if let Some(kubeconfig) = &self.kubernetes.kubeconfig {
            files.push(("kubernetes.kubeconfig".to_owned(), kubeconfig));
        }
        files.retain(|(_, path)| environment.is_open_to_all(path));
        let open_files = files.into_iter().map(|(key, path)| OpenSecretFile {
            key,
            path: path.display().to_string(),
        });
        let scaler = &server.external_scaler;
        let upstream = server.external_metrics.upstream.as_ref();
        find_in_settings(&SecurityFacts {
            logins: logins.collect(),
            open_scaler: scaler.listen.filter(|_| scaler.auth == ScalerAuth::None),
            unverified_upstream: upstream
                .filter(|upstream| upstream.insecure_skip_verify)
                .map(|upstream| upstream.url.clone()),
            open_files: open_files.collect(),
        })
    }
}

/// Facts about the login of a cluster. `key` is the cluster's key in the file, such as `clusters[0]`.
fn login_of(key: &str, cluster: &ClusterConfig) -> LoginFacts {
    let get = |name: &str| cluster.properties.get(name);
    let protocol = get("security.protocol").unwrap_or_default();
    let protocol = protocol.to_ascii_lowercase();
    let mechanism = get("sasl.mechanism").or_else(|| get("sasl.mechanisms"));
    let has_tokens =
        cluster.token != TokenSourceConfig::None || get("sasl.oauthbearer.method").is_some();
    let mechanism = match mechanism {
        Some(mechanism) => Some(mechanism),
        None if has_tokens => Some("OAUTHBEARER"),
        None => None,
    };
    let verification = get("enable.ssl.certificate.verification").map(str::to_ascii_lowercase);
    let token_url = match &cluster.token {
        TokenSourceConfig::Oidc(oidc) => Some(("token.oidc.token_url", oidc.token_url.clone())),
        _ => get(TOKEN_URL).map(|url| {
            let key = "properties.sasl.oauthbearer.token.endpoint.url";
            (key, url.to_owned())
        }),
    };
    LoginFacts {
        key: key.to_owned(),
        cluster: cluster.name.clone(),
        is_encrypted: protocol.ends_with("ssl"),
        mechanism: mechanism
            .filter(|_| protocol.starts_with("sasl"))
            .map(str::to_owned),
        verifies_issuer: !matches!(verification.as_deref(), Some("false" | "f" | "0")),
        verifies_host: !matches!(
            get("ssl.endpoint.identification.algorithm"),
            Some("none" | "")
        ),
        names_authority: ["ssl.ca.location", "ssl.ca.pem"]
            .into_iter()
            .any(|name| get(name).is_some()),
        limits_hosts: !cluster.allowed_broker_hosts.is_empty(),
        token_url,
    }
}

/// The files with secrets of a cluster, each with the key (below the cluster's) whose value names it.
fn secret_files(cluster: &ClusterConfig) -> Vec<(String, &Path)> {
    let properties = &cluster.properties;
    let named = SECRET_FILES.iter();
    let named = named.filter_map(|name| Some((*name, properties.get(name)?)));
    let mut files: Vec<_> = properties
        .referred_files()
        .chain(named)
        .map(|(name, file)| (format!("properties.{name}"), Path::new(file)))
        .collect();
    match &cluster.token {
        TokenSourceConfig::File { path } => files.push(("token.file.path".to_owned(), path)),
        TokenSourceConfig::Oidc(oidc) => {
            let referred = oidc.client_secret.referred_files().into_iter();
            let key = "token.oidc.client_secret";
            files.extend(referred.map(|file| (key.to_owned(), Path::new(file))));
        }
        _ => {}
    }
    files
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::secrets::tests::Pretended;

    fn found(text: &str) -> Vec<String> {
        let files = [
            "/open/password",
            "/open/key.pem",
            "/open/token",
            "/open/tls.key",
            "/open/kubeconfig",
            "/shut/password",
            "/shut/tls.crt",
        ];
        let environment = Pretended {
            files: files.map(|path| (path.into(), "s")).into(),
            ..Pretended::default()
        };
        let config = Config::parse(text, &environment).unwrap();
        let found = config.find_insecure_settings(&environment).into_iter();
        found
            .map(|finding| format!("{} {}", finding.code.label(), finding.subject))
            .collect()
    }

    fn of_cluster(more: &str) -> Vec<String> {
        found(&format!(
            "clusters: [{{name: main, allowed_broker_hosts: [b], properties: {{bootstrap.servers: b, {more}}}}}]"
        ))
    }

    #[test]
    fn hosts_that_may_get_the_login() {
        let cluster = |more: &str, properties: &str| {
            found(&format!(
                "clusters: [{{name: main, {more} properties: {{bootstrap.servers: b, security.protocol: SASL_SSL, {properties}}}}}]"
            ))
        };
        let any = ["login_to_any_host clusters[0].allowed_broker_hosts"];
        let plain = "sasl.mechanism: PLAIN, sasl.username: u, sasl.password: p";
        assert_eq!(cluster("", plain), any);
        assert_eq!(cluster("allowed_broker_hosts: [],", plain), any);
        assert_eq!(
            cluster("allowed_broker_hosts: ['*.kafka.svc'],", plain),
            [""; 0]
        );
        for authority in ["ssl.ca.location: /shut/tls.crt", "ssl.ca.pem: x"] {
            assert_eq!(cluster("", &format!("{plain}, {authority}")), [""; 0]);
        }
        assert_eq!(cluster("token: {file: {path: /shut/password}},", ""), any);
        assert_eq!(cluster("", "sasl.mechanism: GSSAPI"), [""; 0]);
    }

    #[test]
    fn logins_by_properties() {
        let open = "login_unencrypted clusters[0].properties.security.protocol";
        let issuer =
            "brokers_unverified clusters[0].properties.enable.ssl.certificate.verification";
        let host =
            "brokers_unverified clusters[0].properties.ssl.endpoint.identification.algorithm";
        let url =
            "token_url_unencrypted clusters[0].properties.sasl.oauthbearer.token.endpoint.url";
        for (properties, expected) in [
            ("", &[][..]),
            (
                "security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN",
                &[open],
            ),
            (
                "security.protocol: sasl_plaintext, sasl.mechanisms: PLAIN",
                &[open],
            ),
            (
                "security.protocol: SASL_PLAINTEXT, sasl.mechanism: SCRAM-SHA-256",
                &[],
            ),
            ("security.protocol: SASL_SSL, sasl.mechanism: PLAIN", &[]),
            (
                "security.protocol: ssl, enable.ssl.certificate.verification: False",
                &[issuer],
            ),
            (
                "security.protocol: SASL_SSL, enable.ssl.certificate.verification: 0",
                &[issuer],
            ),
            ("enable.ssl.certificate.verification: false", &[]),
            (
                "security.protocol: ssl, ssl.endpoint.identification.algorithm: none",
                &[host],
            ),
            (
                "security.protocol: ssl, ssl.endpoint.identification.algorithm: https",
                &[],
            ),
            (
                "security.protocol: sasl_plaintext, sasl.oauthbearer.method: oidc, \
                 sasl.oauthbearer.token.endpoint.url: http://id/t",
                &[open, url],
            ),
            (
                "sasl.oauthbearer.token.endpoint.url: http://localhost/t",
                &[],
            ),
        ] {
            assert_eq!(of_cluster(properties), expected, "{properties}");
        }
    }

    #[test]
    fn logins_by_a_token_source() {
        let cluster = |protocol: &str, token: &str| {
            found(&format!(
                "clusters: [{{name: main, allowed_broker_hosts: [b], token: {token}, properties: {{bootstrap.servers: b, security.protocol: {protocol}}}}}]"
            ))
        };
        let oidc = |url: &str, secret: &str| {
            format!("{{oidc: {{token_url: '{url}', client_id: me, client_secret: '{secret}'}}}}")
        };
        assert_eq!(cluster("SASL_SSL", &oidc("https://id/t", "s")), [""; 0]);
        assert_eq!(
            cluster(
                "SASL_PLAINTEXT",
                &oidc("http://id/t", "${file:/open/password}")
            ),
            [
                "login_unencrypted clusters[0].properties.security.protocol",
                "token_url_unencrypted clusters[0].token.oidc.token_url",
                "secret_file_open clusters[0].token.oidc.client_secret",
            ]
        );
        assert_eq!(
            cluster("SASL_SSL", "{file: {path: /open/token}}"),
            ["secret_file_open clusters[0].token.file.path"]
        );
    }

    #[test]
    fn servers_without_authentication_or_verification() {
        let server = |section: &str| {
            found(&format!(
                "clusters: [{{name: main, properties: {{bootstrap.servers: b}}}}]\nserver: {{{section}}}"
            ))
        };
        let scaler = ["scaler_open server.external_scaler.auth"];
        let upstream =
            ["upstream_unverified server.external_metrics.upstream.insecure_skip_verify"];
        for (section, expected) in [
            (
                "external_scaler: {listen: '0.0.0.0:9443', auth: none}",
                &scaler[..],
            ),
            (
                "external_scaler: {listen: '127.0.0.1:9443', auth: none}",
                &[],
            ),
            ("external_scaler: {auth: none}", &[]),
            (
                "external_scaler: {listen: '0.0.0.0:9443', client_ca_file: /shut/tls.crt}",
                &[],
            ),
            (
                "external_metrics: {upstream: {url: 'https://a', insecure_skip_verify: true, token_file: /shut/password}}",
                &upstream,
            ),
            (
                "external_metrics: {upstream: {url: 'https://a', ca_file: /shut/tls.crt, token_file: /shut/password}}",
                &[],
            ),
        ] {
            assert_eq!(server(section), expected, "{section}");
        }
    }

    #[test]
    fn files_with_secrets() {
        for (properties, expected) in [
            (
                "security.protocol: SASL_SSL, sasl.mechanism: PLAIN, sasl.password: '${file:/open/password}'",
                &["secret_file_open clusters[0].properties.sasl.password"][..],
            ),
            (
                "security.protocol: SASL_SSL, sasl.mechanism: PLAIN, sasl.password: '${file:/shut/password}'",
                &[],
            ),
            (
                "security.protocol: SASL_SSL, sasl.mechanism: PLAIN, sasl.password: '$${file:/open/password}'",
                &[],
            ),
            (
                "security.protocol: SSL, ssl.key.location: /open/key.pem",
                &["secret_file_open clusters[0].properties.ssl.key.location"],
            ),
            (
                "security.protocol: SSL, ssl.ca.location: /open/key.pem",
                &[],
            ),
        ] {
            assert_eq!(of_cluster(properties), expected, "{properties}");
        }
        let others = found(
            "clusters: [{name: main, properties: {bootstrap.servers: b}}]\n\
             kubernetes: {kubeconfig: /open/kubeconfig}\n\
             otlp: {endpoint: 'https://c', token_file: /open/token}\n\
             server: {external_metrics: {tls: {cert_file: /shut/tls.crt, key_file: /open/tls.key}}}",
        );
        let expected = [
            "secret_file_open kubernetes.kubeconfig",
            "secret_file_open otlp.token_file",
            "secret_file_open server.external_metrics.tls.key_file",
        ];
        assert_eq!(others, expected);
    }
}
