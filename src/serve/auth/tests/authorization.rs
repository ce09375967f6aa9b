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
    let may = async |caller| {
        let identity = known(caller);
        cluster.access.authorize(&identity, &action, None).await
    };
    assert_eq!(may(caller("x", &["system:masters"])).await, Ok(true));
    assert_eq!(cluster.server.call_count(), 0);
    assert_eq!(may(caller("mary", &[])).await, Ok(false));
    cluster.server.fail(Some(ReviewError::NoAnswer));
    let found = may(caller("john", &[])).await;
    assert_eq!(found, Err(ReviewError::NoAnswer));
}

#[tokio::test]
async fn without_authentication_allows_everything_as_anonymous() {
    let access = AccessControl::new(RequestAuth::None);
    let identified = access.identify_by_certificate(None, &headers(MARY));
    let found = identified.unwrap().unwrap();
    assert_eq!(*found.caller, Caller::anonymous());
    let action = Action {
        verb: "list",
        object: Object::Path("/".to_owned()),
    };
    assert_eq!(access.authorize(&found, &action, None).await, Ok(true));
}
