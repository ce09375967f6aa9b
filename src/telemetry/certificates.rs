//! What lagwise says of the certificates that all replicas share.

use std::error::Error;
use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::{counter, register};

pub(super) static CHANGES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "lagwise_certificate_changes_total",
        "Changes that this daemon made to the certificates that all replicas share, by kind: made, renewed, restored",
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
    /// Where they are kept.
    pub place: &'a str,
    /// How, from a fixed list.
    pub change: &'static str,
}

impl CertificatesChanged<'_> {
    /// Logs and counts.
    pub fn emit(&self) {
        CHANGES.with_label_values(&[self.change]).inc();
        tracing::info!(
            place = self.place,
            change = self.change,
            "the certificates that all replicas share were changed"
        );
    }
}

/// The shared certificates cannot be read.
#[derive(Debug)]
pub struct CertificatesUnread<'a> {
    /// Where they are kept.
    pub place: &'a str,
    /// Why.
    pub reason: &'a dyn Error,
}

impl CertificatesUnread<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            place = self.place,
            reason = %self.reason,
            "the certificates that all replicas share cannot be read: going on with the one before"
        );
    }
}

/// The shared certificates cannot be written.
#[derive(Debug)]
pub struct CertificatesUnwritten<'a> {
    /// Where they are kept.
    pub place: &'a str,
    /// Why.
    pub reason: &'a dyn Error,
}

impl CertificatesUnwritten<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            place = self.place,
            reason = %self.reason,
            "the certificates that all replicas share cannot be made or renewed"
        );
    }
}

/// What is kept cannot be served with.
#[derive(Debug)]
pub struct CertificatesUnusable<'a> {
    /// Where they are kept.
    pub place: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl CertificatesUnusable<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            place = self.place,
            reason = self.reason,
            "the certificates that all replicas share cannot be used: going on with the one before"
        );
    }
}

/// The APIService has been given the authorities to trust.
#[derive(Clone, Copy, Debug)]
pub struct BundlePublished;

impl BundlePublished {
    /// Logs and counts.
    pub fn emit(&self) {
        BUNDLES.inc();
        tracing::info!("the APIService's caBundle was set");
    }
}

/// The APIService does not have the authorities to trust.
#[derive(Debug)]
pub struct BundleUnpublished<'a> {
    /// Why.
    pub reason: &'a str,
}

impl BundleUnpublished<'_> {
    /// Logs.
    pub fn emit(&self) {
        tracing::warn!(
            reason = self.reason,
            "the caBundle of APIService v1beta1.external.metrics.k8s.io cannot be set"
        );
    }
}
