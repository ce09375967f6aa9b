//! `clusters[]`: the Kafka clusters and how to log in.

use schemars::JsonSchema;
use serde::Serialize;

use super::node::ScalarValue;
use super::properties::Properties;
use super::secrets::Environment;
use super::section::{Field, Section};
use super::token::TokenSourceConfig;
use crate::model::units::host_pattern::{HOST_PATTERN, HostPattern};
use crate::model::units::names;
use crate::model::units::newtypes::ClusterName;

/// A Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Name of the Kafka cluster in targets, selectors of HPAs (label `cluster`) and metrics; a valid label
    /// value.
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub name: ClusterName,
    /// The Kafka client.
    #[schemars(default)]
    pub client: ClientChoice,
    /// Properties with the names of librdkafka's CONFIGURATION.md. In a value, `${env:NAME}` and
    /// `${file:PATH}` are replaced; `$${` stands for the characters `${`.
    pub properties: Properties,
    /// Source of OAUTHBEARER tokens.
    #[schemars(default)]
    pub token: TokenSourceConfig,
    /// Maximum number of consumer groups with the client `librdkafka`. Each group needs a client of its
    /// own, with its connections and three more threads. The client `wire` has no such limit.
    #[schemars(range(min = 1, max = 1000), default = "default_max_groups")]
    pub max_groups: usize,
    /// Hosts that brokers may have, in which `*` stands for any characters, such as `*.kafka.svc` or `10.0.*`.
    /// Brokers tell lagwise which hosts the others have, and it logs in there. With this list it connects to no
    /// other host, except those in `bootstrap.servers`. Empty means any host. Only for the client `wire`.
    #[schemars(default, with = "Vec<String>")]
    pub allowed_broker_hosts: Vec<HostPattern>,
}

impl ClusterConfig {
    /// A cluster with these properties and the defaults of everything else.
    #[must_use]
    pub fn new(name: ClusterName, properties: Properties) -> Self {
        Self {
            name,
            client: ClientChoice::default(),
            properties,
            token: TokenSourceConfig::default(),
            max_groups: default_max_groups(),
            allowed_broker_hosts: Vec::new(),
        }
    }

    /// Whether its login contains the text of files, which may change while lagwise runs.
    #[must_use]
    pub fn refers_to_files(&self) -> bool {
        self.properties.refers_to_files() || self.token.refers_to_files()
    }

    /// The cluster with every `${file:PATH}` read again.
    ///
    /// # Errors
    /// Which key has a file that cannot be read, and why.
    pub fn reread(&self, environment: &dyn Environment) -> Result<Self, String> {
        Ok(Self {
            properties: self.properties.reread(environment)?,
            token: self.token.reread(environment)?,
            ..self.clone()
        })
    }
}

/// The Kafka client of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientChoice {
    /// `wire` if it supports all properties, otherwise `librdkafka`.
    #[default]
    Auto,
    /// lagwise's own client: one connection to each broker, for any number of groups.
    Wire,
    /// librdkafka: supports every login and old brokers, but needs a client for each group.
    Librdkafka,
}

fn default_max_groups() -> usize {
    50
}

/// The names of the clusters, for checking references to them.
pub(super) struct KnownClusters {
    pub(super) names: Vec<ClusterName>,
    /// Whether the name of every cluster is valid. Only then is an unknown name a separate mistake.
    pub(super) complete: bool,
}

/// Reads all clusters.
pub(super) fn read_all(
    root: &mut Section<'_>,
    environment: &dyn Environment,
) -> (Vec<ClusterConfig>, KnownClusters) {
    let mut clusters = Vec::new();
    let mut known = KnownClusters {
        names: Vec::new(),
        complete: false,
    };
    let Some(list) = root.required("clusters", "a list of one or more {name, properties}") else {
        return (clusters, known);
    };
    let items = list.list();
    if items.is_empty() && matches!(list.node.value, ScalarValue::List(_)) {
        list.refuse("empty", "at least one {name, properties}");
    }
    for item in &items {
        clusters.extend(
            item.section()
                .and_then(|section| read(section, &mut known, environment)),
        );
    }
    known.complete = !items.is_empty() && known.names.len() == items.len();
    (clusters, known)
}

fn read(
    mut section: Section<'_>,
    known: &mut KnownClusters,
    environment: &dyn Environment,
) -> Option<ClusterConfig> {
    let name = section
        .required("name", names::LABEL_VALUE)
        .and_then(|field| {
            Some((
                field.checked(names::LABEL_VALUE, |t| {
                    names::label_value(t).map(ClusterName::from)
                })?,
                field,
            ))
        })
        .map(|(name, field)| {
            if known.names.contains(&name) {
                field.refuse("another cluster has this name", "a name of its own");
            }
            known.names.push(name.clone());
            name
        });
    let client = section
        .get("client")
        .and_then(|field| read_client(&field))
        .unwrap_or_default();
    let token = section.get("token");
    let has_token = token.is_some();
    let token = token
        .and_then(|field| TokenSourceConfig::read(&field, environment))
        .unwrap_or_default();
    let properties = section
        .required(
            "properties",
            "librdkafka's properties, with at least bootstrap.servers",
        )
        .and_then(|field| field.section())
        .map(|properties| Properties::read(properties, has_token, environment));
    let max_groups = section
        .get("max_groups")
        .and_then(|field| field.whole_number(1, 1000));
    let allowed_broker_hosts = section
        .get("allowed_broker_hosts")
        .map(|field| field.texts(HOST_PATTERN, HostPattern::parse))
        .unwrap_or_default();
    section.finish();
    Some(ClusterConfig {
        client,
        token,
        allowed_broker_hosts,
        max_groups: max_groups
            .and_then(|groups| usize::try_from(groups).ok())
            .unwrap_or_else(default_max_groups),
        ..ClusterConfig::new(name?, properties?)
    })
}

fn read_client(field: &Field<'_>) -> Option<ClientChoice> {
    field.one_of(&[
        ("auto", ClientChoice::Auto),
        ("wire", ClientChoice::Wire),
        ("librdkafka", ClientChoice::Librdkafka),
    ])
}
