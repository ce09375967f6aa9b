//! Tokens of Google's metadata server (GKE's workload identity emulates it), in the format of
//! Google's Managed Kafka: an access token inside something that looks like a JSON Web Token.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::http::{self, HttpAnswer, Trust};
use super::{FetchedToken, Token, oidc};

/// The metadata server's name, always resolvable on Google Cloud.
const HOST: &str = "metadata.google.internal";
const ACCOUNT: &str = "computeMetadata/v1/instance/service-accounts/default";

/// The metadata server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gcp {
    host: String,
}

impl Gcp {
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let host = variable("GCE_METADATA_HOST").filter(|host| !host.is_empty());
        Self {
            host: host.unwrap_or_else(|| HOST.into()),
        }
    }

    pub(super) async fn fetch(&self) -> Result<FetchedToken, String> {
        let about = |reason: String| format!("metadata server {}: {reason}", self.host);
        let client = http::client(&Trust::Local).map_err(about)?;
        let now = SystemTime::now();
        let answer = self.fetch_path(&client, "token").await.map_err(about)?;
        let json = http::json(&answer, &[]).map_err(about)?;
        let access = oidc::read(&json, now, "").map_err(about)?;
        let answer = self.fetch_path(&client, "email").await.map_err(about)?;
        let account = String::from_utf8_lossy(&answer.body).trim().to_owned();
        if !answer.status.is_success() || account.is_empty() {
            return Err(about(format!(
                "HTTP status {} for the account's name",
                answer.status
            )));
        }
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.map(|since| since.as_secs()).unwrap_or_default()
        };
        let claims = json!({
            "exp": seconds(access.expires),
            "iss": "Google",
            "iat": seconds(now),
            "scope": "kafka",
            "sub": account,
        });
        let header = json!({"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"});
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let secret = BASE64_URL_SAFE_NO_PAD.encode(access.value());
        let value = format!("{}.{}.{secret}", encode(&header), encode(&claims));
        Token::new(value, access.expires, account)
            .map(FetchedToken::from)
            .map_err(about)
    }

    async fn fetch_path(&self, client: &reqwest::Client, what: &str) -> Result<HttpAnswer, String> {
        let url = format!("http://{}/{ACCOUNT}/{what}", self.host);
        let request = client.get(url).header("Metadata-Flavor", "Google");
        let answer = http::send(request).await?;
        // Do not trust anything else that answers at this address.
        let flavor = answer.headers.get("Metadata-Flavor");
        if flavor.is_none_or(|flavor| flavor != "Google") {
            return Err("the response does not come from Google's metadata server (no Metadata-Flavor header)".into());
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::login::testing::{RecordedRequest, TokenServer, response};

    fn metadata(request: &RecordedRequest) -> String {
        let flavored = [("Metadata-Flavor", "Google")];
        if request.line.contains("/token ") {
            let body = r#"{"access_token":"ya29.c.token","expires_in":3600,"token_type":"Bearer"}"#;
            response(200, &flavored, body)
        } else {
            response(200, &flavored, "lag@shop.iam.gserviceaccount.com")
        }
    }

    fn gcp(server: &TokenServer) -> Gcp {
        Gcp::new(|name| (name == "GCE_METADATA_HOST").then(|| server.host()))
    }

    #[tokio::test]
    async fn the_access_token_is_wrapped() {
        let server = TokenServer::start(metadata).await;
        let token = gcp(&server).fetch().await.unwrap().token;
        let requests = server.requests();
        let lines: Vec<_> = requests.iter().map(|r| r.line.as_str()).collect();
        assert_eq!(
            lines,
            [
                format!("GET /{ACCOUNT}/token HTTP/1.1"),
                format!("GET /{ACCOUNT}/email HTTP/1.1"),
            ]
        );
        assert!(
            requests
                .iter()
                .all(|r| r.header("metadata-flavor") == "Google")
        );
        let parts: Vec<_> = token
            .value()
            .split('.')
            .map(|part| String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        let header: Value = serde_json::from_str(&parts[0]).unwrap();
        assert_eq!(header, json!({"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"}));
        let claims: Value = serde_json::from_str(&parts[1]).unwrap();
        assert_eq!(claims["iss"], "Google");
        assert_eq!(claims["sub"], "lag@shop.iam.gserviceaccount.com");
        let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
        assert_eq!(life, 3600);
        assert_eq!(parts[2], "ya29.c.token");
        assert_eq!(token.principal, "lag@shop.iam.gserviceaccount.com");
    }

    #[tokio::test]
    async fn foreign_and_malformed_responses_are_refused() {
        for (answer, reason) in [
            (
                response(200, &[], r#"{"access_token":"x"}"#),
                "not come from Google's metadata server",
            ),
            (
                response(404, &[("Metadata-Flavor", "Google")], "no account"),
                "HTTP status 404",
            ),
            (
                response(200, &[("Metadata-Flavor", "Google")], "?"),
                "not JSON",
            ),
        ] {
            let server = TokenServer::start(move |_: &RecordedRequest| answer.clone()).await;
            let error = gcp(&server).fetch().await.unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(Gcp::new(|_| None).host, HOST);
    }
}
