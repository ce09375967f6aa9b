//! Sets up logging.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Writes log lines to standard error, as configured; in colour only on a terminal and if
/// `NO_COLOR` is not set.
pub fn init_logging(config: &LogConfig) {
    // kube logs every failed attempt of a watch. lagwise logs each failure once (`telemetry::WatchLost`).
    // HTTP and TLS libraries log headers, including tokens, at fine levels, so a global level does
    // not apply to them. A configured directive for the same target comes later and wins.
    let filter = EnvFilter::new(format!(
        "kube_client=off,kube_runtime=off,h2=info,hyper=info,hyper_util=info,rustls=info,\
         tokio_rustls=info,axum=info,tower=info,{}",
        config.filter
    ));
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    match config.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}
