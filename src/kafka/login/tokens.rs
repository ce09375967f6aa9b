//! The token that is valid now: fetched before it is needed, shared by all who need it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::settings::Exchange;
use super::{Fetched, Token, TokenSettings};
use crate::model::units::newtypes::ClusterName;

/// How long one exchange may take, with all its steps.
const FETCH: Duration = Duration::from_secs(9);
/// The pauses after failures: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The least time between two exchanges, whatever the answers say.
const LEAST: Duration = Duration::from_secs(1);
/// The longest: a source that gives tokens for years may still change.
const MOST: Duration = Duration::from_secs(12 * 3600);
/// The least time between two exchanges that a broker's refusal leads to.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Why there is no token: which source, and what it or its endpoint said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token source {source_name}: {reason}")]
pub struct NoToken {
    source_name: &'static str,
    reason: Arc<str>,
}

/// What is known of the source.
#[derive(Clone, Debug, Default)]
struct TokenState {
    /// The last token that it gave.
    token: Option<Arc<Token>>,
    /// Why it gave none the last time it was asked.
    failure: Option<Arc<str>>,
}

/// The tokens of one cluster's login. A task asks the source before the token at hand expires, for as
/// long as this lives; nobody else asks, so that any number of connections costs one exchange.
#[derive(Debug)]
pub struct Tokens {
    source: &'static str,
    state: watch::Receiver<TokenState>,
    refused: Arc<Notify>,
}

impl Tokens {
    /// Starts asking.
    ///
    /// # Errors
    /// What the source lacks and will lack for good, such as an environment variable.
    pub fn start(
        settings: &TokenSettings,
        cluster: &ClusterName,
        bootstrap: &str,
        runtime: &Handle,
    ) -> Result<Arc<Self>, String> {
        let source = settings.source.name();
        let exchange = settings
            .source
            .exchange(bootstrap)
            .map_err(|reason| format!("token source {source}: {reason}"))?;
        let (state_in, state) = watch::channel(TokenState::default());
        let refused = Arc::new(Notify::new());
        let keeper = TokenRefresher {
            exchange,
            settings: settings.clone(),
            cluster: cluster.clone(),
            state: state_in,
            refused: Arc::clone(&refused),
        };
        runtime.spawn(keeper.run());
        Ok(Arc::new(Self {
            source,
            state,
            refused,
        }))
    }

    /// The token, where one is valid now.
    #[must_use]
    pub fn now(&self) -> Option<Arc<Token>> {
        valid(&self.state.borrow())
    }

    /// The token, waited for until the deadline while the source is asked for the first time.
    ///
    /// # Errors
    /// The source gives none, and why.
    pub async fn token(&self, deadline: Instant) -> Result<Arc<Token>, NoToken> {
        let mut state = self.state.clone();
        loop {
            {
                let seen = state.borrow_and_update();
                if let Some(token) = valid(&seen) {
                    return Ok(token);
                }
                if let Some(reason) = &seen.failure {
                    return Err(self.none(Arc::clone(reason)));
                }
            }
            match timeout_at(deadline, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.none("it is not asked any more".into())),
                Err(_) => return Err(self.none("it has not answered yet".into())),
            }
        }
    }

    /// Why there is no token, where there is none although the source was asked.
    #[must_use]
    pub fn failure(&self) -> Option<NoToken> {
        let state = self.state.borrow();
        match (valid(&state), &state.failure) {
            (None, Some(reason)) => Some(self.none(Arc::clone(reason))),
            _ => None,
        }
    }

    /// A broker took the token for wrong. A newer one may be right (keys change, and clocks go
    /// wrong), so that the source is asked before its time.
    pub fn refused(&self, token: &Token) {
        let is_current = self.state.borrow().token.as_deref() == Some(token);
        if is_current {
            self.refused.notify_one();
        }
    }

    fn none(&self, reason: Arc<str>) -> NoToken {
        NoToken {
            source_name: self.source,
            reason,
        }
    }
}

fn valid(state: &TokenState) -> Option<Arc<Token>> {
    let token = state.token.as_ref()?;
    (!token.left(SystemTime::now()).is_zero()).then(|| Arc::clone(token))
}

/// Asks the source.
struct TokenRefresher {
    exchange: Exchange,
    settings: TokenSettings,
    cluster: ClusterName,
    state: watch::Sender<TokenState>,
    refused: Arc<Notify>,
}

impl TokenRefresher {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let asked = Instant::now();
            let pause = match self.fetch().await {
                Ok(fetched) => {
                    failures = 0;
                    self.keep(fetched)
                }
                Err(reason) => {
                    let pause = backoff(failures);
                    failures += 1;
                    self.failed(reason.into());
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.refused.notified() => {
                    tokio::time::sleep_until(asked + AFTER_REFUSAL).await;
                }
                () = self.state.closed() => return,
            }
            if self.state.is_closed() {
                return;
            }
        }
    }

    async fn fetch(&self) -> Result<Fetched, String> {
        let fetched = timeout(FETCH, self.exchange.fetch()).await;
        let seconds = FETCH.as_secs();
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {seconds} s")))?;
        if fetched.token.left(SystemTime::now()).is_zero() {
            return Err(
                "the token that it gave has expired (or this machine's clock is wrong)".into(),
            );
        }
        Ok(fetched)
    }

    /// Takes a token, and says when to ask for the next.
    fn keep(&self, fetched: Fetched) -> Duration {
        let mut token = fetched.token;
        token.extensions.clone_from(&self.settings.extensions);
        let pause = fetched
            .again
            .unwrap_or_else(|| due(token.left(SystemTime::now()), fastrand::f64()));
        self.state.send_if_modified(|state| {
            let is_new = state.token.as_deref() != Some(&token);
            if is_new {
                tracing::debug!(cluster = %self.cluster, principal = token.principal, "new token");
                state.token = Some(Arc::new(token));
            }
            state.failure.take().is_some() || is_new
        });
        pause
    }

    /// Notes a failure; a token that is still valid is used up.
    fn failed(&self, reason: Arc<str>) {
        // Told once: services put identifiers of each request into their words.
        let is_first = self.state.borrow().failure.is_none();
        let (cluster, source) = (&self.cluster, self.settings.source.name());
        if is_first {
            tracing::warn!(%cluster, source, %reason, "no new token");
        } else {
            tracing::debug!(%cluster, source, %reason, "no new token");
        }
        self.state.send_modify(|state| state.failure = Some(reason));
    }
}

/// When a token with so much time left is due: after four fifths of it, spread a little, so that many
/// processes do not ask at once.
fn due(left: Duration, random: f64) -> Duration {
    left.mul_f64(0.78 + 0.04 * random).clamp(LEAST, MOST)
}

fn backoff(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
    let pause = BACKOFF.0.saturating_mul(factor).min(BACKOFF.1);
    pause.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::json;

    use super::*;
    use crate::kafka::login::testing::{Request, Server, jwt, response};
    use crate::kafka::login::{Oidc, TokenSource};

    fn start(server: &Server) -> Arc<Tokens> {
        let mut settings = TokenSettings::new(TokenSource::Oidc(Oidc {
            token_url: server.url("/t"),
            client_id: "lag".into(),
            client_secret: "hunter2".into(),
            scope: None,
            ca_file: None,
        }));
        settings
            .extensions
            .insert("logicalCluster".into(), "lkc".into());
        Tokens::start(&settings, &"main".into(), "b:1", &Handle::current()).unwrap()
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn token_of(seconds: u64) -> String {
        let body = json!({"access_token": jwt(seconds, "me"), "expires_in": seconds});
        response(200, &[], &body.to_string())
    }

    #[tokio::test]
    async fn many_callers_cost_one_exchange() {
        let server = Server::start(|_: &Request| token_of(600)).await;
        let tokens = start(&server);
        let all = (0..50).map(|_| tokens.token(deadline()));
        for token in futures::future::join_all(all).await {
            assert_eq!(token.unwrap().extensions["logicalCluster"], "lkc");
        }
        assert!(tokens.now().is_some() && tokens.failure().is_none());
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_it_expires() {
        let asked = AtomicU64::new(0);
        let server = Server::start(move |_: &Request| {
            let seconds = if asked.fetch_add(1, Ordering::Relaxed) == 0 {
                3
            } else {
                600
            };
            token_of(seconds)
        })
        .await;
        let tokens = start(&server);
        let first = tokens.token(deadline()).await.unwrap();
        let mut state = tokens.state.clone();
        let renewed = state.wait_for(|state| state.token.as_ref().is_some_and(|t| *t != first));
        timeout(Duration::from_secs(30), renewed)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(server.requests().len(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_at_once_and_passes() {
        let asked = AtomicU64::new(0);
        let server =
            Server::start(
                move |_: &Request| match asked.fetch_add(1, Ordering::Relaxed) {
                    0 => response(503, &[], "hunter2"),
                    _ => token_of(600),
                },
            )
            .await;
        let tokens = start(&server);
        let told = tokens.token(deadline()).await.unwrap_err();
        assert_eq!(Some(&told), tokens.failure().as_ref());
        let told = told.to_string();
        assert!(
            told.starts_with("token source oidc: http://127.0.0.1:"),
            "{told}"
        );
        assert!(
            told.ends_with("it answered 503 Service Unavailable"),
            "{told}"
        );
        let mut state = tokens.state.clone();
        let back = state.wait_for(|state| state.token.is_some());
        timeout(Duration::from_secs(30), back)
            .await
            .unwrap()
            .unwrap();
        assert!(tokens.now().is_some() && tokens.failure().is_none());
    }

    #[tokio::test]
    async fn an_expired_token_is_a_failure() {
        let server = Server::start(|_: &Request| token_of(0)).await;
        let told = start(&server)
            .token(deadline())
            .await
            .unwrap_err()
            .to_string();
        assert!(told.contains("has expired"), "{told}");
    }

    #[tokio::test]
    async fn silence_ends() {
        let server = Server::start(|_: &Request| String::new()).await;
        let tokens = start(&server);
        let soon = Instant::now() + Duration::from_millis(50);
        let told = tokens.token(soon).await.unwrap_err().to_string();
        assert!(told.contains("has not answered yet"), "{told}");
        let told = tokens.token(deadline()).await.unwrap_err().to_string();
        assert!(told.contains("no answer in time"), "{told}");
    }

    #[tokio::test]
    async fn what_nobody_holds_asks_no_more() {
        let server = Server::start(|_: &Request| token_of(600)).await;
        let tokens = start(&server);
        let mut state = tokens.state.clone();
        tokens.token(deadline()).await.unwrap();
        drop(tokens);
        // This clone is the last that keeps it going.
        assert!(state.has_changed().is_ok());
        state.mark_unchanged();
    }

    #[test]
    fn due_times_and_pauses() {
        let hour = Duration::from_secs(3600);
        assert_eq!(due(hour, 0.0), hour.mul_f64(0.78));
        assert_eq!(due(hour, 1.0), hour.mul_f64(0.82));
        assert_eq!(due(Duration::ZERO, 0.5), LEAST);
        assert_eq!(due(hour * 10_000, 0.5), MOST);
        assert!(backoff(0) <= BACKOFF.0.mul_f64(1.2));
        assert!(backoff(u32::MAX) >= BACKOFF.1.mul_f64(0.8));
    }
}
