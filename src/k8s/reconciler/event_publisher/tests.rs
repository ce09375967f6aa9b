//! Publication against an API server that refuses some namespaces.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Mutex;

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::k8s::write_guard::testing::leader;

/// Errors of an API server in a namespace, by status code and message.
type Refusals = &'static [(&'static str, u16, &'static str)];

/// The API server, and the namespaces in which an event was created, in this order.
fn api_server(refusals: Refusals) -> (Client, Arc<Mutex<Vec<String>>>) {
    let created = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&created);
    let serve = move |request: Request<Body>| {
        let log = Arc::clone(&log);
        async move {
            // `/apis/events.k8s.io/v1/namespaces/NAME/events`
            let namespace = request.uri().path().split('/').nth(5).unwrap().to_owned();
            let refusal = refusals.iter().find(|(refused, ..)| *refused == namespace);
            let (code, body) = match refusal {
                Some((_, code, message)) => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "message": message, "reason": "", "code": code});
                    (*code, status)
                }
                None => {
                    log.lock().unwrap().push(namespace);
                    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
                        "metadata": {}, "eventTime": null});
                    (201, event)
                }
            };
            let mut response = Response::new(Body::from(body.to_string().into_bytes()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(response)
        }
    };
    (Client::new(tower::service_fn(serve), "shop"), created)
}

/// Publishes one event on an HPA of each namespace, in this order. Returns the namespaces in which it was created, and
/// those whose failure is remembered.
async fn publish_in(namespaces: &[&str], refusals: Refusals) -> (Vec<String>, BTreeSet<String>) {
    let (client, created) = api_server(refusals);
    let (mut guard, _publisher) = leader(client, 7, Duration::from_secs(600));
    let hpas = namespaces.iter().map(|namespace| {
        Arc::new(HpaFacts {
            namespace: (*namespace).into(),
            name: "hpa".into(),
            ..HpaFacts::default()
        })
    });
    guard.hpas = watch::channel(Some(hpas.collect())).1;
    let snapshot = guard.take_snapshot().unwrap();
    let mut publisher = EventPublisher::new(guard);
    publisher.observe(Some(&snapshot));
    for namespace in namespaces {
        publisher.record(&HpaKey::new(*namespace, "hpa"), EventReason::ScaledToZero);
    }
    while let Some(publication) = publisher.next_publication() {
        let published = publication.publish().await;
        publisher.finish(published);
    }
    let created = created.lock().unwrap().clone();
    let failed = publisher.failures.keys().map(ToString::to_string);
    (created, failed.collect())
}

#[tokio::test]
async fn namespace_without_quota_does_not_pause_the_others() {
    let (created, failed) = publish_in(
        &["full", "shop", "team"],
        &[("full", 403, "exceeded quota: events")],
    )
    .await;
    assert_eq!(created, ["shop", "team"]);
    assert_eq!(failed, ["full".to_owned()].into());
}

#[tokio::test]
async fn namespaces_that_end_do_not_pause_the_others() {
    let (created, failed) = publish_in(
        &["ending", "gone", "shop"],
        &[
            ("ending", 403, "namespace ending is being terminated"),
            ("gone", 404, "namespaces \"gone\" not found"),
        ],
    )
    .await;
    assert_eq!(created, ["shop"]);
    assert_eq!(failed, ["ending".to_owned(), "gone".to_owned()].into());
}
