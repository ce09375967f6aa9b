//! TLS of the external metrics API: the server's certificate, which is replaced without anybody
//! noticing, and client certificates that are asked for but judged later.

mod peer;
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

pub(super) use crate::certificates::provider;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often the clock is looked at, where there are no files: it may be set.
const CLOCK_EVERY: Duration = Duration::from_secs(300);

/// The file beside the certificate in which the certificate of its authority is looked for, as in a
/// Secret that cert-manager writes.
const AUTHORITY_FILE: &str = "ca.crt";

/// What a TLS listener needs. Clones serve with the same certificate, whichever that is by then.
#[derive(Clone, Debug)]
pub struct ServerTls {
    live: RustlsConfig,
    origin: CertificateOrigin,
    served: Validity,
    ca: Arc<watch::Sender<Option<String>>>,
    shared: Option<SharedCertificates>,
}

/// The certificates that all replicas share, whenever there are others.
pub type SharedCertificates = watch::Receiver<Option<Arc<CertificateSet>>>;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
enum CertificateOrigin {
    Files {
        cert: PathBuf,
        key: PathBuf,
        /// What was in them when they were last served with.
        known: Fingerprint,
    },
    Own {
        authority: CertificateAuthority,
        names: Vec<String>,
    },
    /// What all replicas share; it is renewed by whoever keeps it.
    Shared { names: Vec<String> },
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read or holds something else.
    #[error("cannot read {what} from {}: {source}", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it is not there.
        source: PemError,
    },
    /// A certificate and a key that cannot be served with.
    #[error("cannot serve with certificate {} and key {}: {source}", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A certificate that nobody takes any more.
    #[error("the certificate in {} is over", path.display())]
    Over {
        /// Its file.
        path: PathBuf,
    },
    /// A file that holds no certificate.
    #[error("the certificate in {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// A name that no certificate can bear.
    #[error("cannot make a certificate for {names}: {source}")]
    Generate {
        /// The names asked for.
        names: String,
        /// Why.
        source: rcgen::Error,
    },
    /// What was just made cannot be read.
    #[error("cannot read a certificate that was just made: {0}")]
    Made(PemError),
    /// The TLS library refuses its own settings.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

impl ServerTls {
    /// Serves with the certificate (followed by its issuers) and key of two PEM files.
    ///
    /// # Errors
    /// A file that cannot be read, or a key that is not the certificate's.
    pub fn from_files(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        // Before they are read, so that a change meanwhile is seen as one later.
        let known = fingerprint(cert_file, key_file);
        let (config, served) = read(cert_file, key_file)?;
        let origin = CertificateOrigin::Files {
            cert: cert_file.to_owned(),
            key: key_file.to_owned(),
            known,
        };
        let ca = authority_beside(cert_file);
        Ok(Self::new(config, origin, served, ca))
    }

    /// Serves with a certificate for `names` (DNS names and IP addresses), made now and signed by
    /// an authority made now.
    ///
    /// # Errors
    /// A name that no certificate can bear.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let now = SystemTime::now();
        let authority = CertificateAuthority::generate(now).map_err(not_for(names))?;
        Self::signed_by(authority, names, now)
    }

    /// Serves with a certificate for `names`, made `now` and signed by this authority.
    ///
    /// # Errors
    /// A name that no certificate can bear, or an authority that cannot sign.
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
        tls.say();
        tls
    }

    /// Serves with the certificates that all replicas share from when [`keep_fresh`](Self::keep_fresh)
    /// learns of any.
    #[must_use]
    pub fn until_shared(mut self, mut shared: SharedCertificates) -> Self {
        // Those that are there already count, too.
        shared.mark_changed();
        self.shared = Some(shared);
        self
    }

    /// The certificates (PEM) of the authorities that a client should trust, the server's own among
    /// them; `None` where they are not known.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        self.ca.borrow().clone()
    }

    /// As [`ca_pem`](Self::ca_pem), and whenever that changes: for whoever has to tell clients.
    #[must_use]
    pub fn ca_pem_changes(&self) -> watch::Receiver<Option<String>> {
        self.ca.subscribe()
    }

    /// Replaces the certificate for ever: when its files change, when there are others that all replicas
    /// share, or before its time is over.
    /// Connections that are open stay so. A certificate that cannot be served with is not.
    pub async fn keep_fresh(mut self, clock: impl Fn() -> SystemTime + Send) {
        let mut refused = None;
        loop {
            let pause = match &self.origin {
                CertificateOrigin::Files { .. } => LOOK_EVERY,
                CertificateOrigin::Own { .. } | CertificateOrigin::Shared { .. } => CLOCK_EVERY,
            };
            let (renewed, ca) = tokio::select! {
                set = next(&mut self.shared) => {
                    let Some((chain, key, validity)) = set.served() else {
                        continue;
                    };
                    if let CertificateOrigin::Own { names, .. } = &self.origin {
                        let names = names.clone();
                        self.origin = CertificateOrigin::Shared { names };
                    }
                    let renewed = config(chain, key).map(|config| (config, validity));
                    (renewed, Some(set.bundle()))
                }
                () = tokio::time::sleep(pause) => match self.look(&mut refused, clock()) {
                    Some(looked) => looked,
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
                    self.say();
                }
                Err(error) => CertificateUnusable { reason: &error }.emit(),
            }
        }
    }

    /// What to serve with instead, if anything, and the authorities to trust from then on.
    #[allow(clippy::type_complexity, reason = "a result and what goes with it")]
    fn look(
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
                let read = read(cert, key).and_then(|(config, validity)| {
                    if validity.is_over(now) {
                        return Err(TlsError::Over { path: cert.clone() });
                    }
                    Ok((config, validity))
                });
                // Perhaps only one of them is there so far: they are read again when they change.
                match read {
                    Ok(_) => (*known, *refused) = (found, None),
                    Err(_) => *refused = Some(found),
                }
                Some((read, authority_beside(cert)))
            }
        }
    }

    fn say(&self) {
        let origin = match &self.origin {
            CertificateOrigin::Files { cert, .. } => cert.display().to_string(),
            CertificateOrigin::Own { names, .. } => format!("made for {}", names.join(", ")),
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

/// Waits for shared certificates that have not been seen yet; for ever where there are none.
async fn next(shared: &mut Option<SharedCertificates>) -> Arc<CertificateSet> {
    if let Some(shared) = shared {
        while shared.changed().await.is_ok() {
            if let Some(set) = shared.borrow_and_update().clone() {
                return set;
            }
        }
    }
    std::future::pending().await
}

/// Tells what files hold from what they held, without keeping a key in memory.
type Fingerprint = [u8; 32];

fn fingerprint(cert: &Path, key: &Path) -> Fingerprint {
    let mut digest = Sha256::new();
    for file in [cert, key] {
        // Small files, seldom: not worth a thread of their own.
        let content = std::fs::read(file).unwrap_or_default();
        digest.update(content.len().to_be_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

/// Certificate and key of two files, ready to serve with.
fn read(cert_file: &Path, key_file: &Path) -> Result<(ServerConfig, Validity), TlsError> {
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

fn authority_beside(cert_file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(cert_file.with_file_name(AUTHORITY_FILE)).ok()?;
    let is_one = CertificateDer::from_pem_slice(text.as_bytes()).is_ok();
    is_one.then_some(text)
}

fn not_for(names: &[String]) -> impl FnOnce(rcgen::Error) -> TlsError {
    let names = names.join(", ");
    |source| TlsError::Generate { names, source }
}

fn sign(
    authority: &CertificateAuthority,
    names: &[String],
    now: SystemTime,
) -> Result<(ServerConfig, Validity), TlsError> {
    let signed = authority.sign(names, now).map_err(not_for(names))?;
    let (leaf, key) = signed.parts().map_err(TlsError::Made)?;
    // What was just made can be read; were it not so, it would be due at once.
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
