//! A fake of the servers that give tokens or credentials to a pod.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::IntoResponse;

use crate::testbed::http::runtime_and_listener;

/// Returns the body of the response to a path and a form.
type Answer = dyn Fn(&str, &str) -> String + Send + Sync;

/// The server. It stops when dropped.
pub(super) struct TokenEndpoint {
    port: u16,
    script: Arc<Script>,
    _runtime: tokio::runtime::Runtime,
}

struct Script {
    answer: Box<Answer>,
    /// The paths and forms that were sent.
    requests: Mutex<Vec<String>>,
}

impl TokenEndpoint {
    pub(super) fn start(
        answer: impl Fn(&str, &str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        let (runtime, listener, port) = runtime_and_listener()?;
        let script = Arc::new(Script {
            answer: Box::new(answer),
            requests: Mutex::default(),
        });
        let router = Router::new()
            .fallback(reply)
            .with_state(Arc::clone(&script));
        let server = {
            let _inside = runtime.enter();
            axum_server::from_tcp(listener)?
        };
        runtime.spawn(server.serve(router.into_make_service()));
        Ok(Self {
            port,
            script,
            _runtime: runtime,
        })
    }

    /// Its host and port.
    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// The requests so far, each as its path and its form.
    pub(super) fn requests(&self) -> Vec<String> {
        let requests = self.script.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn reply(State(script): State<Arc<Script>>, uri: Uri, form: String) -> impl IntoResponse {
    let body = (script.answer)(uri.path(), &form);
    let requests = script.requests.lock();
    let mut requests = requests.unwrap_or_else(PoisonError::into_inner);
    requests.push(format!("{} {form}", uri.path()));
    let kind = match body.chars().next() {
        Some('{') => "application/json",
        Some('<') => "text/xml",
        _ => "text/plain",
    };
    // The header by which clients recognize Google's metadata server. Others ignore it.
    let headers = [("Content-Type", kind), ("Metadata-Flavor", "Google")];
    (headers, body)
}
