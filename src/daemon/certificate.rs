//! Sets up the certificate of the external metrics API.

use std::time::SystemTime;

use tokio::sync::watch;

use super::{Tasks, in_pod};
use crate::certificates::{self, CertificateManagerOptions};
use crate::config::Config;
use crate::k8s;
use crate::k8s::certificates::{CertificateSecret, ServiceRegistration};
use crate::leader_election::Leadership;
use crate::model::findings::ReportedFindings;
use crate::serve::tls::{ServerTls, TlsError};

/// Default name of the Secret.
pub(super) const SECRET: &str = "lagwise-tls";

/// The configured certificate; otherwise a generated one, until the replicas share one. Also the finding that another
/// Service holds the slot of external metrics: none without a shared certificate, because only the manager of these
/// checks it.
///
/// # Errors
/// A file that cannot be read, or an invalid name.
pub(super) fn server_tls(
    config: &Config,
    client: Option<&k8s::client::Client>,
    leadership: &Leadership,
    tasks: &mut Tasks,
) -> Result<(ServerTls, watch::Receiver<ReportedFindings>), TlsError> {
    let (findings_in, findings) = watch::channel(ReportedFindings::default());
    let external = &config.server.external_metrics;
    if let Some(files) = &external.tls {
        let tls = ServerTls::from_files(&files.cert_file, &files.key_file)?;
        return Ok((tls, findings));
    }
    let names = certificate_names(&external.service, client);
    let own = ServerTls::self_signed(&names)?;
    let secret = external.secret.clone();
    let secret = secret.or_else(|| in_pod().then(|| SECRET.to_owned()));
    let (Some(secret), Some(client)) = (secret, client) else {
        return Ok((own, findings));
    };
    let (served, shared) = watch::channel(None);
    let registration = ServiceRegistration::new(client.clone(), external.service.clone());
    let options = CertificateManagerOptions {
        store: CertificateSecret::new(client.clone(), secret),
        registration: external.ca_bundle.then_some(registration),
        names,
        leadership: leadership.clone(),
        served,
        findings: findings_in,
    };
    tasks.spawn(async move {
        certificates::maintain(options, SystemTime::now).await;
        ("certificate manager", Ok(()))
    });
    Ok((own.until_shared(shared), findings))
}

/// Names in a self-signed certificate: those used by the aggregator and by people.
fn certificate_names(service: &str, client: Option<&k8s::client::Client>) -> Vec<String> {
    let namespace = match client {
        // In a pod, its own namespace.
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
