//! Parses the configuration file into a [`Config`] that is always valid.
//!
//! YAML -> `node` (values with their lines) -> one reader per section, each next to the type it fills -> [`Config`]. A
//! reader does not stop at the first mistake: it records a [`Problem`] and continues, so that one run reports all
//! problems. Only invalid YAML ends parsing at once.
//!
//! Invariants: a `Config` made by [`Config::load`] or [`Config::parse`] obeys every documented rule; the
//! accepted keys are those of [`json_schema`] (checked by a test); no error, `Debug` output or serialized
//! form contains the value of a secret.

mod budgets;
mod cap;
mod cluster;
mod foreign_keys;
mod insecure;
mod key_places;
mod kubernetes;
mod lag;
mod leader;
mod listeners;
mod log;
mod login;
mod node;
mod otlp;
mod policy;
mod poll;
mod problem;
mod properties;
mod property_names;
mod scale_to_zero;
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
mod upstream;
mod values;

use std::io::Read;
use std::path::Path;

use node::Node;
use problem::Problems;
use schemars::JsonSchema;
use section::Section;
use serde::Serialize;

pub use budgets::BudgetsConfig;
pub use cap::{CapConfig, EnforceConfig};
pub use cluster::{ClientChoice, ClusterConfig};
pub use key_places::KeyPlaces;
pub use kubernetes::{KubernetesConfig, KubernetesMode};
pub use lag::LagConfig;
pub use leader::LeaderConfig;
pub use listeners::{AdminConfig, ExternalScalerConfig, MetricsConfig, ProbesConfig, ScalerAuth};
pub use log::{AccessLogMode, LogConfig, LogFormat};
pub use otlp::OtlpConfig;
pub use policy::PolicyConfig;
pub use poll::PollConfig;
pub use problem::{ConfigError, Problem};
pub use properties::{Properties, PropertyValue};
pub use scale_to_zero::ScaleToZeroConfig;
pub use schema::json_schema;
pub use secrets::{Environment, SystemEnvironment};
pub use server::{AuthMode, ExternalMetricsConfig, ServerConfig, TlsFiles};
pub use state::StateConfig;
pub use target::TargetConfig;
pub use tenancy::TenancyGrant;
pub use token::{OidcConfig, TokenSourceConfig};
pub use upstream::UpstreamConfig;

/// Maximum size of a configuration file, so that a wrong path (a device, a log) fails at once.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The configuration of lagwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Config {
    /// The Kafka clusters to read; at least one.
    #[schemars(length(min = 1))]
    pub clusters: Vec<ClusterConfig>,
    /// How often Kafka is read, and how old the lag may be that is served.
    #[schemars(default)]
    pub poll: PollConfig,
    /// Thresholds that classify lag as residual, stuck or forgotten.
    #[schemars(default)]
    pub lag: LagConfig,
    /// Consumer groups to watch without an HPA, and short names for groups whose own name is not a valid
    /// label value.
    #[schemars(default)]
    pub targets: Vec<TargetConfig>,
    /// Which namespaces may use which consumer groups and topics of which Kafka cluster. A request must
    /// match one entry in full; without any entry, every namespace may use everything.
    #[schemars(default)]
    pub tenancy: Vec<TenancyGrant>,
    /// How much HPAs may make lagwise read and keep.
    #[schemars(default)]
    pub budgets: BudgetsConfig,
    /// The Kubernetes cluster whose HPAs are served.
    #[schemars(default)]
    pub kubernetes: KubernetesConfig,
    /// How HPAs are kept at or below the replica ceiling.
    #[schemars(default)]
    pub cap: CapConfig,
    /// How the number of replicas is made, for `kafka_desired_replicas`.
    #[schemars(default)]
    pub policy: PolicyConfig,
    /// Which workloads are scaled to zero.
    #[schemars(default)]
    pub scale_to_zero: ScaleToZeroConfig,
    /// Leader election: only the leader reads Kafka, decides and writes.
    #[schemars(default)]
    pub leader: LeaderConfig,
    /// Storage of the state that survives a restart.
    #[schemars(default)]
    pub state: StateConfig,
    /// The listeners.
    #[schemars(default)]
    pub server: ServerConfig,
    /// Export of the metrics to an OpenTelemetry collector.
    #[schemars(default)]
    pub otlp: OtlpConfig,
    /// Logging.
    #[schemars(default)]
    pub log: LogConfig,
}

impl Config {
    /// A configuration with these clusters and the defaults of everything else, for commands that need no file.
    #[must_use]
    pub fn new(clusters: Vec<ClusterConfig>) -> Self {
        Self {
            clusters,
            poll: PollConfig::default(),
            lag: LagConfig::default(),
            targets: Vec::new(),
            tenancy: Vec::new(),
            budgets: BudgetsConfig::default(),
            kubernetes: KubernetesConfig::default(),
            cap: CapConfig::default(),
            policy: PolicyConfig::default(),
            scale_to_zero: ScaleToZeroConfig::default(),
            leader: LeaderConfig::default(),
            state: StateConfig::default(),
            server: ServerConfig::default(),
            otlp: OtlpConfig::default(),
            log: LogConfig::default(),
        }
    }

    /// Reads the file at `path`. References are resolved from the environment variables and files of the process.
    ///
    /// # Errors
    /// All problems of the file, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with_places(path).map(|(config, _)| config)
    }

    /// Like [`load`](Self::load), with the places of the keys.
    ///
    /// # Errors
    /// All problems of the file, or why it cannot be read.
    pub fn load_with_places(path: &Path) -> Result<(Self, KeyPlaces), ConfigError> {
        let name = path.display().to_string();
        read_bounded(path)
            .map_err(|error| {
                ConfigError::from(Problem::of_file(format!("cannot be read: {error}")))
            })
            .and_then(|text| Self::parse_with_places(&text, &SystemEnvironment))
            .map_err(|error| error.in_file(name))
    }

    /// Parses `text`; `environment` resolves its references to variables and files.
    ///
    /// # Errors
    /// All problems of the text.
    pub fn parse(text: &str, environment: &dyn Environment) -> Result<Self, ConfigError> {
        Self::parse_with_places(text, environment).map(|(config, _)| config)
    }

    /// Like [`parse`](Self::parse), with the places of the keys.
    ///
    /// # Errors
    /// All problems of the text.
    pub fn parse_with_places(
        text: &str,
        environment: &dyn Environment,
    ) -> Result<(Self, KeyPlaces), ConfigError> {
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
            (Some(config), None) => Ok((config, KeyPlaces::of(&root))),
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
        let budgets = BudgetsConfig::read(root.section("budgets"));
        let kubernetes = KubernetesConfig::read(root.section("kubernetes"), environment);
        let cap = CapConfig::read(root.section("cap"));
        let policy = PolicyConfig::read(root.section("policy"));
        let scale_to_zero = ScaleToZeroConfig::read(root.section("scale_to_zero"));
        let leader = LeaderConfig::read(root.section("leader"), kubernetes.mode);
        let state = StateConfig::read(root.section("state"), kubernetes.mode);
        let server = ServerConfig::read(root.section("server"), &kubernetes, environment);
        let otlp = OtlpConfig::read(root.section("otlp"), environment);
        let log = LogConfig::read(root.section("log"));
        root.finish();
        Self {
            clusters,
            poll,
            lag,
            targets,
            tenancy,
            budgets,
            kubernetes,
            cap,
            policy,
            scale_to_zero,
            leader,
            state,
            server,
            otlp,
            log,
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > MAX_FILE_BYTES) {
        return Err(std::io::Error::other(format!(
            "it is larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(text)
}
