//! TLS of the external metrics API: the server's certificate, which is replaced without anybody
//! noticing, and client certificates that are asked for but judged later.

mod authority;
mod peer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

pub use authority::Authority;
use authority::Validity;

use crate::telemetry::api::{CertificateServed, CertificateUnusable};

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
    origin: Origin,
    served: Validity,
    ca: Arc<watch::Sender<Option<String>>>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
enum Origin {
    Files {
        cert: PathBuf,
        key: PathBuf,
        /// What was in them when they were last served with.
        known: Fingerprint,
    },
    Own {
        authority: Authority,
        names: Vec<String>,
    },
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
        let origin = Origin::Files {
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
        let authority = Authority::generate(now).map_err(not_for(names))?;
        Self::signed_by(authority, names, now)
    }

    /// Serves with a certificate for `names`, made `now` and signed by this authority.
    ///
    /// # Errors
    /// A name that no certificate can bear, or an authority that cannot sign.
    pub fn signed_by(
        authority: Authority,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let (config, served) = sign(&authority, names, now)?;
        let ca = Some(authority.certificate_pem().to_owned());
        let origin = Origin::Own {
            authority,
            names: names.to_owned(),
        };
        Ok(Self::new(config, origin, served, ca))
    }

    fn new(config: ServerConfig, origin: Origin, served: Validity, ca: Option<String>) -> Self {
        let tls = Self {
            live: RustlsConfig::from_config(Arc::new(config)),
            origin,
            served,
            ca: Arc::new(watch::channel(ca).0),
        };
        tls.say();
        tls
    }

    /// The certificate (PEM) of the authority behind the server's own, for a client's trust; `None`
    /// where it is not known.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        self.ca.borrow().clone()
    }

    /// As [`ca_pem`](Self::ca_pem), and whenever that changes: for whoever has to tell clients.
    #[must_use]
    pub fn ca_pem_changes(&self) -> watch::Receiver<Option<String>> {
        self.ca.subscribe()
    }

    /// Replaces the certificate for ever: when its files change, or before its time is over.
    /// Connections that are open stay so. A certificate that cannot be served with is not.
    pub async fn keep_fresh(mut self, clock: impl Fn() -> SystemTime + Send) {
        let mut refused = None;
        loop {
            tokio::time::sleep(match &self.origin {
                Origin::Files { .. } => LOOK_EVERY,
                Origin::Own { .. } => CLOCK_EVERY,
            })
            .await;
            let renewed = match &mut self.origin {
                Origin::Own { .. } if !self.served.is_due(clock()) => continue,
                Origin::Own { authority, names } => sign(authority, names, clock()),
                Origin::Files { cert, key, known } => {
                    let found = fingerprint(cert, key);
                    if found == *known || Some(found) == refused {
                        continue;
                    }
                    let read = read(cert, key).and_then(|(config, validity)| {
                        if validity.is_over(clock()) {
                            return Err(TlsError::Over { path: cert.clone() });
                        }
                        Ok((config, validity))
                    });
                    // Perhaps only one of them is there so far: they are read again when they change.
                    match read {
                        Ok(_) => (*known, refused) = (found, None),
                        Err(_) => refused = Some(found),
                    }
                    read
                }
            };
            match renewed {
                Ok((config, served)) => {
                    self.live.reload_from_config(Arc::new(config));
                    self.served = served;
                    if let Origin::Files { cert, .. } = &self.origin {
                        let ca = authority_beside(cert);
                        self.ca.send_if_modified(|known| {
                            let differs = *known != ca;
                            *known = ca;
                            differs
                        });
                    }
                    self.say();
                }
                Err(error) => CertificateUnusable { reason: &error }.emit(),
            }
        }
    }

    fn say(&self) {
        let origin = match &self.origin {
            Origin::Files { cert, .. } => cert.display().to_string(),
            Origin::Own { names, .. } => format!("made for {}", names.join(", ")),
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
    let validity = Validity::of(leaf).ok_or_else(|| TlsError::Unreadable {
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
    authority: &Authority,
    names: &[String],
    now: SystemTime,
) -> Result<(ServerConfig, Validity), TlsError> {
    let signed = authority.sign(names, now).map_err(not_for(names))?;
    let validity = signed.chain.first().and_then(|leaf| Validity::of(leaf));
    // What was just made can be read; were it not so, it would be due at once.
    let validity = validity.unwrap_or(Validity {
        begins: now,
        ends: now,
    });
    Ok((config(signed.chain, signed.key)?, validity))
}

/// The cryptography used, named so that no other that a dependency brings along is.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let clients = Arc::new(AnyClient(Arc::clone(&provider)));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Asks for a client certificate, takes any or none, and checks only that the client holds its
/// key. Whose it is gets judged per request, against every issuer separately: at TLS a client with
/// a certificate for something else could not even be told so.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "testing.rs"]
pub(super) mod testing;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
