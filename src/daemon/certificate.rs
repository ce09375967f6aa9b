//! Sets up the certificate of the external metrics API.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::{Tasks, in_pod};
use crate::certificates::{self, CertificateManagerOptions};
use crate::config::Config;
use crate::k8s;
use crate::k8s::certificates::{CertificateSecret, ServiceRegistration};
use crate::leader_election::Leadership;
use crate::model::diagnostics::preflight::registration::find_lost_slot;
use crate::model::findings::WriteFindings;
use crate::serve::tls::{ServerTls, TlsError};

/// Default name of the Secret.
pub(super) const SECRET: &str = "lagwise-tls";

/// The configured certificate; otherwise a generated one, until the replicas share one. With it, the Service that holds
/// the slot of external metrics in place of lagwise, as far as lagwise looks.
///
/// # Errors
/// A file that cannot be read, or an invalid name.
pub(super) fn server_tls(
    config: &Config,
    client: Option<&k8s::client::Client>,
    leadership: &Leadership,
    tasks: &mut Tasks,
) -> Result<(ServerTls, watch::Receiver<Option<String>>), TlsError> {
    let (slot_holder_in, slot_holder) = watch::channel(None);
    let external = &config.server.external_metrics;
    if let Some(files) = &external.tls {
        let tls = ServerTls::from_files(&files.cert_file, &files.key_file)?;
        return Ok((tls, slot_holder));
    }
    let names = certificate_names(&external.service, client);
    let own = ServerTls::self_signed(&names)?;
    let secret = external.secret.clone();
    let secret = secret.or_else(|| in_pod().then(|| SECRET.to_owned()));
    let (Some(secret), Some(client)) = (secret, client) else {
        return Ok((own, slot_holder));
    };
    let (served, shared) = watch::channel(None);
    let registration = ServiceRegistration::new(client.clone(), external.service.clone());
    let options = CertificateManagerOptions {
        store: CertificateSecret::new(client.clone(), secret),
        registration: external.ca_bundle.then_some(registration),
        names,
        leadership: leadership.clone(),
        served,
        slot_holder: slot_holder_in,
    };
    tasks.spawn(async move {
        certificates::maintain(options, SystemTime::now).await;
        ("certificate manager", Ok(()))
    });
    Ok((own.until_shared(shared), slot_holder))
}

/// Adds a finding to others for as long as another Service holds the slot of external metrics.
pub(super) fn with_slot_finding(
    mut others: watch::Receiver<WriteFindings>,
    mut slot_holder: watch::Receiver<Option<String>>,
    tasks: &mut Tasks,
) -> watch::Receiver<WriteFindings> {
    let (findings_in, findings) = watch::channel(WriteFindings::default());
    tasks.spawn(async move {
        loop {
            let mut all = Arc::clone(&others.borrow_and_update());
            if let Some(holder) = &*slot_holder.borrow_and_update() {
                Arc::make_mut(&mut all).insert(find_lost_slot(holder));
            }
            findings_in.send_replace(all);
            tokio::select! {
                Ok(()) = others.changed() => {}
                Ok(()) = slot_holder.changed() => {}
                // Nobody reports anything any more.
                else => return ("slot finding", std::future::pending().await),
            }
        }
    });
    findings
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
