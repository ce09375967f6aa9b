//! Cache of reviews: each question is asked once and its answer is kept for ten seconds.
//!
//! When the API server fails, what is remembered goes on to hold for its time; beyond it nobody is
//! let in on a guess.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

use super::cache::{Cache, CacheKey, KeyParts};
use crate::authentication::access::{Action, Caller, Object};
use crate::authentication::{Authenticator, ReviewError};
use crate::telemetry::api::{ReviewAnswered, ReviewsFailing, ReviewsRestored};

/// How long an answer holds, a refusal as well as a consent.
const LASTS: Duration = Duration::from_secs(10);

/// How long somebody waits for an answer, also for one that another has asked for.
const WITHIN: Duration = Duration::from_millis(2500);

/// Questions to the API server at the same time at most, of each kind.
const AT_ONCE: usize = 32;

type ReviewCache<V> = Cache<Arc<OnceCell<V>>>;

/// The cluster's answers.
#[derive(Debug)]
pub(super) struct Reviews {
    reviewer: Arc<dyn Authenticator>,
    tokens: ReviewCache<Option<Arc<Caller>>>,
    token_places: Semaphore,
    actions: ReviewCache<bool>,
    action_places: Semaphore,
    failing: AtomicBool,
}

impl Reviews {
    pub(super) fn new(reviewer: Arc<dyn Authenticator>) -> Self {
        Self {
            reviewer,
            tokens: Cache::new(LASTS),
            token_places: Semaphore::new(AT_ONCE),
            actions: Cache::new(LASTS),
            action_places: Semaphore::new(AT_ONCE),
            failing: AtomicBool::new(false),
        }
    }

    /// Whose token it is; `None` where it is nobody's.
    pub(super) async fn who(&self, token: &str) -> Result<Option<Arc<Caller>>, ReviewError> {
        let key = CacheKey::of([token.as_bytes()]);
        let answer = self.tokens.get_or_make(key, Instant::now(), Arc::default);
        self.ask("token", &answer, &self.token_places, || async {
            let caller = self.reviewer.who(token.to_owned()).await?;
            Ok(caller.map(|caller| Arc::new(caller.known())))
        })
        .await
    }

    /// By what the cluster knows this daemon.
    pub(super) async fn own_name(&self) -> Result<String, ReviewError> {
        self.reviewer.own_name().await
    }

    /// Whether the caller may do this.
    pub(super) async fn may(&self, caller: &Caller, action: &Action) -> Result<bool, ReviewError> {
        let key = action_key(caller, action);
        let answer = self.actions.get_or_make(key, Instant::now(), Arc::default);
        self.ask("access", &answer, &self.action_places, || {
            self.reviewer.may(caller.clone(), action.clone())
        })
        .await
    }

    async fn ask<V, F>(
        &self,
        kind: &'static str,
        answer: &OnceCell<V>,
        places: &Semaphore,
        ask: impl Fn() -> F,
    ) -> Result<V, ReviewError>
    where
        V: Clone,
        F: Future<Output = Result<V, ReviewError>>,
    {
        if let Some(known) = answer.get() {
            return Ok(known.clone());
        }
        let first = || async {
            let _place = places.try_acquire().map_err(|_| ReviewError::Busy)?;
            let answered = ask().await;
            self.note(kind, answered.as_ref().err().copied());
            answered
        };
        // Others who ask the same meanwhile wait for the first one's answer. Rare and large: boxed, so
        // that who is known need not make room for it.
        let answered = timeout(WITHIN, answer.get_or_try_init(first));
        match Box::pin(answered).await {
            Ok(answered) => answered.cloned(),
            Err(_) => Err(ReviewError::NoAnswer),
        }
    }

    fn note(&self, kind: &'static str, error: Option<ReviewError>) {
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
    let mut key = KeyParts::default();
    key.add(&caller.user);
    key.add(&caller.uid);
    key.add(action.verb);
    // A part that no object has tells lists of different lengths apart.
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
    use crate::serve::auth::testing::Pretended;

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
    async fn an_answer_holds_for_ten_seconds_also_while_the_server_fails() {
        let server = Arc::new(Pretended::default());
        let reviews = Reviews::new(server.clone());
        server.allow("mary", "get", "/a");
        let may = async |user: &str, at: &str| reviews.may(&caller(user), &path(at)).await;
        assert_eq!(may("mary", "/a").await, Ok(true));
        assert_eq!(may("mary", "/b").await, Ok(false));
        assert_eq!(may("john", "/a").await, Ok(false));
        assert_eq!(server.asked(), 3);
        server.fail(Some(ReviewError::Refused(500)));
        tokio::time::advance(Duration::from_millis(9_900)).await;
        assert_eq!(may("mary", "/a").await, Ok(true));
        assert_eq!(may("john", "/a").await, Ok(false));
        assert_eq!(may("john", "/c").await, Err(ReviewError::Refused(500)));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(may("mary", "/a").await, Err(ReviewError::Refused(500)));
        // An error is not remembered.
        server.fail(None);
        assert_eq!(may("mary", "/a").await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_seen_after_ten_seconds() {
        let server = Arc::new(Pretended::default());
        let reviews = Reviews::new(server.clone());
        assert_eq!(reviews.may(&caller("m"), &path("/")).await, Ok(false));
        server.allow("m", "get", "/");
        assert_eq!(reviews.may(&caller("m"), &path("/")).await, Ok(false));
        tokio::time::advance(LASTS).await;
        assert_eq!(reviews.may(&caller("m"), &path("/")).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_the_same_at_once_ask_once() {
        let server = Arc::new(Pretended::default());
        server.slow(Duration::from_millis(100));
        server.token("good", "mary");
        let reviews = Reviews::new(server.clone());
        let asked = (0..100).map(|_| reviews.who("good"));
        for who in futures::future::join_all(asked).await {
            let mary = who.unwrap().unwrap();
            assert_eq!((&*mary.user, mary.groups.len()), ("mary", 1));
        }
        assert_eq!(server.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_and_not_too_many_at_once() {
        let server = Arc::new(Pretended::default());
        server.slow(Duration::from_secs(3600));
        let reviews = Reviews::new(server.clone());
        let began = Instant::now();
        let tokens: Vec<String> = (0..AT_ONCE + 5).map(|n| format!("t{n}")).collect();
        let asked = tokens.iter().map(|token| reviews.who(token));
        let found = futures::future::join_all(asked).await;
        let busy = found.iter().filter(|f| **f == Err(ReviewError::Busy));
        assert_eq!(busy.count(), 5);
        let silent = found.iter().filter(|f| **f == Err(ReviewError::NoAnswer));
        assert_eq!(silent.count(), AT_ONCE);
        assert_eq!(began.elapsed(), WITHIN);
        // Questions of the other kind have places of their own, and the places come free.
        server.slow(Duration::ZERO);
        assert_eq!(reviews.may(&caller("m"), &path("/")).await, Ok(false));
        assert_eq!(reviews.who("t99").await, Ok(None));
    }

    #[test]
    fn callers_and_actions_are_told_apart() {
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
