//! Token sources as configured, in lagwise's own settings or in librdkafka's properties.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;

#[cfg(feature = "aws-msk-iam")]
use super::aws::Aws;
use super::azure::Azure;
use super::gcp::Gcp;
use super::oidc::Oidc;
use super::{FetchedToken, TokenCache, file};
#[cfg(not(feature = "aws-msk-iam"))]
use crate::kafka::Feature;
use crate::kafka::SettingError;
use crate::model::units::newtypes::ClusterName;

/// Where tokens come from.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file that another process refreshes.
    File(PathBuf),
    /// A token endpoint.
    Oidc(Oidc),
    /// AWS credentials, signed for MSK.
    AwsMskIam {
        /// Region of the MSK cluster.
        region: String,
        /// A role to assume first.
        role_arn: Option<String>,
    },
    /// Entra ID, for this pod's workload identity.
    AzureWorkloadIdentity {
        /// Requested scope; by default that of the brokers' Event Hubs namespace.
        scope: Option<String>,
    },
    /// Google's metadata server.
    Gcp,
}

/// A token source and the SASL extensions sent with each token.
#[derive(Clone)]
pub struct TokenSettings {
    pub source: TokenSource,
    /// SASL extensions, such as Confluent Cloud's `logicalCluster` and `identityPoolId`.
    pub extensions: BTreeMap<String, String>,
    /// The running token cache, once a client was set up.
    tokens: Option<Arc<TokenCache>>,
}

/// Compares the configuration only, not whether tokens were started.
impl PartialEq for TokenSettings {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.extensions) == (&other.source, &other.extensions)
    }
}

impl Eq for TokenSettings {}

impl TokenSource {
    /// Name of the source in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Oidc(_) => "oidc",
            Self::AwsMskIam { .. } => "aws_msk_iam",
            Self::AzureWorkloadIdentity { .. } => "azure_workload_identity",
            Self::Gcp => "gcp",
        }
    }

    /// Prepares fetching; `variable` reads an environment variable.
    pub(super) fn fetcher(
        &self,
        bootstrap: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<TokenFetcher, String> {
        Ok(match self {
            Self::File(path) => TokenFetcher::File(path.clone()),
            Self::Oidc(oidc) => TokenFetcher::Oidc(oidc.clone()),
            #[cfg(feature = "aws-msk-iam")]
            Self::AwsMskIam { region, role_arn } => {
                TokenFetcher::Aws(Box::new(Aws::new(region.clone(), role_arn.clone())))
            }
            #[cfg(not(feature = "aws-msk-iam"))]
            Self::AwsMskIam { .. } => {
                return Err(Feature::AwsMskIam.missing());
            }
            Self::AzureWorkloadIdentity { scope } => {
                TokenFetcher::Azure(Azure::new(scope.as_deref(), bootstrap, variable)?)
            }
            Self::Gcp => TokenFetcher::Gcp(Gcp::new(variable)),
        })
    }
}

/// An environment variable of this process.
pub(super) fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A source that is ready to fetch tokens.
pub(super) enum TokenFetcher {
    File(PathBuf),
    Oidc(Oidc),
    #[cfg(feature = "aws-msk-iam")]
    Aws(Box<Aws>),
    Azure(Azure),
    Gcp(Gcp),
}

impl TokenFetcher {
    pub(super) async fn fetch(&self) -> Result<FetchedToken, String> {
        match self {
            Self::File(path) => file::fetch(path).await,
            Self::Oidc(oidc) => oidc.fetch().await,
            #[cfg(feature = "aws-msk-iam")]
            Self::Aws(aws) => aws.fetch().await,
            Self::Azure(azure) => azure.fetch().await,
            Self::Gcp(gcp) => gcp.fetch().await,
        }
    }
}

/// librdkafka's properties of the token source. The built-in librdkafka has no HTTP client, so this
/// module handles them for both clients.
pub(in crate::kafka) const PROPERTIES: [&str; 7] = [
    METHOD,
    TOKEN_URL,
    CLIENT_ID,
    CLIENT_SECRET,
    SCOPE,
    EXTENSIONS,
    CA_LOCATION,
];
const METHOD: &str = "sasl.oauthbearer.method";
const TOKEN_URL: &str = "sasl.oauthbearer.token.endpoint.url";
const CLIENT_ID: &str = "sasl.oauthbearer.client.id";
const CLIENT_SECRET: &str = "sasl.oauthbearer.client.secret";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const CA_LOCATION: &str = "https.ca.location";

impl TokenSettings {
    /// A source without extensions.
    #[must_use]
    pub fn new(source: TokenSource) -> Self {
        Self {
            source,
            extensions: BTreeMap::new(),
            tokens: None,
        }
    }

    /// Starts fetching tokens and returns the settings with the running cache.
    pub(in crate::kafka) fn start(
        self,
        cluster: &ClusterName,
        bootstrap: &str,
        runtime: &Handle,
    ) -> Result<Self, String> {
        let tokens = TokenCache::start(&self, cluster, bootstrap, runtime)?;
        Ok(Self {
            tokens: Some(tokens),
            ..self
        })
    }

    /// Checks what [`start`](Self::start) rejects, without fetching; the returned settings have a cache that stays
    /// empty. Outside of a pod, the variables that are set in pods count as set.
    pub(in crate::kafka) fn check(
        self,
        bootstrap: &str,
        in_pod: bool,
    ) -> Result<Self, SettingError> {
        let variable = |name: &str| {
            let pretended = (!in_pod).then(|| "set in the pod".to_owned());
            process_variable(name).or(pretended)
        };
        let source = self.source.name();
        match self.source.fetcher(bootstrap, &variable) {
            Ok(_) => Ok(Self {
                tokens: Some(TokenCache::idle(source)),
                ..self
            }),
            Err(reason) => Err(SettingError::key("token", format!("{source}: {reason}"))),
        }
    }

    /// The token cache, if started.
    pub(in crate::kafka) fn tokens(&self) -> Option<&Arc<TokenCache>> {
        self.tokens.as_ref()
    }

    /// Reads librdkafka's token properties, if `sasl.oauthbearer.method` is `oidc`. Extensions in
    /// the properties are added to a given source too.
    ///
    /// # Errors
    /// A missing or invalid property, by name.
    pub fn from_properties(
        given: Option<Self>,
        properties: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, SettingError> {
        let text = |name: &str| properties.get(name).filter(|value| !value.is_empty());
        let is_oidc = text(METHOD).is_some_and(|method| method.eq_ignore_ascii_case("oidc"));
        let mut settings = match (given, is_oidc) {
            (Some(_), true) => {
                return Err(SettingError::property(
                    METHOD,
                    "oidc cannot be combined with token:; remove one of them",
                ));
            }
            (Some(given), false) => given,
            (None, false) => return Ok(None),
            (None, true) => {
                let needed = |name: &str| {
                    let missing =
                        || SettingError::property(name, format!("required with {METHOD}=oidc"));
                    text(name).cloned().ok_or_else(missing)
                };
                Self::new(TokenSource::Oidc(Oidc {
                    token_url: needed(TOKEN_URL)?,
                    client_id: needed(CLIENT_ID)?,
                    client_secret: needed(CLIENT_SECRET)?,
                    scope: text(SCOPE).cloned(),
                    ca_file: text(CA_LOCATION)
                        .filter(|path| *path != "probe")
                        .map(PathBuf::from),
                }))
            }
        };
        if let Some(extensions) = text(EXTENSIONS) {
            let wrong = || {
                SettingError::property(EXTENSIONS, "must be key=value pairs, separated by commas")
            };
            for pair in extensions.split(',') {
                let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                settings.extensions.insert(key, value);
            }
        }
        for (key, value) in &settings.extensions {
            check_extension(key, value)?;
        }
        Ok(Some(settings))
    }
}

/// Checks that a login can carry the extension (RFC 7628, section 3.1).
fn check_extension(key: &str, value: &str) -> Result<(), String> {
    if key.is_empty() || key == "auth" || !key.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(
            "the names of token extensions must consist of letters and must not be auth".into(),
        );
    }
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err(format!(
            "token extension {key}: the value must consist of printable characters and must not be empty"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_pairs(
        given: Option<TokenSettings>,
        pairs: &[(&str, &str)],
    ) -> Result<Option<TokenSettings>, SettingError> {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        TokenSettings::from_properties(given, &owned.collect())
    }

    #[test]
    fn librdkafka_properties_define_a_source() {
        let all = [
            (METHOD, "OIDC"),
            (TOKEN_URL, "https://id/t"),
            (CLIENT_ID, "lag"),
            (CLIENT_SECRET, "hunter2"),
            (EXTENSIONS, "logicalCluster=lkc-1, identityPoolId=pool-2"),
        ];
        let settings = from_pairs(None, &all).unwrap().unwrap();
        let extensions: Vec<_> = settings.extensions.iter().collect();
        assert_eq!(
            extensions,
            [
                (&"identityPoolId".to_owned(), &"pool-2".to_owned()),
                (&"logicalCluster".to_owned(), &"lkc-1".to_owned())
            ]
        );
        assert_eq!(settings.source.name(), "oidc");
        for missing in [TOKEN_URL, CLIENT_ID, CLIENT_SECRET] {
            let rest: Vec<_> = all.into_iter().filter(|(key, _)| *key != missing).collect();
            let error = from_pairs(None, &rest).err().unwrap().to_string();
            assert!(
                error.contains(missing) && !error.contains("hunter2"),
                "{error}"
            );
        }
        assert!(from_pairs(None, &all[1..]).unwrap().is_none());
        let gcp = Some(TokenSettings::new(TokenSource::Gcp));
        assert!(from_pairs(gcp.clone(), &all[..1]).is_err());
        let beside = from_pairs(gcp, &all[4..]).unwrap().unwrap();
        assert_eq!(beside.extensions.len(), 2);
        for wrong in ["a", "auth=x", "a1=x", "=x", "a=", "a=\u{1}"] {
            let gcp = Some(TokenSettings::new(TokenSource::Gcp));
            assert!(
                from_pairs(gcp, &[(EXTENSIONS, wrong)]).is_err(),
                "{wrong:?}"
            );
        }
    }
}
