//! The certificates that all replicas share where nobody gives them any: an authority of their own, and
//! what it signs for the external metrics API. One Secret keeps both; the daemon that leads makes,
//! renews and repairs them by the rules of [`model::rotation`](crate::certificates::rotation), and tells the
//! API server which authorities to trust; all others read them and serve with them.
//!
//! The Secret and the APIService are behind traits, because only [`k8s`](crate::k8s) knows Kubernetes.

mod authority;
mod manager;
pub mod rotation;
mod set;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub use authority::{CertificateAuthority, Signed, validity_of};
pub use manager::{
    CertificateManagerOptions, CertificateStore, CertificateStoreError, Registered, Registration,
    Stored, keep,
};
pub use set::{CertificateSet, Data, Unusable};

/// The cryptography used, named so that no other that a dependency brings along is.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Whether the key is that of the first certificate.
fn belongs_to(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> bool {
    CertifiedKey::from_der(chain, key, &provider()).is_ok_and(|pair| pair.keys_match().is_ok())
}
