//! Server TLS settings, independent of the certificate: modern versions, and client certificates
//! that are requested but verified later.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ResolvesServerCert;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DistinguishedName, ServerConfig};

use super::{TlsError, provider};
use crate::crypto::signatures_verified_by;

pub(super) fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let key = CertifiedKey::from_der(chain, key, &provider())?;
    let certificate = Arc::new(SingleCertAndKey::from(key));
    config_with(Arc::new(AnyClient::new()), certificate)
}

/// The settings, with another way to verify clients and another source of the server's certificate.
pub(super) fn config_with(
    clients: Arc<dyn ClientCertVerifier>,
    certificate: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Maximum size of a client's certificate chain. It stays in memory as long as the connection, and anybody may present
/// one: without this limit, as long as the TLS library takes, which is 64 KiB.
const MAX_CLIENT_CHAIN_BYTES: usize = 16 * 1024;

/// Maximum number of certificates behind the client's own. Each takes memory besides its bytes, of which there may be
/// one.
const MAX_INTERMEDIATES: usize = 8;

/// Requests a client certificate, accepts none or any of usual size, and only checks that the client holds its
/// key. Its issuer is verified per request against each authority separately: failing the handshake
/// would not even tell the client why.
#[derive(Debug)]
pub(super) struct AnyClient {
    pub(super) provider: Arc<CryptoProvider>,
}

impl AnyClient {
    pub(super) fn new() -> Self {
        Self {
            provider: provider(),
        }
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let lengths = intermediates.iter().map(|certificate| certificate.len());
        let bytes = lengths.fold(end_entity.len(), usize::saturating_add);
        match bytes <= MAX_CLIENT_CHAIN_BYTES && intermediates.len() <= MAX_INTERMEDIATES {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(rustls::Error::General(
                "the certificate chain of the client is too long".to_owned(),
            )),
        }
    }

    signatures_verified_by!(provider);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_chains_are_bounded() {
        let verifier = AnyClient::new();
        let certificate = |bytes: usize| CertificateDer::from(vec![0; bytes]);
        for (leaf, issuers, is_accepted) in [
            (2_000, vec![], true),
            (2_000, vec![3_000, 3_000], true),
            (MAX_CLIENT_CHAIN_BYTES, vec![], true),
            (MAX_CLIENT_CHAIN_BYTES, vec![1], false),
            (2_000, vec![1_000; MAX_INTERMEDIATES], true),
            (2_000, vec![1; MAX_INTERMEDIATES + 1], false),
            (60_000, vec![], false),
        ] {
            let chain: Vec<_> = issuers.iter().copied().map(certificate).collect();
            let now = UnixTime::now();
            let verified = verifier.verify_client_cert(&certificate(leaf), &chain, now);
            assert_eq!(verified.is_ok(), is_accepted, "{leaf} {issuers:?}");
        }
    }
}
