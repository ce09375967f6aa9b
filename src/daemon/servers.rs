//! Serves each listener on the threads for its kind until shutdown.

use std::io;

use axum::Router;
use tokio::sync::watch;

use super::{Tasks, wait_for_stop};
use crate::serve::health::Liveness;
use crate::serve::listen::{BoundListener, ListenerKind};
use crate::serve::tls::ServerTls;
use crate::worker_threads::WorkerThreads;

/// Number of threads that answer requests to the external metrics API.
const ANSWER_THREADS: usize = 2;

/// A listener and its endpoints: the name of the part of the daemon, the kind of listener, the listener, the endpoints,
/// and TLS if it has any.
pub(super) type Server = (
    &'static str,
    ListenerKind,
    BoundListener,
    Router,
    Option<ServerTls>,
);

/// Separate threads of listeners, which do not wait for other parts.
#[derive(Debug)]
pub(super) struct ServerThreads {
    /// Answer the HPA controller, however busy tenants make the other parts.
    answers: WorkerThreads,
    /// One thread for the TLS handshakes of all listeners.
    handshakes: WorkerThreads,
}

impl ServerThreads {
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self {
            answers: WorkerThreads::start("answers", ANSWER_THREADS)?,
            handshakes: WorkerThreads::start("handshakes", 1)?,
        })
    }

    /// Notices if these threads hang.
    pub(super) fn liveness(&self) -> Liveness {
        Liveness::new(vec![
            self.answers.heartbeat("the external metrics API"),
            self.handshakes.heartbeat("TLS handshakes"),
        ])
    }

    /// Serves until shortly after `closing` becomes true.
    pub(super) fn serve(
        &self,
        (part, kind, listener, router, tls): Server,
        closing: watch::Receiver<bool>,
        tasks: &mut Tasks,
    ) {
        let stopped = wait_for_stop(closing);
        let listener = listener.with_handshakes_on(self.handshakes.handle());
        let serving = async move {
            let served = match tls {
                Some(tls) => listener.serve_tls(kind, router, &tls, stopped).await,
                None => listener.serve_plain(kind, router, stopped).await,
            };
            (part, served.map_err(Into::into))
        };
        // The probes run on the threads of the other parts, so that they fail if those hang.
        match kind {
            ListenerKind::Api => tasks.spawn_on(serving, &self.answers.handle()),
            _ => tasks.spawn(serving),
        };
    }
}
