//! Events of the shared certificates.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::{counter, register};

pub(super) static CHANGES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_certificate_changes_total",
        "Changes that this daemon made to the certificates that all replicas share, by change: begin, new_authority, new_certificate, drop_authority or restore",
        &["change"],
    )
});

pub(super) static BUNDLES: LazyLock<prometheus::IntCounter> = LazyLock::new(|| {
    register(prometheus::IntCounter::new(
        "lagwise_ca_bundle_writes_total",
        "Writes of the APIService's caBundle by this daemon",
    ))
});

/// The shared certificates were changed.
#[derive(Debug)]
pub struct CertificatesChanged<'a> {
    pub place: &'a str,
    /// Kind of change, from a fixed list.
    pub change: &'static str,
}

impl CertificatesChanged<'_> {
    pub fn emit(&self) {
        CHANGES.with_label_values(&[self.change]).inc();
        tracing::info!(
            place = self.place,
            change = self.change,
            "shared certificates changed"
        );
    }
}

/// The shared certificates cannot be read.
#[derive(Debug)]
pub struct CertificatesUnread<'a> {
    pub place: &'a str,
    pub reason: &'a dyn Error,
}

impl CertificatesUnread<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            place = self.place,
            reason = %self.reason,
            "cannot read the shared certificates; the certificate already served, if any, stays in use"
        );
    }
}

/// The shared certificates cannot be written.
#[derive(Debug)]
pub struct CertificatesUnwritten<'a> {
    pub place: &'a str,
    pub reason: &'a dyn Error,
}

impl CertificatesUnwritten<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            place = self.place,
            reason = %self.reason,
            "cannot create or renew the shared certificates"
        );
    }
}

/// The stored certificates cannot be used.
#[derive(Debug)]
pub struct CertificatesUnusable<'a> {
    pub place: &'a str,
    pub reason: &'a str,
}

impl CertificatesUnusable<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            place = self.place,
            reason = self.reason,
            "cannot use the shared certificates; the certificate already served, if any, stays in use"
        );
    }
}

/// The CA bundle was written to the APIService.
#[derive(Clone, Copy, Debug)]
pub struct BundlePublished;

impl BundlePublished {
    pub fn emit(&self) {
        BUNDLES.inc();
        tracing::info!("caBundle of the APIService updated");
    }
}

/// The CA bundle cannot be written to the APIService.
#[derive(Debug)]
pub struct BundleUnpublished<'a> {
    pub reason: &'a str,
}

impl BundleUnpublished<'_> {
    pub fn emit(&self) {
        tracing::warn!(
            reason = self.reason,
            "cannot update the caBundle of APIService v1beta1.external.metrics.k8s.io"
        );
    }
}
