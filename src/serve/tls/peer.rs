//! TLS connections to other replicas.
//!
//! Replicas are addressed by IP, which no certificate contains. So a peer's certificate is accepted
//! if it could be this daemon's own: it is identical, because all replicas mount one Secret; or it
//! is valid for one of the names in this daemon's certificate and signed by the same authority. In
//! both cases the peer must hold the key.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateOrigin, ServerTls, TlsError, provider};
use crate::crypto::signatures_verified_by;

/// A client certificate chain and its key.
pub(in crate::serve) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl ServerTls {
    /// Client configuration for HTTP/2 connections to other replicas.
    ///
    /// # Errors
    /// The identity's key does not fit its certificate.
    pub(in crate::serve) fn peer_client_config(
        &self,
        identity: Option<Identity>,
    ) -> Result<ClientConfig, TlsError> {
        let provider = provider();
        let peer = self.peer();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(peer));
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn peer(&self) -> PeerVerifier {
        PeerVerifier {
            provider: provider(),
            own: match &self.origin {
                CertificateOrigin::Files { cert, .. } => OwnIdentity::File(cert.clone()),
                CertificateOrigin::Own { names, .. } | CertificateOrigin::Shared { names } => {
                    OwnIdentity::Names(names.clone())
                }
            },
            ca_pem: self.ca_pem_changes(),
        }
    }
}

/// This daemon's own certificate.
#[derive(Clone, Debug)]
enum OwnIdentity {
    /// Loaded from this file.
    File(PathBuf),
    /// Generated for these names.
    Names(Vec<String>),
}

impl OwnIdentity {
    /// The certificate, if replicas share it, and its names. Read at every handshake, because the
    /// file may have changed; one handshake serves many requests.
    fn load(&self) -> (Option<CertificateDer<'static>>, Vec<ServerName<'static>>) {
        match self {
            OwnIdentity::File(cert) => {
                let leaf = CertificateDer::from_pem_file(cert).ok();
                let names = leaf.as_ref().map(names_of).unwrap_or_default();
                (leaf, names)
            }
            OwnIdentity::Names(names) => (
                None,
                names
                    .iter()
                    .filter_map(|name| installation_name(name))
                    .collect(),
            ),
        }
    }
}

/// Verifies a replica's certificate against the certificate this daemon uses at that time.
#[derive(Debug)]
struct PeerVerifier {
    provider: Arc<CryptoProvider>,
    own: OwnIdentity,
    ca_pem: watch::Receiver<Option<String>>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let (own, names) = self.own.load();
        if own.is_some_and(|own| own == *end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let pem = self.ca_pem.borrow().clone().ok_or(unknown.clone())?;
        let mut roots = RootCertStore::empty();
        let authorities = CertificateDer::pem_slice_iter(pem.as_bytes());
        roots.add_parsable_certificates(authorities.filter_map(Result::ok));
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let verify = |name: &ServerName<'_>| {
            verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let mut refused = unknown;
        for name in names {
            match verify(&name) {
                Ok(verified) => return Ok(verified),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    signatures_verified_by!(provider);
}

/// A DNS name that identifies the installation; IP addresses and `localhost` do not.
fn installation_name(name: &str) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(name.to_owned()).ok()?;
    let is_local = |name: &str| name.eq_ignore_ascii_case("localhost");
    match &name {
        ServerName::DnsName(dns) if !is_local(dns.as_ref()) => Some(name),
        _ => None,
    }
}

/// The DNS names of a certificate.
fn names_of(certificate: &CertificateDer<'static>) -> Vec<ServerName<'static>> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let named = names.value.general_names.iter();
    named
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => installation_name(name),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tempfile::TempDir;

    use super::*;

    struct PeerAuthority(Issuer<'static, KeyPair>, String);

    impl PeerAuthority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self(Issuer::new(params, key), pem)
        }

        /// A folder with a certificate for these names and its key, with or without the CA certificate.
        fn issue(&self, names: &[&str], with_ca: bool) -> TempDir {
            let folder = tempfile::tempdir().unwrap();
            let key = KeyPair::generate().unwrap();
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let params = CertificateParams::new(names).unwrap();
            let signed = params.signed_by(&key, &self.0).unwrap();
            let write =
                |name, text: String| std::fs::write(folder.path().join(name), text).unwrap();
            write("tls.crt", signed.pem());
            write("tls.key", key.serialize_pem());
            if with_ca {
                write("ca.crt", self.1.clone());
            }
            folder
        }
    }

    fn served(folder: &TempDir) -> ServerTls {
        let file = |name| folder.path().join(name);
        ServerTls::from_files(&file("tls.crt"), &file("tls.key")).unwrap()
    }

    fn verify_peer(own: &ServerTls, peer: &TempDir) -> Result<(), Error> {
        let leaf = CertificateDer::from_pem_file(peer.path().join("tls.crt")).unwrap();
        let by_address = ServerName::try_from("10.1.2.3").unwrap();
        let now = UnixTime::now();
        let verified = own
            .peer()
            .verify_server_cert(&leaf, &[], &by_address, &[], now);
        verified.map(drop)
    }

    #[test]
    fn accepts_peer_with_same_certificate_or_same_authority_and_name() {
        let (own_ca, other_ca) = (PeerAuthority::new(), PeerAuthority::new());
        let names = ["lagwise.shop.svc", "localhost", "127.0.0.1"];
        let folder = own_ca.issue(&names, true);
        let own = served(&folder);
        assert_eq!(verify_peer(&own, &folder), Ok(()));
        assert_eq!(verify_peer(&own, &own_ca.issue(&names[..1], false)), Ok(()));
        for (authority, names) in [
            (&own_ca, ["other.shop.svc", "localhost"]),
            (&other_ca, ["lagwise.shop.svc", "localhost"]),
        ] {
            let refused = verify_peer(&own, &authority.issue(&names, false));
            assert!(
                matches!(refused, Err(Error::InvalidCertificate(_))),
                "{refused:?}"
            );
        }
        // Without the CA certificate only the identical certificate is accepted.
        let folder = own_ca.issue(&names, false);
        let own = served(&folder);
        assert_eq!(verify_peer(&own, &folder), Ok(()));
        assert!(verify_peer(&own, &own_ca.issue(&names, false)).is_err());
        // A generated certificate is signed by another authority.
        let made = ServerTls::self_signed(&names.map(str::to_owned)).unwrap();
        assert!(verify_peer(&made, &folder).is_err());
    }
}
