//! Certificate authorities of the test run, and certificates that they sign, as PEM.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority that only this run trusts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate.
    pub(crate) pem: String,
}

/// A certificate with its private key (PKCS#8), both as PEM text.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// A certificate for a server that answers under these host names or addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        self.sign(
            CertificateParams::new(names)?,
            &[&common_name],
            None,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// As [`Self::server`], until the first day of that year.
    pub(crate) fn server_until(&self, names: &[&str], year: i32) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names)?;
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.sign(
            params,
            &[&common_name],
            None,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// Like [`Self::client`], but expired long ago.
    pub(crate) fn expired_client(&self, user: &str, group: Option<&str>) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        self.sign(params, &[user], group, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a client: Kubernetes reads the common name as the user and the organisation
    /// as its group.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Identity> {
        self.sign(
            CertificateParams::default(),
            &[user],
            group,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    /// A certificate for a client with these common names, in this order.
    pub(crate) fn client_of_names(&self, names: &[&str]) -> Result<Identity> {
        self.sign(
            CertificateParams::default(),
            names,
            None,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        common_names: &[&str],
        organisation: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (index, name) in common_names.iter().enumerate() {
            // The library keeps one name of each type, so the second has the type by its number.
            let kind = match index {
                0 => DnType::CommonName,
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, *name);
        }
        if let Some(organisation) = organisation {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organisation);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

impl Identity {
    /// Writes `<name>.crt` and `<name>.key` into the folder and says where they are.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (
            folder.join(format!("{name}.crt")),
            folder.join(format!("{name}.key")),
        );
        std::fs::write(&certificate, &self.certificate)?;
        std::fs::write(&key, &self.key)?;
        Ok((certificate, key))
    }
}
