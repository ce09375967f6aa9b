//! Certificates shared by all replicas, for installations that have no certificate: a certificate authority and a
//! server certificate for the external metrics API, both in one Secret. The leader creates, renews and repairs them
//! following [`rotation`] and writes the CA bundle to the APIService; followers only read and use them.
//!
//! The Secret and the APIService are behind traits, because only [`k8s`](crate::k8s) may use the
//! Kubernetes client.

mod authority;
mod manager;
pub mod rotation;
mod set;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub use authority::{CertificateAuthority, SignedCertificate, validity_of};
pub use manager::{
    CertificateManagerOptions, CertificateStore, CertificateStoreError, PublishOutcome,
    Registration, StoredCertificates, maintain,
};
pub use set::{CertificateProblem, CertificateSet, SecretData};

use crate::crypto::provider;

/// Whether the key belongs to the first certificate.
fn belongs_to(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> bool {
    CertifiedKey::from_der(chain, key, &provider()).is_ok_and(|pair| pair.keys_match().is_ok())
}
