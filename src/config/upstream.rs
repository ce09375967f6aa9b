//! `server.external_metrics.upstream`: another server of external metrics, behind lagwise.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::secrets::Environment;
use super::section::Section;
use super::server::TlsFiles;

/// Another server of external metrics, such as KEDA's. A Kubernetes cluster has one slot for external metrics; with an
/// upstream, lagwise holds it and passes on every request for a metric that is not its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// URL of the server, such as `https://keda-operator-metrics-apiserver.keda.svc`. Its certificate must be
    /// valid for the host.
    pub url: String,
    /// The file with the CA certificates (PEM) that its certificate is verified against; read again when it
    /// changes.
    #[schemars(default, with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
    /// Instead of `ca_file`: accept any certificate. Whoever can answer in the place of the server then gets
    /// the token, and decides the values of its metrics.
    #[schemars(default)]
    pub insecure_skip_verify: bool,
    /// The file with the bearer token that lagwise presents to the server; read again every few seconds. Use
    /// the token of a service account that may list external metrics and nothing else, because the server
    /// could act with it.
    #[schemars(default, with = "Option<String>")]
    pub token_file: Option<PathBuf>,
    /// Instead of `token_file`, or beside it: the client certificate that lagwise presents to the server.
    #[schemars(default)]
    pub client_certificate: Option<TlsFiles>,
}

impl UpstreamConfig {
    pub(super) fn read(mut section: Section<'_>, environment: &dyn Environment) -> Option<Self> {
        const URL: &str =
            "an https URL without a path, such as https://keda-operator-metrics-apiserver.keda.svc";
        const CA: &str =
            "the path of a PEM file with CA certificates; or insecure_skip_verify: true";
        const TOKEN: &str = "the path of a file with a bearer token; or client_certificate";
        let url = section.required("url", URL);
        let url = url.and_then(|field| field.checked_url(URL, "", check_url));
        let ca_field = section.get("ca_file");
        let ca_file = match &ca_field {
            Some(field) => field.file(CA, environment).map(Some),
            None => Some(None),
        };
        let skips = section.get("insecure_skip_verify");
        let insecure_skip_verify = skips.as_ref().and_then(|field| field.flag()) == Some(true);
        match &ca_field {
            None if !insecure_skip_verify => section.refuse_key("ca_file", "missing", CA),
            Some(field) if insecure_skip_verify => field.refuse(
                "has no effect with insecure_skip_verify: true",
                "ca_file or insecure_skip_verify, not both",
            ),
            _ => {}
        }
        let token_field = section.get("token_file");
        let token_file = match &token_field {
            Some(field) => field.file(TOKEN, environment).map(Some),
            None => Some(None),
        };
        let certificate = section.get("client_certificate");
        let client_certificate = match &certificate {
            Some(field) => field
                .section()
                .and_then(|section| TlsFiles::read(section, environment))
                .map(Some),
            None => Some(None),
        };
        if token_field.is_none() && certificate.is_none() {
            section.refuse_key("token_file", "missing", TOKEN);
        }
        section.finish();
        Some(Self {
            url: url?,
            ca_file: ca_file?,
            insecure_skip_verify,
            token_file: token_file?,
            client_certificate: client_certificate?,
        })
    }
}

fn check_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("not a URL ({error})"))?;
    if url.scheme() != "https" {
        return Err("not an https URL".to_owned());
    }
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    match url.host() {
        Some(_) if is_bare => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("has more than a host and a port".to_owned()),
    }
}
