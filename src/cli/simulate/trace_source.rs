//! Where the trace of a simulation is from.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use tokio::time::timeout;

use crate::cli::daemon_client::get_url;
use crate::cli::trace_text::read_trace_text;
use crate::cli::{duration_within, wrong_usage};
use crate::simulate::trace::series::{SeriesSelection, series_query, trace_of_series};
use crate::simulate::trace::{MAX_TRACE_BYTES, Trace};

/// Timeout of a response of Prometheus.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum number of points of a series that Prometheus answers with.
const MAX_POINTS: u64 = 11_000;

/// Minimum step between two points, in seconds: the usual interval of scrapes.
const MIN_STEP_SECONDS: u64 = 15;

/// The arguments that replace scenarios by a trace. clap does not enforce `requires` beside an argument that conflicts
/// with the required one, so these conflicts are repeated.
#[derive(Clone, Debug, Args)]
pub(super) struct TraceArgs {
    /// Trace of lagwise record to replay, or - for standard input, instead of a scenario
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "from_prometheus", "write_trace"])]
    trace: Option<PathBuf>,
    /// Series of lagwise or kafka_exporter to replay: a file with the JSON of a range query, or the URL of Prometheus
    #[arg(long, value_name = "FILE|URL", conflicts_with_all = ["scenario", "write_trace"])]
    from_prometheus: Option<String>,
    /// Consumer group of --from-prometheus
    #[arg(short, long, value_name = "GROUP", requires = "from_prometheus", conflicts_with_all = ["scenario", "trace"])]
    group: Option<String>,
    /// Label cluster of --from-prometheus, if the group is on several
    #[arg(long, value_name = "NAME", requires = "from_prometheus", conflicts_with_all = ["scenario", "trace"])]
    cluster: Option<String>,
    /// Time until now to read from the URL of Prometheus, 5m to 31d [default: 3h]
    #[arg(long, value_name = "DURATION", requires = "from_prometheus", conflicts_with_all = ["scenario", "trace"], allow_hyphen_values = true, value_parser = time_span)]
    over: Option<Duration>,
    /// Messages per second that a consumer of the trace processes [default: estimated from the trace]
    #[arg(long, value_name = "NUMBER", value_parser = capacity)]
    pub(super) capacity: Option<f64>,
    /// Time from a new pod until it joins the group, up to 1h, for traces [default: 30s to 40s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = start_up)]
    pub(super) start_up: Option<Duration>,
}

fn time_span(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(300), Duration::from_secs(31 * 86_400));
    duration_within(text, least, most, "5m to 31d")
}

fn capacity(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.001..=1e9).contains(&number) => Ok(number),
        _ => Err("must be a number from 0.001 to 1000000000".to_owned()),
    }
}

fn start_up(text: &str) -> Result<Duration, String> {
    let range = "whole seconds up to 1h";
    let time = duration_within(text, Duration::ZERO, Duration::from_secs(3600), range)?;
    match time.subsec_nanos() {
        0 => Ok(time),
        _ => Err(format!("must be {range}")),
    }
}

impl TraceArgs {
    /// The option that names the trace, for messages.
    pub(super) fn name(&self) -> String {
        match (&self.trace, &self.from_prometheus) {
            (Some(path), _) => format!("--trace {}", path.display()),
            (None, from) => format!("--from-prometheus {}", from.as_deref().unwrap_or_default()),
        }
    }

    /// Reads the trace; `None` if there is none.
    ///
    /// # Errors
    /// The part that cannot be read, with the line of the file.
    pub(super) async fn read(&self) -> anyhow::Result<Option<Trace>> {
        let is_given = self.trace.is_some() || self.from_prometheus.is_some();
        if !is_given {
            if self.capacity.is_some() || self.start_up.is_some() {
                return Err(wrong_usage(
                    "--capacity and --start-up: scenarios have their own; use them with --trace or --from-prometheus",
                ));
            }
            return Ok(None);
        }
        let trace = match (&self.trace, &self.from_prometheus) {
            (None, Some(from)) => self.read_series(from).await,
            (path, _) => read_trace(path.as_deref().unwrap_or(Path::new("-"))),
        };
        trace.with_context(|| self.name()).map(Some)
    }

    async fn read_series(&self, from: &str) -> anyhow::Result<Trace> {
        let selection = SeriesSelection {
            group: self.group.as_deref(),
            cluster: self.cluster.as_deref(),
        };
        let is_url = from.starts_with("http://") || from.starts_with("https://");
        let text = match is_url {
            true => {
                if self.group.is_none() {
                    return Err(wrong_usage("add --group, so that only its series are read"));
                }
                let span = self.over.unwrap_or(Duration::from_secs(3 * 3600));
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                query_prometheus(
                    from.trim_end_matches('/'),
                    &range_query(&selection, now, span),
                )
                .await?
            }
            false => {
                if self.over.is_some() {
                    return Err(wrong_usage(
                        "--over: a file has its own times; leave it out",
                    ));
                }
                read_trace_text(Path::new(from))?
            }
        };
        Ok(trace_of_series(&text, &selection)?)
    }
}

fn read_trace(path: &Path) -> anyhow::Result<Trace> {
    Ok(Trace::parse(&read_trace_text(path)?)?)
}

/// The path and the query of a request for the series of a group, over a time until now.
fn range_query(selection: &SeriesSelection<'_>, now: Duration, span: Duration) -> String {
    let step = span
        .as_secs()
        .div_ceil(MAX_POINTS - 1)
        .max(MIN_STEP_SECONDS);
    let (end, start) = (now.as_secs(), now.saturating_sub(span).as_secs());
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("query", &series_query(selection))
        .append_pair("start", &start.to_string())
        .append_pair("end", &end.to_string())
        .append_pair("step", &step.to_string())
        .finish();
    format!("/api/v1/query_range?{query}")
}

async fn query_prometheus(url: &str, path: &str) -> anyhow::Result<String> {
    let most = usize::try_from(MAX_TRACE_BYTES)?;
    let answer = timeout(RESPONSE_TIMEOUT, get_url(url, path, most)).await;
    let (code, body) = answer.with_context(|| {
        format!(
            "no response within {}",
            humantime::format_duration(RESPONSE_TIMEOUT)
        )
    })??;
    let text = String::from_utf8_lossy(&body).into_owned();
    // Prometheus explains errors of queries in the usual form.
    if !code.is_success() && !text.trim_start().starts_with('{') {
        bail!(
            "it answered {code}; give the address of Prometheus itself, such as http://localhost:9090"
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_spans_have_fewer_points() {
        let selection = SeriesSelection {
            group: Some("a"),
            cluster: None,
        };
        let query = |hours: u64| {
            let now = Duration::from_secs(10_000_000);
            range_query(&selection, now, Duration::from_secs(hours * 3600))
        };
        assert!(query(3).starts_with("/api/v1/query_range?query=%7B__name__"));
        assert!(
            query(3).ends_with("&start=9989200&end=10000000&step=15"),
            "{}",
            query(3)
        );
        assert!(query(31 * 24).ends_with("&step=244"), "{}", query(31 * 24));
    }
}
