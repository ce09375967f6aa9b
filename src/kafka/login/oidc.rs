//! Tokens of an OpenID Connect or OAuth 2.0 token endpoint, by client credentials (RFC 6749, section
//! 4.4).

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::Value;

use super::http::{self, Trust};
use super::{Fetched, Token, jwt};

/// How long a token counts as valid whose endpoint does not say.
const UNSAID: Duration = Duration::from_secs(300);

pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// A token endpoint and a client of it. Holds a secret, hence no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Oidc {
    /// Where tokens are asked for.
    pub token_url: String,
    /// The client's name there.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// What the token is to allow, where the endpoint wants to know.
    pub scope: Option<String>,
    /// Authorities (PEM) that the endpoint's certificate may be signed by, besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Oidc {
    pub(super) async fn fetch(&self) -> Result<Fetched, String> {
        let asked = http::redact_url(&self.token_url);
        let about = |reason: String| format!("{asked}: {reason}");
        let pem = match &self.ca_file {
            None => None,
            Some(file) => Some(std::fs::read(file).map_err(|error| {
                let file = file.display();
                about(format!("its CA file {file} cannot be read: {error}"))
            })?),
        };
        let client = http::client(&Trust::SystemAnd(pem.as_deref())).map_err(about)?;
        let mut pairs = vec![("grant_type", "client_credentials")];
        pairs.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        // Kafka's own clients do not encode the two either.
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
            .map(Fetched::from)
            .map_err(about)
    }
}

/// A body of the type [`FORM`].
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

/// A token endpoint's answer (RFC 6749, section 5.1), to a question of that time.
pub(super) fn read(json: &Value, asked: SystemTime, principal: &str) -> Result<Token, String> {
    let token = json
        .get("access_token")
        .and_then(Value::as_str)
        .ok_or("its answer has no access_token")?;
    let claims = jwt::claims(token);
    // Some endpoints write the number as a text.
    let said = json.get("expires_in").and_then(|seconds| {
        let text = || seconds.as_str()?.parse().ok();
        seconds.as_u64().or_else(text)
    });
    let by_answer = said.and_then(|seconds| asked.checked_add(Duration::from_secs(seconds)));
    // The token's own word is what brokers go by.
    let expires = match (claims.expires, by_answer) {
        (Some(claimed), Some(said)) => claimed.min(said),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => asked + UNSAID,
    };
    let subject = claims.subject.unwrap_or_else(|| principal.to_owned());
    Token::new(token.to_owned(), expires, subject)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kafka::login::testing::{Server, answers, jwt};

    fn oidc(server: &Server) -> Oidc {
        Oidc {
            token_url: server.url("/realms/main/token"),
            client_id: "lag".into(),
            client_secret: "hunter2".into(),
            scope: Some("kafka read".into()),
            ca_file: None,
        }
    }

    #[tokio::test]
    async fn the_request_is_as_the_standard_has_it() {
        let token = jwt(3600, "svc-lag");
        let body = json!({"access_token": token, "expires_in": 600, "token_type": "Bearer"});
        let server = Server::start(answers(200, &body.to_string())).await;
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
        let left = fetched.token.left(SystemTime::now());
        assert!(left <= Duration::from_secs(600) && left > Duration::from_secs(500));
    }

    #[tokio::test]
    async fn refusals_and_nonsense_are_told_without_secrets() {
        let refusal = r#"{"error":"invalid_client","error_description":"no hunter2"}"#;
        for (status, body, reason) in [
            (
                401,
                refusal,
                "it answered 401 Unauthorized: invalid_client: no [redacted]",
            ),
            (
                503,
                "<html>hunter2</html>",
                "it answered 503 Service Unavailable",
            ),
            (302, "", "it answered 302 Found"),
            (200, "<html>", "its answer is no JSON"),
            (200, "{}", "its answer has no access_token"),
            (200, r#"{"access_token":"a b"}"#, "no token"),
            (200, r#"{"access_token":""}"#, "empty token"),
        ] {
            let server = Server::start(answers(status, body)).await;
            let told = oidc(&server).fetch().await.unwrap_err();
            assert!(
                told.contains(reason) && told.contains("/realms/main/token"),
                "{told}"
            );
            assert!(!told.contains("hunter2"), "{told}");
        }
        let nobody = Oidc {
            token_url: "http://127.0.0.1:1/t".into(),
            ..oidc(&Server::start(answers(200, "{}")).await)
        };
        let told = nobody.fetch().await.unwrap_err();
        assert!(told.contains("refused"), "{told}");
    }

    #[test]
    fn how_long_a_token_lasts() {
        let now = SystemTime::now();
        for (json, seconds) in [
            (json!({"access_token": "x", "expires_in": 60}), 60),
            (json!({"access_token": "x", "expires_in": "60"}), 60),
            (json!({"access_token": "x"}), 300),
            (json!({"access_token": "x", "expires_in": -5}), 300),
        ] {
            let token = read(&json, now, "me").unwrap();
            assert_eq!(token.left(now), Duration::from_secs(seconds), "{json}");
        }
    }
}
