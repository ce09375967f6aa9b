//! A small HTTP server for tests: records requests and returns prepared responses.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The requests that were received.
#[derive(Clone, Debug, Default)]
pub(in crate::kafka) struct RecordedRequest {
    pub(in crate::kafka) line: String,
    headers: Vec<(String, String)>,
    pub(in crate::kafka) body: String,
}

impl RecordedRequest {
    /// A header's value; empty if missing.
    pub(in crate::kafka) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

/// The server; stops when dropped.
pub(in crate::kafka) struct TokenServer {
    port: u16,
    seen: Arc<Mutex<Vec<RecordedRequest>>>,
    task: tokio::task::JoinHandle<()>,
}

impl TokenServer {
    /// Answers each request with the result of `answer`; an empty text means no response.
    pub(in crate::kafka) async fn start(
        answer: impl Fn(&RecordedRequest) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&seen), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(serve(stream, kept, answer));
            }
        });
        Self { port, seen, task }
    }

    pub(in crate::kafka) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(in crate::kafka) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    pub(in crate::kafka) fn requests(&self) -> Vec<RecordedRequest> {
        self.seen.lock().unwrap().clone()
    }

    pub(in crate::kafka) fn last(&self) -> RecordedRequest {
        self.requests().pop().unwrap()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<A: Fn(&RecordedRequest) -> String>(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<RecordedRequest>>>,
    answer: Arc<A>,
) {
    let mut bytes = Vec::new();
    let request = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return,
        }
        if let Some(request) = whole(&bytes) {
            break request;
        }
    };
    seen.lock().unwrap().push(request.clone());
    let text = answer(&request);
    if text.is_empty() {
        std::future::pending::<()>().await;
    }
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn whole(bytes: &[u8]) -> Option<RecordedRequest> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let header = |line: &str| {
        let (key, value) = line.split_once(':')?;
        Some((key.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let request = RecordedRequest {
        line,
        headers: lines.filter_map(header).collect(),
        body: body.to_owned(),
    };
    let length: usize = request.header("content-length").parse().unwrap_or(0);
    (body.len() >= length).then_some(request)
}

/// Always the same answer.
pub(in crate::kafka) fn answers(
    status: u16,
    body: &str,
) -> impl Fn(&RecordedRequest) -> String + use<> {
    let answer = response(status, &[], body);
    move |_| answer.clone()
}

/// A whole HTTP response.
pub(in crate::kafka) fn response(status: u16, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers
        .iter()
        .map(|(key, value)| format!("{key}: {value}\r\n"))
        .collect();
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// A token that expires after `seconds`.
pub(in crate::kafka) fn jwt(seconds: u64, subject: &str) -> String {
    let expires = SystemTime::now() + Duration::from_secs(seconds);
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let claims = serde_json::json!({"exp": expires.as_secs(), "sub": subject}).to_string();
    format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

/// A form's pairs, decoded.
pub(in crate::kafka) fn form(body: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect()
}
