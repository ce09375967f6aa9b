//! Who may call the external scaler: those with a client certificate of one authority. KEDA says of which namespace a
//! ScaledObject is, so that every authorized caller can read the lag of every namespace.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;

use crate::authentication::access::{Action, Caller, ClusterTrust};
use crate::authentication::{Authenticator, ReviewError};
use crate::serve::auth::{RequestAuth, verifier};
use crate::serve::tls::{ServerTls, TlsError};
use crate::telemetry::api::ClientAuthoritiesUnusable;
use crate::telemetry::failure_log::FailureLog;

pub(super) const UNAUTHENTICATED: &str = "present a client certificate of a CA in server.external_scaler.client_ca_file of lagwise: give the trigger \
     a ClusterTriggerAuthentication with the parameters tlsClientCert, tlsClientKey and caCert";

/// How often the file is checked for changes.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The authorities of the client certificates, from a file that may change.
#[derive(Debug)]
pub struct ClientCa {
    file: PathBuf,
    trust: watch::Sender<Option<ClusterTrust>>,
}

/// A file without authorities.
#[derive(Debug, thiserror::Error)]
#[error("cannot read certificates from {} (server.external_scaler.client_ca_file): {problem}", file.display())]
pub struct ClientCaError {
    file: PathBuf,
    problem: String,
}

impl ClientCa {
    /// Reads the file. Callers are authenticated by what is returned with it.
    ///
    /// # Errors
    /// A file that cannot be read, or without a certificate.
    pub fn read(file: PathBuf) -> Result<(Self, RequestAuth), ClientCaError> {
        let trust = match read(&file) {
            Ok(trust) => trust,
            Err(problem) => return Err(ClientCaError { file, problem }),
        };
        let (sender, receiver) = watch::channel(Some(trust));
        let auth = RequestAuth::Kubernetes {
            trust: receiver,
            reviewer: Arc::new(NoTokens),
        };
        let trust = sender;
        Ok((Self { file, trust }, auth))
    }

    /// TLS with the certificate of `tls` that fails the handshake of everybody without a client certificate of the
    /// authorities.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn require(&self, tls: &ServerTls) -> Result<ServerTls, TlsError> {
        let trust = self.trust.subscribe();
        tls.requiring_clients(Arc::new(move || {
            let trust = trust.borrow();
            verifier(trust.as_ref()?.client_ca_pem.as_deref()?)
        }))
    }

    /// Reads the file again whenever it changes. Runs forever. While it holds no certificate, the former ones count.
    pub async fn keep_fresh(self) {
        let mut failures = FailureLog::default();
        loop {
            tokio::time::sleep(FILE_CHECK_INTERVAL).await;
            match read(&self.file) {
                Ok(found) => {
                    failures.record_success();
                    self.trust.send_if_modified(|known| {
                        let found = Some(found);
                        let is_other = *known != found;
                        *known = found;
                        is_other
                    });
                }
                Err(problem) => {
                    if let Some(reason) = failures.record_failure(problem) {
                        let file = &self.file;
                        ClientAuthoritiesUnusable { file, reason }.emit();
                    }
                }
            }
        }
    }
}

fn read(file: &PathBuf) -> Result<ClusterTrust, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let certificate = CertificateDer::from_pem_slice(text.as_bytes());
    certificate.map_err(|error| error.to_string())?;
    Ok(ClusterTrust {
        front_proxy: None,
        client_ca_pem: Some(text),
    })
}

/// Accepts no bearer token.
#[derive(Debug)]
struct NoTokens;

impl Authenticator for NoTokens {
    fn authenticate(&self, _: String) -> BoxFuture<'static, Result<Option<Caller>, ReviewError>> {
        ready(Ok(None)).boxed()
    }

    fn authorize(&self, _: Caller, _: Action) -> BoxFuture<'static, Result<bool, ReviewError>> {
        ready(Ok(false)).boxed()
    }

    fn self_subject(&self) -> BoxFuture<'static, Result<String, ReviewError>> {
        ready(Err(ReviewError::NoAnswer)).boxed()
    }
}
