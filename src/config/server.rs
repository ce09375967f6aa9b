//! `server`: the listeners.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::kubernetes::KubernetesConfig;
use super::listeners::{
    AdminConfig, ExternalScalerConfig, ListenAddress, MetricsConfig, ProbesConfig,
};
use super::schema::address_schema;
use super::secrets::Environment;
use super::section::{Field, Section};
use super::upstream::UpstreamConfig;
use crate::model::units::names;

/// The listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The external metrics API, over TLS, for the Kubernetes API server.
    pub external_metrics: ExternalMetricsConfig,
    /// `/metrics` for Prometheus. Its former name is `http`.
    pub metrics: MetricsConfig,
    /// `/livez` and `/readyz` for the probes of Kubernetes, over plain HTTP.
    pub probes: ProbesConfig,
    /// The admin endpoints `/status` and `/explain`, over plain HTTP. They show the groups, topics and
    /// offsets of all namespaces.
    pub admin: AdminConfig,
    /// The external scaler for KEDA, over TLS: triggers of type `external` and `external-push` get lag and cap
    /// from lagwise, and KEDA keeps the external metrics API.
    pub external_scaler: ExternalScalerConfig,
}

/// The external metrics API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct ExternalMetricsConfig {
    /// IP address and port; port 0 selects a free port.
    #[schemars(schema_with = "address_schema")]
    pub listen: SocketAddr,
    /// Certificate of the server; read again when its files change. Default: a self-signed certificate,
    /// which the leader creates and renews for all replicas in the Secret of `secret`. Without a Secret, each
    /// process creates one of its own at start and renews it.
    pub tls: Option<TlsFiles>,
    /// Name of the Secret in lagwise's own namespace with the self-signed certificate and its CA (needs get
    /// and patch on it, and create). Not used if `tls` is set. Default: `lagwise-tls` in a pod, otherwise
    /// none.
    pub secret: Option<String>,
    /// The Service by which the API server reaches lagwise. The self-signed certificate is valid for
    /// `<service>.<namespace>.svc`, and lagwise does not change an APIService of another Service.
    pub service: String,
    /// Whether the leader writes the CA of the certificate in the Secret to the caBundle of the APIService
    /// (needs get and patch on it). With false you have to do that, and `lagwise check` accepts another owner
    /// of the APIService, also if `tls` is set.
    pub ca_bundle: bool,
    /// How callers are authorized. `none` only on a loopback address.
    pub auth: AuthMode,
    /// Another server of external metrics, which answers requests for metrics that are not lagwise's. Default:
    /// none.
    pub upstream: Option<UpstreamConfig>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TlsFiles {
    /// The file with the certificate, followed by those of its issuers.
    #[schemars(with = "String")]
    pub cert_file: PathBuf,
    /// The file with the private key of the certificate.
    #[schemars(with = "String")]
    pub key_file: PathBuf,
}

/// How callers are authorized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// By RBAC of the Kubernetes cluster.
    #[default]
    Kubernetes,
    /// Everyone may read.
    None,
}

impl Default for ExternalMetricsConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 6443)),
            tls: None,
            secret: None,
            service: "lagwise".to_owned(),
            ca_bundle: true,
            auth: AuthMode::default(),
            upstream: None,
        }
    }
}

impl ServerConfig {
    pub(super) fn read(
        mut section: Section<'_>,
        kubernetes: &KubernetesConfig,
        environment: &dyn Environment,
    ) -> Self {
        let (external_metrics, api) = ExternalMetricsConfig::read(
            section.section("external_metrics"),
            kubernetes.enabled,
            environment,
        );
        let (metrics, metrics_address) = MetricsConfig::read(&mut section, kubernetes);
        let (probes, probes_address) = ProbesConfig::read(section.section("probes"));
        let (admin, admin_address) = AdminConfig::read(section.section("admin"));
        let (external_scaler, scaler_address) =
            ExternalScalerConfig::read(section.section("external_scaler"), kubernetes, environment);
        section.finish();
        refuse_collisions(&[
            api,
            metrics_address,
            probes_address,
            admin_address,
            scaler_address,
        ]);
        Self {
            external_metrics,
            metrics,
            probes,
            admin,
            external_scaler,
        }
    }
}

/// Records a problem for each two listeners with the same port.
fn refuse_collisions(listeners: &[ListenAddress<'_>]) {
    for (index, one) in listeners.iter().enumerate() {
        for other in listeners.iter().skip(index + 1) {
            if let (Some(a), Some(b)) = (one.address, other.address)
                && collide(a, b)
                // The defaults differ, so at least one address was set.
                && let Some(field) = other.field.as_ref().or(one.field.as_ref())
            {
                field.refuse(
                    format!("{} and {} are the same port", one.key, other.key),
                    "a port for each",
                );
            }
        }
    }
}

impl ExternalMetricsConfig {
    /// Also returns the address and where it is set.
    fn read<'a>(
        mut section: Section<'a>,
        kubernetes_enabled: bool,
        environment: &dyn Environment,
    ) -> (Self, ListenAddress<'a>) {
        let default = Self::default();
        let address = ListenAddress::read(
            &mut section,
            "server.external_metrics.listen",
            default.listen,
        );
        let listen = address.address;
        let tls = section
            .get("tls")
            .and_then(|field| field.section())
            .and_then(|section| TlsFiles::read(section, environment));
        let secret = section.get("secret").and_then(|field| {
            field.checked(names::OBJECT, |text| names::object(text).map(str::to_owned))
        });
        let service = section.get("service").and_then(|field| {
            field.checked(names::SERVICE, |text| {
                names::service(text).map(str::to_owned)
            })
        });
        let ca_bundle = section.get("ca_bundle").and_then(|field| field.flag());
        let auth_field = section.get("auth");
        let auth = match &auth_field {
            Some(field) => AuthMode::read(field),
            None => Some(AuthMode::default()),
        };
        match (auth, &auth_field) {
            (Some(AuthMode::None), Some(field)) if listen.is_some_and(|at| !is_loopback(at)) => field.refuse(
                "would let everyone who reaches the port read the metrics",
                "kubernetes, or none with a loopback server.external_metrics.listen such as 127.0.0.1:6443",
            ),
            (Some(AuthMode::Kubernetes), _) if !kubernetes_enabled => section.refuse_key(
                "auth",
                "is kubernetes, but kubernetes.enabled is false, so callers cannot be authorized",
                "none, with a loopback server.external_metrics.listen such as 127.0.0.1:6443; or kubernetes.enabled: true",
            ),
            _ => {}
        }
        let upstream = section
            .get("upstream")
            .and_then(|field| field.section())
            .and_then(|section| UpstreamConfig::read(section, environment));
        section.finish();
        let config = Self {
            listen: listen.unwrap_or(default.listen),
            tls,
            secret,
            service: service.unwrap_or(default.service),
            ca_bundle: ca_bundle.unwrap_or(default.ca_bundle),
            auth: auth.unwrap_or_default(),
            upstream,
        };
        (config, address)
    }
}

impl AuthMode {
    pub(super) fn read(field: &Field<'_>) -> Option<Self> {
        field.one_of(&[("kubernetes", Self::Kubernetes), ("none", Self::None)])
    }
}

impl TlsFiles {
    pub(super) fn read(mut section: Section<'_>, environment: &dyn Environment) -> Option<Self> {
        const CERT: &str =
            "the path of a PEM file with the certificate (cert_file and key_file go together)";
        const KEY: &str =
            "the path of a PEM file with the private key (cert_file and key_file go together)";
        let cert_file = section
            .required("cert_file", CERT)
            .and_then(|field| field.file(CERT, environment));
        let key_file = section
            .required("key_file", KEY)
            .and_then(|field| field.file(KEY, environment));
        section.finish();
        Some(Self {
            cert_file: cert_file?,
            key_file: key_file?,
        })
    }
}

pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether both addresses claim the same port of the same interface.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    // [::] usually binds the ports of IPv4 too.
    let covers = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.to_canonical().is_ipv4())
    };
    let (x, y) = (a.ip(), b.ip());
    a.port() != 0 && a.port() == b.port() && (x == y || covers(x, y) || covers(y, x))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_collide_on_overlapping_addresses_only() {
        for (a, b, expected) in [
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "0.0.0.0:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (a, b): (SocketAddr, SocketAddr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(
                (collide(a, b), collide(b, a)),
                (expected, expected),
                "{a} {b}"
            );
        }
    }

    #[test]
    fn recognizes_every_form_of_loopback() {
        for address in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(address.parse().unwrap()), "{address}");
        }
        assert!(!is_loopback("0.0.0.0:1".parse().unwrap()));
    }
}
