//! Callers of the API by their credentials (certificates, headers, tokens) and the access that they have.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{KeyPair, SigningKey};
use reqwest::blocking::{Client, ClientBuilder, RequestBuilder};
use serde_json::{Value, json};

use super::Scene;
use crate::testbed::pki::{Authority, Identity};

/// Access of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Presents invalid credentials.
    Invalid,
    /// Presents no credentials.
    Anonymous,
    /// Is authenticated, and has no role.
    Known,
    /// May list `kafka_lag` in the scene's namespace.
    Reader,
    /// May do everything.
    Master,
}

pub(super) struct Caller {
    pub(super) name: &'static str,
    pub(super) rank: Rank,
    client: Client,
    headers: Vec<(&'static str, String)>,
}

impl Caller {
    fn new(name: &'static str, rank: Rank, identity: Option<Identity>) -> Result<Self> {
        Ok(Self {
            name,
            rank,
            client: client(identity)?,
            headers: Vec::new(),
        })
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Claims to be a user who may do everything.
    fn forging(self) -> Self {
        self.header("x-remote-user", "admin")
            .header("x-remote-group", "system:masters")
    }

    pub(super) fn send(&self, method: &str, url: &str) -> Result<(u16, String)> {
        let request = self.client.request(method.parse()?, url);
        let with = |request: RequestBuilder, (name, value): &(&'static str, String)| {
            request.header(*name, value)
        };
        let answer = self.headers.iter().fold(request, with).send()?;
        Ok((answer.status().as_u16(), answer.text()?))
    }
}

pub(crate) fn client(identity: Option<Identity>) -> Result<Client> {
    let mut builder: ClientBuilder = Client::builder()
        // The server's certificate is checked elsewhere.
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30));
    if let Some(identity) = identity {
        let pem = format!("{}{}", identity.certificate, identity.key);
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes())?);
    }
    Ok(builder.build()?)
}

impl Scene<'_> {
    /// Callers of all kinds.
    pub(super) fn callers(&self) -> Result<Vec<Caller>> {
        let (users, proxy) = (&self.plane.pki.authority, &self.plane.pki.front_proxy);
        let stranger_ca = Authority::new("an authority that nobody knows")?;
        let unknown = || {
            stranger_ca
                .client("front-proxy-client", Some("system:masters"))
                .map(Some)
        };
        let front_proxy = || proxy.client("front-proxy-client", None).map(Some);
        let reader_name = format!("system:serviceaccount:{}:reader", self.namespace);
        let (reader, stranger) = (self.token("reader")?, self.token("stranger")?);
        let (valid, expired) = (self.forge("reader", 600)?, self.forge("reader", -600)?);
        let deleted = self.token_of_a_deleted_account()?;
        Ok(vec![
            Caller::new("nothing", Rank::Anonymous, None)?,
            Caller::new("forged headers", Rank::Anonymous, None)?.forging(),
            Caller::new(
                "certificate of an unknown authority",
                Rank::Invalid,
                unknown()?,
            )?,
            Caller::new("the same with forged headers", Rank::Invalid, unknown()?)?.forging(),
            Caller::new("the same with a reader's token", Rank::Reader, unknown()?)?.token(&reader),
            Caller::new(
                "front proxy's authority, other name",
                Rank::Invalid,
                Some(proxy.client("someone", None)?),
            )?
            .forging(),
            Caller::new(
                "front proxy, expired",
                Rank::Invalid,
                Some(proxy.expired_client("front-proxy-client", None)?),
            )?
            .forging(),
            Caller::new(
                "front proxy's authority, its name and another after it",
                Rank::Invalid,
                Some(proxy.client_of_names(&["front-proxy-client", "someone"])?),
            )?
            .forging(),
            // The API server takes the last name, and so does lagwise.
            Caller::new(
                "certificate of the reader and then another",
                Rank::Known,
                Some(users.client_of_names(&[&reader_name, "mary"])?),
            )?,
            Caller::new(
                "certificate of another and then the reader",
                Rank::Reader,
                Some(users.client_of_names(&["mary", &reader_name])?),
            )?,
            Caller::new("front proxy for nobody", Rank::Invalid, front_proxy()?)?,
            Caller::new(
                "front proxy for the anonymous",
                Rank::Anonymous,
                front_proxy()?,
            )?
            .header("x-remote-user", "system:anonymous")
            .header("x-remote-group", "system:unauthenticated"),
            Caller::new("front proxy for somebody", Rank::Known, front_proxy()?)?
                .header("x-remote-user", "mary"),
            Caller::new("front proxy for the reader", Rank::Reader, front_proxy()?)?
                .header("x-remote-user", reader_name),
            Caller::new("front proxy for a master", Rank::Master, front_proxy()?)?.forging(),
            Caller::new(
                "user's certificate",
                Rank::Known,
                Some(users.client("mary", Some("dev"))?),
            )?,
            Caller::new(
                "user's certificate, forged headers",
                Rank::Known,
                Some(users.client("mary", None)?),
            )?
            .forging(),
            Caller::new(
                "user's certificate in the front proxy's name",
                Rank::Known,
                Some(users.client("front-proxy-client", None)?),
            )?
            .forging(),
            Caller::new(
                "user's certificate, expired",
                Rank::Invalid,
                Some(users.expired_client("admin", Some("system:masters"))?),
            )?,
            Caller::new(
                "master's certificate",
                Rank::Master,
                Some(users.client("root", Some("system:masters"))?),
            )?,
            Caller::new("reader's token", Rank::Reader, None)?.token(&reader),
            Caller::new("reader's token, forged headers", Rank::Reader, None)?
                .forging()
                .token(&reader),
            Caller::new("token without a role", Rank::Known, None)?.token(&stranger),
            Caller::new("token that the test signed", Rank::Reader, None)?.token(&valid),
            Caller::new("expired token", Rank::Invalid, None)?.token(&expired),
            Caller::new("token of an account that is gone", Rank::Invalid, None)?.token(&deleted),
            Caller::new("garbage for a token", Rank::Invalid, None)?.token("garbage"),
            Caller::new("another scheme", Rank::Anonymous, None)?
                .header("authorization", "Basic cm9vdDpyb290"),
        ])
    }

    fn token_of_a_deleted_account(&self) -> Result<String> {
        let plane = self.plane;
        plane.kubectl(&[
            "create",
            "serviceaccount",
            "gone",
            "--namespace",
            &self.namespace,
        ])?;
        let token = self.token("gone")?;
        plane.kubectl(&[
            "delete",
            "serviceaccount",
            "gone",
            "--namespace",
            &self.namespace,
        ])?;
        Ok(token)
    }

    fn forge(&self, account: &str, lasts: i64) -> Result<String> {
        let object = self
            .plane
            .get("serviceaccount", account, Some(&self.namespace))?;
        self.forge_of(&object, lasts)
    }

    /// A token of that service account as the API server would sign it, which expires in this number of seconds.
    pub(super) fn forge_of(&self, object: &Value, lasts: i64) -> Result<String> {
        let text = |key: &str| {
            let text = object["metadata"][key].as_str();
            text.with_context(|| format!("no {key}"))
        };
        let (namespace, account) = (text("namespace")?, text("name")?);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs();
        let now = i64::try_from(now)?;
        let audience = "https://kubernetes.default.svc";
        let claims = json!({
            "aud": [audience], "iss": audience, "iat": now - 3600, "nbf": now - 3600, "exp": now + lasts,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": object["metadata"]["uid"]},
            },
        });
        let key = std::fs::read_to_string(self.plane.pki.folder.join("service-accounts.key"))?;
        let key = KeyPair::from_pem(&key)?;
        let header = json!({"alg": "ES256", "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            base64(header.to_string().as_bytes())?,
            base64(claims.to_string().as_bytes())?
        );
        let signature = raw(&key.sign(signed.as_bytes())?).context("no ECDSA signature")?;
        Ok(format!("{signed}.{}", base64(&signature)?))
    }
}

fn base64(bytes: &[u8]) -> Result<String> {
    let Value::String(text) = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec()))? else {
        anyhow::bail!("no text");
    };
    Ok(text
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_"))
}

/// Converts an ECDSA signature from ASN.1 to its two numbers of 32 bytes each.
fn raw(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.get(2..)?;
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        rest = &rest[2 + length..];
        let number = &number[number.len().saturating_sub(32)..];
        numbers.extend(std::iter::repeat_n(0, 32 - number.len()));
        numbers.extend_from_slice(number);
    }
    Some(numbers)
}
