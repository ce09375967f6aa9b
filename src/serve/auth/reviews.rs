//! Token and access reviews by the cluster, cached for ten seconds.
//!
//! Answers to callers without valid credentials are cached separately, so that they do not displace those of others.
//!
//! If the API server fails, cached answers stay valid for their time; after that, requests fail
//! instead of being guessed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::CallerIdentity;
use super::cache::{Cache, CacheKey, KeyBuilder};
use super::limits::{ReviewLimiter, ReviewSubject};
use crate::authentication::access::{Action, Caller, Object};
use crate::authentication::{Authenticator, ReviewError};
use crate::serve::connections::PeerRank;
use crate::telemetry::api::{ReviewAnswered, ReviewsFailing, ReviewsRestored};

/// How long an answer is cached, positive or negative.
const MAX_AGE: Duration = Duration::from_secs(10);

/// How long a request waits for a review, including one started by another request.
const TIMEOUT: Duration = Duration::from_millis(2500);

/// How long a token that was valid counts as that of a known caller. Its next review is not held up by those of
/// callers without valid credentials.
const VALID_BEFORE: Duration = Duration::from_secs(600);

type ReviewCache<V> = Cache<Arc<OnceCell<V>>>;

/// Reviews with a cache.
#[derive(Debug)]
pub(super) struct CachedReviews {
    reviewer: Arc<dyn Authenticator>,
    tokens: ReviewCaches<Option<Arc<Caller>>>,
    /// The accounts of tokens that were valid.
    valid: Cache<CacheKey>,
    actions: ReviewCaches<bool>,
    failing: AtomicBool,
}

/// Answers to reviews of one kind.
#[derive(Debug)]
struct ReviewCaches<V> {
    kind: &'static str,
    limiter: ReviewLimiter,
    known: ReviewCache<V>,
    unknown: ReviewCache<V>,
}

impl<V> ReviewCaches<V> {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            limiter: ReviewLimiter::new(kind),
            known: Cache::new(MAX_AGE),
            unknown: Cache::new(MAX_AGE),
        }
    }

    fn answer(&self, rank: PeerRank, key: CacheKey) -> Arc<OnceCell<V>> {
        let cache = match rank {
            PeerRank::Unknown => &self.unknown,
            PeerRank::Known | PeerRank::Trusted => &self.known,
        };
        cache.get_or_insert_with(key, Instant::now(), Arc::default)
    }
}

impl CachedReviews {
    pub(super) fn new(reviewer: Arc<dyn Authenticator>) -> Self {
        Self {
            reviewer,
            tokens: ReviewCaches::new("token"),
            valid: Cache::new(VALID_BEFORE),
            actions: ReviewCaches::new("access"),
            failing: AtomicBool::new(false),
        }
    }

    /// Reviews a token of a caller at this address, on a connection of this rank; `None` if the cluster rejects it.
    pub(super) async fn authenticate(
        &self,
        token: &str,
        peer: Option<IpAddr>,
        rank: PeerRank,
    ) -> Result<Option<Arc<Caller>>, ReviewError> {
        let key = CacheKey::digest([token.as_bytes()]);
        let account = self.valid.get(key, Instant::now());
        // The answer to a token that was not valid before is cached separately on any connection.
        let (subject, cached_as) = match (account, rank) {
            (Some(account), _) => (ReviewSubject::Known(account), PeerRank::Known),
            (None, PeerRank::Unknown) => (ReviewSubject::Unknown(peer), PeerRank::Unknown),
            (None, _) => (ReviewSubject::NewToken(peer), PeerRank::Unknown),
        };
        let answer = self.tokens.answer(cached_as, key);
        let was_reviewed = answer.initialized();
        let caller = self
            .get_or_review(&self.tokens, &answer, subject, || async {
                let caller = self.reviewer.authenticate(token.to_owned()).await?;
                Ok(caller.map(|caller| Arc::new(caller.with_implied_group())))
            })
            .await?;
        if let Some(caller) = caller.as_ref().filter(|_| !was_reviewed) {
            let now = Instant::now();
            self.valid.insert(key, now, account_of(&caller.user));
            if account.is_none() {
                self.tokens.known.insert(key, now, answer);
            }
        }
        Ok(caller)
    }

    /// This daemon's user name in the cluster.
    pub(super) async fn self_subject(&self) -> Result<String, ReviewError> {
        self.reviewer.self_subject().await
    }

    /// Whether the caller may perform the action. `peer` is the address of the caller.
    pub(super) async fn authorize(
        &self,
        identity: &CallerIdentity,
        action: &Action,
        peer: Option<IpAddr>,
    ) -> Result<bool, ReviewError> {
        let caller = &identity.caller;
        let account = || account_of(&caller.user);
        let subject = match identity.rank {
            PeerRank::Unknown => ReviewSubject::Unknown(peer),
            PeerRank::Known => ReviewSubject::Known(account()),
            PeerRank::Trusted => ReviewSubject::Trusted(account()),
        };
        let key = action_key(caller, action);
        let answer = self.actions.answer(identity.rank, key);
        self.get_or_review(&self.actions, &answer, subject, || {
            self.reviewer
                .authorize(Caller::clone(caller), action.clone())
        })
        .await
    }

    async fn get_or_review<V, F>(
        &self,
        caches: &ReviewCaches<V>,
        answer: &OnceCell<V>,
        subject: ReviewSubject,
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
            let _permit = caches.limiter.acquire(subject, Instant::now().into_std())?;
            let answered = review().await;
            self.record_outcome(caches.kind, answered.as_ref().err().copied());
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

/// The account that the limits of callers with valid credentials count. All service accounts of a namespace are one
/// account, because a user who may create one there can create any number, with any number of tokens.
fn account_of(user: &str) -> CacheKey {
    let is_service_account = user.starts_with("system:serviceaccount:");
    let of_namespace = user.rsplit_once(':').filter(|_| is_service_account);
    let account = of_namespace.map_or(user, |(namespace, _)| namespace);
    CacheKey::digest([account.as_bytes()])
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
    use crate::serve::auth::limits::MAX_KNOWN;
    use crate::serve::auth::testing::FakeAuthenticator;

    fn caller(user: &str) -> Caller {
        Caller {
            user: user.to_owned(),
            ..Caller::default()
        }
    }

    fn known(user: &str) -> CallerIdentity {
        CallerIdentity {
            caller: Arc::new(caller(user)),
            rank: PeerRank::Known,
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
        let may =
            async |user: &str, at: &str| reviews.authorize(&known(user), &path(at), None).await;
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
        assert_eq!(
            reviews.authorize(&known("m"), &path("/"), None).await,
            Ok(false)
        );
        server.allow("m", "get", "/");
        assert_eq!(
            reviews.authorize(&known("m"), &path("/"), None).await,
            Ok(false)
        );
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(
            reviews.authorize(&known("m"), &path("/"), None).await,
            Ok(true)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_one_review() {
        let server = Arc::new(FakeAuthenticator::default());
        server.slow(Duration::from_millis(100));
        server.token("good", "mary");
        let reviews = CachedReviews::new(server.clone());
        let requests = (0..100).map(|_| reviews.authenticate("good", None, PeerRank::Unknown));
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
        let users: Vec<_> = (0..MAX_KNOWN + 5)
            .map(|n| known(&format!("u{n}")))
            .collect();
        let action = path("/");
        let requests = users
            .iter()
            .map(|user| reviews.authorize(user, &action, None));
        // Token reviews have separate permits.
        let token = reviews.authenticate("t99", None, PeerRank::Known);
        let (found, token) = tokio::join!(futures::future::join_all(requests), token);
        assert_eq!(token.unwrap_err(), ReviewError::NoAnswer);
        let busy = found.iter().filter(|f| **f == Err(ReviewError::Busy));
        assert_eq!(busy.count(), 5);
        let silent = found.iter().filter(|f| **f == Err(ReviewError::NoAnswer));
        assert_eq!(silent.count(), MAX_KNOWN);
        assert_eq!(began.elapsed(), TIMEOUT);
        // Permits are released.
        server.slow(Duration::ZERO);
        assert_eq!(
            reviews.authorize(&known("m"), &action, None).await,
            Ok(false)
        );
        let token = reviews.authenticate("t99", None, PeerRank::Known).await;
        assert_eq!(token, Ok(None));
    }

    #[test]
    fn service_accounts_of_a_namespace_are_one_account() {
        let is_one = |a: &str, b: &str| account_of(a) == account_of(b);
        let of = |namespace: &str, name: &str| format!("system:serviceaccount:{namespace}:{name}");
        assert!(is_one(&of("team-b", "a"), &of("team-b", "default")));
        assert!(!is_one(&of("team-a", "a"), &of("team-b", "a")));
        assert!(is_one("mary", "mary"));
        assert!(!is_one("oidc:mary", "oidc:john"));
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_of_one_namespace_leave_permits_to_others() {
        let server = Arc::new(FakeAuthenticator::default());
        let reviews = CachedReviews::new(server.clone());
        let user = |n: usize| format!("system:serviceaccount:team-b:sa{n}");
        for n in 0..2 * MAX_KNOWN {
            let token = format!("t{n}");
            server.token(&token, &user(n));
            let peer = Some(IpAddr::from([10, 0, 0, u8::try_from(n).unwrap()]));
            let found = reviews.authenticate(&token, peer, PeerRank::Unknown).await;
            assert!(found.unwrap().is_some());
        }
        server.token("mary", "mary");
        let mary = async || {
            let found = reviews.authenticate("mary", None, PeerRank::Unknown).await;
            found.map(|caller| caller.is_some())
        };
        assert_eq!(mary().await, Ok(true));
        tokio::time::advance(MAX_AGE).await;
        server.slow(Duration::from_secs(1));
        let tokens: Vec<_> = (0..2 * MAX_KNOWN).map(|n| format!("t{n}")).collect();
        let asked = tokens
            .iter()
            .map(|token| reviews.authenticate(token, None, PeerRank::Unknown));
        let (asked, mary) = tokio::join!(futures::future::join_all(asked), mary());
        let busy = asked.iter().filter(|a| **a == Err(ReviewError::Busy));
        assert_eq!(busy.count(), 2 * MAX_KNOWN - MAX_KNOWN / 2);
        assert_eq!(mary, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_callers_do_not_delay_a_token_that_was_valid() {
        let server = Arc::new(FakeAuthenticator::default());
        server.token("good", "mary");
        let reviews = CachedReviews::new(server.clone());
        let is_mary = async || {
            let found = reviews.authenticate("good", None, PeerRank::Unknown).await;
            found.map(|caller| caller.is_some_and(|caller| caller.user == "mary"))
        };
        assert_eq!(is_mary().await, Ok(true));
        for n in 0..10_000 {
            let token = format!("t{n}");
            let found = reviews.authenticate(&token, None, PeerRank::Unknown).await;
            assert!(matches!(found, Ok(None) | Err(ReviewError::RateLimited)));
        }
        let asked = server.call_count();
        assert!(asked < 60, "{asked} reviews");
        // From the cache, and after its time by a review.
        assert_eq!(is_mary().await, Ok(true));
        assert_eq!(server.call_count(), asked);
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(is_mary().await, Ok(true));
        assert_eq!(server.call_count(), asked + 1);
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
