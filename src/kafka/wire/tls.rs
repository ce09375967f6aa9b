//! TLS with rustls, configured by librdkafka's `ssl.*` properties. Files are read once;
//! `credential_reload` reads them again when they change.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

use super::options::PropertyReader;
use crate::crypto::{provider, signatures_verified_by};
use crate::kafka::SettingError;
use crate::model::units::file_path::ShownPath;

/// TLS configuration for connections to brokers.
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    /// Whether brokers are verified against the system's root certificates.
    pub(super) system_roots: bool,
    /// Whether the issuer of a broker's certificate is verified.
    pub(super) is_verified: bool,
}

/// The `ssl.*` properties, parsed. Holds a secret, hence no `Debug`.
pub(super) struct TlsOptions {
    /// Certificate authorities that brokers are verified against; the system's if absent.
    authorities: Option<Pem>,
    /// Client certificate and key.
    identity: Option<(Pem, Pem)>,
    verification: VerificationLevel,
}

/// A PEM property and its source.
struct Pem {
    property: &'static str,
    source: PemSource,
}

enum PemSource {
    File(String),
    Inline(String),
}

/// How much of a broker's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VerificationLevel {
    /// Issuer and host name.
    Full,
    /// Issuer only.
    ChainOnly,
    None,
}

impl Pem {
    fn read(
        reader: &PropertyReader<'_>,
        location: &'static str,
        inline: &'static str,
    ) -> Option<Self> {
        let (property, source) = match (reader.text(inline), reader.text(location)) {
            (Some(text), _) => (inline, PemSource::Inline(text.to_owned())),
            (None, Some(path)) => (location, PemSource::File(path.to_owned())),
            (None, None) => return None,
        };
        Some(Self { property, source })
    }

    fn text(&self) -> Result<Vec<u8>, SettingError> {
        match &self.source {
            PemSource::Inline(text) => Ok(text.clone().into_bytes()),
            PemSource::File(path) => std::fs::read(Path::new(path))
                .map_err(|error| self.error(format!("cannot read {}: {error}", ShownPath(path)))),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, SettingError> {
        let text = self.text()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => Err(self.error("contains no PEM certificate")),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, SettingError> {
        let text = self.text()?;
        // The parser's error might show key material.
        PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| self.error("contains no unencrypted PEM private key"))
    }

    fn error(&self, problem: impl Into<String>) -> SettingError {
        SettingError::property(self.property, problem)
    }
}

impl TlsOptions {
    pub(super) fn read(reader: &PropertyReader<'_>) -> Result<Self, SettingError> {
        let certificate = Pem::read(reader, "ssl.certificate.location", "ssl.certificate.pem");
        let key = Pem::read(reader, "ssl.key.location", "ssl.key.pem");
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(SettingError::property(
                    "ssl.key.location",
                    "required with ssl.certificate.location",
                ));
            }
            (None, Some(_)) => {
                return Err(SettingError::property(
                    "ssl.certificate.location",
                    "required with ssl.key.location",
                ));
            }
        };
        let verification = match reader
            .text("ssl.endpoint.identification.algorithm")
            .unwrap_or("https")
        {
            _ if !reader.bool("enable.ssl.certificate.verification", true)? => {
                VerificationLevel::None
            }
            "https" => VerificationLevel::Full,
            "none" | "" => VerificationLevel::ChainOnly,
            _ => {
                return Err(SettingError::property(
                    "ssl.endpoint.identification.algorithm",
                    "must be https or none",
                ));
            }
        };
        Ok(Self {
            // `probe` is librdkafka's name for the system's roots.
            authorities: Pem::read(reader, "ssl.ca.location", "ssl.ca.pem")
                .filter(|pem| !matches!(&pem.source, PemSource::File(path) if path == "probe")),
            identity,
            verification,
        })
    }

    /// Reads the files. The error names the property.
    pub(super) fn load(&self) -> Result<Tls, SettingError> {
        Ok(Tls {
            config: Arc::new(self.config()?),
            system_roots: self.authorities.is_none()
                && self.verification != VerificationLevel::None,
            is_verified: self.verification != VerificationLevel::None,
        })
    }

    fn config(&self) -> Result<ClientConfig, SettingError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let verified = if self.verification == VerificationLevel::None {
            let verifier = Arc::new(RelaxedVerifier {
                provider,
                inner: None,
            });
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        } else {
            let roots = Arc::new(self.roots()?);
            let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| SettingError::property("ssl.ca.location", error.to_string()))?;
            if self.verification == VerificationLevel::Full {
                builder.with_webpki_verifier(inner)
            } else {
                let inner = Some(inner);
                let verifier = Arc::new(RelaxedVerifier { provider, inner });
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
            }
        };
        match &self.identity {
            None => Ok(verified.with_no_client_auth()),
            Some((certificate, key)) => verified
                .with_client_auth_cert(certificate.certificates()?, key.key()?)
                .map_err(|error| certificate.error(error.to_string())),
        }
    }

    fn roots(&self) -> Result<RootCertStore, SettingError> {
        let mut roots = RootCertStore::empty();
        let Some(authorities) = &self.authorities else {
            // Individual system roots may be unreadable; only having none is an error.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(SettingError::property(
                    "ssl.ca.location",
                    "not set, and the system has no root certificates",
                ));
            }
            return Ok(roots);
        };
        for certificate in authorities.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| authorities.error(error.to_string()))?;
        }
        Ok(roots)
    }
}

/// Explains a TLS error and says which property to set, where its cause is known.
pub(super) fn explain(error: &Error) -> String {
    let advice = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "set ssl.ca.location to the certificate of the CA that signed the broker's certificate"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "connect by a name in the certificate, or set ssl.endpoint.identification.algorithm: none \
             to accept any name"
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => {
            "the broker rejects the client certificate, or requires one: check ssl.certificate.location \
             and ssl.key.location"
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the broker supports neither TLS 1.2 nor TLS 1.3"
        }
        // webpki's error for most self-signed certificates, also if the certificate is in ssl.ca.location.
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string() == "CaUsedAsEndEntity" =>
        {
            return "the broker's certificate is that of a CA, as a self-signed one mostly is; give the broker a \
                    certificate without CA:TRUE, or set client: librdkafka and ssl.ca.location"
                .to_owned();
        }
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

/// A verifier that skips checks which the properties turn off.
#[derive(Debug)]
struct RelaxedVerifier {
    provider: Arc<CryptoProvider>,
    /// Verifies the issuer; `None` if nothing is verified.
    inner: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for RelaxedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // rustls checks the name last, so everything else was valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    signatures_verified_by!(provider);
}

#[cfg(test)]
mod tests {
    use rustls::OtherError;

    use super::*;

    #[test]
    fn errors_of_certificates_are_explained() {
        let other = |text: &str| {
            let error = std::io::Error::other(text.to_owned());
            CertificateError::Other(OtherError(Arc::new(error)))
        };
        for (error, expected) in [
            (other("CaUsedAsEndEntity"), "is that of a CA"),
            (other("something"), "something"),
            (CertificateError::UnknownIssuer, "set ssl.ca.location"),
            (CertificateError::NotValidForName, "connect by a name"),
        ] {
            let text = explain(&Error::InvalidCertificate(error));
            assert!(text.contains(expected), "{text}");
        }
    }
}
