//! Reflection by a client over TLS.

use super::*;
use crate::serve::external_scaler::reflection::{
    MAX_REFLECTIONS, PATHS, ReflectionAnswer, ReflectionQuestion, ReflectionRequest,
    ReflectionResponse,
};

fn list() -> ReflectionRequest {
    ReflectionRequest {
        host: "localhost".to_owned(),
        question: Some(ReflectionQuestion::ListServices(String::new())),
    }
}

impl TestConnection {
    /// Opens a reflection that asks these questions and stays open if `stays`.
    async fn reflect(
        &self,
        path: &'static str,
        asked: Vec<ReflectionRequest>,
        stays: bool,
    ) -> Result<Streaming<ReflectionResponse>, Status> {
        let mut client = self.client();
        client.ready().await.unwrap();
        let rest = match stays {
            true => futures::stream::pending().boxed(),
            false => futures::stream::empty().boxed(),
        };
        let requests = tonic::Request::new(futures::stream::iter(asked).chain(rest));
        let path = PathAndQuery::from_static(path);
        let answer = client.streaming(requests, path, ProstCodec::default());
        answer.await.map(tonic::Response::into_inner)
    }
}

#[tokio::test]
async fn both_versions_answer_one_request_after_the_other() {
    let rig = TestScaler::new(RequestAuth::None);
    let client = rig.connect().await;
    for path in PATHS {
        let unknown = ReflectionQuestion::FileContainingSymbol("other.Service".to_owned());
        let unknown = ReflectionRequest {
            question: Some(unknown),
            ..list()
        };
        let asked = vec![list(), unknown.clone(), list()];
        let mut answers = client.reflect(path, asked, false).await.unwrap();
        let mut next = async || answers.message().await.unwrap();
        let first = next().await.unwrap();
        assert!(matches!(first.answer, Some(ReflectionAnswer::Services(_))));
        let second = next().await.unwrap();
        assert_eq!(second.original_request, Some(unknown));
        let Some(ReflectionAnswer::Error(error)) = second.answer else {
            panic!("{second:?}");
        };
        assert_eq!(error.error_message, "lagwise has no other.Service");
        assert_eq!(next().await.unwrap().answer, first.answer);
        assert_eq!(next().await, None);
    }
}

#[tokio::test]
async fn an_address_has_at_most_half_of_the_reflections() {
    let rig = TestScaler::new(RequestAuth::None);
    rig.lag.send_replace(Some(3));
    let client = rig.connect().await;
    let open = async || client.reflect(PATHS[0], vec![list()], true).await;
    let mut opened = Vec::new();
    for _ in 0..MAX_REFLECTIONS / 2 {
        let mut answers = open().await.unwrap();
        assert!(answers.message().await.unwrap().is_some());
        opened.push(answers);
    }
    let status = open().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(client.is_active(object(&[])).await.unwrap());
    let long = ReflectionRequest {
        host: "x".repeat(10_000),
        ..list()
    };
    opened.clear();
    // The server learns of it a moment later.
    let mut answers = loop {
        match client.reflect(PATHS[0], vec![long.clone()], true).await {
            Ok(answers) => break answers,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let mut answers = open().await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    rig.closing.send_replace(true);
    assert_eq!(answers.message().await.unwrap(), None);
}
