//! What the configuration says of Kafka clusters, in the words of what asks them.

use std::sync::Arc;

use crate::config::{ClientKind, ClusterConfig, Config, SystemEnvironment, TokenSource};
use crate::kafka::login::{self, TokenSettings};
use crate::kafka::{Client, ClientSettings, KafkaSource, Renew, Renewed, SetupError};
use crate::model::units::newtypes::ClusterName;

/// A client for each cluster, in the configuration's order. None has to be reachable.
///
/// # Errors
/// What a client cannot work with, however long one waits.
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
            Arc::new(renew) as Renew
        });
        Self {
            name: cluster.name.clone(),
            properties,
            token,
            max_groups: cluster.max_groups,
            client: match cluster.client {
                ClientKind::Auto => Client::Auto,
                ClientKind::Wire => Client::Wire,
                ClientKind::Librdkafka => Client::Librdkafka,
            },
            renew,
        }
    }
}

fn login_of(cluster: &ClusterConfig) -> Renewed {
    let properties = cluster
        .properties
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    (properties.collect(), token_of(&cluster.token))
}

fn token_of(token: &TokenSource) -> Option<TokenSettings> {
    let source = match token {
        TokenSource::None => return None,
        TokenSource::File { path } => login::TokenSource::File(path.clone()),
        TokenSource::Oidc(oidc) => login::TokenSource::Oidc(login::Oidc {
            token_url: oidc.token_url.clone(),
            client_id: oidc.client_id.clone(),
            client_secret: oidc.client_secret.text().to_owned(),
            scope: oidc.scope.clone(),
            ca_file: oidc.ca_file.clone(),
        }),
        TokenSource::AwsMskIam { region, role_arn } => login::TokenSource::AwsMskIam {
            region: region.clone(),
            role_arn: role_arn.clone(),
        },
        TokenSource::AzureWorkloadIdentity { scope } => login::TokenSource::AzureWorkloadIdentity {
            scope: scope.clone(),
        },
        TokenSource::Gcp {} => login::TokenSource::Gcp,
    };
    let mut settings = TokenSettings::new(source);
    if let TokenSource::Oidc(oidc) = token {
        settings.extensions.clone_from(&oidc.extensions);
    }
    Some(settings)
}
