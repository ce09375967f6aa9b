//! What the operator writes, turned into a [`Config`] that is always valid.
//!
//! YAML -> `node` (values with their lines, nothing lost) -> one reader per section, each beside the
//! type it fills -> [`Config`]. A reader never stops at a mistake: it notes a [`Problem`] and goes on,
//! so that one run shows everything there is to mend. Only broken YAML ends the reading at once.
//!
//! Invariants: a `Config` made by [`Config::load`] or [`Config::parse`] obeys every rule that the
//! keys document; the keys a reader accepts are those of [`json_schema`] (a test compares them);
//! a secret's value is in no error, no `Debug` and no serialised form.

mod cap;
mod cluster;
mod kubernetes;
mod lag;
mod leader;
mod log;
mod node;
mod poll;
mod problem;
mod properties;
mod schema;
mod secrets;
mod section;
mod server;
mod servers;
mod settings;
mod state;
mod target;
mod tenancy;
mod token;

use std::io::Read;
use std::path::Path;

use node::Node;
use problem::Problems;
use schemars::JsonSchema;
use section::Section;
use serde::Serialize;

pub use cap::CapConfig;
pub use cluster::{ClientChoice, ClusterConfig};
pub use kubernetes::KubernetesConfig;
pub use lag::LagConfig;
pub use leader::LeaderConfig;
pub use log::{AccessLogMode, LogConfig, LogFormat};
pub use poll::PollConfig;
pub use problem::{ConfigError, Problem};
pub use properties::{Properties, PropertyValue};
pub use schema::json_schema;
pub use secrets::{Environment, SystemEnvironment};
pub use server::{AuthMode, ExternalMetricsConfig, HttpConfig, ServerConfig, TlsFiles};
pub use state::StateConfig;
pub use target::TargetConfig;
pub use tenancy::TenancyGrant;
pub use token::{OidcConfig, TokenSourceConfig};

/// A configuration file's size is bounded, so that a wrong path (a device, a log) fails at once.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The configuration of lagwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Config {
    /// The Kafka clusters to read; at least one.
    #[schemars(length(min = 1))]
    pub clusters: Vec<ClusterConfig>,
    /// How often Kafka is asked, and how old an answer may be.
    #[schemars(default)]
    pub poll: PollConfig,
    /// Which lags are no work, and how long a commit that vanished is remembered.
    #[schemars(default)]
    pub lag: LagConfig,
    /// Consumer groups to watch without an HPA that asks for them, and names for groups whose own
    /// name is no valid label value.
    #[schemars(default)]
    pub targets: Vec<TargetConfig>,
    /// Which namespaces may name which consumer groups and topics of which cluster. A request has to
    /// fit one entry; without any entry every namespace may name everything.
    #[schemars(default)]
    pub tenancy: Vec<TenancyGrant>,
    /// The Kubernetes cluster whose HPAs are served.
    #[schemars(default)]
    pub kubernetes: KubernetesConfig,
    /// How the replica ceiling is applied to what is served.
    #[schemars(default)]
    pub cap: CapConfig,
    /// Which of several daemons decides and writes.
    pub leader: LeaderConfig,
    /// Where is kept what has to survive a restart.
    #[schemars(default)]
    pub state: StateConfig,
    /// The two listeners.
    #[schemars(default)]
    pub server: ServerConfig,
    /// What is logged, and how.
    #[schemars(default)]
    pub log: LogConfig,
}

impl Config {
    /// These clusters, and the default of everything else: for commands that need no file.
    #[must_use]
    pub fn new(clusters: Vec<ClusterConfig>) -> Self {
        Self {
            clusters,
            poll: PollConfig::default(),
            lag: LagConfig::default(),
            targets: Vec::new(),
            tenancy: Vec::new(),
            kubernetes: KubernetesConfig::default(),
            cap: CapConfig::default(),
            leader: LeaderConfig::default(),
            state: StateConfig::default(),
            server: ServerConfig::default(),
            log: LogConfig::default(),
        }
    }

    /// Reads the file at `path`, with the process's own environment variables and files.
    ///
    /// # Errors
    /// All the problems of the file, or why it could not be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        read_bounded(path)
            .map_err(|error| {
                ConfigError::from(Problem::of_file(format!("cannot be read: {error}")))
            })
            .and_then(|text| Self::parse(&text, &SystemEnvironment))
            .map_err(|error| error.in_file(name))
    }

    /// Reads `text`; `environment` answers its references to variables and files.
    ///
    /// # Errors
    /// All the problems of the text.
    pub fn parse(text: &str, environment: &dyn Environment) -> Result<Self, ConfigError> {
        let root = Node::parse(text)?;
        let problems = Problems::default();
        if root.is_null() {
            return Err(ConfigError::from(Problem::of_file(
                "is empty; allowed: at least a cluster, such as clusters: [{name: main, \
                 properties: {bootstrap.servers: \"kafka:9092\"}}]",
            )));
        }
        let config =
            Section::root(&root, &problems).map(|section| Self::read(section, environment));
        match (config, problems.into_error()) {
            (Some(config), None) => Ok(config),
            (_, Some(error)) => Err(error),
            (None, None) => Err(ConfigError::from(Problem::of_file("is not a mapping"))),
        }
    }

    fn read(mut root: Section<'_>, environment: &dyn Environment) -> Self {
        let (clusters, known) = cluster::read_all(&mut root, environment);
        let poll = PollConfig::read(root.section("poll"));
        let lag = LagConfig::read(root.section("lag"));
        let targets = target::read_all(&mut root, &known);
        let tenancy = tenancy::read_all(&mut root);
        let kubernetes = KubernetesConfig::read(root.section("kubernetes"), environment);
        let cap = CapConfig::read(root.section("cap"));
        let leader = LeaderConfig::read(root.section("leader"));
        let state = StateConfig::read(root.section("state"));
        let server = ServerConfig::read(root.section("server"), kubernetes.enabled, environment);
        let log = LogConfig::read(root.section("log"));
        root.finish();
        Self {
            clusters,
            poll,
            lag,
            targets,
            tenancy,
            kubernetes,
            cap,
            leader,
            state,
            server,
            log,
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > FILE_BYTES_MAX) {
        return Err(std::io::Error::other(format!(
            "it is larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}
