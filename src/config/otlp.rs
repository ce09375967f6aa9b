//! `otlp`: export of metrics to an OpenTelemetry collector.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::schema::{duration_schema, serialize_duration};
use super::secrets::Environment;
use super::section::Section;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(60 * 60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const MIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The path that is added to the endpoint.
const METRICS_PATH: &str = "/v1/metrics";

/// Export of the metrics to an OpenTelemetry collector, by OTLP over HTTP in protobuf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// URL of the collector's HTTP receiver, such as `http://otel-collector.monitoring.svc:4318`. lagwise adds
    /// `/v1/metrics`. Default: none, so nothing is exported.
    pub endpoint: Option<String>,
    /// Time between two exports: 1s to 1h.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Duration,
    /// Time limit of one export: 100ms to the interval. Default: 10s, but at most the interval.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
    /// The file with the CA certificates (PEM) that the collector's certificate is verified against; read again
    /// when it changes. Default: those of the system.
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
    /// The file with the bearer token that lagwise presents to the collector; read again every few seconds. Needs
    /// an https endpoint.
    #[schemars(with = "Option<String>")]
    pub token_file: Option<PathBuf>,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            ca_file: None,
            token_file: None,
        }
    }
}

impl OtlpConfig {
    pub(super) fn read(mut section: Section<'_>, environment: &dyn Environment) -> Self {
        const URL: &str = "an http or https URL, such as http://otel-collector.monitoring.svc:4318";
        let endpoint = section.get("endpoint").and_then(|field| {
            field.checked_url(URL, "; a token goes to token_file", check_endpoint)
        });
        let interval_field = section.get("interval");
        let interval =
            interval_field.and_then(|field| field.duration((MIN_INTERVAL, ""), (MAX_INTERVAL, "")));
        let interval = interval.unwrap_or(DEFAULT_INTERVAL);
        let timeout_field = section.get("timeout");
        let timeout = timeout_field
            .and_then(|field| field.duration((MIN_TIMEOUT, ""), (interval, " (otlp.interval)")));
        let ca_file = section.get("ca_file").and_then(|field| {
            field.file("the path of a PEM file with CA certificates", environment)
        });
        let token_field = section.get("token_file");
        let token_file = token_field
            .as_ref()
            .and_then(|field| field.file("the path of a file with a bearer token", environment));
        let is_plain = endpoint.as_deref().is_some_and(is_unencrypted);
        if let (Some(field), true) = (token_field, is_plain) {
            field.refuse_unseen(
                "would be sent unencrypted",
                "an https URL in otlp.endpoint, or no token_file",
            );
        }
        section.finish();
        Self {
            endpoint,
            interval,
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT.min(interval)),
            ca_file,
            token_file,
        }
    }
}

/// Whether requests to this URL are not encrypted. The scheme of a URL may be in capitals.
fn is_unencrypted(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| url.scheme() != "https")
}

fn check_endpoint(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("not an http or https URL".to_owned());
    }
    if url.host().is_none() || url.query().is_some() || url.fragment().is_some() {
        return Err("has more than a host, a port and a path".to_owned());
    }
    let text = text.trim_end_matches('/');
    match text.ends_with(METRICS_PATH) {
        true => Err(format!("ends in {METRICS_PATH}, which lagwise adds")),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SystemEnvironment};

    #[test]
    fn a_scheme_in_capitals_is_unencrypted_too() {
        for (url, expected) in [
            ("http://collector:4318", true),
            ("HTTP://collector:4318", true),
            (" http://collector:4318", true),
            ("https://collector:4318", false),
            ("HTTPS://collector:4318", false),
        ] {
            assert_eq!(is_unencrypted(url), expected, "{url}");
        }
    }

    #[test]
    fn urls_that_may_hold_a_key_are_not_shown() {
        for (rest, problem) in [
            ("?key=hunter2", "has a query"),
            ("#hunter2", "has a fragment"),
            ("/?a=b#hunter2@c", "has a user"),
        ] {
            for section in [
                format!("otlp: {{endpoint: 'https://collector{rest}'}}"),
                format!(
                    "server: {{external_metrics: {{upstream: {{url: 'https://keda.svc{rest}'}}}}}}"
                ),
            ] {
                let text = format!(
                    "clusters: [{{name: a, properties: {{bootstrap.servers: 'b:9092'}}}}]\n{section}"
                );
                let error = Config::parse(&text, &SystemEnvironment).unwrap_err();
                let error = error.to_string();
                assert!(error.contains(problem), "{section}: {error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
    }

    #[test]
    fn endpoints() {
        for good in [
            "http://collector:4318",
            "https://otlp.example.com/otlp",
            "http://[::1]:4318",
        ] {
            assert_eq!(check_endpoint(good), Ok(good.to_owned()));
            assert_eq!(check_endpoint(&format!("{good}/")), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("collector:4318", "not an http or https URL"),
            ("collector", "not a URL"),
            ("grpc://collector:4317", "not an http or https URL"),
            ("http://collector:4318/v1/metrics", "which lagwise adds"),
            ("http://collector:4318/v1/metrics/", "which lagwise adds"),
            ("http://collector:4318?key=1", "has more than a host"),
        ] {
            let problem = check_endpoint(bad).unwrap_err();
            assert!(problem.contains(why), "{bad}: {problem}");
        }
    }
}
