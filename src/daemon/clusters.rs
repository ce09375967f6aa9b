//! Converts the configuration of Kafka clusters into client settings.

use std::sync::Arc;

use crate::config::{ClientChoice, ClusterConfig, Config, SystemEnvironment, TokenSourceConfig};
use crate::kafka::login::{self, TokenSettings};
use crate::kafka::{
    ClientKind, ClientSettings, Credentials, KafkaSource, ReloadCredentials, SetupError,
};
use crate::model::units::newtypes::ClusterName;

/// Creates a client for each cluster, in the configured order. None has to be reachable.
///
/// # Errors
/// Settings that a client does not support.
pub(crate) fn sources(config: &Config) -> Result<Vec<(ClusterName, KafkaSource)>, SetupError> {
    let clusters = config.clusters.iter();
    clusters
        .map(|cluster| Ok((cluster.name.clone(), KafkaSource::connect(cluster.into())?)))
        .collect()
}

impl From<&ClusterConfig> for ClientSettings {
    fn from(cluster: &ClusterConfig) -> Self {
        let (properties, token) = login_of(cluster);
        let renew = cluster.refers_to_files().then(|| {
            let cluster = cluster.clone();
            let renew = move || Ok(login_of(&cluster.reread(&SystemEnvironment)?));
            Arc::new(renew) as ReloadCredentials
        });
        Self {
            name: cluster.name.clone(),
            properties,
            token,
            max_groups: cluster.max_groups,
            allowed_hosts: cluster.allowed_broker_hosts.clone(),
            client: match cluster.client {
                ClientChoice::Auto => ClientKind::Auto,
                ClientChoice::Wire => ClientKind::Wire,
                ClientChoice::Librdkafka => ClientKind::Librdkafka,
            },
            renew,
        }
    }
}

fn login_of(cluster: &ClusterConfig) -> Credentials {
    let properties = cluster
        .properties
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    (properties.collect(), token_of(&cluster.token))
}

fn token_of(token: &TokenSourceConfig) -> Option<TokenSettings> {
    let source = match token {
        TokenSourceConfig::None => return None,
        TokenSourceConfig::File { path } => login::TokenSource::File(path.clone()),
        TokenSourceConfig::Oidc(oidc) => login::TokenSource::Oidc(login::Oidc {
            token_url: oidc.token_url.clone(),
            client_id: oidc.client_id.clone(),
            client_secret: oidc.client_secret.text().to_owned(),
            scope: oidc.scope.clone(),
            ca_file: oidc.ca_file.clone(),
        }),
        TokenSourceConfig::AwsMskIam { region, role_arn } => login::TokenSource::AwsMskIam {
            region: region.clone(),
            role_arn: role_arn.clone(),
        },
        TokenSourceConfig::AzureWorkloadIdentity { scope } => {
            login::TokenSource::AzureWorkloadIdentity {
                scope: scope.clone(),
            }
        }
        TokenSourceConfig::Gcp {} => login::TokenSource::Gcp,
    };
    let mut settings = TokenSettings::new(source);
    if let TokenSourceConfig::Oidc(oidc) = token {
        settings.extensions.clone_from(&oidc.extensions);
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_keeps_to_the_hosts_of_the_configuration() {
        let cluster = |hosts: &str| {
            let text = format!(
                "clusters: [{{name: main, properties: {{bootstrap.servers: 'k:9092'}}{hosts}}}]"
            );
            let config = Config::parse(&text, &SystemEnvironment).unwrap();
            ClientSettings::from(&config.clusters[0]).allowed_hosts
        };
        assert!(cluster("").is_empty());
        let allowed = cluster(", allowed_broker_hosts: ['*.Kafka.svc.', '10.0.*']");
        let matches = |host: &str| allowed.iter().any(|pattern| pattern.matches(host));
        assert!(matches("b-0.kafka.svc") && matches("10.0.0.7"));
        assert!(!matches("kafka.example") && !matches("10.0.example"));
    }
}
