//! The certificate of the external metrics API.

use std::time::SystemTime;

use tokio::sync::watch;

use super::{Tasks, in_pod};
use crate::certificates::{self, CertificateManagerOptions};
use crate::config::Config;
use crate::k8s;
use crate::k8s::certificates::{CertificateSecret, ServiceRegistration};
use crate::leader_election::Leadership;
use crate::serve::tls::{ServerTls, TlsError};

/// The Secret of the certificate, where the configuration names none.
const SECRET: &str = "lagwise-tls";

/// The certificate that the configuration says; or one that is made now, until all replicas share one.
///
/// # Errors
/// A file that cannot be read, or a name that no certificate can bear.
pub(super) fn of(
    config: &Config,
    client: Option<&k8s::client::Client>,
    leadership: &Leadership,
    tasks: &mut Tasks,
) -> Result<ServerTls, TlsError> {
    let external = &config.server.external_metrics;
    if let Some(files) = &external.tls {
        return ServerTls::from_files(&files.cert_file, &files.key_file);
    }
    let names = certificate_names(&external.service, client);
    let own = ServerTls::self_signed(&names)?;
    let secret = external.secret.clone();
    let secret = secret.or_else(|| in_pod().then(|| SECRET.to_owned()));
    let (Some(secret), Some(client)) = (secret, client) else {
        return Ok(own);
    };
    let (served, shared) = watch::channel(None);
    let registration = ServiceRegistration::new(client.clone(), external.service.clone());
    let keeping = CertificateManagerOptions {
        store: CertificateSecret::new(client.clone(), secret),
        registration: external.ca_bundle.then_some(registration),
        names,
        leadership: leadership.clone(),
        served,
    };
    tasks.spawn(async move {
        certificates::keep(keeping, SystemTime::now).await;
        ("keeper of the certificates", Ok(()))
    });
    Ok(own.until_shared(shared))
}

/// The names a self-signed certificate is for: those that the aggregator and a person ask by.
fn certificate_names(service: &str, client: Option<&k8s::client::Client>) -> Vec<String> {
    let namespace = match client {
        // In a pod, the pod's own.
        Some(client) => client.default_namespace().to_owned(),
        None => std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "lagwise".into()),
    };
    [
        format!("{service}.{namespace}.svc").as_str(),
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .map(String::from)
    .into()
}
