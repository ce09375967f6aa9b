//! Token and access reviews by the cluster, cached for ten seconds.
//!
//! If the API server fails, cached answers stay valid for their time; after that, requests fail
//! instead of being guessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

use super::cache::{Cache, CacheKey, KeyBuilder};
use crate::authentication::access::{Action, Caller, Object};
use crate::authentication::{Authenticator, ReviewError};
use crate::telemetry::api::{ReviewAnswered, ReviewsFailing, ReviewsRestored};

/// How long an answer is cached, positive or negative.
const MAX_AGE: Duration = Duration::from_secs(10);

/// How long a request waits for a review, including one started by another request.
const TIMEOUT: Duration = Duration::from_millis(2500);

/// Maximum concurrent reviews of each kind.
const MAX_CONCURRENT: usize = 32;

type ReviewCache<V> = Cache<Arc<OnceCell<V>>>;

/// Reviews with a cache.
#[derive(Debug)]
pub(super) struct CachedReviews {
    reviewer: Arc<dyn Authenticator>,
    tokens: ReviewCache<Option<Arc<Caller>>>,
    token_permits: Semaphore,
    actions: ReviewCache<bool>,
    action_permits: Semaphore,
    failing: AtomicBool,
}

impl CachedReviews {
    pub(super) fn new(reviewer: Arc<dyn Authenticator>) -> Self {
        Self {
            reviewer,
            tokens: Cache::new(MAX_AGE),
            token_permits: Semaphore::new(MAX_CONCURRENT),
            actions: Cache::new(MAX_AGE),
            action_permits: Semaphore::new(MAX_CONCURRENT),
            failing: AtomicBool::new(false),
        }
    }

    /// Reviews a token; `None` if the cluster rejects it.
    pub(super) async fn authenticate(
        &self,
        token: &str,
    ) -> Result<Option<Arc<Caller>>, ReviewError> {
        let key = CacheKey::digest([token.as_bytes()]);
        let answer = self
            .tokens
            .get_or_insert_with(key, Instant::now(), Arc::default);
        self.get_or_review("token", &answer, &self.token_permits, || async {
            let caller = self.reviewer.authenticate(token.to_owned()).await?;
            Ok(caller.map(|caller| Arc::new(caller.with_implied_group())))
        })
        .await
    }

    /// This daemon's user name in the cluster.
    pub(super) async fn self_subject(&self) -> Result<String, ReviewError> {
        self.reviewer.self_subject().await
    }

    /// Whether the caller may perform the action.
    pub(super) async fn authorize(
        &self,
        caller: &Caller,
        action: &Action,
    ) -> Result<bool, ReviewError> {
        let key = action_key(caller, action);
        let answer = self
            .actions
            .get_or_insert_with(key, Instant::now(), Arc::default);
        self.get_or_review("access", &answer, &self.action_permits, || {
            self.reviewer.authorize(caller.clone(), action.clone())
        })
        .await
    }

    async fn get_or_review<V, F>(
        &self,
        kind: &'static str,
        answer: &OnceCell<V>,
        permits: &Semaphore,
        review: impl Fn() -> F,
    ) -> Result<V, ReviewError>
    where
        V: Clone,
        F: Future<Output = Result<V, ReviewError>>,
    {
        if let Some(known) = answer.get() {
            return Ok(known.clone());
        }
        let first = || async {
            let _permit = permits.try_acquire().map_err(|_| ReviewError::Busy)?;
            let answered = review().await;
            self.record_outcome(kind, answered.as_ref().err().copied());
            answered
        };
        // Concurrent requests for the same review wait for the first one (single flight). The
        // future is large and rarely needed, so it is boxed to keep the common path small.
        let answered = timeout(TIMEOUT, answer.get_or_try_init(first));
        match Box::pin(answered).await {
            Ok(answered) => answered.cloned(),
            Err(_) => Err(ReviewError::NoAnswer),
        }
    }

    fn record_outcome(&self, kind: &'static str, error: Option<ReviewError>) {
        ReviewAnswered {
            kind,
            outcome: error.map_or("answered", ReviewError::label),
        }
        .emit();
        let was_failing = self.failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_failing => ReviewsFailing { reason: &error }.emit(),
            None if was_failing => ReviewsRestored.emit(),
            _ => {}
        }
    }
}

fn action_key(caller: &Caller, action: &Action) -> CacheKey {
    let mut key = KeyBuilder::default();
    key.add(&caller.user);
    key.add(&caller.uid);
    key.add(action.verb);
    // The kind and the list lengths keep different objects from having the same parts.
    match &action.object {
        Object::Resource {
            group,
            version,
            resource,
            namespace,
        } => ["resource", group, version, resource, namespace]
            .iter()
            .for_each(|part| key.add(part)),
        Object::Path(path) => ["path", path].iter().for_each(|part| key.add(part)),
    }
    key.add(caller.groups.len().to_be_bytes());
    caller.groups.iter().for_each(|group| key.add(group));
    for (name, values) in &caller.extra {
        key.add(name);
        key.add(values.len().to_be_bytes());
        values.iter().for_each(|value| key.add(value));
    }
    key.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::auth::testing::FakeAuthenticator;

    fn caller(user: &str) -> Caller {
        Caller {
            user: user.to_owned(),
            ..Caller::default()
        }
    }

    fn path(path: &str) -> Action {
        Action {
            verb: "get",
            object: Object::Path(path.to_owned()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn caches_answers_for_ten_seconds_and_no_errors() {
        let server = Arc::new(FakeAuthenticator::default());
        let reviews = CachedReviews::new(server.clone());
        server.allow("mary", "get", "/a");
        let may = async |user: &str, at: &str| reviews.authorize(&caller(user), &path(at)).await;
        assert_eq!(may("mary", "/a").await, Ok(true));
        assert_eq!(may("mary", "/b").await, Ok(false));
        assert_eq!(may("john", "/a").await, Ok(false));
        assert_eq!(server.call_count(), 3);
        server.fail(Some(ReviewError::Refused(500)));
        tokio::time::advance(Duration::from_millis(9_900)).await;
        assert_eq!(may("mary", "/a").await, Ok(true));
        assert_eq!(may("john", "/a").await, Ok(false));
        assert_eq!(may("john", "/c").await, Err(ReviewError::Refused(500)));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(may("mary", "/a").await, Err(ReviewError::Refused(500)));
        // Errors are not cached.
        server.fail(None);
        assert_eq!(may("mary", "/a").await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn sees_changed_permissions_after_ten_seconds() {
        let server = Arc::new(FakeAuthenticator::default());
        let reviews = CachedReviews::new(server.clone());
        assert_eq!(reviews.authorize(&caller("m"), &path("/")).await, Ok(false));
        server.allow("m", "get", "/");
        assert_eq!(reviews.authorize(&caller("m"), &path("/")).await, Ok(false));
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(reviews.authorize(&caller("m"), &path("/")).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_one_review() {
        let server = Arc::new(FakeAuthenticator::default());
        server.slow(Duration::from_millis(100));
        server.token("good", "mary");
        let reviews = CachedReviews::new(server.clone());
        let requests = (0..100).map(|_| reviews.authenticate("good"));
        for who in futures::future::join_all(requests).await {
            let mary = who.unwrap().unwrap();
            assert_eq!((&*mary.user, mary.groups.len()), ("mary", 1));
        }
        assert_eq!(server.call_count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_review_time_and_concurrency() {
        let server = Arc::new(FakeAuthenticator::default());
        server.slow(Duration::from_secs(3600));
        let reviews = CachedReviews::new(server.clone());
        let began = Instant::now();
        let tokens: Vec<String> = (0..MAX_CONCURRENT + 5).map(|n| format!("t{n}")).collect();
        let requests = tokens.iter().map(|token| reviews.authenticate(token));
        let found = futures::future::join_all(requests).await;
        let busy = found.iter().filter(|f| **f == Err(ReviewError::Busy));
        assert_eq!(busy.count(), 5);
        let silent = found.iter().filter(|f| **f == Err(ReviewError::NoAnswer));
        assert_eq!(silent.count(), MAX_CONCURRENT);
        assert_eq!(began.elapsed(), TIMEOUT);
        // Access reviews have permits of their own, and permits are released.
        server.slow(Duration::ZERO);
        assert_eq!(reviews.authorize(&caller("m"), &path("/")).await, Ok(false));
        assert_eq!(reviews.authenticate("t99").await, Ok(None));
    }

    #[test]
    fn cache_key_distinguishes_callers_and_actions() {
        let groups = |groups: &[&str]| Caller {
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..caller("mary")
        };
        let extra = |key: &str, values: &[&str]| Caller {
            extra: [(
                key.to_owned(),
                values.iter().map(|v| (*v).to_owned()).collect(),
            )]
            .into(),
            ..caller("mary")
        };
        let metric = |resource: &str, namespace: &str| Action {
            verb: "list",
            object: Object::Resource {
                group: "g",
                version: "v",
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
            },
        };
        let mut keys = std::collections::HashSet::new();
        for who in [
            caller("mary"),
            caller("john"),
            groups(&["a"]),
            groups(&["a", "b"]),
            groups(&["ab"]),
            extra("a", &["b"]),
            extra("a", &["b", "c"]),
            extra("b", &["a"]),
            extra("a", &[]),
        ] {
            for what in [path("/"), path("/a"), metric("a", "b"), metric("b", "a")] {
                assert!(keys.insert(action_key(&who, &what)), "{who:?} {what:?}");
            }
        }
    }
}
