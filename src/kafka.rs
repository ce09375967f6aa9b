//! The Kafka clients: the only place that knows Kafka's protocol and client libraries, except for the consumers and the
//! producer of `lagwise demo`.
//!
//! [`KafkaSource`] implements [`OffsetSource`] for one Kafka cluster and hides which client is
//! behind it. There are two: [`wire`] uses one connection per broker whatever the number of groups;
//! [`librdkafka`] supports every login and every broker at the price of one client per group.

mod client_certificate;
mod codes;
mod credential_reload;
pub mod embedded;
mod features;
mod group_listing;
mod health;
pub mod librdkafka;
mod log_start_cache;
pub mod login;
mod peer_protocol;
pub mod preflight;
mod reachability;
mod setting_error;
mod time_lookup;
pub mod topic_growth;
mod topic_listing;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use self::credential_reload::ReloadingClient;
use self::login::TokenSettings;
use self::wire::PropertySupport;
use crate::model::diagnostics::kafka_service::KafkaAccess;
use crate::model::kafka::fault::{ConnectionFault, Fault};
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::host_pattern::HostPattern;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::poller::OffsetSource;

pub use self::features::Feature;
pub use self::setting_error::SettingError;

/// Everything a client needs to connect to one cluster.
#[derive(Clone)]
pub struct ClientSettings {
    pub name: ClusterName,
    /// librdkafka properties with secrets resolved. Never logged, hence no `Debug`.
    pub properties: BTreeMap<String, String>,
    /// Token source of an OAUTHBEARER login, where the properties do not name one.
    pub token: Option<TokenSettings>,
    /// Maximum number of groups read at once; limits librdkafka's clients.
    pub max_groups: usize,
    pub client: ClientKind,
    /// Hosts of brokers to connect to, besides those of `bootstrap.servers`; empty means all.
    pub allowed_hosts: Vec<HostPattern>,
    /// Rereads properties and token source from the files they refer to; `None` if they refer to
    /// none.
    pub renew: Option<ReloadCredentials>,
}

/// Reads a cluster's credentials from its files; the error names the file that cannot be read.
pub type ReloadCredentials = Arc<dyn Fn() -> Result<Credentials, String> + Send + Sync>;

/// The part of [`ClientSettings`] that changes when files change: properties and token source.
pub type Credentials = (BTreeMap<String, String>, Option<TokenSettings>);

impl ClientSettings {
    fn setup_error(&self, reason: impl Into<SettingError>) -> SetupError {
        SetupError {
            cluster: self.name.clone(),
            reason: reason.into(),
        }
    }

    fn bootstrap(&self) -> &str {
        let servers = self.properties.get("bootstrap.servers");
        servers.map_or("the cluster", String::as_str)
    }

    /// How lagwise reaches the cluster and logs in, for commands of its service.
    #[must_use]
    pub fn access(&self) -> KafkaAccess {
        let get = |name: &str| self.properties.get(name).map(String::as_str);
        let mechanism = get("sasl.mechanisms").or_else(|| get("sasl.mechanism"));
        let has_token = self.token.is_some() || mechanism == Some("OAUTHBEARER");
        let user = get("sasl.username").filter(|_| !has_token);
        KafkaAccess::new(self.bootstrap(), has_token, user)
    }
}

/// The client library used for a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientKind {
    /// The wire client if it supports all properties, otherwise librdkafka.
    #[default]
    Auto,
    /// The wire client: one connection per broker, whatever the number of groups.
    Wire,
    /// librdkafka: supports Kerberos and old brokers, but needs one client per group.
    Librdkafka,
}

/// A client that could not be set up. Never shows the value of a property.
#[derive(Debug, thiserror::Error)]
#[error("cluster {cluster:?}: {reason}")]
pub struct SetupError {
    pub cluster: ClusterName,
    /// Settings that the client rejects.
    pub reason: SettingError,
}

/// One Kafka cluster. Changed credential files are picked up without a restart.
pub struct KafkaSource(Arc<ReloadingClient>);

impl KafkaSource {
    /// Sets up the client. Does not wait for the cluster, which may stay unreachable for long.
    ///
    /// # Errors
    /// A property that the client rejects, or an incomplete token source.
    pub fn connect(settings: ClientSettings) -> Result<Self, SetupError> {
        ReloadingClient::start(with_client(settings)?).map(Self)
    }

    /// Lists the groups of the brokers that answer by `deadline`.
    pub async fn list_groups(&self, deadline: Instant) -> GroupList {
        match self.0.active().as_ref() {
            ActiveClient::Librdkafka(source) => source.list_groups(deadline).await,
            ActiveClient::Wire(source) => source.list_groups(deadline).await,
        }
    }

    /// The client in use: never [`ClientKind::Auto`].
    #[must_use]
    pub fn client(&self) -> ClientKind {
        match self.0.active().as_ref() {
            ActiveClient::Librdkafka(_) => ClientKind::Librdkafka,
            ActiveClient::Wire(_) => ClientKind::Wire,
        }
    }
}

/// Checks what [`KafkaSource::connect`] rejects, such as a property that the client does not support, a file that
/// cannot be read, or a login that is not built into this binary. Contacts no broker and no token source. Returns the
/// client that will be used. Outside of a pod, environment variables that are set in pods count as set.
///
/// # Errors
/// The setting, and why it cannot be used.
pub fn check(settings: ClientSettings, in_pod: bool) -> Result<ClientKind, SetupError> {
    let mut settings = with_client(settings)?;
    if let Some(token) = take_token_source(&mut settings)? {
        let checked = token.check(settings.bootstrap(), in_pod);
        settings.token = Some(checked.map_err(|reason| settings.setup_error(reason))?);
    }
    match settings.client {
        ClientKind::Librdkafka => librdkafka::LibrdkafkaClient::check(&settings)?,
        ClientKind::Auto | ClientKind::Wire => wire::WireClient::check(&settings)?,
    }
    Ok(settings.client)
}

/// Replaces [`ClientKind::Auto`] by the client that will be used.
fn with_client(mut settings: ClientSettings) -> Result<ClientSettings, SetupError> {
    wire::check_names(&settings.properties).map_err(|reason| settings.setup_error(reason))?;
    if settings.token.is_some() {
        require_oauthbearer(&mut settings)?;
    }
    let client = match (
        settings.client,
        PropertySupport::for_properties(&settings.properties),
    ) {
        (ClientKind::Auto | ClientKind::Wire, PropertySupport::Wire) => ClientKind::Wire,
        (ClientKind::Wire, PropertySupport::Librdkafka(reasons)) => {
            let problem = format!(
                "wire does not support {}; set client: auto or librdkafka",
                reasons.join(", ")
            );
            return Err(settings.setup_error(SettingError::key("client", problem)));
        }
        (ClientKind::Auto, PropertySupport::Librdkafka(reasons)) => {
            let because = reasons.join(", ");
            tracing::info!(cluster = %settings.name, because, "using librdkafka: the wire client does not support some properties");
            ClientKind::Librdkafka
        }
        (ClientKind::Librdkafka, _) => ClientKind::Librdkafka,
    };
    // Only the short-lived client of `topics grow` limits the hosts of librdkafka. It was not tried with the logins for
    // which the daemon needs librdkafka.
    if client == ClientKind::Librdkafka && !settings.allowed_hosts.is_empty() {
        return Err(settings.setup_error(SettingError::key(
            "allowed_broker_hosts",
            "not supported by librdkafka; use a login that lagwise's own client supports \
             (client: wire lists the properties that it does not support), or remove allowed_broker_hosts",
        )));
    }
    features::check(&settings, client).map_err(|reason| settings.setup_error(reason))?;
    Ok(ClientSettings { client, ..settings })
}

impl OffsetSource for KafkaSource {
    async fn observe(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        match self.0.active().as_ref() {
            ActiveClient::Librdkafka(source) => source.observe(plan, deadline).await,
            ActiveClient::Wire(source) => source.observe(plan, deadline).await,
        }
    }
}

/// The client behind a [`KafkaSource`].
enum ActiveClient {
    Librdkafka(librdkafka::LibrdkafkaClient),
    Wire(wire::WireClient),
}

/// Prepares token logins: starts the token source, or reuses the tokens of `before` if their source
/// is unchanged, and removes the token source's properties, which librdkafka would try to use
/// itself.
fn prepare_login(
    mut settings: ClientSettings,
    before: Option<&ClientSettings>,
) -> Result<ClientSettings, SetupError> {
    let Some(token) = take_token_source(&mut settings)? else {
        return Ok(settings);
    };
    let before = before.and_then(|before| before.token.clone());
    let started = match before.filter(|before| *before == token) {
        Some(before) => before,
        None => Handle::try_current()
            .map_err(|error| error.to_string())
            .and_then(|runtime| token.start(&settings.name, settings.bootstrap(), &runtime))
            .map_err(|reason| settings.setup_error(reason))?,
    };
    settings.token = Some(started);
    Ok(settings)
}

/// Takes the token source from the settings, and removes its properties.
fn take_token_source(settings: &mut ClientSettings) -> Result<Option<TokenSettings>, SetupError> {
    let token = TokenSettings::from_properties(settings.token.take(), &settings.properties);
    let token = token.map_err(|reason| settings.setup_error(reason))?;
    if token.is_some() {
        for name in login::PROPERTIES {
            settings.properties.remove(name);
        }
        require_oauthbearer(settings)?;
    }
    Ok(token)
}

/// Checks that the login mechanism is OAUTHBEARER, or selects it if none is configured.
fn require_oauthbearer(settings: &mut ClientSettings) -> Result<(), SetupError> {
    let get = |name: &str| settings.properties.get(name).map(String::as_str);
    let protocol = get("security.protocol").unwrap_or("plaintext");
    if !protocol.to_ascii_lowercase().starts_with("sasl_") {
        let problem = "requires property security.protocol: SASL_SSL (or SASL_PLAINTEXT)";
        return Err(settings.setup_error(SettingError::key("token", problem)));
    }
    match get("sasl.mechanism").or_else(|| get("sasl.mechanisms")) {
        Some("OAUTHBEARER") => {}
        None => {
            let name = "sasl.mechanism".to_owned();
            settings.properties.insert(name, "OAUTHBEARER".into());
        }
        Some(_) => {
            let problem = "requires property sasl.mechanism: OAUTHBEARER; change it or remove it";
            return Err(settings.setup_error(SettingError::key("token", problem)));
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
pub struct GroupList {
    /// Group names, sorted.
    pub groups: Vec<GroupId>,
    /// Why some groups may be missing; empty if every broker answered.
    pub faults: Vec<Fault>,
    /// The connection problem, if the cluster does not answer.
    pub connection: Option<ConnectionFault>,
}

/// The version of the librdkafka linked into this binary.
#[must_use]
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

#[cfg(test)]
mod tests;
