//! `clusters[].token`: the source of OAUTHBEARER tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::node::ScalarValue;
use super::properties::{self, PropertyValue};
use super::secrets::Environment;
use super::section::{Field, Section};

/// Source of OAUTHBEARER tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(deny_unknown_fields)]
pub enum TokenSourceConfig {
    /// No tokens: the login is in the properties, or there is none.
    #[default]
    None,
    /// A file that another program renews, such as a projected service account token.
    File {
        /// The file that contains the token. It is read again every few seconds.
        #[schemars(with = "String")]
        path: PathBuf,
    },
    /// A token endpoint (OpenID Connect, OAuth 2.0), with client credentials.
    Oidc(OidcConfig),
    /// IAM login of Amazon MSK, with the credentials that AWS tools find: the role of the service account,
    /// Pod Identity, the instance's role, environment variables.
    AwsMskIam {
        /// Region of the MSK cluster.
        region: String,
        /// A role to assume with these credentials.
        #[schemars(default)]
        role_arn: Option<String>,
    },
    /// Entra ID, with the workload identity of the pod (variables AZURE_CLIENT_ID, AZURE_TENANT_ID,
    /// AZURE_FEDERATED_TOKEN_FILE and AZURE_AUTHORITY_HOST).
    AzureWorkloadIdentity {
        /// Scope of the token. Default: that of the Event Hubs namespace in bootstrap.servers.
        #[schemars(default)]
        scope: Option<String>,
    },
    /// Metadata server of Google Cloud, for Managed Service for Apache Kafka.
    Gcp {},
}

/// A token endpoint and its client credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OidcConfig {
    /// URL of the token endpoint.
    pub token_url: String,
    /// Client ID.
    pub client_id: String,
    /// Client secret; may use `${env:NAME}` and `${file:PATH}`.
    #[schemars(with = "String")]
    pub client_secret: PropertyValue,
    /// Scope of the token, if the endpoint requires one.
    #[schemars(default)]
    pub scope: Option<String>,
    /// CA certificates (PEM) for the endpoint, in addition to those of the system.
    #[schemars(default, with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
    /// SASL extensions that are sent with the token, such as logicalCluster and identityPoolId of Confluent
    /// Cloud.
    #[schemars(default)]
    pub extensions: BTreeMap<String, String>,
}

const ALLOWED: &str = "none, or one of {file: {path}}, {oidc: {token_url, client_id, client_secret}}, \
     {aws_msk_iam: {region}}, {azure_workload_identity: {}}, {gcp: {}}";
const SOURCES: [&str; 5] = [
    "file",
    "oidc",
    "aws_msk_iam",
    "azure_workload_identity",
    "gcp",
];
const SECRET: &str = "a client secret, preferably as ${env:NAME} or ${file:PATH}";

impl TokenSourceConfig {
    /// Reads the source; records all problems.
    pub(super) fn read(field: &Field<'_>, environment: &dyn Environment) -> Option<Self> {
        // Anything below may be the token or the client secret in the wrong place.
        let field = &field.clone().into_secret();
        match &field.node.value {
            ScalarValue::Text(text) if text == "none" => return Some(Self::None),
            ScalarValue::Text(text) if SOURCES.contains(&text.as_str()) => {
                let allowed = format!("{{{text}: {{...}}}}, with the keys of this source");
                field.refuse("a token source is a mapping", allowed);
                return None;
            }
            ScalarValue::Mapping(entries) if entries.len() == 1 => {}
            // Do not show the value: it may be the token itself.
            _ => {
                field.refuse_unseen("not a token source", ALLOWED);
                return None;
            }
        }
        let mut outer = field.section()?;
        let found = SOURCES
            .iter()
            .find_map(|name| Some((*name, outer.get(name)?)));
        let Some((name, inner)) = found else {
            outer.finish();
            return None;
        };
        let mut section = inner.section()?;
        let source = match name {
            "file" => Self::read_file(&mut section, environment),
            "oidc" => OidcConfig::read(&mut section, environment).map(Self::Oidc),
            "aws_msk_iam" => Self::read_aws(&mut section),
            "azure_workload_identity" => {
                let scope = optional(&mut section, "scope", "a scope, as a text");
                Some(Self::AzureWorkloadIdentity { scope })
            }
            _ => Some(Self::Gcp {}),
        };
        match (name, inner.node) {
            ("gcp", node) if matches!(&node.value, ScalarValue::Mapping(entries) if !entries.is_empty()) =>
            {
                inner.refuse_unseen("has no keys", "{}");
                return None;
            }
            _ => section.finish(),
        }
        source
    }

    fn read_file(section: &mut Section<'_>, environment: &dyn Environment) -> Option<Self> {
        const PATH: &str = "the path of a file that can be read";
        let path = section.required("path", PATH)?.file(PATH, environment)?;
        Some(Self::File { path })
    }

    fn read_aws(section: &mut Section<'_>) -> Option<Self> {
        const REGION: &str = "a region, such as eu-central-1";
        const ROLE: &str = "a role, such as arn:aws:iam::123456789012:role/lagwise";
        let region = section.required("region", REGION);
        let role_arn = section.get("role_arn").map(|field| {
            field.checked(ROLE, |text| match text.starts_with("arn:") {
                true => Ok(text.to_owned()),
                false => Err("not the ARN of a role".into()),
            })
        });
        let region = region?.checked(REGION, |text| {
            // The region becomes part of a host name.
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            match text.chars().all(plain) {
                true => Ok(text.to_owned()),
                false => Err("not a region".to_owned()),
            }
        })?;
        Some(Self::AwsMskIam {
            region,
            role_arn: role_arn.flatten(),
        })
    }

    /// Whether it contains the text of a file, which [`reread`](Self::reread) reads again.
    pub(super) fn refers_to_files(&self) -> bool {
        matches!(self, Self::Oidc(oidc) if oidc.client_secret.refers_to_files())
    }

    /// The source with every `${file:PATH}` read again.
    ///
    /// # Errors
    /// Which key has a file that cannot be read, and why.
    pub(super) fn reread(&self, environment: &dyn Environment) -> Result<Self, String> {
        let Self::Oidc(oidc) = self else {
            return Ok(self.clone());
        };
        let client_secret = oidc.client_secret.reread("client_secret", environment)?;
        Ok(Self::Oidc(OidcConfig {
            client_secret,
            ..oidc.clone()
        }))
    }
}

impl OidcConfig {
    fn read(section: &mut Section<'_>, environment: &dyn Environment) -> Option<Self> {
        const URL: &str = "a URL, such as https://login.example.com/realms/main/token";
        const ID: &str = "a client ID, as a text";
        let token_url = section.required("token_url", URL).and_then(|field| {
            field.checked(URL, |text| {
                match text.starts_with("https://") || text.starts_with("http://") {
                    true => Ok(text.to_owned()),
                    false => Err("not a URL".to_owned()),
                }
            })
        });
        let client_id = section
            .required("client_id", ID)
            .and_then(|field| field.text(ID))
            .map(str::to_owned);
        let client_secret = section
            .required("client_secret", SECRET)
            .and_then(|field| properties::read_value("client_secret", &field, environment));
        let scope = optional(section, "scope", "a scope, as a text");
        let ca_file = section
            .get("ca_file")
            .and_then(|field| field.file("a file in PEM form that can be read", environment));
        let extensions = section
            .get("extensions")
            .map(|field| read_extensions(&field))
            .unwrap_or_default();
        Some(Self {
            token_url: token_url?,
            client_id: client_id?,
            client_secret: client_secret?,
            scope,
            ca_file,
            extensions,
        })
    }
}

fn optional(section: &mut Section<'_>, key: &'static str, allowed: &str) -> Option<String> {
    let field = section.get(key)?;
    field.text(allowed).map(str::to_owned)
}

fn read_extensions(field: &Field<'_>) -> BTreeMap<String, String> {
    const ALLOWED: &str = "a text, such as lkc-abc12";
    let Some(section) = field.section() else {
        return BTreeMap::new();
    };
    let mut extensions = BTreeMap::new();
    for (name, field) in section.free_entries() {
        if name == "auth" || !name.chars().all(|c| c.is_ascii_alphabetic()) {
            field.refuse_unseen(
                "not the name of a SASL extension",
                "letters only, and not auth",
            );
        } else if let Some(text) = field.text(ALLOWED) {
            extensions.insert(name.to_owned(), text.to_owned());
        }
    }
    extensions
}
