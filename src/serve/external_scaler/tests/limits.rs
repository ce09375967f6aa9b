//! What one caller can hold.

use super::super::reading::MAX_WAITING;
use super::*;
use crate::serve::first_read::MAX_FORWARDED_WAITING;

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
    // On a busy machine the first would time out before the last are sent.
    tokio::time::pause();
    let opened = (0..MAX_STREAMS / 2).map(|number| open(&client, ["shop", "team"][number % 2]));
    let streams = futures::future::join_all(opened).await;
    assert!(streams.iter().all(Result::is_ok));
    tokio::time::resume();
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
async fn requests_without_a_message_block_their_own_connection_only() {
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
    // Until it is resumed, no request times out.
    tokio::time::pause();
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
    tokio::time::resume();
    // Another address has room, by a connection of its own.
    let other = SocketAddr::from(([127, 0, 0, 2], 0));
    let client = rig.connect_from(other, None).await;
    assert!(client.is_active(object(&[])).await.unwrap());
}

#[tokio::test]
async fn new_triggers_of_a_namespace_leave_the_way_to_the_leader_to_others() {
    let tls = own_tls();
    let leader = TestScaler::with_tls(RequestAuth::None, tls.clone(), 1);
    let follower = TestScaler::with_tls(RequestAuth::None, tls, 0);
    follower.follow(&leader);
    leader.lag.send_replace(Some(28));
    let (client, other) = (follower.connect().await, follower.connect().await);
    let of = |namespace: &str, group: &str, number: usize| {
        let mut object = object(&[("group", group)]);
        object.namespace = namespace.to_owned();
        object.name = format!("object-{number}");
        object
    };
    assert!(other.is_active(of("known", "billing", 0)).await.unwrap());
    for triggers in [1, 60] {
        let (answers_in, mut answers) = mpsc::unbounded_channel();
        for number in 0..300 {
            let (client, answers) = (client.clone(), answers_in.clone());
            // Nothing is read of this group, so that each of these waits as long as it may.
            let asked = of("greedy", "unread", number % triggers);
            tokio::spawn(async move {
                let _ = answers.send(client.is_active(asked).await);
            });
        }
        drop(answers_in);
        let mut refused = vec![answers.recv().await.unwrap().unwrap_err()];
        assert!(other.is_active(of("known", "billing", 0)).await.unwrap());
        assert!(
            other
                .is_active(of("new", "billing", triggers))
                .await
                .unwrap()
        );
        while let Some(answer) = answers.recv().await {
            refused.push(answer.unwrap_err());
        }
        let waited = refused
            .iter()
            .filter(|status| !status.message().contains("too many new triggers"));
        let waited = waited.count();
        assert!(
            (1..=MAX_FORWARDED_WAITING / 2).contains(&waited),
            "{waited}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn known_triggers_leave_the_queue_to_new_ones() {
    let row = (0, Ok(Some(1)), Ok(8));
    let read = read(since_fixture(), "billing", "orders", &[row]);
    let read = ClusterHistory::default().apply(read, Scope::Whole);
    let trigger = |name: &str| {
        let mut object = object(&[]);
        object.name = name.to_owned();
        parse(&object).unwrap()
    };
    let known = trigger("known");
    let mut triggers = ExternalTriggers::default();
    triggers.insert(Arc::clone(&known), Instant::now());
    let targets = Targets::new(&["main".into()], TargetOptions::default(), None);
    let snapshot = LagSnapshot {
        targets: Arc::new(targets.with_hpas(&triggers.add_to(&HpaMap::default()), None)),
        clusters: [("main".into(), read)].into(),
        ..LagSnapshot::default()
    };
    let (_publisher, reader) =
        snapshot_channel::channel(snapshot.evaluated(&ServingPolicy::default()));
    for capacity in [4, 9] {
        let (asked_in, mut asked) = mpsc::channel(capacity);
        let answers = TriggerAnswers::new(reader.clone(), Leading::alone(), None, asked_in);
        for _ in 0..20 {
            assert!(answers.answer(&known).await.result.unwrap().is_active);
        }
        // It is never added, because this test does not receive from the channel.
        let new = trigger("new");
        let refused = answers.answer(&new).await.result.unwrap_err();
        assert!(
            refused.message().contains("has not read the group"),
            "{refused}"
        );
        let mut sent = std::iter::from_fn(|| asked.try_recv().ok());
        assert!(sent.any(|sent| sent == new), "of {capacity}");
    }
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
