//! What one caller can hold.

use super::*;

#[tokio::test]
async fn an_address_has_at_most_half_of_the_streams() {
    let rig = TestScaler::new(RequestAuth::None);
    let (client, other) = (rig.connect().await, rig.connect().await);
    let open = async |client: &TestConnection, namespace: &str| {
        let mut object = object(&[]);
        object.namespace = namespace.to_owned();
        client
            .stream::<GetMetricSpecResponse>("StreamMetricSpec", object)
            .await
    };
    let opened = (0..MAX_STREAMS / 2).map(|number| open(&client, ["shop", "team"][number % 2]));
    let streams = futures::future::join_all(opened).await;
    assert!(streams.iter().all(Result::is_ok));
    for client in [&client, &other] {
        let status = open(client, "third").await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("for one address"), "{status}");
    }
    // Other calls have room.
    rig.lag.send_replace(Some(3));
    assert!(client.is_active(object(&[])).await.unwrap());
    drop(streams);
    // The server learns of it a moment later.
    while open(&other, "third").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_without_a_message_hold_up_their_own_connection_only() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    let (client, other) = (rig.connect().await, rig.connect().await);
    assert!(client.is_active(object(&[])).await.unwrap());
    let unfinished: Vec<_> = (0..64)
        .map(|_| tokio::spawn(client.clone().send_unfinished(path_of("IsActive"))))
        .collect();
    // Sent after them on the same connection.
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.is_active(object(&[])).await })
    };
    assert!(other.is_active(object(&[])).await.unwrap());
    assert!(!waiting.is_finished());
    for response in unfinished {
        let response = response.await.unwrap().unwrap();
        let code = response.headers()[Status::GRPC_STATUS].as_bytes();
        assert_eq!(Code::from_bytes(code), Code::DeadlineExceeded);
    }
    assert!(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn health_checks_without_a_message_are_bounded() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    let client = rig.connect().await;
    let code = async || {
        let asked = HealthCheckRequest::default();
        let answer: Result<HealthCheckResponse, Status> =
            client.call(messages::HEALTH_CHECK, asked).await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    assert_eq!(code().await, Code::Ok);
    // Some of them may come while the one below has the last permit.
    for _ in 0..2 * MAX_HEALTH_CHECKS {
        let path = messages::HEALTH_CHECK.to_owned();
        tokio::spawn(client.clone().send_unfinished(path));
    }
    while code().await != Code::ResourceExhausted {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(client.is_active(object(&[])).await.unwrap());
}

#[tokio::test]
async fn many_streams_share_a_connection_with_other_calls() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(0));
    let client = rig.connect().await;
    let mut streams = Vec::new();
    for number in 0..200 {
        let mut object = object(&[]);
        object.name = format!("billing-{number}");
        let mut stream: Streaming<IsActiveResponse> =
            client.stream("StreamIsActive", object).await.unwrap();
        let first = stream.message().await.unwrap();
        assert_eq!(first, Some(IsActiveResponse { result: false }));
        streams.push(stream);
    }
    assert!(!client.is_active(object(&[])).await.unwrap());
    rig.lag.send_replace(Some(1));
    for stream in &mut streams {
        let next = stream.message().await.unwrap();
        assert_eq!(next, Some(IsActiveResponse { result: true }));
    }
}
