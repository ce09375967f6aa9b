//! Checks of a configuration that need more than its text: what [`App::start`](super::App::start) rejects, found
//! without listening, without contacting Kafka, a token source or the API server, and without running the program that
//! a kubeconfig names for the login.

use super::{in_pod, kubernetes, options, otlp};
use crate::config::{Config, Problem};
use crate::k8s;
use crate::kafka::{self, ClientKind};
use crate::model::units::newtypes::ClusterName;
use crate::serve::external_scaler::ClientCa;
use crate::serve::tls::ServerTls;
use crate::serve::upstream::Upstream;

/// Result of the checks.
pub(crate) struct Validation {
    /// Problems with which the daemon would not start. They have no line and column.
    pub(crate) problems: Vec<Problem>,
    /// The clusters that librdkafka reads: their position in the file, and their name.
    pub(crate) read_by_librdkafka: Vec<(usize, ClusterName)>,
    /// The program of a kubeconfig that was not run.
    pub(crate) login_program: Option<String>,
}

/// Checks clusters, certificates and the kubeconfig as the daemon does when it starts.
pub(crate) async fn validate(config: &Config) -> Validation {
    let mut problems = Vec::new();
    let mut read_by_librdkafka = Vec::new();
    for (at, cluster) in config.clusters.iter().enumerate() {
        match kafka::check(cluster.into(), in_pod()) {
            Ok(ClientKind::Librdkafka) => read_by_librdkafka.push((at, cluster.name.clone())),
            Ok(_) => {}
            Err(refused) => {
                let below = refused.reason.path();
                let below = below.map_or(String::new(), |path| format!(".{path}"));
                problems.push(problem(
                    format!("clusters[{at}]{below}"),
                    &refused.reason.problem,
                ));
            }
        }
    }
    let server = &config.server;
    for (key, tls) in [
        ("server.external_metrics.tls", &server.external_metrics.tls),
        ("server.external_scaler.tls", &server.external_scaler.tls),
    ] {
        let Some(files) = tls else { continue };
        if let Err(error) = ServerTls::from_files(&files.cert_file, &files.key_file) {
            problems.push(problem(key.into(), &error.to_string()));
        }
    }
    if let Some(file) = &server.external_scaler.client_ca_file
        && let Err(error) = ClientCa::read(file.clone())
    {
        let key = "server.external_scaler.client_ca_file";
        problems.push(problem(key.into(), &error.to_string()));
    }
    if let Some(Err(error)) = options::upstream(config).map(Upstream::new) {
        let key = "server.external_metrics.upstream";
        problems.push(problem(key.into(), &error.to_string()));
    }
    if let Err(error) = otlp::exporter(config) {
        problems.push(problem("otlp.ca_file".into(), &error.to_string()));
    }
    let login_program = check_kubeconfig(config).await.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    Validation {
        problems,
        read_by_librdkafka,
        login_program,
    }
}

/// Checks a kubeconfig or context that the file names. The default kubeconfig, or the account of a pod, may not exist
/// on the machine where the file is checked. Returns the program that it would run for the login.
async fn check_kubeconfig(config: &Config) -> Result<Option<String>, Problem> {
    let named = &config.kubernetes;
    let key = match (&named.context, &named.kubeconfig) {
        _ if !named.enabled => return Ok(None),
        (Some(_), _) => "kubernetes.context",
        (None, Some(_)) => "kubernetes.kubeconfig",
        (None, None) => return Ok(None),
    };
    let checked = k8s::client::check(&kubernetes::options(config)).await;
    checked.map_err(|error| problem(key.into(), &format!("{error}; {}", kubernetes::REMEDY)))
}

fn problem(key: String, problem: &str) -> Problem {
    Problem {
        key,
        ..Problem::of_file(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemEnvironment;
    use crate::daemon::{App, HpaSource};

    /// Whether the daemon starts, and where the checks find problems.
    async fn start_and_validate(more: &str) -> (Result<(), String>, Vec<String>) {
        let config = Config::parse(more, &SystemEnvironment)
            .map_err(|error| error.to_string())
            .unwrap();
        let keys = validate(&config).await.problems.into_iter();
        let started = App::start(&config, HpaSource::Cluster).await;
        let started = started.map(drop).map_err(|error| error.to_string());
        (started, keys.map(|problem| problem.key).collect())
    }

    fn text(cluster: &str, more: &str, api: &str) -> String {
        format!(
            "clusters: [{{name: a, {cluster}}}]\n{more}\nserver:\n  metrics: {{listen: '127.0.0.1:0'}}\n  \
             probes: {{listen: '127.0.0.1:0'}}\n  admin: {{listen: '127.0.0.1:0'}}\n  \
             external_metrics: {{listen: '127.0.0.1:0', auth: none{api}}}\n"
        )
    }

    const ALONE: &str = "kubernetes: {enabled: false}";
    const PLAIN: &str = "properties: {bootstrap.servers: '127.0.0.1:1'}";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reports_settings_that_the_daemon_would_refuse() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, content: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            file.display().to_string()
        };
        let junk = path("junk", "no certificate");
        let missing = folder.path().join("missing").display().to_string();
        let kubeconfig = path(
            "kubeconfig",
            "apiVersion: v1\nkind: Config\ncurrent-context: gone\ncontexts: []\nclusters: []\nusers: []\n",
        );
        let ssl = |more: &str| {
            format!(
                "properties: {{bootstrap.servers: '127.0.0.1:1', security.protocol: SSL, {more}}}"
            )
        };
        let sasl = |more: &str| {
            format!(
                "properties: {{bootstrap.servers: '127.0.0.1:1', security.protocol: SASL_SSL, {more}}}"
            )
        };
        for (cluster, more, api, key) in [
            (PLAIN.to_owned(), ALONE.to_owned(), String::new(), None),
            (ssl(&format!("ssl.ca.location: {missing}")), ALONE.into(), String::new(), Some("clusters[0].properties.ssl.ca.location")),
            (ssl(&format!("ssl.ca.location: {junk}")), ALONE.into(), String::new(), Some("clusters[0].properties.ssl.ca.location")),
            (ssl(&format!("ssl.key.location: {junk}")), ALONE.into(), String::new(), Some("clusters[0].properties.ssl.certificate.location")),
            (ssl("ssl.ca.locaton: x"), ALONE.into(), String::new(), Some("clusters[0].properties.ssl.ca.locaton")),
            (ssl("socket.timeout.ms: 5s"), ALONE.into(), String::new(), Some("clusters[0].properties.socket.timeout.ms")),
            (sasl("sasl.mechanism: PLAIN, sasl.username: u"), ALONE.into(), String::new(), Some("clusters[0].properties.sasl.password")),
            (sasl("sasl.mechanism: OAUTHBEARER"), ALONE.into(), String::new(), Some("clusters[0].properties.sasl.mechanism")),
            (sasl("sasl.mechanism: PLAIN, sasl.username: u, sasl.password: p") + ", token: {gcp: {}}", ALONE.into(), String::new(), Some("clusters[0].token")),
            (PLAIN.to_owned() + ", token: {gcp: {}}", ALONE.into(), String::new(), Some("clusters[0].token")),
            (sasl("sasl.oauthbearer.method: oidc"), ALONE.into(), String::new(), Some("clusters[0].properties.sasl.oauthbearer.token.endpoint.url")),
            ("client: librdkafka, properties: {bootstrap.servers: '127.0.0.1:1', socket.timeout.ms: 5s}".into(), ALONE.into(), String::new(), Some("clusters[0].properties.socket.timeout.ms")),
            (PLAIN.into(), ALONE.into(), format!(", tls: {{cert_file: {junk}, key_file: {junk}}}"), Some("server.external_metrics.tls")),
            (PLAIN.into(), ALONE.into(), format!(", upstream: {{url: 'https://keda', ca_file: {junk}, token_file: {junk}}}"), Some("server.external_metrics.upstream")),
            (PLAIN.into(), format!("{ALONE}\notlp: {{endpoint: 'https://collector', ca_file: {junk}}}"), String::new(), Some("otlp.ca_file")),
            (PLAIN.into(), format!("kubernetes: {{kubeconfig: {kubeconfig}}}"), String::new(), Some("kubernetes.kubeconfig")),
            (PLAIN.into(), format!("kubernetes: {{kubeconfig: {kubeconfig}, context: prod}}"), String::new(), Some("kubernetes.context")),
            (PLAIN.into(), ALONE.into(), format!("}}\n  external_scaler: {{listen: '127.0.0.1:0', client_ca_file: {junk}"), Some("server.external_scaler.client_ca_file")),
            (PLAIN.into(), ALONE.into(), format!("}}\n  external_scaler: {{listen: '127.0.0.1:0', auth: none, tls: {{cert_file: {junk}, key_file: {junk}}}"), Some("server.external_scaler.tls")),
            (format!("client: librdkafka, {}", ssl(&format!("ssl.ca.location: {missing}"))), ALONE.into(), String::new(), Some("clusters[0]")),
            (format!("client: librdkafka, {}", ssl(&format!("ssl.ca.location: {junk}"))), ALONE.into(), String::new(), Some("clusters[0]")),
            (format!("client: librdkafka, {}", sasl("sasl.mechanism: PLAIN, sasl.username: u")), ALONE.into(), String::new(), Some("clusters[0]")),
        ] {
            let text = text(&cluster, &more, &api);
            let (started, keys) = start_and_validate(&text).await;
            let expected: Vec<_> = key.into_iter().collect();
            assert_eq!(keys, expected, "{text}");
            assert_eq!(started.is_ok(), key.is_none(), "{text}: {started:?}");
        }
    }

    /// Files and secrets of the recipes are replaced by ones that the test creates.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_daemon_starts_with_the_values_of_the_recipes() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["kafka".to_owned()]).unwrap();
        let file = |name: &str, content: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            serde_json::json!(file)
        };
        let certificate = file("certificate", &made.cert.pem());
        let key = file("key", &made.signing_key.serialize_pem());
        let secret = regex::Regex::new(r"\$\{(env|file):[^}]*\}").unwrap();
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/lagwise/examples");
        let mut started = 0;
        for entry in std::fs::read_dir(examples).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let values: serde_json::Value =
                serde_saphyr::from_str(&secret.replace_all(&text, "secret")).unwrap();
            let mut config = serde_json::json!({
                "clusters": values["config"]["clusters"],
                "kubernetes": {"enabled": false},
                "server": {
                    "metrics": {"listen": "127.0.0.1:0"},
                    "probes": {"listen": "127.0.0.1:0"},
                    "admin": {"listen": "127.0.0.1:0"},
                    "external_metrics": {"listen": "127.0.0.1:0", "auth": "none"},
                },
            });
            let cluster = &mut config["clusters"][0];
            // These need variables of the pod, which the checks say, and the feature `gssapi`.
            if cluster["token"].get("azure_workload_identity").is_some()
                || cluster["properties"]["sasl.mechanism"] == "GSSAPI"
            {
                continue;
            }
            cluster["allowed_broker_hosts"] = serde_json::json!(["127.0.0.1"]);
            let properties = cluster["properties"].as_object_mut().unwrap();
            for (name, value) in properties {
                match name.as_str() {
                    "bootstrap.servers" => *value = serde_json::json!("127.0.0.1:1"),
                    "ssl.ca.location" | "ssl.certificate.location" => *value = certificate.clone(),
                    "ssl.key.location" => *value = key.clone(),
                    _ => {}
                }
            }
            let outcome = start_and_validate(&config.to_string()).await;
            assert_eq!(outcome, (Ok(()), Vec::new()), "{}", path.display());
            started += 1;
        }
        assert!(started >= 15, "{started} recipes");
    }
}
