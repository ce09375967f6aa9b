//! Issuers of client certificates for tests.

use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;

pub(in crate::serve) struct Issuer(rcgen::CertifiedIssuer<'static, KeyPair>);

pub(in crate::serve) struct TestIdentity {
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

    pub(in crate::serve) fn client(&self, name: &str) -> TestIdentity {
        self.issue(&[name], None, rcgen::date_time_ymd(4000, 1, 1).into())
    }

    /// A certificate with several common names, in this order.
    pub(in crate::serve) fn client_of_names(&self, names: &[&str]) -> TestIdentity {
        self.issue(names, None, rcgen::date_time_ymd(4000, 1, 1).into())
    }

    /// A user's certificate: common name and organization are user and group in Kubernetes.
    pub(in crate::serve) fn user(&self, name: &str, group: &str) -> TestIdentity {
        self.issue(
            &[name],
            Some(group),
            rcgen::date_time_ymd(4000, 1, 1).into(),
        )
    }

    pub(in crate::serve) fn expired_client(&self, name: &str) -> TestIdentity {
        self.issue(&[name], None, rcgen::date_time_ymd(2001, 1, 1).into())
    }

    fn issue(&self, names: &[&str], group: Option<&str>, ends: SystemTime) -> TestIdentity {
        let mut params = CertificateParams::default();
        params.not_after = ends.into();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (index, name) in names.iter().enumerate() {
            // The library keeps one name of each type, so the others have the type by its number.
            let kind = match index {
                0 => DnType::CommonName,
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, *name);
        }
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        TestIdentity {
            certificate: certificate.der().to_vec(),
            key: key.into(),
        }
    }
}
