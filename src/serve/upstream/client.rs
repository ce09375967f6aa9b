//! HTTP client of the upstream, rebuilt when its files change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::authentication::Credential;
use crate::model::diagnostics::setting_findings::find_unusable_upstream_file;
use crate::model::findings::ReportedFindings;
use crate::serve::bearer_token::BearerToken;
use crate::serve::forward::describe_causes;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::upstream::{UpstreamFilesUnusable, UpstreamFilesUsable};

/// Timeout for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the upstream may take to begin its answer, and between two parts of it. Short, because the HPA controller
/// has only five workers.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 keepalive: interval and timeout.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How long files are used before they are read again.
const MAX_FILE_AGE: Duration = Duration::from_secs(10);

/// How to reach the upstream.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// Scheme, host and port.
    pub url: String,
    pub trust: UpstreamTrust,
    pub identity: UpstreamIdentity,
}

/// Which certificates of the upstream are trusted.
#[derive(Clone, Debug)]
pub enum UpstreamTrust {
    /// Certificates of the CAs in this PEM file.
    CaFile(PathBuf),
    /// All certificates.
    Any,
}

/// What this daemon presents to the upstream.
#[derive(Clone, Debug)]
pub struct UpstreamIdentity {
    /// The file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// The PEM files with a client certificate.
    pub certificate: Option<CertificateFiles>,
}

/// The PEM files of a certificate.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate, followed by those of its issuers.
    pub cert_file: PathBuf,
    /// The key of the certificate.
    pub key_file: PathBuf,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot read {}: {error}", file.display())]
    Unreadable {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error("{} has no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("cannot use the certificates for server.external_metrics.upstream: {0}")]
    Client(#[from] reqwest::Error),
}

/// Content of the files of a client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files {
    ca: Vec<u8>,
    /// The certificate and its key.
    identity: Vec<u8>,
}

#[derive(Debug)]
struct Made {
    client: reqwest::Client,
    files: Files,
    read: Instant,
    failures: FailureLog<String>,
}

#[derive(Debug)]
pub(super) struct UpstreamClient {
    options: UpstreamOptions,
    token: BearerToken,
    made: Mutex<Made>,
    findings: watch::Sender<ReportedFindings>,
}

/// There is no token, although one is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoToken;

impl UpstreamClient {
    pub(super) fn new(options: UpstreamOptions) -> Result<Self, UpstreamError> {
        let files = Files::read(&options)?;
        let made = Made {
            client: build(&options, &files)?,
            files,
            read: Instant::now(),
            failures: FailureLog::default(),
        };
        let token_file = options.identity.token_file.clone();
        let credential = token_file.map_or(Credential::None, Credential::TokenFile);
        let client = Self {
            options,
            token: BearerToken::new(credential),
            made: Mutex::new(made),
            findings: watch::Sender::default(),
        };
        // So that a token that cannot be used is reported at the start, and not at the first request.
        let _ = client.token();
        Ok(client)
    }

    /// The problem with the files.
    pub(super) fn findings(&self) -> watch::Receiver<ReportedFindings> {
        self.findings.subscribe()
    }

    pub(super) fn url(&self) -> &str {
        &self.options.url
    }

    /// The `Authorization` header; `None` if no token is configured.
    pub(super) fn token(&self) -> Result<Option<HeaderValue>, NoToken> {
        let header = self.token.header();
        self.report(&self.made());
        match (&self.options.identity.token_file, header) {
            (Some(_), None) => Err(NoToken),
            (_, header) => Ok(header),
        }
    }

    /// The client with the current content of the files; with the former content while the current one cannot be used.
    pub(super) fn current(&self) -> reqwest::Client {
        let mut made = self.made();
        if made.read.elapsed() >= MAX_FILE_AGE {
            made.reload(&self.options);
            self.report(&made);
        }
        made.client.clone()
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the problem with the files, if it has changed.
    fn report(&self, made: &Made) {
        let token = self.token.problem().map(|problem| {
            let file = self.options.identity.token_file.as_deref();
            let file = file.unwrap_or(Path::new(""));
            let problem = format!("cannot use {}: {problem}", file.display());
            find_unusable_upstream_file(Some("token_file"), &problem)
        });
        let failure = made.failures.failure();
        let certificates = failure.map(|problem| find_unusable_upstream_file(None, problem));
        let found: BTreeSet<_> = token.into_iter().chain(certificates).collect();
        self.findings.send_if_modified(|known| {
            let is_new = **known != found;
            if is_new {
                *known = Arc::new(found);
            }
            is_new
        });
    }
}

impl Made {
    fn reload(&mut self, options: &UpstreamOptions) {
        self.read = Instant::now();
        match self.rebuild(options) {
            Ok(()) => {
                if self.failures.record_success().is_some() {
                    UpstreamFilesUsable.emit();
                }
            }
            Err(error) => {
                let reason = match &error {
                    UpstreamError::Client(cause) => format!("{error}: {}", describe_causes(cause)),
                    UpstreamError::Unreadable { .. } | UpstreamError::NoCertificate(_) => {
                        error.to_string()
                    }
                };
                if let Some(reason) = self.failures.record_failure(reason) {
                    UpstreamFilesUnusable { reason }.emit();
                }
            }
        }
    }

    fn rebuild(&mut self, options: &UpstreamOptions) -> Result<(), UpstreamError> {
        let files = Files::read(options)?;
        if files != self.files {
            self.client = build(options, &files)?;
            self.files = files;
        }
        Ok(())
    }
}

impl Files {
    fn read(options: &UpstreamOptions) -> Result<Self, UpstreamError> {
        let mut files = Self::default();
        if let UpstreamTrust::CaFile(file) = &options.trust {
            files.ca = read(file)?;
        }
        if let Some(certificate) = &options.identity.certificate {
            files.identity = read(&certificate.cert_file)?;
            files.identity.push(b'\n');
            files.identity.extend(read(&certificate.key_file)?);
        }
        Ok(files)
    }
}

fn read(file: &PathBuf) -> Result<Vec<u8>, UpstreamError> {
    std::fs::read(file).map_err(|error| UpstreamError::Unreadable {
        file: file.clone(),
        error,
    })
}

fn build(options: &UpstreamOptions, files: &Files) -> Result<reqwest::Client, UpstreamError> {
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        // Never send the token to another place than configured.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http2_keep_alive_interval(KEEPALIVE)
        .http2_keep_alive_timeout(KEEPALIVE)
        .user_agent(concat!("lagwise/", env!("CARGO_PKG_VERSION")));
    let builder = match &options.trust {
        UpstreamTrust::Any => builder.tls_danger_accept_invalid_certs(true),
        UpstreamTrust::CaFile(file) => {
            let authorities = reqwest::Certificate::from_pem_bundle(&files.ca)?;
            if authorities.is_empty() {
                return Err(UpstreamError::NoCertificate(file.clone()));
            }
            builder.tls_certs_only(authorities)
        }
    };
    let builder = match &options.identity.certificate {
        None => builder,
        Some(_) => builder.identity(reqwest::Identity::from_pem(&files.identity)?),
    };
    Ok(builder.build()?)
}
