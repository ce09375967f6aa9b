//! The listeners besides the external metrics API: metrics, probes, the admin endpoints, and the external scaler.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::kubernetes::KubernetesConfig;
use super::schema::{address_schema, optional_address_schema};
use super::secrets::Environment;
use super::section::{Field, Section};
use super::server::{AuthMode, TlsFiles, is_loopback};

/// `/metrics` for Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// IP address and port; port 0 selects a free port.
    #[schemars(schema_with = "address_schema")]
    pub listen: SocketAddr,
    /// How scrapers are authorized. With `none`, everyone who reaches the port may read, over plain HTTP. With
    /// `kubernetes`, over TLS with the certificate of the external metrics API, those who may `get` the
    /// non-resource URL `/metrics` by RBAC of the cluster.
    pub auth: AuthMode,
}

/// `/livez` and `/readyz` for the probes of Kubernetes, over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct ProbesConfig {
    /// IP address and port; port 0 selects a free port.
    #[schemars(schema_with = "address_schema")]
    pub listen: SocketAddr,
}

/// The admin endpoints `/status` and `/explain`, which show the groups, topics and offsets of all namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// IP address and port; port 0 selects a free port. Only a loopback address: `lagwise status` and
    /// `lagwise explain` reach it by a port-forward, which the Kubernetes cluster authorizes.
    #[schemars(schema_with = "address_schema")]
    pub listen: SocketAddr,
}

/// The external scaler for KEDA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct ExternalScalerConfig {
    /// IP address and port; port 0 selects a free port. Default: none, so there is no external scaler.
    #[schemars(schema_with = "optional_address_schema")]
    pub listen: Option<SocketAddr>,
    /// Certificate of the server; read again when its files change. Default: the certificate of the external
    /// metrics API.
    pub tls: Option<TlsFiles>,
    /// How callers are authenticated. With `certificate` they need a client certificate of a certificate authority (CA)
    /// in `client_ca_file`. With `none` everyone who reaches the port may ask for the lag of every namespace:
    /// allow KEDA's namespace alone by a NetworkPolicy.
    pub auth: ScalerAuth,
    /// PEM file with the CAs of client certificates; read again when it changes. Needed with `auth:
    /// certificate`.
    #[schemars(with = "Option<String>")]
    pub client_ca_file: Option<PathBuf>,
}

/// How callers of the external scaler are authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScalerAuth {
    /// By a client certificate.
    #[default]
    Certificate,
    /// Not at all.
    None,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            auth: AuthMode::None,
        }
    }
}

impl Default for ProbesConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8081)),
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
        }
    }
}

/// The address of a listener, and where the file sets it.
pub(super) struct ListenAddress<'a> {
    /// The key, for messages about a default.
    pub(super) key: &'static str,
    /// `None` if the value is invalid.
    pub(super) address: Option<SocketAddr>,
    pub(super) field: Option<Field<'a>>,
}

impl<'a> ListenAddress<'a> {
    /// Reads the key `listen` of a section, which is `key` in the whole file.
    pub(super) fn read(section: &mut Section<'a>, key: &'static str, default: SocketAddr) -> Self {
        let field = section.get("listen");
        let address = match &field {
            Some(field) => field.address(),
            None => Some(default),
        };
        Self {
            key,
            address,
            field,
        }
    }
}

impl MetricsConfig {
    /// Reads `metrics`, or `http`, its former name.
    pub(super) fn read<'a>(
        server: &mut Section<'a>,
        kubernetes: &KubernetesConfig,
    ) -> (Self, ListenAddress<'a>) {
        let default = Self::default();
        let former = server.former("http");
        let current = server.get("metrics");
        let (name, key) = match (&former, &current) {
            (Some(_), None) => ("http", "server.http.listen"),
            _ => ("metrics", "server.metrics.listen"),
        };
        if let (Some(former), Some(_)) = (former, current) {
            former.refuse_unseen(
                "the former name of server.metrics, which is set too",
                "only server.metrics",
            );
        }
        let mut section = server.section(name);
        let listen = ListenAddress::read(&mut section, key, default.listen);
        let auth = section.get("auth").and_then(|field| {
            let auth = AuthMode::read(&field)?;
            if auth == AuthMode::Kubernetes && !kubernetes.enabled {
                field.refuse(
                    "kubernetes.enabled is false, so scrapers cannot be authorized",
                    "none, or kubernetes with kubernetes.enabled: true",
                );
            } else if auth == AuthMode::Kubernetes && kubernetes.observes() {
                field.refuse(
                    "kubernetes.mode is observe, and authorizing scrapers would create TokenReviews",
                    "none, or kubernetes with kubernetes.mode: serve",
                );
            }
            Some(auth)
        });
        section.finish();
        let config = Self {
            listen: listen.address.unwrap_or(default.listen),
            auth: auth.unwrap_or(default.auth),
        };
        (config, listen)
    }
}

impl ProbesConfig {
    pub(super) fn read<'a>(mut section: Section<'a>) -> (Self, ListenAddress<'a>) {
        let default = Self::default();
        let listen = ListenAddress::read(&mut section, "server.probes.listen", default.listen);
        section.finish();
        let config = Self {
            listen: listen.address.unwrap_or(default.listen),
        };
        (config, listen)
    }
}

impl AdminConfig {
    pub(super) fn read<'a>(mut section: Section<'a>) -> (Self, ListenAddress<'a>) {
        let default = Self::default();
        let listen = ListenAddress::read(&mut section, "server.admin.listen", default.listen);
        if let (Some(address), Some(field)) = (listen.address, &listen.field)
            && !is_loopback(address)
        {
            field.refuse(
                "would show the groups, topics and offsets of all namespaces to everyone who reaches the port",
                "a loopback address such as 127.0.0.1:8082, to be reached by a port-forward",
            );
        }
        section.finish();
        let config = Self {
            listen: listen.address.unwrap_or(default.listen),
        };
        (config, listen)
    }
}

impl ExternalScalerConfig {
    pub(super) fn read<'a>(
        mut section: Section<'a>,
        kubernetes: &KubernetesConfig,
        environment: &dyn Environment,
    ) -> (Self, ListenAddress<'a>) {
        const CA: &str = "the path of a PEM file with the CAs of client certificates";
        let field = section.get("listen");
        let listen = ListenAddress {
            key: "server.external_scaler.listen",
            address: field.as_ref().and_then(Field::address),
            field,
        };
        if let Some(field) = listen.field.as_ref().filter(|_| kubernetes.observes()) {
            field.refuse(
                "kubernetes.mode is observe, and KEDA would scale by what the external scaler answers",
                "no value, or an address with kubernetes.mode: serve",
            );
        }
        let tls = section
            .get("tls")
            .and_then(|field| field.section())
            .and_then(|section| TlsFiles::read(section, environment));
        let auth = section.get("auth").and_then(|field| {
            field.one_of(&[
                ("certificate", ScalerAuth::Certificate),
                ("none", ScalerAuth::None),
            ])
        });
        let auth = auth.unwrap_or_default();
        let client_ca = section.get("client_ca_file");
        match (auth, &client_ca) {
            (ScalerAuth::Certificate, None) if listen.field.is_some() => section.refuse_key(
                "client_ca_file",
                "is missing, so no caller can be authenticated",
                "a PEM file with the authority of KEDA's client certificate; or auth: none if a NetworkPolicy lets KEDA alone reach the port",
            ),
            (ScalerAuth::None, Some(field)) => field.refuse(
                "has no effect with auth: none",
                "leaving it out; or auth: certificate",
            ),
            _ => {}
        }
        let client_ca_file = client_ca.and_then(|field| field.file(CA, environment));
        section.finish();
        let config = Self {
            listen: listen.address,
            tls,
            auth,
            client_ca_file,
        };
        (config, listen)
    }
}
