//! Sends the figures of `/metrics` to an OpenTelemetry collector, by OTLP over HTTP in protobuf.
//!
//! Each export has everything, and counters count from the start. So an export that fails is not repeated: the next one
//! says the same and more. A collector that hangs or refuses only costs its own export, which ends at the timeout.

pub(in crate::serve) mod messages;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

use self::messages::{
    AttributeValue, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    InstrumentationScope, OtlpMetric, OtlpResource, ResourceMetrics, ScopeMetrics,
};
use super::bearer_token::BearerToken;
use super::exposition::otlp::{PointTimes, ProcessFigures, key_value, write_batches};
use super::forward::describe_causes;
use super::metrics::{MetricsOptions, exported_snapshot};
use crate::authentication::Credential;
use crate::model::units::newtypes::Moment;
use crate::model::units::untrusted_text::Printable;
use crate::telemetry::REGISTRY;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::otlp::{ExportFailed, ExportRestored, ExportSent};

/// Path of an export of metrics, below the endpoint.
const PATH: &str = "/v1/metrics";

/// Maximum size of a collector's answer, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// How to reach the collector, and how often.
#[derive(Clone, Debug)]
pub struct OtlpOptions {
    /// URL without the path of metrics.
    pub endpoint: String,
    pub interval: Duration,
    /// Time limit of an export.
    pub timeout: Duration,
    /// CA certificates (PEM) that the collector's is verified against; `None` for those of the system.
    pub ca_file: Option<PathBuf>,
    /// The file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Name of this replica.
    pub instance: String,
}

/// Why there can be no client of the collector.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("cannot read {}: {error}", file.display())]
    Unreadable {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error("{} has no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("cannot use the certificates for the collector: {0}")]
    Client(#[from] reqwest::Error),
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
enum ExportFault {
    #[error("cannot connect to the collector ({0})")]
    Unreachable(String),
    #[error("the collector did not answer in time")]
    NoAnswer,
    #[error(
        "the connection to the collector broke ({0}). OTLP over HTTP usually has port 4318; 4317 is that of gRPC"
    )]
    Broken(String),
    #[error("the collector answered with HTTP status {0}: check otlp.endpoint and otlp.token_file")]
    Status(u16),
    #[error("the answer is not one of an OTLP collector: check otlp.endpoint")]
    NotOtlp,
    #[error("the collector rejected {points} data points: {reason}")]
    Rejected { points: i64, reason: String },
    #[error("there is no token: otlp.token_file cannot be used")]
    NoToken,
    #[error("{0}")]
    Client(#[from] OtlpError),
}

impl ExportFault {
    /// The outcome in metrics. Faults with the same one are logged once.
    fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::NoAnswer => "no_answer",
            Self::Broken(_) => "broken",
            Self::Status(_) => "refused",
            Self::NotOtlp => "not_otlp",
            Self::Rejected { .. } => "rejected",
            Self::NoToken => "no_token",
            Self::Client(_) => "no_client",
        }
    }
}

impl From<reqwest::Error> for ExportFault {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::NoAnswer
        } else if error.is_connect() {
            Self::Unreachable(describe_causes(&error))
        } else {
            Self::Broken(describe_causes(&error))
        }
    }
}

/// Exports to one collector.
#[derive(Debug)]
pub struct OtlpExporter {
    options: OtlpOptions,
    token: BearerToken,
    client: Mutex<CollectorClient>,
}

/// Start times of counters. Counters of the snapshot restart when another term begins, or this replica leads again.
#[derive(Debug)]
struct CounterStarts {
    process: u64,
    /// The term of the last export, and the start time of its counters.
    term: (u64, u64),
    last_export: u64,
}

impl CounterStarts {
    fn new(process: u64) -> Self {
        Self {
            process,
            term: (0, process),
            last_export: process,
        }
    }

    /// The times of an export in this term. A new term began after the last export, so its counters start there. No
    /// start is later than `now`, even if the clock was set back.
    fn times(&mut self, term: u64, now: u64) -> PointTimes {
        if self.term.0 != term {
            self.term = (term, self.last_export);
        }
        self.last_export = now;
        PointTimes {
            process_start: self.process.min(now),
            term_start: self.term.1.min(now),
            now,
        }
    }
}

/// The client, with the CA certificates that it was made with.
#[derive(Debug)]
struct CollectorClient {
    client: reqwest::Client,
    authorities: Option<Vec<u8>>,
}

impl OtlpExporter {
    /// Prepares exports. The collector need not be reachable yet.
    ///
    /// # Errors
    /// The CA certificates cannot be used.
    pub fn new(options: OtlpOptions) -> Result<Self, OtlpError> {
        let token_file = options.token_file.clone();
        let credential = token_file.map_or(Credential::None, Credential::TokenFile);
        let authorities = authorities(&options)?;
        let client = build(&options, authorities.as_deref())?;
        Ok(Self {
            options,
            token: BearerToken::new(credential),
            client: Mutex::new(CollectorClient {
                client,
                authorities,
            }),
        })
    }

    /// Exports at each interval, forever.
    pub async fn run(self, figures: MetricsOptions) {
        let mut starts = CounterStarts::new(unix_nanoseconds(SystemTime::now()));
        let mut ticks = tokio::time::interval(self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = FailureLog::default();
        loop {
            ticks.tick().await;
            let export = timeout(self.options.timeout, self.export(&figures, &mut starts));
            let outcome = export.await.unwrap_or(Err(ExportFault::NoAnswer));
            let endpoint = &self.options.endpoint;
            match outcome {
                Ok(()) => {
                    ExportSent.emit();
                    if failures.record_success().is_some() {
                        ExportRestored { endpoint }.emit();
                    }
                }
                Err(fault) => {
                    let outcome = fault.label();
                    let is_new = failures.record_failure(outcome).is_some();
                    let reason = is_new.then_some(&fault as &dyn std::error::Error);
                    ExportFailed {
                        endpoint,
                        outcome,
                        reason,
                    }
                    .emit();
                }
            }
        }
    }

    /// Sends everything once. Data points that the collector rejects do not keep it from the rest.
    async fn export(
        &self,
        figures: &MetricsOptions,
        starts: &mut CounterStarts,
    ) -> Result<(), ExportFault> {
        let snapshot = exported_snapshot(&figures.reader, &figures.leadership);
        let now = Moment::now();
        let times = starts.times(snapshot.term, unix_nanoseconds(now.wall));
        let client = self.current_client()?;
        let process = ProcessFigures {
            build: figures.build.clone(),
            families: REGISTRY.gather(),
            shadow: figures.shadow.latest(),
        };
        let (batches, mut received) = mpsc::channel(1);
        let writing = write_batches(batches, times, &snapshot, &now, process);
        // Owns the receiver, so that the writer ends when this gives up.
        let sending = async move {
            let mut outcome = Ok(());
            while let Some(batch) = received.recv().await {
                match self.post(&client, &figures.build.version, batch).await {
                    Err(rejected @ ExportFault::Rejected { .. }) => outcome = Err(rejected),
                    other => other?,
                }
            }
            outcome
        };
        let (_, outcome) = tokio::join!(writing, sending);
        outcome
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        version: &str,
        batch: Vec<OtlpMetric>,
    ) -> Result<(), ExportFault> {
        let body = self.request(version, batch).encode_to_vec();
        let url = format!("{}{PATH}", self.options.endpoint);
        let mut request = client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(body);
        match (self.token.header(), &self.options.token_file) {
            (Some(token), _) => request = request.header(header::AUTHORIZATION, token),
            (None, Some(_)) => return Err(ExportFault::NoToken),
            (None, None) => {}
        }
        let mut response = request.send().await?;
        let status = response.status();
        if !status.is_success() {
            return Err(ExportFault::Status(status.as_u16()));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            answer.extend_from_slice(&chunk);
            if answer.len() > MAX_RESPONSE_BYTES {
                return Err(ExportFault::NotOtlp);
            }
        }
        let answer = ExportMetricsServiceResponse::decode(answer.as_slice());
        let answer = answer.map_err(|_| ExportFault::NotOtlp)?;
        match answer.partial_success {
            Some(partial) if partial.rejected_data_points > 0 => Err(ExportFault::Rejected {
                points: partial.rejected_data_points,
                reason: Printable::message(&partial.error_message).to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn request(&self, version: &str, metrics: Vec<OtlpMetric>) -> ExportMetricsServiceRequest {
        let attributes = [
            ("service.name", "lagwise"),
            ("service.version", version),
            ("service.instance.id", self.options.instance.as_str()),
        ];
        let attributes =
            attributes.map(|(key, value)| key_value(key, AttributeValue::String(value.to_owned())));
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(OtlpResource {
                    attributes: attributes.into(),
                }),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: "lagwise".to_owned(),
                        version: version.to_owned(),
                    }),
                    metrics,
                }],
            }],
        }
    }

    /// The client with the current CA certificates.
    fn current_client(&self) -> Result<reqwest::Client, OtlpError> {
        let current = authorities(&self.options)?;
        let mut made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if made.authorities != current {
            made.client = build(&self.options, current.as_deref())?;
            made.authorities = current;
        }
        Ok(made.client.clone())
    }
}

/// Content of the file with CA certificates; `None` without one.
fn authorities(options: &OtlpOptions) -> Result<Option<Vec<u8>>, OtlpError> {
    let Some(file) = &options.ca_file else {
        return Ok(None);
    };
    match std::fs::read(file) {
        Ok(content) => Ok(Some(content)),
        Err(error) => Err(OtlpError::Unreadable {
            file: file.clone(),
            error,
        }),
    }
}

fn build(options: &OtlpOptions, authorities: Option<&[u8]>) -> Result<reqwest::Client, OtlpError> {
    let builder = reqwest::Client::builder()
        .timeout(options.timeout)
        // Never send the token to another place than configured.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("lagwise/", env!("CARGO_PKG_VERSION")));
    let builder = match (authorities, &options.ca_file) {
        (Some(content), Some(file)) => {
            let found = reqwest::Certificate::from_pem_bundle(content)?;
            if found.is_empty() {
                return Err(OtlpError::NoCertificate(file.clone()));
            }
            builder.tls_certs_only(found)
        }
        _ => builder,
    };
    Ok(builder.build()?)
}

fn unix_nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
