//! Arguments that select Kafka clusters.

use std::path::PathBuf;

use clap::Args;

use super::{error_text, wrong_usage};
use crate::config::{ClusterConfig, Config, Properties, SystemEnvironment};

/// Name of a cluster that is given by `--bootstrap`.
const DEFAULT_CLUSTER: &str = "default";

/// Arguments that select Kafka clusters. Each command declares in an argument group which of them it requires.
#[derive(Clone, Debug, Args)]
pub(super) struct KafkaArgs {
    /// Address of the Kafka cluster: HOST:PORT, several separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) bootstrap: Option<String>,
    /// Configuration file whose clusters to read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this cluster of the configuration; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "bootstrap")]
    pub(super) cluster: Vec<String>,
    /// A librdkafka property; the value may refer to ${env:NAME} or ${file:PATH}
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = key_value)]
    property: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as security.protocol=SSL".into()),
    }
}

/// The cluster of this name, or without a name the only one.
///
/// # Errors
/// There is none of this name, or there are several.
pub(super) fn pick_cluster<'a>(
    config: &'a Config,
    name: Option<&str>,
) -> anyhow::Result<&'a ClusterConfig> {
    match (name, config.clusters.as_slice()) {
        (Some(name), all) => find_cluster(all, name),
        (None, [only]) => Ok(only),
        (None, all) => Err(wrong_usage(format!(
            "the configuration has several Kafka clusters; choose one with --cluster: {}",
            cluster_names(all)
        ))),
    }
}

fn find_cluster<'a>(all: &'a [ClusterConfig], name: &str) -> anyhow::Result<&'a ClusterConfig> {
    let found = all.iter().find(|cluster| cluster.name.as_str() == name);
    found.ok_or_else(|| {
        wrong_usage(format!(
            "--cluster {name}: not in the configuration; it has: {}",
            cluster_names(all)
        ))
    })
}

/// The names of clusters, for messages.
pub(super) fn cluster_names(all: &[ClusterConfig]) -> String {
    let names = all.iter().map(|cluster| cluster.name.as_str());
    Vec::from_iter(names).join(", ")
}

impl KafkaArgs {
    /// Whether properties of the client are given.
    pub(super) fn has_properties(&self) -> bool {
        !self.property.is_empty()
    }

    /// The error of a client that these settings cannot make: wrong usage, unless they are all from the configuration.
    pub(super) fn setting_error(&self, error: anyhow::Error) -> anyhow::Error {
        match self.bootstrap.is_some() || self.has_properties() {
            true => wrong_usage(error_text(&error)),
            false => error,
        }
    }

    /// The selected clusters.
    ///
    /// # Errors
    /// The configuration is invalid or has no cluster of a given name, or a property is invalid.
    pub(super) fn clusters(&self) -> anyhow::Result<Vec<ClusterConfig>> {
        let mut configured = match (&self.config, &self.bootstrap) {
            (Some(path), _) => Config::load(path)?.clusters,
            (None, bootstrap) => {
                let mut properties = Properties::default();
                properties.insert("bootstrap.servers", bootstrap.clone().unwrap_or_default());
                vec![ClusterConfig::new(DEFAULT_CLUSTER.into(), properties)]
            }
        };
        for name in &self.cluster {
            find_cluster(&configured, name)?;
        }
        configured.retain(|cluster| {
            self.cluster.is_empty() || self.cluster.iter().any(|n| n == cluster.name.as_str())
        });
        for (key, value) in &self.property {
            for cluster in &mut configured {
                let set = cluster.properties.set(key, value, &SystemEnvironment);
                if let Err(problems) = set {
                    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                    return Err(wrong_usage(format!("-X {}", problems.join("\n-X "))));
                }
            }
        }
        Ok(configured)
    }
}
