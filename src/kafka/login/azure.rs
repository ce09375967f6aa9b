//! Tokens of Entra ID for a workload identity: the pod's federated token is exchanged for one that
//! Event Hubs accepts
//! (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>, third
//! case: request with a federated credential).

use std::path::PathBuf;
use std::time::SystemTime;

use reqwest::header::{ACCEPT, CONTENT_TYPE};

use super::http::{self, Trust};
use super::oidc::{self, FORM};
use super::{FetchedToken, file};

const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com/";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const TENANT_ID: &str = "AZURE_TENANT_ID";
const CLIENT_ID: &str = "AZURE_CLIENT_ID";
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";

/// Describes which environment variables that workload identity needs are not set; `None` if all are. An empty one
/// counts as not set.
pub fn describe_unset_variables(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let names = [TENANT_ID, CLIENT_ID, TOKEN_FILE].into_iter();
    let unset = names.filter(|name| read_non_empty(&variable, name).is_none());
    let list = Vec::from_iter(unset).join(", ");
    (!list.is_empty()).then(|| {
        format!(
            "environment variables not set here: {list}; the workload identity webhook sets them in pods with the label azure.workload.identity/use"
        )
    })
}

fn read_non_empty(variable: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).filter(|value| !value.is_empty())
}

/// The identity that the workload identity webhook assigns to a pod through environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Azure {
    token_url: String,
    client_id: String,
    token_file: PathBuf,
    scope: String,
}

impl Azure {
    /// Reads the pod's environment variables. Without `scope`, the scope is that of the Event Hubs
    /// namespace in `bootstrap`.
    pub(super) fn new(
        scope: Option<&str>,
        bootstrap: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        if let Some(unset) = describe_unset_variables(&variable) {
            return Err(unset);
        }
        let needed = |name: &str| read_non_empty(&variable, name).unwrap_or_default();
        let authority = read_non_empty(&variable, AUTHORITY_HOST);
        let authority = authority.unwrap_or_else(|| PUBLIC_CLOUD.into());
        let (authority, tenant) = (authority.trim_end_matches('/'), needed(TENANT_ID));
        let scope = match scope {
            Some(scope) => scope.to_owned(),
            None => namespace_scope(bootstrap)?,
        };
        Ok(Self {
            token_url: format!("{authority}/{tenant}/oauth2/v2.0/token"),
            client_id: needed(CLIENT_ID),
            token_file: needed(TOKEN_FILE).into(),
            scope,
        })
    }

    pub(super) async fn fetch(&self) -> Result<FetchedToken, String> {
        let url = http::redact_url(&self.token_url);
        let about = |reason: String| format!("{url}: {reason}");
        // Read every time: the kubelet rotates it.
        let assertion = file::read(&self.token_file).await?;
        let form = oidc::form(&[
            ("client_id", &self.client_id),
            ("scope", &self.scope),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", &assertion),
            ("grant_type", "client_credentials"),
        ]);
        let client = http::client(&Trust::SystemAnd(None)).map_err(about)?;
        let request = client
            .post(&self.token_url)
            .header(CONTENT_TYPE, FORM)
            .header(ACCEPT, "application/json")
            .body(form);
        let now = SystemTime::now();
        let answer = http::send(request).await.map_err(about)?;
        let json = http::json(&answer, &[&assertion]).map_err(about)?;
        oidc::read(&json, now, &self.client_id)
            .map(FetchedToken::from)
            .map_err(about)
    }
}

/// The scope of the Event Hubs namespace in the brokers' address.
fn namespace_scope(bootstrap: &str) -> Result<String, String> {
    let hosts = bootstrap.split(',').map(|address| {
        let address = address.trim();
        let address = address.split_once("://").map_or(address, |(_, rest)| rest);
        address.rsplit_once(':').map_or(address, |(host, _)| host)
    });
    let mut namespaces = hosts.filter(|host| host.contains(".servicebus."));
    match namespaces.next() {
        Some(host) => Ok(format!("https://{host}/.default")),
        None => Err("bootstrap.servers names no Event Hubs namespace; set scope".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kafka::login::testing::{TokenServer, answers, form, jwt};

    const HUB: &str = "shop.servicebus.windows.net:9093";

    fn variables<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[tokio::test]
    async fn the_federated_token_is_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "federated.token.one\n").unwrap();
        let token = jwt(3600, "app");
        let body = json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token});
        let server = TokenServer::start(answers(200, &body.to_string())).await;
        let pairs = [
            ("AZURE_CLIENT_ID", "11111111-aaaa"),
            ("AZURE_TENANT_ID", "22222222-bbbb"),
            ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
            ("AZURE_AUTHORITY_HOST", &server.url("/")),
        ];
        let azure = Azure::new(None, HUB, variables(&pairs)).unwrap();
        let fetched = azure.fetch().await.unwrap();
        let request = server.last();
        assert_eq!(
            request.line,
            "POST /22222222-bbbb/oauth2/v2.0/token HTTP/1.1"
        );
        assert_eq!(request.header("content-type"), FORM);
        let expected = [
            ("client_id", "11111111-aaaa"),
            ("scope", "https://shop.servicebus.windows.net/.default"),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", "federated.token.one"),
            ("grant_type", "client_credentials"),
        ];
        assert_eq!(form(&request.body), form_of(&expected));
        assert_eq!(fetched.token.value(), token);

        // A renewed federated token is used the next time.
        std::fs::write(&file, "federated.token.two").unwrap();
        azure.fetch().await.unwrap();
        assert!(server.last().body.contains("federated.token.two"));

        let refusal = json!({
            "error": "invalid_client",
            "error_description": "AADSTS700211: No match for federated.token.two. Trace ID: 5 Timestamp: x",
        });
        let server = TokenServer::start(answers(401, &refusal.to_string())).await;
        let azure = Azure {
            token_url: server.url("/t"),
            ..azure
        };
        let error = azure.fetch().await.unwrap_err();
        assert!(
            error.ends_with(
                "401 Unauthorized: invalid_client: AADSTS700211: No match for [redacted]."
            ),
            "{error}"
        );
        std::fs::remove_file(&file).unwrap();
        let error = azure.fetch().await.unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
    }

    fn form_of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn missing_settings_are_named() {
        let all = [
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_FEDERATED_TOKEN_FILE", "f"),
        ];
        let azure = Azure::new(None, HUB, variables(&all)).unwrap();
        assert_eq!(
            azure.token_url,
            "https://login.microsoftonline.com/t/oauth2/v2.0/token"
        );
        for (missing, _) in all {
            let rest: Vec<_> = all.into_iter().filter(|(key, _)| *key != missing).collect();
            let error = Azure::new(None, HUB, variables(&rest)).unwrap_err();
            assert!(error.contains(missing), "{error}");
        }
        assert!(Azure::new(None, "kafka:9093", variables(&all)).is_err());
        let given = Azure::new(Some("s"), "kafka:9093", variables(&all)).unwrap();
        assert_eq!(given.scope, "s");
        for bootstrap in [
            "a:1, SASL_SSL://shop.servicebus.windows.net:9093",
            "shop.servicebus.windows.net",
        ] {
            assert_eq!(
                namespace_scope(bootstrap).unwrap(),
                "https://shop.servicebus.windows.net/.default"
            );
        }
    }
}
