//! The login of a trigger, as a Kafka cluster of lagwise's configuration. Secrets stay where they are.

mod parameters;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::parameters::{Parameter, escaped, is_plain_name};
use super::note::Notes;
use crate::model::keda::manifests::KedaManifests;
use crate::model::keda::scaled_object::{PodIdentity, Trigger};
use crate::model::keda::trigger::{key, option_value, parse_flag};

/// A Kafka cluster and how to log in to it. Equal ones are one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterLogin {
    pub servers: String,
    /// Properties besides `bootstrap.servers`.
    pub properties: BTreeMap<&'static str, String>,
    pub token: Option<Value>,
    /// Secrets and variables that the daemon needs, each as a task.
    pub needs: Vec<String>,
}

impl ClusterLogin {
    /// The entry of `clusters` with this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Value {
        let mut properties = Map::new();
        properties.insert("bootstrap.servers".to_owned(), json!(self.servers));
        for (key, value) in &self.properties {
            properties.insert((*key).to_owned(), json!(value));
        }
        let mut entry = json!({"name": name, "properties": properties});
        if let (Some(token), Some(entry)) = (&self.token, entry.as_object_mut()) {
            entry.insert("token".to_owned(), token.clone());
        }
        entry
    }
}

/// Converts the login of a trigger.
pub(super) struct LoginReader<'a> {
    pub(super) trigger: &'a Trigger,
    pub(super) namespace: &'a str,
    pub(super) manifests: &'a KedaManifests,
    /// Where the ScaledObject was found.
    pub(super) source: &'a str,
    /// Path of the trigger, such as `triggers[0]`.
    pub(super) path: &'a str,
}

impl LoginReader<'_> {
    /// The cluster, or `None` without bootstrap servers. What differs is added to the notes.
    pub(super) fn read(&self, notes: &mut Notes) -> Option<ClusterLogin> {
        let mut login = ClusterLogin {
            servers: self.servers(notes)?,
            properties: BTreeMap::new(),
            token: None,
            needs: Vec::new(),
        };
        let (parameters, identity) = self.authentication(&mut login, notes);
        let tls = self.choice(key::TLS, &parameters);
        let sasl = self.choice(key::SASL, &parameters);
        for name in [key::TLS, key::SASL] {
            if let (None, Some(Parameter::Referred { reference, .. })) =
                (self.metadata(name), parameters.get(name))
            {
                notes.todo(
                    format!("{}.authenticationRef", self.path),
                    format!(
                        "the value of {name} is in {reference}: write {} of the cluster by it",
                        property_of(name)
                    ),
                );
            }
        }
        let is_tls = match tls.as_deref() {
            Some("enable") => true,
            None | Some("disable") => false,
            Some(other) => {
                let text = format!(
                    "{other:?} is neither enable nor disable: KEDA refuses the trigger, and the cluster's login is without TLS"
                );
                notes.lost(self.field(key::TLS), text);
                false
            }
        };
        let is_sasl = sasl.as_deref().is_some_and(|sasl| sasl != "none");
        let protocol = match (is_tls, is_sasl) {
            (false, false) => None,
            (true, false) => Some("SSL"),
            (false, true) => Some("SASL_PLAINTEXT"),
            (true, true) => Some("SASL_SSL"),
        };
        if let Some(protocol) = protocol {
            login
                .properties
                .insert("security.protocol", protocol.to_owned());
        }
        if is_tls {
            self.read_tls(&parameters, &mut login, notes);
        }
        if let (true, Some(sasl)) = (is_sasl, sasl) {
            self.read_sasl(&sasl, &parameters, identity.as_ref(), &mut login, notes);
        }
        Some(login)
    }

    fn metadata(&self, name: &str) -> Option<&str> {
        option_value(&self.trigger.metadata, name)
    }

    fn field(&self, name: &str) -> String {
        format!("{}.metadata.{name}", self.path)
    }

    fn servers(&self, notes: &mut Notes) -> Option<String> {
        if let Some(servers) = self.metadata(key::BOOTSTRAP_SERVERS) {
            let servers = servers.split(',').map(str::trim).filter(|s| !s.is_empty());
            return Some(escaped(&Vec::from_iter(servers).join(",")));
        }
        let from_env = format!("{}FromEnv", key::BOOTSTRAP_SERVERS);
        let variable = self.metadata(&from_env)?;
        if !is_plain_name(variable) {
            let text = format!("{variable:?} is not a name of an environment variable");
            notes.lost(self.field(&from_env), text);
            return None;
        }
        notes.todo(
            self.field(&from_env),
            format!("KEDA reads the variable {variable} of the scaled container: set it for lagwise, too, or write the servers into the configuration"),
        );
        Some(format!("${{env:{variable}}}"))
    }

    /// The value of an option in the trigger, or of the parameter of that name.
    fn choice(&self, name: &str, parameters: &BTreeMap<String, Parameter>) -> Option<String> {
        match (self.metadata(name), parameters.get(name)) {
            (Some(value), _) => Some(value.to_owned()),
            (None, Some(Parameter::Known(value))) => Some(value.clone()),
            (None, _) => None,
        }
    }

    fn read_tls(
        &self,
        parameters: &BTreeMap<String, Parameter>,
        login: &mut ClusterLogin,
        notes: &mut Notes,
    ) {
        let files = [
            ("ca", "ssl.ca.location", "ssl.ca.pem"),
            ("cert", "ssl.certificate.location", "ssl.certificate.pem"),
            ("key", "ssl.key.location", "ssl.key.pem"),
        ];
        for (name, location, pem) in files {
            match parameters.get(name) {
                Some(Parameter::Referred {
                    file: Some(file), ..
                }) => {
                    login.properties.insert(location, file.clone());
                }
                Some(parameter) => {
                    login.properties.insert(pem, parameter.text());
                }
                None => {}
            }
        }
        if let Some(password) = parameters.get("keyPassword") {
            login.properties.insert("ssl.key.password", password.text());
            notes.differs(
                format!("{}.authenticationRef", self.path),
                "an encrypted key needs the client librdkafka, with one client for each group: decrypt the key to use lagwise's own client",
            );
        }
        let field = self.field(key::UNSAFE_SSL);
        match self.metadata(key::UNSAFE_SSL).map(parse_flag) {
            Some(Some(true)) => {
                let off = "false".to_owned();
                login
                    .properties
                    .insert("enable.ssl.certificate.verification", off);
                notes.differs(field, "certificates are not verified, as in KEDA: whoever is between lagwise and the broker can read the login. Set ssl.ca.location instead");
            }
            Some(None) => notes.lost(
                field,
                "KEDA refuses the trigger: it is neither true nor false",
            ),
            None | Some(Some(false)) => {}
        }
    }

    fn read_sasl(
        &self,
        sasl: &str,
        parameters: &BTreeMap<String, Parameter>,
        identity: Option<&PodIdentity>,
        login: &mut ClusterLogin,
        notes: &mut Notes,
    ) {
        let text = |name: &str| parameters.get(name).map(Parameter::text);
        let provider = self.choice(key::SASL_TOKEN_PROVIDER, parameters);
        let mechanism = match (sasl, provider.as_deref()) {
            ("plaintext", _) => "PLAIN",
            ("scram_sha256", _) => "SCRAM-SHA-256",
            ("scram_sha512", _) => "SCRAM-SHA-512",
            ("gssapi", _) => return self.read_kerberos(parameters, login, notes),
            ("oauthbearer", Some("aws_msk_iam")) | ("aws_msk_iam", _) => {
                return self.read_aws(parameters, identity, login, notes);
            }
            ("oauthbearer", _) => return self.read_oidc(parameters, login, notes),
            (other, _) => {
                notes.lost(
                    self.field(key::SASL),
                    format!(
                        "{other:?} is not a login of KEDA's: write the cluster's login yourself"
                    ),
                );
                return;
            }
        };
        login
            .properties
            .insert("sasl.mechanism", mechanism.to_owned());
        for (name, property) in [("username", "sasl.username"), ("password", "sasl.password")] {
            match text(name) {
                Some(value) => {
                    login.properties.insert(property, value);
                }
                None => notes.todo(
                    self.field(key::SASL),
                    format!("no {name} was found: set {property} of the cluster"),
                ),
            }
        }
        if let Some(identity) = identity {
            notes.unneeded(
                format!("{}.authenticationRef", self.path),
                format!(
                    "KEDA's trigger does not use the pod identity {:?} with sasl {sasl}",
                    identity.provider
                ),
            );
        }
    }

    fn read_kerberos(
        &self,
        parameters: &BTreeMap<String, Parameter>,
        login: &mut ClusterLogin,
        notes: &mut Notes,
    ) {
        let path = format!("{}.authenticationRef", self.path);
        let text = |name: &str| parameters.get(name).map(Parameter::text);
        login
            .properties
            .insert("sasl.mechanism", "GSSAPI".to_owned());
        if let Some(service) = text("kerberosServiceName") {
            login
                .properties
                .insert("sasl.kerberos.service.name", service);
        }
        if let (Some(user), Some(realm)) = (text("username"), text("realm")) {
            login
                .properties
                .insert("sasl.kerberos.principal", format!("{user}@{realm}"));
        }
        match parameters.get("keytab") {
            Some(Parameter::Referred { file: Some(file), .. }) => {
                login.properties.insert("sasl.kerberos.keytab", file.clone());
            }
            _ => notes.lost(path.clone(), "lagwise logs in to Kerberos with a keytab in a file, not with a password: set sasl.kerberos.keytab"),
        }
        notes.todo(path.clone(), "mount the Kerberos configuration (kerberosConfig) as /etc/krb5.conf, or set KRB5_CONFIG for lagwise");
        notes.differs(path, "Kerberos needs a lagwise built with the feature gssapi, and the client librdkafka, with one client for each group");
    }

    fn read_oidc(
        &self,
        parameters: &BTreeMap<String, Parameter>,
        login: &mut ClusterLogin,
        notes: &mut Notes,
    ) {
        login
            .properties
            .insert("sasl.mechanism", "OAUTHBEARER".to_owned());
        let mut oidc = Map::new();
        let fields = [
            ("oauthTokenEndpointUri", "token_url"),
            ("username", "client_id"),
            ("password", "client_secret"),
            ("scopes", "scope"),
        ];
        for (name, field) in fields {
            // Only client_secret may refer to a file or a variable.
            match (parameters.get(name), field) {
                (
                    Some(Parameter::Referred { reference, .. }),
                    "token_url" | "client_id" | "scope",
                ) => {
                    oidc.insert(field.to_owned(), json!(""));
                    notes.todo(
                        format!("{}.authenticationRef", self.path),
                        format!("write the text of {reference} as token.oidc.{field} of the cluster: it may not be a reference"),
                    );
                }
                (Some(parameter), "scope") => {
                    oidc.insert(field.to_owned(), json!(parameter.text().replace(',', " ")));
                }
                (Some(parameter), _) => {
                    oidc.insert(field.to_owned(), json!(parameter.text()));
                }
                (None, "scope") => {}
                (None, _) => notes.todo(
                    format!("{}.authenticationRef", self.path),
                    format!("no {name} was found: set token.oidc.{field} of the cluster"),
                ),
            }
        }
        match parameters.get("oauthExtensions") {
            Some(Parameter::Known(text)) => {
                let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
                let pairs = pairs.map(|(name, value)| (name.trim().to_owned(), json!(value.trim())));
                oidc.insert("extensions".to_owned(), Value::Object(pairs.collect()));
            }
            Some(Parameter::Referred { reference, .. }) => notes.todo(
                format!("{}.authenticationRef", self.path),
                format!("write the pairs of {reference} as token.oidc.extensions of the cluster: it may not be a reference"),
            ),
            None => {}
        }
        login.token = Some(json!({"oidc": oidc}));
    }

    fn read_aws(
        &self,
        parameters: &BTreeMap<String, Parameter>,
        identity: Option<&PodIdentity>,
        login: &mut ClusterLogin,
        notes: &mut Notes,
    ) {
        let path = format!("{}.authenticationRef", self.path);
        let mut aws = Map::new();
        let region = self.metadata(key::AWS_REGION).unwrap_or_default();
        if region.is_empty() {
            let text = "it is missing, so that KEDA refuses the trigger: write token.aws_msk_iam.region of the cluster";
            notes.todo(self.field(key::AWS_REGION), text);
        }
        aws.insert("region".to_owned(), json!(region));
        let role = identity.and_then(|identity| identity.role_arn.as_ref());
        match (role, parameters.get("awsRoleArn")) {
            (Some(role), _) | (None, Some(Parameter::Known(role))) => {
                aws.insert("role_arn".to_owned(), json!(role));
            }
            (None, Some(_)) => notes.todo(
                path.clone(),
                "write the role of awsRoleArn as token.aws_msk_iam.role_arn of the cluster",
            ),
            (None, None) => {}
        }
        if parameters.contains_key("awsAccessKeyID") || parameters.contains_key("awsAccessKeyId") {
            notes.todo(path.clone(), "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for lagwise from the same Secret: it finds AWS credentials as AWS tools do");
        } else {
            notes.differs(path, "lagwise logs in with the AWS role of its own service account, which needs kafka-cluster:Connect, DescribeGroup, DescribeTopic and DescribeCluster. It does not use the role of the scaled pods");
        }
        login.token = Some(json!({"aws_msk_iam": aws}));
    }
}

fn property_of(option: &str) -> &'static str {
    match option {
        key::TLS => "security.protocol",
        _ => "security.protocol and sasl.mechanism",
    }
}
