//! The export of metrics to an OpenTelemetry collector.

use super::{Tasks, leader};
use crate::config::Config;
use crate::serve::metrics::MetricsOptions;
use crate::serve::otlp::{OtlpError, OtlpExporter, OtlpOptions};

/// Prepares exports; `None` if no collector is configured.
///
/// # Errors
/// The CA certificates of the collector cannot be used.
pub(super) fn exporter(config: &Config) -> Result<Option<OtlpExporter>, OtlpError> {
    let otlp = &config.otlp;
    let Some(endpoint) = otlp.endpoint.clone() else {
        return Ok(None);
    };
    let options = OtlpOptions {
        endpoint,
        interval: otlp.interval,
        timeout: otlp.timeout,
        ca_file: otlp.ca_file.clone(),
        token_file: otlp.token_file.clone(),
        instance: leader::pod_name(),
    };
    OtlpExporter::new(options).map(Some)
}

/// Starts to export what `/metrics` shows, if a collector is configured.
///
/// # Errors
/// The same as [`exporter`]'s.
pub(super) fn start(
    config: &Config,
    figures: &MetricsOptions,
    tasks: &mut Tasks,
) -> Result<(), OtlpError> {
    if let Some(exporter) = exporter(config)? {
        let exporting = exporter.run(figures.clone());
        tasks.spawn(async move {
            exporting.await;
            ("export of metrics", Ok(()))
        });
    }
    Ok(())
}
