//! `log`: logging.

use schemars::JsonSchema;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::problem::did_you_mean;
use super::section::Section;

const FILTER: &str = "error, warn, info, debug, trace or off, and directives such as lagwise=debug, \
                      separated by commas";

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Format of the log lines.
    pub format: LogFormat,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), and directives for parts of the program
    /// such as `lagwise::kafka=debug`, separated by commas.
    #[schemars(length(min = 1))]
    pub filter: String,
    /// Access log of the external metrics API (level info, log target `lagwise::access`).
    pub access: AccessLogMode,
}

/// How much of the access log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogMode {
    /// Some lines, each with the number of omitted ones; errors more often than values.
    #[default]
    Sampled,
    /// A line for every response.
    All,
    /// No lines.
    Off,
}

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            filter: "info".into(),
            access: AccessLogMode::default(),
        }
    }
}

impl LogConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let format = section.get("format").and_then(|field| {
            field.one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
        });
        let filter = section
            .get("filter")
            .and_then(|field| field.checked(FILTER, check_filter));
        let access = section.get("access").and_then(|field| {
            field.one_of(&[
                ("sampled", AccessLogMode::Sampled),
                ("all", AccessLogMode::All),
                ("off", AccessLogMode::Off),
            ])
        });
        section.finish();
        Self {
            access: access.unwrap_or(default.access),
            format: format.unwrap_or(default.format),
            filter: filter.unwrap_or(default.filter),
        }
    }

    /// Checks a filter that is not in the configuration file.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub fn parse_filter(filter: &str) -> Result<String, String> {
        check_filter(filter).map_err(|problem| format!("{problem}; allowed: {FILTER}"))
    }
}

/// Checks a filter. Its syntax takes any bare word for a part of the program, so `debgu` would silently log
/// nothing. Words that resemble a level, or are levels in other programs, are therefore rejected.
fn check_filter(filter: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    const LEVELS_OF_OTHERS: [(&str, &str); 5] = [
        ("warning", "warn"),
        ("verbose", "debug"),
        ("fatal", "error"),
        ("critical", "error"),
        ("none", "off"),
    ];
    for word in filter.split(',').map(str::trim) {
        let level = word.to_lowercase();
        if LEVELS.contains(&level.as_str()) {
            continue;
        }
        let meant = LEVELS_OF_OTHERS
            .iter()
            .find(|(other, _)| *other == level)
            .map(|(_, meant)| *meant);
        if let Some(meant) = meant.or_else(|| did_you_mean(&level, LEVELS)) {
            return Err(format!("{word:?} is not a level, did you mean {meant}?"));
        }
    }
    match EnvFilter::builder().parse(filter) {
        Ok(_) => Ok(filter.to_owned()),
        Err(error) => Err(format!("not a log filter ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_levels_and_directives() {
        for good in [
            "info",
            "INFO",
            "off",
            "warn,lagwise=debug",
            "lagwise::kafka=trace",
            "info,[poll]=debug",
            "lagwise",
        ] {
            assert_eq!(check_filter(good), Ok(good.to_owned()));
        }
        for bad in ["debgu", "warning", "info,verbose", "lagwise=loud", "a=b=c"] {
            assert!(check_filter(bad).is_err(), "{bad}");
            let error = LogConfig::parse_filter(bad).unwrap_err();
            assert!(error.contains("; allowed: error, warn"), "{error}");
        }
    }
}
