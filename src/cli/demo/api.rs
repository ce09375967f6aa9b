//! Client of the external metrics API, as used by the HPA controller: over HTTPS, from the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cli::daemon_client::read_body;
use crate::crypto::provider;
use crate::model::units::quantity::Milli;

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum response size; the usual one is some hundred bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Client for one metric.
pub(super) struct ApiClient {
    address: SocketAddr,
    path: String,
    tls: TlsConnector,
}

/// The part of `ExternalMetricValueList` that the HPA's arithmetic needs.
#[derive(Debug, Deserialize)]
struct Values {
    items: Vec<MetricItem>,
}

#[derive(Debug, Deserialize)]
struct MetricItem {
    value: String,
}

/// The part of a Kubernetes `Status` that is shown.
#[derive(Debug, Deserialize)]
struct ErrorStatus {
    message: String,
}

impl ApiClient {
    /// A client for the metric at `path` on the server at `address`, whose certificate is signed by
    /// one in `trust`.
    ///
    /// # Errors
    /// An invalid certificate.
    pub(super) fn new(address: SocketAddr, path: String, trust: &str) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trust.as_bytes()) {
            roots.add(certificate?)?;
        }
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { address, path, tls })
    }

    /// Reads the metric.
    ///
    /// # Errors
    /// The message that an HPA would show in its conditions.
    pub(super) async fn read(&self) -> anyhow::Result<Milli> {
        let answered = tokio::time::timeout(TIMEOUT, self.get()).await;
        answered.context("no answer from the external metrics API")?
    }

    async fn get(&self) -> anyhow::Result<Milli> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::from(self.address.ip());
        let stream = self.tls.connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        tokio::spawn(connection);
        let request = Request::get(&self.path)
            .header("host", self.address.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = read_body(response.into_body(), MAX_RESPONSE_BYTES).await?;
        value(status, &body)
    }
}

/// The sum of the values, as computed by the HPA.
fn value(status: StatusCode, body: &[u8]) -> anyhow::Result<Milli> {
    if status != StatusCode::OK {
        match serde_json::from_slice::<ErrorStatus>(body) {
            Ok(ErrorStatus { message }) => bail!(message),
            Err(_) => bail!("the external metrics API answered {status}"),
        }
    }
    let values: Values =
        serde_json::from_slice(body).context("the response is not a list of metric values")?;
    if values.items.is_empty() {
        bail!("no metrics returned from external metrics API");
    }
    values.items.iter().try_fold(Milli::default(), |sum, item| {
        let value = Milli::parse(&item.value)
            .with_context(|| format!("{:?} is not a quantity", item.value))?;
        Ok(sum.plus(value))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sums_values_like_the_hpa() {
        let ok = |body: &str| value(StatusCode::OK, body.as_bytes());
        let sum = ok(r#"{"items":[{"value":"1200"},{"value":"500m"}]}"#).unwrap();
        assert_eq!(sum, Milli::parse("1200.5").unwrap());
        for bad in [
            r#"{"items":[]}"#,
            r#"{"items":[{"value":"many"}]}"#,
            "<html>",
        ] {
            assert!(ok(bad).is_err(), "{bad}");
        }
        let refused = value(
            StatusCode::NOT_FOUND,
            br#"{"message":"topic \"orders\" does not exist"}"#,
        );
        assert_eq!(
            refused.unwrap_err().to_string(),
            "topic \"orders\" does not exist"
        );
        let odd = value(StatusCode::BAD_GATEWAY, b"");
        assert_eq!(
            odd.unwrap_err().to_string(),
            "the external metrics API answered 502 Bad Gateway"
        );
    }
}
