//! Listeners that require a client certificate of their authorities.

use std::fmt;
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, Error, ServerConfig};

use super::setup::{AnyClient, config_with};
use super::{ServerTls, TlsError};
use crate::crypto::signatures_verified_by;

/// Verifies certificate chains against the authorities of this moment; `None` while there are none.
pub(in crate::serve) type ClientAuthorities =
    Arc<dyn Fn() -> Option<Arc<dyn ClientCertVerifier>> + Send + Sync>;

impl ServerTls {
    /// The same certificate, for a listener whose clients must present a certificate of `authorities`. It follows
    /// `self`, which alone has to be [kept fresh](Self::keep_fresh).
    ///
    /// # Errors
    /// rustls rejects the configuration.
    pub(in crate::serve) fn requiring_clients(
        &self,
        authorities: ClientAuthorities,
    ) -> Result<Self, TlsError> {
        let verifier = RequiredClient {
            any: AnyClient::new(),
            authorities,
        };
        let certificate = Arc::new(LiveCertificate(self.config()));
        let config = config_with(Arc::new(verifier), certificate)?;
        Ok(Self {
            live: RustlsConfig::from_config(Arc::new(config)),
            ..self.clone()
        })
    }
}

/// The certificate that another configuration has at the moment of a handshake.
#[derive(Debug)]
struct LiveCertificate(RustlsConfig);

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let config: Arc<ServerConfig> = self.0.get_inner();
        config.cert_resolver.resolve(hello)
    }
}

/// Fails the handshake of clients without a certificate of the authorities, so that they get no HTTP/2 connection, on
/// which they could open as many streams as KEDA.
struct RequiredClient {
    any: AnyClient,
    authorities: ClientAuthorities,
}

impl fmt::Debug for RequiredClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequiredClient").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for RequiredClient {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.any
            .verify_client_cert(end_entity, intermediates, now)?;
        let Some(authorities) = (self.authorities)() else {
            return Err(Error::General(
                "there is no authority of client certificates".to_owned(),
            ));
        };
        authorities.verify_client_cert(end_entity, intermediates, now)
    }

    signatures_verified_by!(any.provider);
}
