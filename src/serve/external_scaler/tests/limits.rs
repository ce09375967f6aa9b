//! What one caller can hold.

use super::super::reading::MAX_WAITING;
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
        .map(|_| tokio::spawn(client.clone().send_unfinished(path_of("IsActive"), PLAIN)))
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
        assert_eq!(code_of(&response), Code::DeadlineExceeded);
    }
    assert!(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn an_address_has_at_most_half_of_the_waiting_requests() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    // What one connection reads at a time, and what one address may have waiting, on several of them.
    let long = "x".repeat(4 * 1024);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(rig.connect().await);
    }
    let (answers_in, mut answers) = mpsc::unbounded_channel();
    for number in 0..MAX_WAITING {
        let client = clients[number % clients.len()].clone();
        let (long, answers) = (long.clone(), answers_in.clone());
        tokio::spawn(async move {
            let path = path_of(["IsActive", "StreamIsActive"][number % 2]);
            let response = client.send_unfinished(path, ("x-long", &long)).await;
            let _ = answers.send(response.map(|response| code_of(&response)));
        });
    }
    drop(answers_in);
    while answers.recv().await.unwrap().unwrap() != Code::ResourceExhausted {}
    // Another address has room, by a connection of its own.
    let other = SocketAddr::from(([127, 0, 0, 2], 0));
    let client = rig.connect_from(other, None).await;
    assert!(client.is_active(object(&[])).await.unwrap());
}

#[tokio::test]
async fn compressed_messages_are_refused() {
    let rig = TestScaler::new(RequestAuth::None);
    let client = rig.connect().await;
    for encoding in ["gzip", "zstd"] {
        let header = ("grpc-encoding", encoding);
        let response = client.clone().send_unfinished(path_of("IsActive"), header);
        let code = code_of(&response.await.unwrap());
        assert_eq!(code, Code::Unimplemented, "{encoding}");
    }
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
        tokio::spawn(client.clone().send_unfinished(path, PLAIN));
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
