//! The certificate of the external metrics API.

use crate::config::Config;
use crate::serve::tls::{ServerTls, TlsError};

/// The certificate that the configuration says, or one that is made now.
///
/// # Errors
/// A file that cannot be read, or a name that no certificate can bear.
pub(super) fn of(config: &Config) -> Result<ServerTls, TlsError> {
    match &config.server.external_metrics.tls {
        Some(files) => ServerTls::from_files(&files.cert_file, &files.key_file),
        None => ServerTls::self_signed(&certificate_names()),
    }
}

/// The names a self-signed certificate is for: those that the aggregator and a person ask by.
fn certificate_names() -> Vec<String> {
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "lagwise".into());
    [
        format!("lagwise.{namespace}.svc").as_str(),
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .map(String::from)
    .into()
}
