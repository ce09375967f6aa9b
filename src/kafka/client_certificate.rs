//! lagwise's own certificate for Kafka clusters, and when certificates expire.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::diagnostics::preflight::kafka::ClientCertificate;

/// The client certificate that the properties name, for either client; `None` without TLS or a certificate in PEM.
pub(super) fn client_certificate(
    properties: &BTreeMap<String, String>,
) -> Option<ClientCertificate> {
    let get = |name: &str| properties.get(name).filter(|value| !value.is_empty());
    let protocol = get("security.protocol")?.to_ascii_uppercase();
    if !protocol.ends_with("SSL") {
        return None;
    }
    let text = match get("ssl.certificate.pem") {
        Some(text) => text.clone().into_bytes(),
        // The client itself reports a file that cannot be read.
        None => std::fs::read(get("ssl.certificate.location")?).ok()?,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.ok()?;
    Some(ClientCertificate {
        name: distinguished_name(chain.first()?),
        expires: first_expiry(&chain)?,
    })
}

/// When the first of these certificates ends; `None` if none of them can be read.
pub(super) fn first_expiry(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let ends = chain.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let seconds = certificate.validity().not_after.timestamp();
        let seconds = u64::try_from(seconds).unwrap_or(0);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    });
    ends.min()
}

/// The subject as Kafka's principal has it (RFC 2253); `None` if it has parts that are written in other ways.
fn distinguished_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let parts = certificate.subject().iter_attributes().map(|attribute| {
        let name = match attribute.attr_type().to_id_string().as_str() {
            "2.5.4.3" => "CN",
            "2.5.4.6" => "C",
            "2.5.4.7" => "L",
            "2.5.4.8" => "ST",
            "2.5.4.10" => "O",
            "2.5.4.11" => "OU",
            _ => return None,
        };
        let value = attribute.as_str().ok()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ');
        let is_plain = value.chars().all(is_plain) && value.trim() == value && !value.is_empty();
        is_plain.then(|| format!("{name}={value}"))
    });
    let mut parts: Vec<String> = parts.collect::<Option<_>>()?;
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate that ends in this year, in PEM.
    fn pem(year: i32, names: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 1, 1);
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn found(properties: &[(&str, &str)]) -> Option<ClientCertificate> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        client_certificate(&properties.iter().map(owned).collect())
    }

    #[test]
    fn the_first_end_of_the_chain_counts() {
        let lagwise = [
            (DnType::OrganizationName, "Shop"),
            (DnType::CommonName, "lagwise"),
        ];
        let chain = pem(2031, &lagwise) + &pem(2030, &[(DnType::CommonName, "ca")]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tls.crt");
        std::fs::write(&file, &chain).unwrap();
        let file = file.to_string_lossy();
        // 2030-01-01.
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        for property in [
            ("ssl.certificate.pem", &*chain),
            ("ssl.certificate.location", &*file),
        ] {
            for protocol in ["SSL", "sasl_ssl"] {
                let found = found(&[("security.protocol", protocol), property]).unwrap();
                assert_eq!(found.expires, expires);
                assert_eq!(found.name.as_deref(), Some("CN=lagwise,O=Shop"));
            }
        }
    }

    #[test]
    fn without_a_certificate_in_pem_none_is_found() {
        let tls = ("security.protocol", "SSL");
        let odd = pem(2030, &[(DnType::CommonName, "a,b")]);
        assert_eq!(
            found(&[tls, ("ssl.certificate.pem", &odd)]).unwrap().name,
            None
        );
        for properties in [
            &[tls][..],
            &[("ssl.certificate.pem", &odd)],
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("ssl.certificate.pem", &odd),
            ],
            &[tls, ("ssl.certificate.pem", "nothing")],
            &[tls, ("ssl.certificate.location", "/nowhere/tls.crt")],
            &[tls, ("ssl.keystore.location", "/nowhere/keystore.p12")],
        ] {
            assert_eq!(found(properties), None, "{properties:?}");
        }
    }
}
