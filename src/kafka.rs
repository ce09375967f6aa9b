//! Asks Kafka. The only place that knows its protocol and its client libraries.
//!
//! [`KafkaSource`] is one Kafka cluster as an [`OffsetSource`]; which client is behind it is nobody
//! else's concern. There are two: [`wire`], at one connection per broker whatever the number of
//! groups, and [`librdkafka`], for any login and any broker, at a client per group.

mod codes;
mod credential_reload;
pub mod embedded;
mod features;
mod health;
pub mod librdkafka;
mod log_start_cache;
pub mod login;
mod reachability;
mod time_lookup;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use self::credential_reload::CredentialReload;
use self::login::TokenSettings;
use self::wire::Support;
use crate::model::kafka::fault::ConnectionFault;
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::units::newtypes::{ClusterName, GroupId};
use crate::poller::OffsetSource;

pub use self::features::Feature;

/// What a client needs to know of a cluster.
#[derive(Clone)]
pub struct ClientSettings {
    /// Its configured name.
    pub name: ClusterName,
    /// librdkafka properties, secrets resolved. Never logged, hence no `Debug`.
    pub properties: BTreeMap<String, String>,
    /// Where the tokens of an OAUTHBEARER login come from, where the properties do not say.
    pub token: Option<TokenSettings>,
    /// The most groups that are read at once.
    pub max_groups: usize,
    /// Which client asks.
    pub client: Client,
    /// Reads the properties and the token source again, where they hold what files say.
    pub renew: Option<Renew>,
}

/// Gives a cluster's properties and token source as its files have them now; else which file cannot
/// be read.
pub type Renew = Arc<dyn Fn() -> Result<Renewed, String> + Send + Sync>;

/// What files may change of a cluster's [`ClientSettings`].
pub type Renewed = (BTreeMap<String, String>, Option<TokenSettings>);

impl ClientSettings {
    fn refused(&self, reason: String) -> SetupError {
        SetupError {
            cluster: self.name.clone(),
            reason,
        }
    }

    fn bootstrap(&self) -> &str {
        let servers = self.properties.get("bootstrap.servers");
        servers.map_or("the cluster", String::as_str)
    }
}

/// Which client asks a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// The wire client where it supports the properties, else librdkafka.
    #[default]
    Auto,
    /// The wire client: a connection to each broker, whatever the number of groups.
    Wire,
    /// librdkafka: every login it knows, old brokers too, at a client for each group.
    Librdkafka,
}

/// Why a client could not be set up, without the values of its properties.
#[derive(Debug, thiserror::Error)]
#[error("cluster {cluster:?}: {reason}")]
pub struct SetupError {
    /// The cluster.
    pub cluster: ClusterName,
    /// What the client refuses, naming the property.
    pub reason: String,
}

/// One Kafka cluster. Credentials that change in their files are used from then on.
pub struct KafkaSource(Arc<CredentialReload>);

impl KafkaSource {
    /// Sets up the client. Does not wait for the cluster, which may be unreachable for long.
    ///
    /// # Errors
    /// A property that the client refuses; a token source that lacks what it needs.
    pub fn connect(settings: ClientSettings) -> Result<Self, SetupError> {
        CredentialReload::start(with_client(settings)?).map(Self)
    }

    /// The names of all the cluster's groups, as far as brokers tell by `deadline`.
    pub async fn list_groups(&self, deadline: Instant) -> GroupList {
        match self.0.asking().as_ref() {
            PendingSweep::Librdkafka(source) => source.list_groups(deadline).await,
            PendingSweep::Wire(source) => source.list_groups(deadline).await,
        }
    }

    /// The client that asks: never [`Client::Auto`].
    #[must_use]
    pub fn client(&self) -> Client {
        match self.0.asking().as_ref() {
            PendingSweep::Librdkafka(_) => Client::Librdkafka,
            PendingSweep::Wire(_) => Client::Wire,
        }
    }
}

/// Checks what [`KafkaSource::connect`] refuses before it connects: a client that does not support the properties, or a
/// login that is not built into this binary.
///
/// # Errors
/// The property or the cargo feature.
pub fn check(settings: ClientSettings) -> Result<(), SetupError> {
    with_client(settings).map(drop)
}

/// The settings with the client that is to ask: never [`Client::Auto`].
fn with_client(mut settings: ClientSettings) -> Result<ClientSettings, SetupError> {
    if settings.token.is_some() {
        require_oauthbearer(&mut settings)?;
    }
    let client = match (settings.client, Support::of(&settings.properties)) {
        (Client::Auto | Client::Wire, Support::Wire) => Client::Wire,
        (Client::Wire, Support::Librdkafka(reasons)) => {
            return Err(settings.refused(format!(
                "client: wire does not support {}; auto and librdkafka do",
                reasons.join(", ")
            )));
        }
        (Client::Auto, Support::Librdkafka(reasons)) => {
            let because = reasons.join(", ");
            tracing::info!(cluster = %settings.name, because, "read by librdkafka");
            Client::Librdkafka
        }
        (Client::Librdkafka, _) => Client::Librdkafka,
    };
    features::check(&settings, client).map_err(|reason| settings.refused(reason))?;
    Ok(ClientSettings { client, ..settings })
}

impl OffsetSource for KafkaSource {
    async fn observe(&self, plan: SweepPlan, deadline: Instant) -> Observation {
        match self.0.asking().as_ref() {
            PendingSweep::Librdkafka(source) => source.observe(plan, deadline).await,
            PendingSweep::Wire(source) => source.observe(plan, deadline).await,
        }
    }
}

/// The client behind a [`KafkaSource`].
enum PendingSweep {
    Librdkafka(librdkafka::Librdkafka),
    Wire(wire::Wire),
}

/// The settings that a client is set up with: tokens started, or those of before where their source is
/// the same, and without the properties that say where tokens come from.
fn log_in(
    mut settings: ClientSettings,
    before: Option<&ClientSettings>,
) -> Result<ClientSettings, SetupError> {
    let of = TokenSettings::of(settings.token.take(), &settings.properties);
    let wanted = of.map_err(|reason| settings.refused(reason))?;
    let Some(wanted) = wanted else {
        return Ok(settings);
    };
    for name in login::PROPERTIES {
        settings.properties.remove(name);
    }
    require_oauthbearer(&mut settings)?;
    let before = before.and_then(|before| before.token.clone());
    let started = match before.filter(|before| *before == wanted) {
        Some(before) => before,
        None => Handle::try_current()
            .map_err(|error| error.to_string())
            .and_then(|runtime| wanted.start(&settings.name, settings.bootstrap(), &runtime))
            .map_err(|reason| settings.refused(reason))?,
    };
    settings.token = Some(started);
    Ok(settings)
}

/// A token source is no use without the login that takes tokens.
fn require_oauthbearer(settings: &mut ClientSettings) -> Result<(), SetupError> {
    let get = |name: &str| settings.properties.get(name).map(String::as_str);
    let protocol = get("security.protocol").unwrap_or("plaintext");
    if !protocol.to_ascii_lowercase().starts_with("sasl_") {
        let reason = "token: needs property security.protocol to be SASL_SSL (or SASL_PLAINTEXT)";
        return Err(settings.refused(reason.into()));
    }
    match get("sasl.mechanism").or_else(|| get("sasl.mechanisms")) {
        Some("OAUTHBEARER") => {}
        None => {
            let name = "sasl.mechanism".to_owned();
            settings.properties.insert(name, "OAUTHBEARER".into());
        }
        Some(_) => {
            let reason = "token: needs property sasl.mechanism to be OAUTHBEARER, or left out";
            return Err(settings.refused(reason.into()));
        }
    }
    Ok(())
}

/// The groups of a cluster.
#[derive(Clone, Debug)]
pub struct GroupList {
    /// Their names, sorted.
    pub groups: Vec<GroupId>,
    /// What is missing from them and why, in words; empty where every broker answered.
    pub faults: Vec<String>,
    /// What keeps the cluster from answering, where something does.
    pub connection: Option<ConnectionFault>,
}

/// The version of librdkafka that this binary carries.
#[must_use]
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
