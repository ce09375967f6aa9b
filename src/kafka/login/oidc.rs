//! Tokens of an OpenID Connect or OAuth 2.0 token endpoint, by client credentials (RFC 6749,
//! section 4.4).

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::Value;

use super::http::{self, Trust};
use super::{FetchedToken, Token, jwt};
use crate::model::units::file_path::ShownPath;

/// Assumed lifetime of a token whose endpoint states none.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// A token endpoint and client credentials. Holds a secret, hence no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Oidc {
    /// URL of the token endpoint.
    pub token_url: String,
    pub client_id: String,
    pub client_secret: String,
    /// Requested scope, if the endpoint needs one.
    pub scope: Option<String>,
    /// Certificate authorities (PEM) to trust for the endpoint, in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

impl Oidc {
    pub(super) async fn fetch(&self) -> Result<FetchedToken, String> {
        let url = http::redact_url(&self.token_url);
        let about = |reason: String| format!("{url}: {reason}");
        let pem = match &self.ca_file {
            None => None,
            Some(file) => Some(std::fs::read(file).map_err(|error| {
                let file = file.display().to_string();
                about(format!("cannot read CA file {}: {error}", ShownPath(&file)))
            })?),
        };
        let client = http::client(&Trust::SystemAnd(pem.as_deref())).map_err(about)?;
        let mut pairs = vec![("grant_type", "client_credentials")];
        pairs.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        // Not form-encoded first, as RFC 6749 requires: Kafka's own clients do not do it either.
        let request = client
            .post(&self.token_url)
            .basic_auth(&self.client_id, Some(&self.client_secret))
            .header(CONTENT_TYPE, FORM)
            .header(ACCEPT, "application/json")
            .body(form(&pairs));
        let now = SystemTime::now();
        let answer = http::send(request).await.map_err(about)?;
        let json = http::json(&answer, &[&self.client_secret]).map_err(about)?;
        read(&json, now, &self.client_id)
            .map(FetchedToken::from)
            .map_err(about)
    }
}

/// Encodes a body of the type [`FORM`].
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

/// Reads a token endpoint's response (RFC 6749, section 5.1) to a request sent at `sent`.
pub(super) fn read(json: &Value, sent: SystemTime, principal: &str) -> Result<Token, String> {
    let token = json
        .get("access_token")
        .and_then(Value::as_str)
        .ok_or("the response has no access_token")?;
    let claims = jwt::claims(token);
    // Some endpoints encode the number as a string.
    let said = json.get("expires_in").and_then(|seconds| {
        let text = || seconds.as_str()?.parse().ok();
        seconds.as_u64().or_else(text)
    });
    let by_answer = said.and_then(|seconds| sent.checked_add(Duration::from_secs(seconds)));
    // Brokers use the token's own expiry, but the earlier one is safe.
    let expires = match (claims.expires, by_answer) {
        (Some(claimed), Some(said)) => claimed.min(said),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => sent + DEFAULT_LIFETIME,
    };
    let subject = claims.subject.unwrap_or_else(|| principal.to_owned());
    Token::new(token.to_owned(), expires, subject)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kafka::login::testing::{TokenServer, answers, jwt};

    fn oidc(server: &TokenServer) -> Oidc {
        Oidc {
            token_url: server.url("/realms/main/token"),
            client_id: "lag".into(),
            client_secret: "hunter2".into(),
            scope: Some("kafka read".into()),
            ca_file: None,
        }
    }

    #[tokio::test]
    async fn the_request_follows_the_standard() {
        let token = jwt(3600, "svc-lag");
        let body = json!({"access_token": token, "expires_in": 600, "token_type": "Bearer"});
        let server = TokenServer::start(answers(200, &body.to_string())).await;
        let fetched = oidc(&server).fetch().await.unwrap();
        let request = server.last();
        assert_eq!(request.line, "POST /realms/main/token HTTP/1.1");
        // lag:hunter2
        assert_eq!(request.header("authorization"), "Basic bGFnOmh1bnRlcjI=");
        assert_eq!(request.header("content-type"), FORM);
        assert_eq!(
            request.body,
            "grant_type=client_credentials&scope=kafka+read"
        );
        assert_eq!(fetched.token.value(), token);
        assert_eq!(fetched.token.principal, "svc-lag");
        let left = fetched.token.remaining(SystemTime::now());
        assert!(left <= Duration::from_secs(600) && left > Duration::from_secs(500));
    }

    #[tokio::test]
    async fn refused_and_malformed_responses_are_reported_without_secrets() {
        let refusal = r#"{"error":"invalid_client","error_description":"no hunter2"}"#;
        for (status, body, reason) in [
            (
                401,
                refusal,
                "HTTP status 401 Unauthorized: invalid_client: no [redacted]",
            ),
            (
                503,
                "<html>hunter2</html>",
                "HTTP status 503 Service Unavailable",
            ),
            (302, "", "HTTP status 302 Found"),
            (200, "<html>", "the response is not JSON"),
            (200, "{}", "the response has no access_token"),
            (200, r#"{"access_token":"a b"}"#, "invalid token"),
            (200, r#"{"access_token":""}"#, "empty token"),
        ] {
            let server = TokenServer::start(answers(status, body)).await;
            let error = oidc(&server).fetch().await.unwrap_err();
            assert!(
                error.contains(reason) && error.contains("/realms/main/token"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        let nobody = Oidc {
            token_url: "http://127.0.0.1:1/t".into(),
            ..oidc(&TokenServer::start(answers(200, "{}")).await)
        };
        let error = nobody.fetch().await.unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }

    #[test]
    fn the_lifetime_of_a_token_comes_from_the_response() {
        let now = SystemTime::now();
        for (json, seconds) in [
            (json!({"access_token": "x", "expires_in": 60}), 60),
            (json!({"access_token": "x", "expires_in": "60"}), 60),
            (json!({"access_token": "x"}), 300),
            (json!({"access_token": "x", "expires_in": -5}), 300),
        ] {
            let token = read(&json, now, "me").unwrap();
            assert_eq!(token.remaining(now), Duration::from_secs(seconds), "{json}");
        }
    }
}
