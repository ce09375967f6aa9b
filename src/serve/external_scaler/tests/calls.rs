//! What each call answers, on the leader and on a follower.

use super::*;

#[tokio::test]
async fn answers_all_calls() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(28));
    let client = rig.connect().await;
    let specs: GetMetricSpecResponse = client
        .call(&path_of("GetMetricSpec"), object(&[]))
        .await
        .unwrap();
    let spec = MetricSpec {
        metric_name: "kafka_lag".to_owned(),
        target_size: 5,
        target_size_float: 5.0,
    };
    assert_eq!(specs.metric_specs, [spec]);
    // Five partitions: what KEDA's HPA divides by the target gives five replicas, and not six.
    let value = client.metrics(object(&[])).await.unwrap();
    assert_eq!((value.metric_value, value.metric_value_float), (25, 25.0));
    assert!(client.is_active(object(&[])).await.unwrap());
    assert!(
        !client
            .is_active(object(&[("activationLag", "28")]))
            .await
            .unwrap()
    );
    let mut activity = client.stream("StreamIsActive", object(&[])).await.unwrap();
    let first: Option<IsActiveResponse> = activity.message().await.unwrap();
    assert_eq!(first, Some(IsActiveResponse { result: true }));
    let mut specs_stream = client
        .stream("StreamMetricSpec", object(&[]))
        .await
        .unwrap();
    assert_eq!(specs_stream.message().await.unwrap(), Some(specs));
}

#[tokio::test]
async fn activation_is_streamed_and_ends_with_the_server() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(0));
    let client = rig.connect().await;
    let mut stream: Streaming<IsActiveResponse> =
        client.stream("StreamIsActive", object(&[])).await.unwrap();
    let mut specs: Streaming<GetMetricSpecResponse> = client
        .stream("StreamMetricSpec", object(&[]))
        .await
        .unwrap();
    assert!(specs.message().await.unwrap().is_some());
    for (waiting, is_active) in [(0, false), (1, true), (0, false), (900, true)] {
        rig.lag.send_replace(Some(waiting));
        let sent = stream.message().await.unwrap().map(|sent| sent.result);
        assert_eq!(sent, Some(is_active), "lag {waiting}");
    }
    rig.closing.send_replace(true);
    assert_eq!(stream.message().await.unwrap(), None);
    assert_eq!(specs.message().await.unwrap(), None);
    rig.stop.send_replace(true);
    rig.stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn unknown_lag_is_unavailable_and_sends_nothing() {
    let rig = TestScaler::new(RequestAuth::None);
    let client = rig.connect().await;
    let mut stream: Streaming<IsActiveResponse> =
        client.stream("StreamIsActive", object(&[])).await.unwrap();
    for refused in [
        client.is_active(object(&[])).await.map(|_| ()),
        client.metrics(object(&[])).await.map(|_| ()),
    ] {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("is not complete yet"), "{status}");
    }
    assert!(stream.message().now_or_never().is_none());
    rig.lag.send_replace(Some(3));
    let sent = stream.message().await.unwrap();
    assert_eq!(sent, Some(IsActiveResponse { result: true }));
}

#[tokio::test]
async fn invalid_metadata_is_refused_with_a_remedy() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    let client = rig.connect().await;
    for (key, value) in [
        ("lagThreshold", "-5"),
        ("lagThreshold", "NaN"),
        ("activationLag", "99999999999999999999999"),
        ("even", "perhaps"),
        ("topic", "\u{0}\u{1b}[2J"),
        ("bootstrapServers", "kafka:9092"),
        ("partitions", "9-1"),
    ] {
        let garbage = object(&[(key, value)]);
        let opened = client.stream::<IsActiveResponse>("StreamIsActive", garbage.clone());
        let of_stream = opened.await.map(|_| ());
        let path = path_of("GetMetricSpec");
        let spec = client.call::<_, GetMetricSpecResponse>(&path, garbage.clone());
        for refused in [
            spec.await.map(|_| ()),
            client.is_active(garbage.clone()).await.map(|_| ()),
            client.metrics(garbage).await.map(|_| ()),
            of_stream,
        ] {
            let status = refused.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(key), "{status}");
            assert!(
                status.message().chars().all(|c| !c.is_control()),
                "{status}"
            );
        }
    }
    let other = GetMetricsRequest {
        scaled_object_ref: Some(object(&[])),
        metric_name: "kafka_age".to_owned(),
    };
    let refused = client
        .call::<_, GetMetricsResponse>(&path_of("GetMetrics"), other)
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    // No ScaledObjectRef at all, too large, not even a message, and no such method.
    let path = path_of("GetMetrics");
    let empty = client.call::<_, GetMetricsResponse>(&path, GetMetricsRequest::default());
    assert_eq!(empty.await.unwrap_err().code(), Code::InvalidArgument);
    let long = "x".repeat(2 * MAX_REQUEST_BYTES);
    let status = client
        .is_active(object(&[("topics", &long)]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let refused = client
        .call::<_, IsActiveResponse>(&path_of("Scale"), object(&[]))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    assert!(client.is_active(object(&[])).await.unwrap());
}

#[tokio::test]
async fn health_follows_readiness() {
    let rig = TestScaler::new(RequestAuth::None);
    let client = rig.connect().await;
    let check = async |service: &str| {
        let asked = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer: Result<HealthCheckResponse, Status> =
            client.call(messages::HEALTH_CHECK, asked).await;
        answer.map(|answer| answer.status())
    };
    assert_eq!(check("").await.unwrap(), HealthStatus::NotServing);
    rig.lag.send_replace(Some(3));
    assert!(client.is_active(object(&[])).await.unwrap());
    assert_eq!(
        check("externalscaler.ExternalScaler").await.unwrap(),
        HealthStatus::Serving
    );
    assert_eq!(
        check("other.Service").await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn followers_ask_the_leader_and_streams_end_with_the_leadership() {
    let tls = own_tls();
    let leader = TestScaler::with_tls(RequestAuth::None, tls.clone(), 1);
    let follower = TestScaler::with_tls(RequestAuth::None, tls, 0);
    let client = follower.connect().await;
    let status = client.is_active(object(&[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .message()
            .contains("no lagwise replica is the leader"),
        "{status}"
    );
    follower.follow(&leader);
    leader.lag.send_replace(Some(28));
    assert_eq!(client.metrics(object(&[])).await.unwrap().metric_value, 25);
    let desired = [("metric", "desired"), ("threadsPerReplica", "2")];
    assert!(client.is_active(object(&desired)).await.unwrap());
    let mut stream: Streaming<IsActiveResponse> =
        client.stream("StreamIsActive", object(&[])).await.unwrap();
    let mut next = async || stream.message().await.unwrap().map(|sent| sent.result);
    assert_eq!(next().await, Some(true));
    leader.lag.send_replace(Some(0));
    assert_eq!(next().await, Some(false));
    // Who has no peer's credential learns nothing of this path.
    let direct = leader.connect().await;
    let mut of_leader: Streaming<IsActiveResponse> =
        direct.stream("StreamIsActive", object(&[])).await.unwrap();
    assert!(of_leader.message().await.unwrap().is_some());
    leader.terms.send_replace(None);
    leader.lag.send_replace(Some(1));
    assert_eq!(of_leader.message().await.unwrap(), None);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Ok(object) = <ScaledObjectRef as prost::Message>::decode(&*bytes) {
            let _ = spec(&object);
        }
    }

    #[test]
    fn any_metadata_is_answered(
        namespace in ".{0,20}",
        metadata in proptest::collection::btree_map("[a-zA-Z]{0,20}|group|topic|lagThreshold|partitions|topicRegex", ".{0,30}", 0..6),
    ) {
        let object = ScaledObjectRef { name: "a".to_owned(), namespace, scaler_metadata: metadata };
        if let Ok(specs) = spec(&object) {
            let spec = &specs.metric_specs[0];
            proptest::prop_assert!(spec.target_size >= 1 && spec.target_size_float > 0.0);
        }
    }
}
