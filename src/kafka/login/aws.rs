//! Tokens for IAM logins of Amazon MSK: a presigned URL of the action `kafka-cluster:Connect`, in
//! base64
//! (<https://docs.aws.amazon.com/msk/latest/developerguide/configure-clients-for-iam-access-control.html>).
//!
//! Credentials come from the AWS SDK's default chain: environment variables, profile, a service
//! account's role (IRSA), Pod Identity, instance role. The SDK uses our HTTP client.

use std::time::{Duration, SystemTime};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::sync::OnceCell;

use super::http::{self, Trust};
use super::{FetchedToken, Token};

/// Token lifetime; the maximum that MSK accepts.
const TOKEN_LIFETIME: Duration = Duration::from_secs(900);

/// Session name of an assumed role, as shown in AWS logs.
const SESSION: &str = "lagwise";

/// AWS credentials for one region.
#[derive(Debug)]
pub(super) struct Aws {
    region: String,
    /// A role to assume with the credentials.
    role_arn: Option<String>,
    /// The credential chain, resolved on first use.
    chain: OnceCell<SdkConfig>,
}

impl Aws {
    pub(super) fn new(region: String, role_arn: Option<String>) -> Self {
        Self {
            region,
            role_arn,
            chain: OnceCell::new(),
        }
    }

    pub(super) async fn fetch(&self) -> Result<FetchedToken, String> {
        let credentials = self.credentials().await?;
        presigned(&self.region, credentials, SystemTime::now()).map(FetchedToken::from)
    }

    async fn credentials(&self) -> Result<Credentials, String> {
        let region = Region::new(self.region.clone());
        let load = || async {
            let client = SdkHttpClient(http::client(&Trust::SystemAnd(None))?);
            let loader = aws_config::defaults(BehaviorVersion::latest())
                .region(region.clone())
                .http_client(client);
            Ok::<_, String>(loader.load().await)
        };
        let chain = self.chain.get_or_try_init(load).await?;
        let found = match &self.role_arn {
            None => match chain.credentials_provider() {
                Some(provider) => provider.provide_credentials().await,
                None => return Err("no AWS credentials found".into()),
            },
            Some(role) => {
                let role = AssumeRoleProvider::builder(role)
                    .configure(chain)
                    .region(region)
                    .session_name(SESSION)
                    .build()
                    .await;
                role.provide_credentials().await
            }
        };
        found.map_err(|error| format!("credentials: {}", http::error_chain(&error)))
    }
}

/// Signs a token, which is valid at most as long as the credentials.
fn presigned(region: &str, credentials: Credentials, now: SystemTime) -> Result<Token, String> {
    let defect = |error: &dyn std::error::Error| format!("signing: {}", http::error_chain(error));
    let principal = credentials.access_key_id().to_owned();
    let until = credentials.expiry();
    let url = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(TOKEN_LIFETIME);
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kafka-cluster")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| defect(&error))?;
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| defect(&error))?;
    let (instructions, _) = sign(request, &parameters.into())
        .map_err(|error| defect(&error))?
        .into_parts();
    let start = url.find('?').map_or(url.len(), |question| question + 1);
    let mut query = form_urlencoded::Serializer::for_suffix(url, start);
    query.extend_pairs(instructions.params());
    // Not signed; Amazon's own libraries identify themselves in the same place.
    query.append_pair("User-Agent", concat!("lagwise/", env!("CARGO_PKG_VERSION")));
    let value = BASE64_URL_SAFE_NO_PAD.encode(query.finish());
    let expires = until.map_or(now + TOKEN_LIFETIME, |until| {
        until.min(now + TOKEN_LIFETIME)
    });
    Token::new(value, expires, principal)
}

/// Our HTTP client as an AWS SDK client.
#[derive(Clone, Debug)]
struct SdkHttpClient(reqwest::Client);

impl HttpClient for SdkHttpClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // Keep the SDK's short timeouts, so that a missing metadata server fails early.
        let limit = match (settings.connect_timeout(), settings.read_timeout()) {
            (Some(connect), Some(read)) => connect + read,
            _ => http::EXCHANGE_TIMEOUT,
        };
        SharedHttpConnector::new(SdkConnector {
            client: self.0.clone(),
            limit: limit.min(http::EXCHANGE_TIMEOUT),
        })
    }
}

#[derive(Debug)]
struct SdkConnector {
    client: reqwest::Client,
    limit: Duration,
}

impl HttpConnector for SdkConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.client.clone();
        let limit = self.limit;
        HttpConnectorFuture::new(async move {
            let exchanged = tokio::time::timeout(limit, exchange(&client, request)).await;
            match exchanged {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(reason)) => Err(ConnectorError::io(reason.into())),
                Err(_) => Err(ConnectorError::timeout("no answer in time".into())),
            }
        })
    }
}

async fn exchange(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, String> {
    let method = reqwest::Method::from_bytes(request.method().as_bytes());
    let method = method.map_err(|error| error.to_string())?;
    let url = http::redact_url(request.uri());
    let mut out = client.request(method, request.uri());
    for (name, value) in request.headers() {
        out = out.header(name, value);
    }
    if let Some(body) = request.body().bytes() {
        out = out.body(body.to_vec());
    }
    let answer = http::send(out)
        .await
        .map_err(|reason| format!("{url}: {reason}"))?;
    let status = answer.status.as_u16().try_into();
    let status = status.map_err(|_| format!("{url}: HTTP status {}", answer.status))?;
    let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
    for (name, value) in &answer.headers {
        // The SDK ignores headers that are not text.
        if let Ok(value) = value.to_str() {
            response
                .headers_mut()
                .append(name.as_str().to_owned(), value.to_owned());
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(token: &Token) -> Vec<(String, String)> {
        let url = BASE64_URL_SAFE_NO_PAD.decode(token.value()).unwrap();
        let url = String::from_utf8(url).unwrap();
        let (address, query) = url.split_once('?').unwrap();
        assert_eq!(address, "https://kafka.eu-central-1.amazonaws.com/");
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    #[test]
    fn a_token_is_a_presigned_url() {
        // 2024-01-02T03:04:05Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_164_645);
        let until = now + Duration::from_secs(600);
        let credentials = |session: Option<&str>, until| {
            let session = session.map(str::to_owned);
            Credentials::new("AKIDEXAMPLE", "secret-key", session, until, "test")
        };
        let token = presigned(
            "eu-central-1",
            credentials(Some("se+ss/ion=="), Some(until)),
            now,
        )
        .unwrap();
        let query_of = query(&token);
        let value = |name: &str| {
            let found = query_of.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("Action"), Some("kafka-cluster:Connect"));
        assert_eq!(value("X-Amz-Algorithm"), Some("AWS4-HMAC-SHA256"));
        assert_eq!(
            value("X-Amz-Credential"),
            Some("AKIDEXAMPLE/20240102/eu-central-1/kafka-cluster/aws4_request")
        );
        assert_eq!(value("X-Amz-Date"), Some("20240102T030405Z"));
        assert_eq!(value("X-Amz-Expires"), Some("900"));
        assert_eq!(value("X-Amz-SignedHeaders"), Some("host"));
        assert_eq!(value("X-Amz-Security-Token"), Some("se+ss/ion=="));
        assert_eq!(value("X-Amz-Signature").unwrap().len(), 64);
        assert!(value("User-Agent").unwrap().starts_with("lagwise/"));
        // No longer than the credentials.
        assert_eq!(token.expires, until);
        assert_eq!(token.principal, "AKIDEXAMPLE");
        let url = BASE64_URL_SAFE_NO_PAD.decode(token.value()).unwrap();
        assert!(!String::from_utf8(url).unwrap().contains("secret-key"));

        let lasting = presigned("eu-central-1", credentials(None, None), now).unwrap();
        assert_eq!(lasting.expires, now + TOKEN_LIFETIME);
        assert!(
            query(&lasting)
                .iter()
                .all(|(key, _)| key != "X-Amz-Security-Token")
        );
    }
}
