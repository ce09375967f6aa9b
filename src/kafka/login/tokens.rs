//! Caches the valid token: fetched before it is needed and shared by all connections.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::settings::{TokenFetcher, process_variable};
use super::{FetchedToken, Token, TokenSettings};
use crate::model::units::newtypes::ClusterName;

/// Timeout for one fetch, with all its steps.
const FETCH_TIMEOUT: Duration = Duration::from_secs(9);
/// Backoff after failures, shortest and longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Minimum time between two fetches.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time between two fetches, since even a source of long-lived tokens may change.
const MAX_INTERVAL: Duration = Duration::from_secs(12 * 3600);
/// Minimum time between two fetches caused by brokers that refuse the token.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(30);

/// Why there is no token: the source and its error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token source {source_name}: {reason}")]
pub struct TokenError {
    source_name: &'static str,
    reason: Arc<str>,
}

/// State of the source.
#[derive(Clone, Debug, Default)]
struct TokenState {
    /// The latest token.
    token: Option<Arc<Token>>,
    /// Why the latest fetch failed.
    failure: Option<Arc<str>>,
}

/// Cached token of one cluster's login. A single task fetches and renews it while this value lives, so all connections
/// share one fetch.
#[derive(Debug)]
pub struct TokenCache {
    source: &'static str,
    state: watch::Receiver<TokenState>,
    refused: Arc<Notify>,
}

impl TokenCache {
    /// Starts fetching.
    ///
    /// # Errors
    /// A configuration error that a retry cannot fix, such as a missing environment variable.
    pub fn start(
        settings: &TokenSettings,
        cluster: &ClusterName,
        bootstrap: &str,
        runtime: &Handle,
    ) -> Result<Arc<Self>, String> {
        let source = settings.source.name();
        let fetcher = settings.source.fetcher(bootstrap, &process_variable);
        let fetcher = fetcher.map_err(|reason| format!("token source {source}: {reason}"))?;
        let (state_in, state) = watch::channel(TokenState::default());
        let refused = Arc::new(Notify::new());
        let refresher = TokenRefresher {
            fetcher,
            settings: settings.clone(),
            cluster: cluster.clone(),
            state: state_in,
            refused: Arc::clone(&refused),
        };
        runtime.spawn(refresher.run());
        Ok(Arc::new(Self {
            source,
            state,
            refused,
        }))
    }

    /// A cache that never fetches, for checking settings.
    pub(super) fn idle(source: &'static str) -> Arc<Self> {
        Arc::new(Self {
            source,
            state: watch::channel(TokenState::default()).1,
            refused: Arc::default(),
        })
    }

    /// The valid token, if any.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Token>> {
        valid_token(&self.state.borrow())
    }

    /// Returns the valid token, or waits until the deadline for the first fetch.
    ///
    /// # Errors
    /// The source's error.
    pub async fn wait(&self, deadline: Instant) -> Result<Arc<Token>, TokenError> {
        let mut state = self.state.clone();
        loop {
            {
                let seen = state.borrow_and_update();
                if let Some(token) = valid_token(&seen) {
                    return Ok(token);
                }
                if let Some(reason) = &seen.failure {
                    return Err(self.error(Arc::clone(reason)));
                }
            }
            match timeout_at(deadline, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    return Err(self.error("the task that fetches tokens has ended".into()));
                }
                Err(_) => return Err(self.error("has not answered yet".into())),
            }
        }
    }

    /// Error of the latest fetch, if it failed and no valid token is cached.
    #[must_use]
    pub fn failure(&self) -> Option<TokenError> {
        let state = self.state.borrow();
        match (valid_token(&state), &state.failure) {
            (None, Some(reason)) => Some(self.error(Arc::clone(reason))),
            _ => None,
        }
    }

    /// Reports that a broker refused the token. A new one may be accepted (keys rotate, clocks
    /// drift), so a new token is requested early.
    pub fn report_refusal(&self, token: &Token) {
        let is_current = self.state.borrow().token.as_deref() == Some(token);
        if is_current {
            self.refused.notify_one();
        }
    }

    fn error(&self, reason: Arc<str>) -> TokenError {
        TokenError {
            source_name: self.source,
            reason,
        }
    }
}

fn valid_token(state: &TokenState) -> Option<Arc<Token>> {
    let token = state.token.as_ref()?;
    (!token.remaining(SystemTime::now()).is_zero()).then(|| Arc::clone(token))
}

/// The task that fetches tokens.
struct TokenRefresher {
    fetcher: TokenFetcher,
    settings: TokenSettings,
    cluster: ClusterName,
    state: watch::Sender<TokenState>,
    refused: Arc<Notify>,
}

impl TokenRefresher {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let pause = match self.fetch().await {
                Ok(fetched) => {
                    failures = 0;
                    self.store(fetched)
                }
                Err(reason) => {
                    let pause = backoff(failures);
                    failures += 1;
                    self.record_failure(reason.into());
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.refused.notified() => {
                    tokio::time::sleep_until(started + REFUSAL_INTERVAL).await;
                }
                () = self.state.closed() => return,
            }
            if self.state.is_closed() {
                return;
            }
        }
    }

    async fn fetch(&self) -> Result<FetchedToken, String> {
        let fetched = timeout(FETCH_TIMEOUT, self.fetcher.fetch()).await;
        let seconds = FETCH_TIMEOUT.as_secs();
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {seconds} s")))?;
        if fetched.token.remaining(SystemTime::now()).is_zero() {
            return Err(
                "returned a token that has expired (or this machine's clock is wrong)".into(),
            );
        }
        Ok(fetched)
    }

    /// Stores a token and returns when to fetch the next.
    fn store(&self, fetched: FetchedToken) -> Duration {
        let mut token = fetched.token;
        token.extensions.clone_from(&self.settings.extensions);
        let pause = fetched
            .refetch_after
            .unwrap_or_else(|| refresh_delay(token.remaining(SystemTime::now()), fastrand::f64()));
        self.state.send_if_modified(|state| {
            let is_new = state.token.as_deref() != Some(&token);
            if is_new {
                tracing::debug!(cluster = %self.cluster, principal = token.principal, "fetched a token");
                state.token = Some(Arc::new(token));
            }
            state.failure.take().is_some() || is_new
        });
        pause
    }

    /// Records a failure; a token that is still valid stays in use.
    fn record_failure(&self, reason: Arc<str>) {
        // Warn once per outage: reasons differ each time, because services include request IDs.
        let is_first = self.state.borrow().failure.is_none();
        let (cluster, source) = (&self.cluster, self.settings.source.name());
        if is_first {
            tracing::warn!(%cluster, source, %reason, "cannot fetch a token");
        } else {
            tracing::debug!(%cluster, source, %reason, "cannot fetch a token");
        }
        self.state.send_modify(|state| state.failure = Some(reason));
    }
}

/// When to refresh a token with this remaining validity: after four fifths of it, with jitter, so that many processes
/// do not send requests at the same time.
fn refresh_delay(left: Duration, random: f64) -> Duration {
    left.mul_f64(0.78 + 0.04 * random)
        .clamp(MIN_INTERVAL, MAX_INTERVAL)
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
    use crate::kafka::login::testing::{RecordedRequest, TokenServer, jwt, response};
    use crate::kafka::login::{Oidc, TokenSource};

    fn start(server: &TokenServer) -> Arc<TokenCache> {
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
        TokenCache::start(&settings, &"main".into(), "b:1", &Handle::current()).unwrap()
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn token_of(seconds: u64) -> String {
        let body = json!({"access_token": jwt(seconds, "me"), "expires_in": seconds});
        response(200, &[], &body.to_string())
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_fetch() {
        let server = TokenServer::start(|_: &RecordedRequest| token_of(600)).await;
        let tokens = start(&server);
        let all = (0..50).map(|_| tokens.wait(deadline()));
        for token in futures::future::join_all(all).await {
            assert_eq!(token.unwrap().extensions["logicalCluster"], "lkc");
        }
        assert!(tokens.current().is_some() && tokens.failure().is_none());
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_it_expires() {
        let requests = AtomicU64::new(0);
        let server = TokenServer::start(move |_: &RecordedRequest| {
            let seconds = if requests.fetch_add(1, Ordering::Relaxed) == 0 {
                3
            } else {
                600
            };
            token_of(seconds)
        })
        .await;
        let tokens = start(&server);
        let first = tokens.wait(deadline()).await.unwrap();
        let mut state = tokens.state.clone();
        let renewed = state.wait_for(|state| state.token.as_ref().is_some_and(|t| *t != first));
        timeout(Duration::from_secs(30), renewed)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(server.requests().len(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_reported_at_once_and_retried() {
        let requests = AtomicU64::new(0);
        let server = TokenServer::start(move |_: &RecordedRequest| {
            match requests.fetch_add(1, Ordering::Relaxed) {
                0 => response(503, &[], "hunter2"),
                _ => token_of(600),
            }
        })
        .await;
        let tokens = start(&server);
        let error = tokens.wait(deadline()).await.unwrap_err();
        assert_eq!(Some(&error), tokens.failure().as_ref());
        let error = error.to_string();
        assert!(
            error.starts_with("token source oidc: http://127.0.0.1:"),
            "{error}"
        );
        assert!(
            error.ends_with("HTTP status 503 Service Unavailable"),
            "{error}"
        );
        let mut state = tokens.state.clone();
        let back = state.wait_for(|state| state.token.is_some());
        timeout(Duration::from_secs(30), back)
            .await
            .unwrap()
            .unwrap();
        assert!(tokens.current().is_some() && tokens.failure().is_none());
    }

    #[tokio::test]
    async fn an_expired_token_is_a_failure() {
        let server = TokenServer::start(|_: &RecordedRequest| token_of(0)).await;
        let error = start(&server)
            .wait(deadline())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("has expired"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_endpoint_times_out() {
        let server = TokenServer::start(|_: &RecordedRequest| String::new()).await;
        let tokens = start(&server);
        let soon = Instant::now() + Duration::from_millis(50);
        let error = tokens.wait(soon).await.unwrap_err().to_string();
        assert!(error.contains("has not answered yet"), "{error}");
        let error = tokens.wait(deadline()).await.unwrap_err().to_string();
        assert!(error.contains("no answer in time"), "{error}");
    }

    #[tokio::test]
    async fn fetching_ends_with_the_last_receiver() {
        let server = TokenServer::start(|_: &RecordedRequest| token_of(600)).await;
        let tokens = start(&server);
        let mut state = tokens.state.clone();
        tokens.wait(deadline()).await.unwrap();
        drop(tokens);
        // This is the last receiver, so the task runs as long as it exists.
        assert!(state.has_changed().is_ok());
        state.mark_unchanged();
    }

    #[test]
    fn renewal_times_and_backoff_follow_the_lifetime() {
        let hour = Duration::from_secs(3600);
        assert_eq!(refresh_delay(hour, 0.0), hour.mul_f64(0.78));
        assert_eq!(refresh_delay(hour, 1.0), hour.mul_f64(0.82));
        assert_eq!(refresh_delay(Duration::ZERO, 0.5), MIN_INTERVAL);
        assert_eq!(refresh_delay(hour * 10_000, 0.5), MAX_INTERVAL);
        assert!(backoff(0) <= BACKOFF.0.mul_f64(1.2));
        assert!(backoff(u32::MAX) >= BACKOFF.1.mul_f64(0.8));
    }
}
