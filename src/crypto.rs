//! The rustls crypto provider and the signature checks that lagwise's own TLS listeners and the wire client share.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The crypto provider, chosen explicitly because dependencies may enable others too.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The methods of a certificate verifier that check signatures, by the algorithms of the crypto provider in this field
/// of `self`. They are the same for verifiers of servers and of clients.
macro_rules! signatures_verified_by {
    ($($provider:tt).+) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.$($provider).+.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.$($provider).+.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            let algorithms = &self.$($provider).+.signature_verification_algorithms;
            algorithms.supported_schemes()
        }
    };
}
pub(crate) use signatures_verified_by;
