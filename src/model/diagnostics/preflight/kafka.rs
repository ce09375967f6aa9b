//! Checks of one Kafka cluster: its client, how far a connection gets, each right that lagwise uses, and the cost of a
//! poll.

mod permissions;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::{CheckLine, PreflightProblem, some_of};
use crate::model::diagnostics::kafka_service::KafkaAccess;
use crate::model::kafka::fault::{BrokerFault, ConnectionFault, Fault};
use crate::model::kafka::observation::Observation;
use crate::model::units::counted::counted;
use crate::model::units::newtypes::ClusterName;

/// A certificate is reported if it expires within this time.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// The first version of `OffsetFetch` for several groups in one request (KIP-709).
const MANY_GROUPS: i16 = 8;

/// Facts about one Kafka cluster.
#[derive(Debug)]
pub struct KafkaFacts {
    pub cluster: ClusterName,
    pub access: KafkaAccess,
    /// The client in use, or why there can be none.
    pub client: Result<ClientFacts, String>,
    /// lagwise's own certificate; `None` without one that lagwise can read.
    pub client_certificate: Option<ClientCertificate>,
    /// The addresses of `bootstrap.servers`, each probed separately; none with librdkafka.
    pub bootstrap: Vec<BrokerProbe>,
    /// Result of listing all groups; `None` if that was not tried.
    pub listed: Option<ListedGroups>,
    /// A sweep of the groups of HPAs, the configuration and the command line; `None` without a client.
    pub observation: Option<Observation>,
    /// Whether the sweep reads a listed group, because no group is configured.
    pub is_sample: bool,
    /// Cost of a repeated sweep, if the client counts it.
    pub cost: Option<PollCost>,
    /// Time between two polls.
    pub interval: Duration,
}

/// The Kafka client of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFacts {
    /// Whether it is lagwise's own client, otherwise librdkafka.
    pub is_wire: bool,
    /// What only librdkafka supports; empty if it was chosen by `client: librdkafka`.
    pub reasons: Vec<String>,
}

/// lagwise's own certificate for a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its distinguished name, as in the principal; `None` if lagwise does not know how Kafka writes it.
    pub name: Option<String>,
    /// When the first certificate of its chain expires.
    pub expires: SystemTime,
}

/// A broker that was probed separately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerProbe {
    pub address: String,
    pub outcome: Result<BrokerSession, BrokerFault>,
}

/// A connection to a broker that was set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSession {
    /// How lagwise logged in; `None` without SASL.
    pub login: Option<SaslLogin>,
    /// `None` without TLS.
    pub tls: Option<TlsSession>,
    pub apis: Vec<ApiSupport>,
}

/// A login by SASL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslLogin {
    pub mechanism: &'static str,
    /// Who logged in.
    pub name: String,
}

impl fmt::Display for SaslLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.mechanism, self.name)
    }
}

/// The TLS connection to a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// Whether the chain was verified.
    pub is_verified: bool,
    /// When the first of the certificates expires that the broker presents: its own, or one of its issuers. `None` if
    /// they cannot be read.
    pub expires: Option<SystemTime>,
}

/// A request that lagwise sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSupport {
    /// Its name in Kafka's protocol.
    pub name: &'static str,
    /// The highest version that both sides support, if there is one.
    pub version: Option<i16>,
    /// Whether lagwise cannot do without it.
    pub is_needed: bool,
}

/// Groups listed by the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroups {
    pub count: usize,
    /// Why some may be missing.
    pub faults: Vec<Fault>,
    pub connection: Option<ConnectionFault>,
}

/// Cost of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollCost {
    pub requests: u64,
    pub connections: u64,
}

/// The heading of the lines about a cluster.
fn section(cluster: &ClusterName) -> String {
    format!("Kafka cluster {cluster}")
}

/// The lines about a cluster, in the order in which a connection is set up. After a failure the later ones are left
/// out.
#[must_use]
pub fn check_kafka(facts: &KafkaFacts, now: SystemTime) -> Vec<CheckLine> {
    let section = section(&facts.cluster);
    let client = match &facts.client {
        Ok(client) => client,
        Err(reason) => {
            let problem = PreflightProblem::KafkaClientRefused;
            return vec![CheckLine::problem(&section, "client", problem, reason)];
        }
    };
    let mut lines = vec![CheckLine::passed(
        &section,
        "client",
        describe_client(client),
    )];
    // An expired certificate explains why a broker refuses the connection.
    lines.extend(
        facts
            .client_certificate
            .as_ref()
            .map(|own| check_own_certificate(&section, own, now)),
    );
    if let Some(fault) = connection_fault(facts) {
        if matches!(fault.kind, Fault::Tls | Fault::Login) {
            let reached = "a broker accepts connections";
            lines.push(CheckLine::passed(&section, "reach", reached));
        }
        let (check, problem) = connection_problem(fault.kind);
        lines.push(CheckLine::problem(&section, check, problem, &*fault.reason));
        return lines;
    }
    lines.extend(check_reach(&section, facts));
    let sessions: Vec<_> = facts
        .bootstrap
        .iter()
        .filter_map(|probe| Some((&*probe.address, probe.outcome.as_ref().ok()?)))
        .collect();
    lines.extend(check_tls(&section, &sessions, now));
    lines.extend(check_login(&section, &sessions));
    lines.extend(check_versions(&section, &sessions));
    lines.extend(permissions::check(&section, facts));
    lines.extend(describe_cost(&section, facts, client));
    lines
}

fn describe_client(client: &ClientFacts) -> String {
    match (client.is_wire, client.reasons.as_slice()) {
        (true, _) => "lagwise's own client: one connection to each broker".to_owned(),
        (false, []) => "librdkafka, as configured: a client for each group".to_owned(),
        (false, reasons) => format!(
            "librdkafka, a client for each group, because of {}",
            reasons.join(", ")
        ),
    }
}

/// Why the cluster does not answer.
fn connection_fault(facts: &KafkaFacts) -> Option<&ConnectionFault> {
    let swept = facts.observation.as_ref();
    let swept = swept.and_then(|observation| observation.connection.as_ref());
    let listed = facts.listed.as_ref();
    swept.or_else(|| listed.and_then(|listed| listed.connection.as_ref()))
}

/// The check that a connection fault fails, and its problem.
fn connection_problem(kind: Fault) -> (&'static str, PreflightProblem) {
    match kind {
        Fault::NameResolution => ("reach", PreflightProblem::KafkaNameUnresolved),
        Fault::HostNotAllowed => ("reach", PreflightProblem::KafkaHostNotAllowed),
        Fault::Tls => ("tls", PreflightProblem::KafkaTlsFailed),
        Fault::Login => ("login", PreflightProblem::KafkaLoginRefused),
        _ => ("reach", PreflightProblem::KafkaUnreachable),
    }
}

fn check_reach(section: &str, facts: &KafkaFacts) -> Vec<CheckLine> {
    let total = facts.bootstrap.len();
    let failed: Vec<_> = facts
        .bootstrap
        .iter()
        .filter_map(|probe| probe.outcome.as_ref().err())
        .collect();
    let up = total.saturating_sub(failed.len());
    let reached = match total {
        0 => "the cluster answers".to_owned(),
        _ if failed.is_empty() => {
            let addresses = facts.bootstrap.iter().map(|probe| &probe.address);
            format!("the cluster answers at {}", some_of(addresses))
        }
        _ => format!("the cluster answers at {up} of {total} bootstrap addresses"),
    };
    let mut lines = vec![CheckLine::passed(section, "reach", reached)];
    for fault in &failed {
        let problem = PreflightProblem::KafkaBootstrapUnreachable;
        lines.push(CheckLine::problem(
            section,
            "reach",
            problem,
            &*fault.reason,
        ));
    }
    let known: BTreeSet<_> = failed.iter().map(|fault| &*fault.address).collect();
    let needed = facts
        .observation
        .iter()
        .flat_map(|o| &o.unreachable_brokers);
    for fault in needed.filter(|fault| !known.contains(&*fault.address)) {
        let problem = match fault.kind {
            Fault::HostNotAllowed => PreflightProblem::KafkaHostNotAllowed,
            _ => PreflightProblem::KafkaBrokerUnreachable,
        };
        lines.push(CheckLine::problem(
            section,
            "reach",
            problem,
            &*fault.reason,
        ));
    }
    lines
}

fn check_tls(
    section: &str,
    sessions: &[(&str, &BrokerSession)],
    now: SystemTime,
) -> Vec<CheckLine> {
    let encrypted = sessions
        .iter()
        .filter_map(|(address, session)| Some((*address, session.tls.as_ref()?)));
    let encrypted: Vec<_> = encrypted.collect();
    if encrypted.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let mut earliest: Option<Duration> = None;
    for (address, tls) in &encrypted {
        let left = tls
            .expires
            .map(|at| at.duration_since(now).unwrap_or_default());
        let Some(left) = left else { continue };
        earliest = Some(earliest.map_or(left, |earliest| earliest.min(left)));
        if left < EXPIRY_WARNING {
            let problem = PreflightProblem::KafkaCertificateExpiring;
            let message = format!("{address}: the certificate {}", ends_in(left));
            lines.push(CheckLine::problem(section, "tls", problem, message));
        }
    }
    if lines.is_empty() {
        let verified = match encrypted.iter().all(|(_, tls)| tls.is_verified) {
            true => "the certificates of the brokers are trusted",
            false => "the connection is encrypted, the certificates are not verified",
        };
        let ends = earliest.map(|left| format!("; the first one {}", ends_in(left)));
        let message = format!("{verified}{}", ends.unwrap_or_default());
        lines.push(CheckLine::passed(section, "tls", message));
    }
    lines
}

fn check_own_certificate(section: &str, own: &ClientCertificate, now: SystemTime) -> CheckLine {
    const CHECK: &str = "client certificate";
    let left = own.expires.duration_since(now).unwrap_or_default();
    let name = own.name.as_deref().map(|name| format!(" {name}"));
    let message = format!(
        "lagwise's certificate{} {}",
        name.unwrap_or_default(),
        ends_in(left)
    );
    if left < EXPIRY_WARNING {
        let problem = PreflightProblem::KafkaClientCertificateExpiring;
        return CheckLine::problem(section, CHECK, problem, message);
    }
    CheckLine::passed(section, CHECK, message)
}

fn ends_in(left: Duration) -> String {
    let days = left.as_secs() / (24 * 3600);
    match days {
        _ if left.is_zero() => "has expired".to_owned(),
        0 => "expires within a day".to_owned(),
        1 => "expires in 1 day".to_owned(),
        days => format!("expires in {days} days"),
    }
}

fn check_login(section: &str, sessions: &[(&str, &BrokerSession)]) -> Option<CheckLine> {
    let (_, session) = sessions.first()?;
    let message = match &session.login {
        Some(login) => format!("logged in by {login}"),
        None => "no SASL login; the brokers ask for none".to_owned(),
    };
    Some(CheckLine::passed(section, "login", message))
}

/// Checks the versions of requests. Brokers of a cluster may differ during an upgrade, so the lowest one counts.
fn check_versions(section: &str, sessions: &[(&str, &BrokerSession)]) -> Vec<CheckLine> {
    let Some((_, first)) = sessions.first() else {
        return Vec::new();
    };
    let lowest = |api: &ApiSupport| {
        let of_all = sessions.iter().map(|(_, session)| {
            let same = session.apis.iter().find(|other| other.name == api.name);
            same.and_then(|same| same.version)
        });
        of_all.min().flatten()
    };
    let apis: Vec<_> = first.apis.iter().map(|api| (api, lowest(api))).collect();
    let missing = apis
        .iter()
        .filter(|(api, version)| api.is_needed && version.is_none());
    let missing: Vec<_> = missing.map(|(api, _)| api.name).collect();
    if !missing.is_empty() {
        let message = format!("the brokers do not support {}", missing.join(", "));
        let problem = PreflightProblem::KafkaApiMissing;
        return vec![CheckLine::problem(section, "versions", problem, message)];
    }
    let shown = apis.iter().filter_map(|(api, version)| {
        let version = (*version)?;
        Some(format!("{} {version}", api.name))
    });
    let shown: Vec<_> = shown.collect();
    let fetch = apis.iter().find(|(api, _)| api.name == "OffsetFetch");
    let line = match fetch.and_then(|(_, version)| *version) {
        Some(version) if version < MANY_GROUPS => CheckLine::problem(
            section,
            "versions",
            PreflightProblem::KafkaRequestPerGroup,
            format!("OffsetFetch {version} reads one group at a time"),
        ),
        _ => {
            let needed = apis.iter().filter(|(api, _)| api.is_needed).count();
            let message = format!("the brokers support all {needed} needed requests");
            CheckLine::passed(section, "versions", message)
        }
    };
    vec![line.with_details(shown)]
}

fn describe_cost(section: &str, facts: &KafkaFacts, client: &ClientFacts) -> Option<CheckLine> {
    let interval = humantime::format_duration(facts.interval);
    let groups = facts.observation.as_ref()?.groups.len();
    let message = match facts.cost {
        Some(cost) => format!(
            "{} over {} in a poll of {}, every {interval}",
            counted(
                usize::try_from(cost.requests).unwrap_or(usize::MAX),
                "request"
            ),
            counted(
                usize::try_from(cost.connections).unwrap_or(usize::MAX),
                "connection"
            ),
            counted(groups, "group"),
        ),
        None if client.is_wire => return None,
        None => format!(
            "{}, each with a connection to each broker, and polls every {interval}",
            counted(groups.saturating_add(1), "client")
        ),
    };
    Some(CheckLine::passed(section, "cost", message))
}
