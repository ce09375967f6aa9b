//! Collects the facts about a Kafka cluster for `lagwise check`, with the client that the daemon would use.

use std::time::{Duration, Instant};

use super::client_certificate::client_certificate;
use super::{
    ActiveClient, ClientKind, ClientSettings, GroupList, KafkaSource, PropertySupport, SetupError,
    with_client,
};
use crate::model::diagnostics::preflight::kafka::{
    ClientFacts, KafkaFacts, ListedGroups, PollCost,
};
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::poller::OffsetSource;

/// Collects the facts about a cluster. `groups` are those of HPAs, the configuration and the command line; without any,
/// the first listed one is read. Each step ends after `timeout` at the latest.
pub async fn collect(
    settings: ClientSettings,
    groups: impl Future<Output = Vec<GroupPlan>>,
    interval: Duration,
    timeout: Duration,
) -> KafkaFacts {
    let mut facts = KafkaFacts {
        cluster: settings.name.clone(),
        access: settings.access(),
        client: client_facts(&settings).map_err(|error| error.reason.to_string()),
        client_certificate: client_certificate(&settings.properties),
        bootstrap: Vec::new(),
        listed: None,
        observation: None,
        is_sample: false,
        cost: None,
        interval,
    };
    if facts.client.is_err() {
        return facts;
    }
    let protocol = settings.properties.get("security.protocol");
    let has_login = protocol.is_some_and(|name| name.to_ascii_uppercase().starts_with("SASL"));
    let source = match KafkaSource::connect(settings) {
        Ok(source) => source,
        Err(error) => {
            facts.client = Err(error.reason.to_string());
            return facts;
        }
    };
    let deadline = Instant::now() + timeout;
    let probing = async {
        match source.0.active().as_ref() {
            ActiveClient::Wire(wire) => wire.probe(deadline).await,
            ActiveClient::Librdkafka(_) => Vec::new(),
        }
    };
    let (bootstrap, listed, mut groups) =
        futures::join!(probing, source.list_groups(deadline), groups);
    let own = facts.client_certificate.as_ref();
    let mut sessions = bootstrap
        .iter()
        .filter_map(|probe| probe.outcome.as_ref().ok());
    let principal = facts.access.principal.take();
    let by_login = || {
        Some(
            sessions
                .find_map(|session| session.login.as_ref())?
                .name
                .clone(),
        )
    };
    // Without SASL, the principal is the name of the certificate.
    let by_certificate = || own.filter(|_| !has_login)?.name.clone();
    facts.access.principal = principal.or_else(by_login).or_else(by_certificate);
    facts.bootstrap = bootstrap;
    if groups.is_empty()
        && let Some(first) = listed.groups.first()
    {
        facts.is_sample = true;
        groups = vec![GroupPlan::new(first.clone(), [].into())];
    }
    facts.listed = Some(listed_groups(listed));
    let first = sweep(&source, &groups, timeout).await;
    if first.connection.is_none() {
        // The first sweep also finds coordinators and describes groups. Later ones are cheaper.
        let second = sweep(&source, &groups, timeout).await;
        facts.cost = cost(&first, &second);
    }
    facts.observation = Some(first);
    facts
}

async fn sweep(source: &KafkaSource, groups: &[GroupPlan], timeout: Duration) -> Observation {
    let plan = SweepPlan {
        groups: groups.to_vec(),
        max_partitions: None,
        max_listed_partitions: None,
        is_partial: false,
    };
    source.observe(plan, Instant::now() + timeout).await
}

fn cost(first: &Observation, second: &Observation) -> Option<PollCost> {
    let (before, after) = (first.traffic?, second.traffic?);
    Some(PollCost {
        requests: after.requests.saturating_sub(before.requests),
        connections: after.connections,
    })
}

fn listed_groups(listed: GroupList) -> ListedGroups {
    ListedGroups {
        count: listed.groups.len(),
        faults: listed.faults,
        connection: listed.connection,
    }
}

/// The client that will be used, and why.
fn client_facts(settings: &ClientSettings) -> Result<ClientFacts, SetupError> {
    let support = PropertySupport::for_properties(&settings.properties);
    let reasons = match (settings.client, support) {
        (ClientKind::Auto, PropertySupport::Librdkafka(reasons)) => reasons,
        _ => Vec::new(),
    };
    let chosen = with_client(settings.clone())?;
    Ok(ClientFacts {
        is_wire: chosen.client != ClientKind::Librdkafka,
        reasons,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)], client: ClientKind) -> ClientSettings {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ClientSettings {
            name: "main".into(),
            properties: properties.iter().map(owned).collect(),
            max_groups: 1,
            token: None,
            renew: None,
            allowed_hosts: Vec::new(),
            client,
        }
    }

    #[test]
    fn says_which_client_is_used_and_why() {
        let plain = ("bootstrap.servers", "127.0.0.1:1");
        let crl = ("ssl.crl.location", "f");
        let facts = |properties: &[(&str, &str)], client| {
            client_facts(&settings(properties, client)).map_err(|error| error.reason.to_string())
        };
        let wire = facts(&[plain], ClientKind::Auto).unwrap();
        assert!(wire.is_wire && wire.reasons.is_empty());
        let chosen = facts(&[plain], ClientKind::Librdkafka).unwrap();
        assert!(!chosen.is_wire && chosen.reasons.is_empty());
        let forced = facts(&[plain, crl], ClientKind::Auto).unwrap();
        assert!(!forced.is_wire);
        assert_eq!(
            forced.reasons,
            ["ssl.crl.location (a certificate revocation list)"]
        );
        let refused = facts(&[plain, crl], ClientKind::Wire).unwrap_err();
        assert!(
            refused.starts_with("client: wire does not support"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_contacted_once() {
        // No server listens on port 1.
        let settings = settings(&[("bootstrap.servers", "127.0.0.1:1")], ClientKind::Auto);
        let groups = async { vec![GroupPlan::new("orders", [].into())] };
        let second = Duration::from_secs(1);
        let facts = collect(settings, groups, second, second).await;
        assert_eq!(facts.bootstrap.len(), 1);
        assert!(facts.bootstrap[0].outcome.is_err());
        let observation = facts.observation.unwrap();
        assert!(observation.connection.is_some() && facts.cost.is_none());
    }
}
