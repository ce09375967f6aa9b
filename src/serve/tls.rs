//! TLS of the external metrics API: the server's certificate, and client certificates that are
//! asked for but judged later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

/// How long a certificate made at start lasts. It is made anew at every start.
const SELF_SIGNED_LASTS: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// How far back it begins, for callers whose clocks are late.
const SELF_SIGNED_BACKDATED: Duration = Duration::from_secs(3600);

/// What a TLS listener needs.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    ca_pem: Option<String>,
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
        let file = |what, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { what, path, source }
        };
        let chain = CertificateDer::pem_file_iter(cert_file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .and_then(|chain| {
                if chain.is_empty() {
                    Err(PemError::NoItemsFound)
                } else {
                    Ok(chain)
                }
            })
            .map_err(file("a certificate", cert_file))?;
        let key =
            PrivateKeyDer::from_pem_file(key_file).map_err(file("a private key", key_file))?;
        let unusable = |source| TlsError::Unusable {
            cert: cert_file.to_owned(),
            key: key_file.to_owned(),
            source,
        };
        Ok(Self {
            config: Arc::new(config(chain, key).map_err(|error| match error {
                TlsError::Setup(source) => unusable(source),
                other => other,
            })?),
            ca_pem: None,
        })
    }

    /// Serves with a certificate for `names` (DNS names and IP addresses), made now and signed by
    /// a CA whose key is thrown away.
    ///
    /// # Errors
    /// A name that no certificate can bear.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let (chain, key, ca_pem) = generate(names).map_err(|source| TlsError::Generate {
            names: names.join(", "),
            source,
        })?;
        tracing::info!(
            names = names.join(", "),
            "serving with a certificate made at start"
        );
        Ok(Self {
            config: Arc::new(config(chain, key)?),
            ca_pem: Some(ca_pem),
        })
    }

    /// The CA that signed a certificate made at start, in PEM, for a client's trust.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
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

type Generated = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

fn generate(names: &[String]) -> Result<Generated, rcgen::Error> {
    let now = SystemTime::now();
    let begins = now.checked_sub(SELF_SIGNED_BACKDATED).unwrap_or(now);
    let ends = now.checked_add(SELF_SIGNED_LASTS).unwrap_or(now);
    let params = |names: &[String], common_name: &str| {
        let mut params = CertificateParams::new(names)?;
        params.not_before = begins.into();
        params.not_after = ends.into();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        Ok::<_, rcgen::Error>(params)
    };
    let ca_key = KeyPair::generate()?;
    let mut ca = params(&[], "lagwise CA")?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let key = KeyPair::generate()?;
    let mut leaf = params(names, "lagwise")?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok((vec![certificate.der().clone()], key.into(), ca_pem))
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

/// Issuers of client certificates for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::serve) struct Issuer(rcgen::CertifiedIssuer<'static, KeyPair>);

    pub(in crate::serve) struct Identity {
        pub(in crate::serve) certificate: Vec<u8>,
        pub(in crate::serve) key: PrivateKeyDer<'static>,
    }

    impl Issuer {
        pub(in crate::serve) fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            Self(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
        }

        pub(in crate::serve) fn pem(&self) -> String {
            self.0.pem()
        }

        pub(in crate::serve) fn client(&self, name: &str) -> Identity {
            self.issue(name, None, rcgen::date_time_ymd(4000, 1, 1).into())
        }

        /// As Kubernetes reads it: the user, and one group.
        pub(in crate::serve) fn user(&self, name: &str, group: &str) -> Identity {
            self.issue(name, Some(group), rcgen::date_time_ymd(4000, 1, 1).into())
        }

        pub(in crate::serve) fn expired_client(&self, name: &str) -> Identity {
            self.issue(name, None, rcgen::date_time_ymd(2001, 1, 1).into())
        }

        fn issue(&self, name: &str, group: Option<&str>, ends: SystemTime) -> Identity {
            let mut params = CertificateParams::default();
            params.not_after = ends.into();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            if let Some(group) = group {
                params
                    .distinguished_name
                    .push(DnType::OrganizationName, group);
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            Identity {
                certificate: certificate.der().to_vec(),
                key: key.into(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn serves_from_files() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (_c, cert) = write("cert.pem", &made.cert.pem());
        let (_k, key) = write("key.pem", &made.signing_key.serialize_pem());
        let tls = ServerTls::from_files(&cert, &key).unwrap();
        assert_eq!(
            tls.config().alpn_protocols,
            [b"h2".to_vec(), b"http/1.1".to_vec()]
        );
        assert!(tls.ca_pem().is_none());
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let made = |_| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (one, other) = (made(1), made(2));
        let (_c, cert) = write("cert.pem", &one.cert.pem());
        let (_k, key) = write("key.pem", &one.signing_key.serialize_pem());
        let (_o, other_key) = write("other.pem", &other.signing_key.serialize_pem());
        let (_e, empty) = write("empty.pem", "");
        let missing = Path::new("/nowhere/tls.crt");
        let text =
            |cert: &Path, key: &Path| ServerTls::from_files(cert, key).unwrap_err().to_string();
        assert!(
            text(missing, &key).starts_with("cannot read a certificate from /nowhere/tls.crt: ")
        );
        assert!(
            text(&cert, missing).starts_with("cannot read a private key from /nowhere/tls.crt: ")
        );
        assert!(text(&empty, &key).contains("cannot read a certificate"));
        assert!(text(&cert, &cert).contains("cannot read a private key"));
        let mismatch = text(&cert, &other_key);
        assert!(
            mismatch.contains("cannot serve with certificate"),
            "{mismatch}"
        );
    }

    #[test]
    fn names_that_no_certificate_bears_are_shown() {
        let error = ServerTls::self_signed(&["snow☃man".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("snow☃man"), "{error}");
    }
}
