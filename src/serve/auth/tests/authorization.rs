//! Access reviews and their failures.

use super::*;

#[tokio::test]
async fn failed_token_review_rejects_the_caller() {
    let cluster = TestCluster::new(None);
    cluster.server.fail(Some(ReviewError::NoRight));
    let found = cluster
        .authenticate(vec![], &[("authorization", "Bearer good")])
        .await;
    let expected = Unauthenticated::Unreviewed(ReviewError::NoRight);
    assert_eq!(found, Err(expected));
    assert!(expected.is_temporary() && !Unauthenticated::InvalidToken.is_temporary());
}

#[tokio::test]
async fn masters_need_no_review() {
    let cluster = TestCluster::new(None);
    let action = Action {
        verb: "get",
        object: Object::Path("/version".to_owned()),
    };
    let masters = caller("x", &["system:masters"]);
    assert_eq!(cluster.access.authorize(&masters, &action).await, Ok(true));
    assert_eq!(cluster.server.call_count(), 0);
    let mary = caller("mary", &[]);
    assert_eq!(cluster.access.authorize(&mary, &action).await, Ok(false));
    cluster.server.fail(Some(ReviewError::NoAnswer));
    let john = caller("john", &[]);
    let found = cluster.access.authorize(&john, &action).await;
    assert_eq!(found, Err(ReviewError::NoAnswer));
}

#[tokio::test]
async fn without_authentication_allows_everything_as_anonymous() {
    let access = AccessControl::new(RequestAuth::None);
    let found = access.authenticate(None, &headers(MARY)).await.unwrap();
    assert_eq!(*found, Caller::anonymous());
    let action = Action {
        verb: "list",
        object: Object::Path("/".to_owned()),
    };
    assert_eq!(access.authorize(&found, &action).await, Ok(true));
}
