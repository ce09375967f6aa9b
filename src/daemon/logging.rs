//! Where log lines go, and which.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sends log lines to standard error, as the configuration says; in colour on a terminal only, and
/// never where `NO_COLOR` is set.
pub fn init_logging(config: &LogConfig) {
    // kube logs every failed attempt of a watch; ours are told once (`telemetry::WatchLost`). What
    // speaks HTTP and TLS logs headers at its finer levels, and tokens are among them: so a level
    // for everything does not reach it. A directive of the configuration for the same target comes
    // later and wins.
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
