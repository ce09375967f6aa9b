//! Authenticates tokens and authorizes requests by the API server's reviews. The ClusterRole
//! `system:auth-delegator` grants both.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::authentication::access::{Action, Caller, Object};
use crate::authentication::{Authenticator, ReviewError};

/// Timeout for one review, including a retry. The HPA controller has only five workers, which wait for it.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause before the retry after the API server was busy.
const RETRY_AFTER: Duration = Duration::from_millis(150);

/// Reviews by the API server.
#[derive(Clone)]
pub struct ClusterReviewer(Client);

impl ClusterReviewer {
    /// Uses this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Debug for ClusterReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterReviewer")
    }
}

impl Authenticator for ClusterReviewer {
    fn authenticate(
        &self,
        token: String,
    ) -> BoxFuture<'static, Result<Option<Caller>, ReviewError>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token,
                audiences: None,
            },
            ..TokenReview::default()
        };
        let client = self.0.clone();
        Box::pin(async move { Ok(caller(create_review(client, review).await?)) })
    }

    fn authorize(
        &self,
        caller: Caller,
        action: Action,
    ) -> BoxFuture<'static, Result<bool, ReviewError>> {
        let review = SubjectAccessReview {
            spec: question(caller, action),
            ..SubjectAccessReview::default()
        };
        let client = self.0.clone();
        Box::pin(async move {
            let answer = create_review(client, review).await?;
            Ok(answer.status.is_some_and(|status| status.allowed))
        })
    }

    fn self_subject(&self) -> BoxFuture<'static, Result<String, ReviewError>> {
        let client = self.0.clone();
        Box::pin(async move {
            let answer = create_review(client, SelfSubjectReview::default()).await?;
            let user = answer.status.and_then(|status| status.user_info);
            let name = user.and_then(|user| user.username);
            name.filter(|name| !name.is_empty())
                .ok_or(ReviewError::NoAnswer)
        })
    }
}

async fn create_review<K>(client: Client, object: K) -> Result<K, ReviewError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let api: Api<K> = Api::all(client);
    let once = || async {
        let created = api.create(&PostParams::default(), &object).await;
        created.map_err(|error| problem(&error))
    };
    let review = async {
        match once().await {
            Err(ReviewError::Refused(429 | 500..)) => {
                tokio::time::sleep(RETRY_AFTER).await;
                once().await
            }
            answered => answered,
        }
    };
    match tokio::time::timeout(REVIEW_TIMEOUT, review).await {
        Ok(answered) => answered,
        Err(_) => Err(ReviewError::NoAnswer),
    }
}

fn problem(error: &kube::Error) -> ReviewError {
    match error {
        // 401: lagwise's own account was deleted, or its token has expired.
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => ReviewError::NoRight,
        kube::Error::Api(status) => ReviewError::Refused(status.code),
        _ => ReviewError::NoAnswer,
    }
}

fn caller(review: TokenReview) -> Option<Caller> {
    let status = review.status?;
    let user = status.user?;
    let name = user.username.filter(|name| !name.is_empty())?;
    (status.authenticated == Some(true)).then(|| Caller {
        user: name,
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

fn question(caller: Caller, action: Action) -> SubjectAccessReviewSpec {
    let verb = Some(action.verb.to_owned());
    let (resource_attributes, non_resource_attributes) = match action.object {
        Object::Resource {
            group,
            version,
            resource,
            namespace,
        } => {
            let resource = ResourceAttributes {
                group: Some(group.to_owned()),
                version: Some(version.to_owned()),
                resource: Some(resource),
                namespace: Some(namespace),
                verb,
                ..ResourceAttributes::default()
            };
            (Some(resource), None)
        }
        Object::Path(path) => {
            let path = Some(path);
            (None, Some(NonResourceAttributes { path, verb }))
        }
    };
    SubjectAccessReviewSpec {
        user: Some(caller.user),
        uid: Some(caller.uid).filter(|uid| !uid.is_empty()),
        groups: Some(caller.groups),
        extra: Some(caller.extra).filter(|extra| !extra.is_empty()),
        resource_attributes,
        non_resource_attributes,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::http::{Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that sends these responses in order, then none, and records the requests.
    #[derive(Clone, Default)]
    struct Server {
        answers: Arc<Vec<(u16, Value)>>,
        count: Arc<AtomicUsize>,
        requests: Arc<Mutex<Vec<(String, Value)>>>,
    }

    impl Server {
        fn new(answers: Vec<(u16, Value)>) -> Self {
            Self {
                answers: Arc::new(answers),
                ..Self::default()
            }
        }

        fn reviewer(&self) -> ClusterReviewer {
            let server = self.clone();
            let serve = move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let body = serde_json::from_slice(&body).unwrap();
                    server.requests.lock().unwrap().push((path, body));
                    let next = server.count.fetch_add(1, Ordering::SeqCst);
                    let Some((code, answer)) = server.answers.get(next) else {
                        return std::future::pending().await;
                    };
                    let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
                    *response.status_mut() = StatusCode::from_u16(*code).unwrap();
                    Ok::<_, Infallible>(response)
                }
            };
            ClusterReviewer::new(Client::new(tower::service_fn(serve), "n"))
        }
    }

    fn token_review(status: Value) -> (u16, Value) {
        let review = json!({
            "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {}, "spec": {}, "status": status,
        });
        (201, review)
    }

    fn access_review(allowed: bool) -> (u16, Value) {
        let review = json!({
            "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "metadata": {}, "spec": {}, "status": {"allowed": allowed},
        });
        (201, review)
    }

    fn refused(code: u16) -> (u16, Value) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "no", "reason": "Because", "code": code,
        });
        (code, status)
    }

    fn action() -> Action {
        Action {
            verb: "list",
            object: Object::Resource {
                group: "external.metrics.k8s.io",
                version: "v1beta1",
                resource: "kafka_lag".to_owned(),
                namespace: "shop".to_owned(),
            },
        }
    }

    #[tokio::test]
    async fn authenticates_a_token_or_rejects_it() {
        let mary =
            json!({"username": "mary", "uid": "7", "groups": ["dev"], "extra": {"a": ["b"]}});
        for (status, user) in [
            (json!({"authenticated": true, "user": mary}), Some("mary")),
            (json!({"authenticated": false, "user": mary}), None),
            (json!({"user": mary}), None),
            (json!({"authenticated": true, "user": {}}), None),
            (
                json!({"authenticated": true, "user": {"username": ""}}),
                None,
            ),
            (json!({"authenticated": true}), None),
            (json!({"error": "expired"}), None),
        ] {
            let server = Server::new(vec![token_review(status.clone())]);
            let found = server
                .reviewer()
                .authenticate("secret".to_owned())
                .await
                .unwrap();
            assert_eq!(found.as_ref().map(|c| &*c.user), user, "{status}");
            if let Some(found) = found {
                assert_eq!(
                    (&*found.uid, &*found.groups),
                    ("7", &["dev".to_owned()][..])
                );
                assert_eq!(found.extra["a"], ["b"]);
            }
            let (path, body) = server.requests.lock().unwrap()[0].clone();
            assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
            assert_eq!(body["spec"], json!({"token": "secret"}));
        }
    }

    #[tokio::test]
    async fn builds_the_access_review() {
        let caller = Caller {
            user: "mary".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["dev".to_owned()],
            extra: [("a".to_owned(), vec!["b".to_owned()])].into(),
        };
        let server = Server::new(vec![access_review(true), access_review(false)]);
        let reviewer = server.reviewer();
        assert_eq!(reviewer.authorize(caller, action()).await, Ok(true));
        let path = Action {
            verb: "get",
            object: Object::Path("/version".to_owned()),
        };
        assert_eq!(
            reviewer.authorize(Caller::anonymous(), path).await,
            Ok(false)
        );
        let requests = server.requests.lock().unwrap();
        assert_eq!(
            requests[0].0,
            "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        );
        let expected = json!({
            "user": "mary", "uid": "7", "groups": ["dev"], "extra": {"a": ["b"]},
            "resourceAttributes": {
                "group": "external.metrics.k8s.io", "version": "v1beta1",
                "resource": "kafka_lag", "namespace": "shop", "verb": "list",
            },
        });
        assert_eq!(requests[0].1["spec"], expected);
        let expected = json!({
            "user": "system:anonymous", "groups": ["system:unauthenticated"],
            "nonResourceAttributes": {"path": "/version", "verb": "get"},
        });
        assert_eq!(requests[1].1["spec"], expected);
    }

    #[tokio::test(start_paused = true)]
    async fn classifies_errors_and_retries_a_busy_server_once() {
        for (answers, expected, requests) in [
            (vec![refused(403)], Err(ReviewError::NoRight), 1),
            (vec![refused(401)], Err(ReviewError::NoRight), 1),
            (vec![refused(404)], Err(ReviewError::Refused(404)), 1),
            (vec![refused(429), access_review(true)], Ok(true), 2),
            (vec![refused(500), access_review(false)], Ok(false), 2),
            (
                vec![refused(500), refused(503)],
                Err(ReviewError::Refused(503)),
                2,
            ),
            (vec![refused(500)], Err(ReviewError::NoAnswer), 2),
            (vec![], Err(ReviewError::NoAnswer), 1),
            (
                vec![(201, json!("nonsense"))],
                Err(ReviewError::NoAnswer),
                1,
            ),
        ] {
            let shown = format!("{answers:?}");
            let server = Server::new(answers);
            let began = tokio::time::Instant::now();
            let found = server
                .reviewer()
                .authorize(Caller::anonymous(), action())
                .await;
            assert_eq!(found, expected, "{shown}");
            assert_eq!(server.count.load(Ordering::SeqCst), requests, "{shown}");
            assert!(began.elapsed() <= REVIEW_TIMEOUT, "{shown}");
        }
    }
}
