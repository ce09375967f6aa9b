//! TLS of the external metrics API: the server certificate, which is replaced without interruption.
//! Client certificates are requested here but verified later, see [`auth`](super::auth).

mod peer;
mod required_clients;
mod setup;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use setup::config;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::certificates::rotation::Validity;
use crate::certificates::{CertificateAuthority, CertificateSet, validity_of};
use crate::telemetry::api::{CertificateServed, CertificateUnusable};

pub(super) use crate::crypto::provider;

/// How often certificate files are checked for changes.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How often expiry is checked if there are no files; not computed once, because the clock may be
/// set.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// File name of the CA certificate next to the server certificate, as in a Secret of cert-manager.
const AUTHORITY_FILE: &str = "ca.crt";

/// Server side TLS. Clones share the current certificate.
#[derive(Clone, Debug)]
pub struct ServerTls {
    live: RustlsConfig,
    origin: CertificateOrigin,
    served: Validity,
    ca: Arc<watch::Sender<Option<String>>>,
    shared: Option<SharedCertificates>,
}

/// Certificates shared by all replicas, as they change.
pub type SharedCertificates = watch::Receiver<Option<Arc<CertificateSet>>>;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
enum CertificateOrigin {
    Files {
        cert: PathBuf,
        key: PathBuf,
        /// Content when last loaded.
        known: Fingerprint,
    },
    Own {
        authority: CertificateAuthority,
        names: Vec<String>,
    },
    /// Shared by all replicas; renewed by the certificate manager.
    Shared { names: Vec<String> },
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read or holds something else.
    #[error("cannot read {what} from {}: {source}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: PemError,
    },
    /// Certificate and key do not fit or are not supported.
    #[error("cannot use certificate {} with key {}: {source}", cert.display(), key.display())]
    Unusable {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    /// An expired certificate.
    #[error("the certificate in {} has expired", path.display())]
    Expired { path: PathBuf },
    /// A file without a valid certificate.
    #[error("the certificate in {} is invalid", path.display())]
    Unreadable { path: PathBuf },
    /// A name that is not valid in a certificate.
    #[error("cannot generate a certificate for {names}: {source}")]
    Generate { names: String, source: rcgen::Error },
    /// A generated certificate cannot be parsed.
    #[error("cannot parse a generated certificate: {0}")]
    Generated(PemError),
    /// rustls rejects the configuration.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

impl ServerTls {
    /// Uses the certificate chain and key of two PEM files.
    ///
    /// # Errors
    /// A file that cannot be read, or a key of another certificate.
    pub fn from_files(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        // Taken before reading, so that a change in between is noticed later.
        let known = fingerprint(cert_file, key_file);
        let (config, served) = load_files(cert_file, key_file)?;
        let origin = CertificateOrigin::Files {
            cert: cert_file.to_owned(),
            key: key_file.to_owned(),
            known,
        };
        let ca = ca_file_next_to(cert_file);
        Ok(Self::new(config, origin, served, ca))
    }

    /// Generates a certificate for `names` (DNS names and IP addresses), signed by a new authority.
    ///
    /// # Errors
    /// An invalid name.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let now = SystemTime::now();
        let authority = CertificateAuthority::generate(now).map_err(generate_error(names))?;
        Self::signed_by(authority, names, now)
    }

    /// Generates a certificate for `names` at `now`, signed by this authority.
    ///
    /// # Errors
    /// An invalid name, or an authority that cannot sign.
    pub fn signed_by(
        authority: CertificateAuthority,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let (config, served) = sign(&authority, names, now)?;
        let ca = Some(authority.certificate_pem().to_owned());
        let origin = CertificateOrigin::Own {
            authority,
            names: names.to_owned(),
        };
        Ok(Self::new(config, origin, served, ca))
    }

    fn new(
        config: ServerConfig,
        origin: CertificateOrigin,
        served: Validity,
        ca: Option<String>,
    ) -> Self {
        let tls = Self {
            live: RustlsConfig::from_config(Arc::new(config)),
            origin,
            served,
            ca: Arc::new(watch::channel(ca).0),
            shared: None,
        };
        tls.report_served();
        tls
    }

    /// Switches to the shared certificates once [`keep_fresh`](Self::keep_fresh) receives some.
    #[must_use]
    pub fn until_shared(mut self, mut shared: SharedCertificates) -> Self {
        // Also use certificates that were published before.
        shared.mark_changed();
        self.shared = Some(shared);
        self
    }

    /// CA certificates (PEM) that clients should trust, including that of the server certificate;
    /// `None` if unknown.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        self.ca.borrow().clone()
    }

    /// Changes of [`ca_pem`](Self::ca_pem), for publishing to clients.
    #[must_use]
    pub fn ca_pem_changes(&self) -> watch::Receiver<Option<String>> {
        self.ca.subscribe()
    }

    /// Replaces the certificate whenever its files change, shared certificates change, or it is
    /// about to expire. Runs forever. Open connections are kept. A certificate that cannot be used
    /// is not switched to.
    pub async fn keep_fresh(mut self, clock: impl Fn() -> SystemTime + Send) {
        let mut refused = None;
        loop {
            let pause = match &self.origin {
                CertificateOrigin::Files { .. } => FILE_CHECK_INTERVAL,
                CertificateOrigin::Own { .. } | CertificateOrigin::Shared { .. } => {
                    CLOCK_CHECK_INTERVAL
                }
            };
            let (renewed, ca) = tokio::select! {
                set = next_shared(&mut self.shared) => {
                    let Some((chain, key, validity)) = set.server_certificate() else {
                        continue;
                    };
                    if let CertificateOrigin::Own { names, .. } = &self.origin {
                        let names = names.clone();
                        self.origin = CertificateOrigin::Shared { names };
                    }
                    let renewed = config(chain, key).map(|config| (config, validity));
                    (renewed, Some(set.bundle()))
                }
                () = tokio::time::sleep(pause) => match self.renew_if_due(&mut refused, clock()) {
                    Some(checked) => checked,
                    None => continue,
                },
            };
            match renewed {
                Ok((config, served)) => {
                    self.live.reload_from_config(Arc::new(config));
                    self.served = served;
                    self.ca.send_if_modified(|known| {
                        let differs = *known != ca;
                        *known = ca;
                        differs
                    });
                    self.report_served();
                }
                Err(error) => CertificateUnusable { reason: &error }.emit(),
            }
        }
    }

    /// The next certificate, if one is due, and the CA certificates to trust with it.
    #[allow(clippy::type_complexity, reason = "a result and what goes with it")]
    fn renew_if_due(
        &mut self,
        refused: &mut Option<Fingerprint>,
        now: SystemTime,
    ) -> Option<(Result<(ServerConfig, Validity), TlsError>, Option<String>)> {
        match &mut self.origin {
            CertificateOrigin::Shared { .. } => None,
            CertificateOrigin::Own { .. } if !self.served.is_due(now) => None,
            CertificateOrigin::Own { authority, names } => {
                let ca = authority.certificate_pem().to_owned();
                Some((sign(authority, names, now), Some(ca)))
            }
            CertificateOrigin::Files { cert, key, known } => {
                let found = fingerprint(cert, key);
                if found == *known || Some(found) == *refused {
                    return None;
                }
                let read = load_files(cert, key).and_then(|(config, validity)| {
                    if validity.is_expired(now) {
                        return Err(TlsError::Expired { path: cert.clone() });
                    }
                    Ok((config, validity))
                });
                // Perhaps only one of the two files has been written; try again when they change.
                match read {
                    Ok(_) => (*known, *refused) = (found, None),
                    Err(_) => *refused = Some(found),
                }
                Some((read, ca_file_next_to(cert)))
            }
        }
    }

    fn report_served(&self) {
        let origin = match &self.origin {
            CertificateOrigin::Files { cert, .. } => cert.display().to_string(),
            CertificateOrigin::Own { names, .. } => format!("generated for {}", names.join(", ")),
            CertificateOrigin::Shared { names } => {
                format!("shared by all replicas, for {}", names.join(", "))
            }
        };
        CertificateServed {
            origin: &origin,
            ends: self.served.ends_at(),
        }
        .emit();
    }

    pub(super) fn config(&self) -> RustlsConfig {
        self.live.clone()
    }
}

/// Waits for new shared certificates; forever if there are none.
async fn next_shared(shared: &mut Option<SharedCertificates>) -> Arc<CertificateSet> {
    if let Some(shared) = shared {
        while shared.changed().await.is_ok() {
            if let Some(set) = shared.borrow_and_update().clone() {
                return set;
            }
        }
    }
    std::future::pending().await
}

/// Digest of the files, to detect changes without keeping a key in memory.
type Fingerprint = [u8; 32];

fn fingerprint(cert: &Path, key: &Path) -> Fingerprint {
    let mut digest = Sha256::new();
    for file in [cert, key] {
        // Small files, read rarely: not worth a blocking task.
        let content = std::fs::read(file).unwrap_or_default();
        digest.update(content.len().to_be_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

/// Loads certificate and key from files.
fn load_files(cert_file: &Path, key_file: &Path) -> Result<(ServerConfig, Validity), TlsError> {
    let file = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { what, path, source }
    };
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(file("a certificate", cert_file))?;
    let Some(leaf) = chain.first() else {
        return Err(file("a certificate", cert_file)(PemError::NoItemsFound));
    };
    let validity = validity_of(leaf).ok_or_else(|| TlsError::Unreadable {
        path: cert_file.to_owned(),
    })?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(file("a private key", key_file))?;
    let config = config(chain, key).map_err(|error| match error {
        TlsError::Setup(source) => TlsError::Unusable {
            cert: cert_file.to_owned(),
            key: key_file.to_owned(),
            source,
        },
        other => other,
    })?;
    Ok((config, validity))
}

fn ca_file_next_to(cert_file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(cert_file.with_file_name(AUTHORITY_FILE)).ok()?;
    let is_one = CertificateDer::from_pem_slice(text.as_bytes()).is_ok();
    is_one.then_some(text)
}

fn generate_error(names: &[String]) -> impl FnOnce(rcgen::Error) -> TlsError {
    let names = names.join(", ");
    |source| TlsError::Generate { names, source }
}

fn sign(
    authority: &CertificateAuthority,
    names: &[String],
    now: SystemTime,
) -> Result<(ServerConfig, Validity), TlsError> {
    let signed = authority.sign(names, now).map_err(generate_error(names))?;
    let (leaf, key) = signed.parts().map_err(TlsError::Generated)?;
    // A generated certificate can be parsed; if not, it counts as due for renewal at once.
    let validity = validity_of(&leaf).unwrap_or(Validity {
        begins: now,
        ends: now,
    });
    Ok((config(vec![leaf], key)?, validity))
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests;
