//! A broker and its single connection: opened on demand, kept while used, reopened with growing
//! backoff after failures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::connect_pacer::{ConnectPacer, LOGIN_BACKOFF, backoff};
use super::connection::{self, Call, ConnectionEnd, ConnectionObserver, ResponseLimit};
use super::frame::Request;
use super::handshake::{self, ConnectError};
use super::options::WireOptions;
use super::response_memory::ResponseMemory;
use super::silence;
use super::stats::TrafficCounters;
use super::versions::{ApiKey, BrokerVersions};
use crate::kafka::health::ConnectionHealth;
use crate::model::kafka::fault::Fault;
use crate::telemetry::log_interval::LogInterval;

/// Maximum number of queued calls.
const MAX_QUEUED_CALLS: usize = 256;

/// How long a caller waits for the connection attempt of a broker whose last attempt failed.
const RECONNECT_WAIT: Duration = Duration::from_secs(1);

/// State shared by the brokers of one cluster.
pub(super) struct ClusterContext {
    /// Replaced when credentials are reloaded.
    pub(super) options: watch::Sender<Arc<WireOptions>>,
    pub(super) health: Arc<ConnectionHealth>,
    pub(super) pace: ConnectPacer,
    pub(super) traffic: TrafficCounters,
    /// Bounds how often a refused host is logged, since brokers can advertise any number of them.
    pub(super) refusals: LogInterval,
    /// Bounds how often brokers that are left out are logged.
    pub(super) omissions: LogInterval,
    /// Memory for long responses.
    pub(super) memory: ResponseMemory,
}

impl ClusterContext {
    pub(super) fn new(options: WireOptions) -> Self {
        Self {
            memory: ResponseMemory::new(options.max_response_bytes),
            options: watch::Sender::new(Arc::new(options)),
            health: Arc::default(),
            pace: ConnectPacer::new(),
            traffic: TrafficCounters::default(),
            refusals: LogInterval::default(),
            omissions: LogInterval::default(),
        }
    }

    pub(super) fn options(&self) -> Arc<WireOptions> {
        Arc::clone(&self.options.borrow())
    }
}

/// State of the connection, as callers see it.
#[derive(Clone, Debug)]
enum LinkState {
    /// Not connected, because it is not needed.
    Idle,
    /// Failed; not retried before `until`.
    Down { fault: Fault, until: Instant },
    /// Being set up; `before` is the failure of the last attempt, if any.
    Connecting {
        since: Instant,
        before: Option<Fault>,
    },
    /// Connected. `late` means that a caller has given up on the oldest request.
    Up {
        versions: Arc<BrokerVersions>,
        late: bool,
    },
}

/// Handle to a broker; its connection is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Broker {
    address: String,
    link: watch::Receiver<LinkState>,
    calls: mpsc::Sender<Call>,
    /// Asks the task to connect.
    wanted: mpsc::Sender<()>,
    client_id: String,
    health: Arc<ConnectionHealth>,
}

impl Broker {
    /// A broker to which no connection is opened, since there are too many.
    pub(super) fn refused() -> Self {
        let until = Instant::now() + Duration::from_secs(24 * 3600);
        let fault = Fault::Unreachable;
        Self {
            address: String::new(),
            link: watch::channel(LinkState::Down { fault, until }).1,
            calls: mpsc::channel(1).0,
            wanted: mpsc::channel(1).0,
            client_id: String::new(),
            health: Arc::default(),
        }
    }

    /// Starts the task that owns the connection, which connects on the first request.
    pub(super) fn start(address: Address, shared: Arc<ClusterContext>) -> Self {
        let (state, link) = watch::channel(LinkState::Idle);
        let (calls, calls_in) = mpsc::channel(MAX_QUEUED_CALLS);
        let (wanted, wanted_in) = mpsc::channel(1);
        let client_id = shared.options().client_id.clone();
        let (name, health) = (address.to_string(), Arc::clone(&shared.health));
        let task = ConnectionTask {
            address,
            shared,
            state,
            failures: 0,
        };
        tokio::spawn(task.run(calls_in, wanted_in));
        Self {
            address: name,
            link,
            calls,
            wanted,
            client_id,
            health,
        }
    }

    /// Whether the broker is connected and answering.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.link.borrow(), LinkState::Up { late: false, .. })
    }

    /// Waits for a connection and returns the API versions the broker supports. Fails at once for a
    /// broker whose last attempt just failed or that leaves other requests unanswered: waiting
    /// would cost the sweep time that other brokers need.
    pub(super) async fn versions(&self, deadline: Instant) -> Result<Arc<BrokerVersions>, Fault> {
        let found = self.wait_for_versions(deadline).await;
        if found.is_err() {
            self.health
                .need_broker(&self.address, std::time::Instant::now());
        }
        found
    }

    async fn wait_for_versions(&self, deadline: Instant) -> Result<Arc<BrokerVersions>, Fault> {
        let mut link = self.link.clone();
        loop {
            let seen = link.borrow_and_update().clone();
            let (wait_until, fault) = match seen {
                LinkState::Up { late: true, .. } => return Err(Fault::NoAnswer),
                LinkState::Up { versions, .. } => return Ok(versions),
                LinkState::Down { fault, until } if Instant::now() < until => return Err(fault),
                LinkState::Idle | LinkState::Down { .. } => {
                    // A full channel already triggers a connection.
                    let _ = self.wanted.try_send(());
                    (deadline, Fault::NoAnswer)
                }
                LinkState::Connecting { since, before } => match before {
                    Some(fault) => (deadline.min(since + RECONNECT_WAIT), fault),
                    None => (deadline, Fault::NoAnswer),
                },
            };
            match timeout_at(wait_until, link.changed()).await {
                Err(_) => return Err(fault),
                Ok(Err(_)) => return Err(Fault::Client),
                Ok(Ok(())) => {}
            }
        }
    }

    /// Sends a request whose response may be as long as `receive.message.max.bytes` allows.
    pub(super) async fn send_request<R: Encodable + HeaderVersion>(
        &self,
        api: ApiKey,
        version: i16,
        body: &R,
        deadline: Instant,
    ) -> Result<Bytes, Fault> {
        let limit = ResponseLimit::Expected(usize::MAX);
        self.send_bounded_request(api, version, body, limit, deadline)
            .await
    }

    /// Sends a request and returns the response's body. A response that is longer than its budget is
    /// [`Fault::OverBudget`]. If the connection ends before the response, the request is retried once on a new one,
    /// because a broker may close idle connections at any moment.
    pub(super) async fn send_bounded_request<R: Encodable + HeaderVersion>(
        &self,
        api: ApiKey,
        version: i16,
        body: &R,
        max_response: ResponseLimit,
        deadline: Instant,
    ) -> Result<Bytes, Fault> {
        let mut may_retry = true;
        loop {
            if self.versions(deadline).await?.highest_common(api) != Ok(version) {
                // Another broker, or another release, answers at this address now; the caller must
                // negotiate the version again.
                return Err(Fault::Unreachable);
            }
            let request = Request::new(api, version, &self.client_id, body);
            let request = request.map_err(|error| {
                tracing::error!("{error}");
                Fault::Client
            })?;
            let (reply, replied) = oneshot::channel();
            let call = Call {
                request,
                max_response,
                deadline,
                reply,
            };
            match timeout_at(deadline, self.calls.send(call)).await {
                Err(_) => return Err(Fault::NoAnswer),
                Ok(Err(_)) => return Err(Fault::Client),
                Ok(Ok(())) => {}
            }
            let mut link = self.link.clone();
            let answered = async {
                tokio::select! {
                    biased;
                    body = replied => body.ok(),
                    // The call may have been queued for a connection that was already closed.
                    _ = link.wait_for(|link| !matches!(link, LinkState::Up { .. })) => None,
                }
            };
            match timeout_at(deadline, answered).await {
                Err(_) => return Err(Fault::NoAnswer),
                Ok(Some(body)) => return body.or(Err(Fault::OverBudget)),
                Ok(None) if may_retry => may_retry = false,
                Ok(None) => return Err(Fault::Unreachable),
            }
        }
    }
}

/// The task that owns the connection to a broker.
struct ConnectionTask {
    address: Address,
    shared: Arc<ClusterContext>,
    state: watch::Sender<LinkState>,
    failures: u32,
}

impl ConnectionTask {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>, mut wanted: mpsc::Receiver<()>) {
        let mut before = None;
        // Ends when the handle is dropped.
        while wanted.recv().await.is_some() {
            let backoff_ends = match *self.state.borrow() {
                LinkState::Down { until, .. } => Some(until),
                _ => None,
            };
            if backoff_ends.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            self.state.send_replace(LinkState::Connecting {
                since: Instant::now(),
                before,
            });
            // A host that is not allowed must not use up the turns of those that are.
            if self.shared.options().allows_host(&self.address.host) {
                self.shared.pace.wait().await;
            }
            // Mark the current options as seen before connecting, so that a reload during the
            // handshake closes this connection later.
            let mut reloaded = self.shared.options.subscribe();
            let options = Arc::clone(&reloaded.borrow_and_update());
            let deadline = Instant::now() + options.setup_timeout;
            let mut worked = false;
            let opened = silence::connect(&self.address, &options, &self.shared, deadline).await;
            let broken = match opened {
                Ok(ready) => {
                    self.shared.health.forget_broker(&self.address.to_string());
                    let versions = Arc::new(ready.versions.clone());
                    self.state.send_replace(LinkState::Up {
                        versions,
                        late: false,
                    });
                    let since = Instant::now();
                    let open = self.shared.traffic.open_connection(ready.first_expiry);
                    let ended =
                        connection::serve(ready, &mut calls, &options, reloaded, &self).await;
                    drop(open);
                    // A connection that lasted resets the backoff. One that is closed right after
                    // its login counts as a failure, or a broker that does so would be hammered.
                    worked = since.elapsed() > options.backoff.1;
                    if worked {
                        self.failures = 0;
                    }
                    tracing::debug!(address = %self.address, ?ended, "connection ended");
                    match ended {
                        ConnectionEnd::NoCallers => return,
                        ConnectionEnd::Retired => None,
                        ConnectionEnd::Unresponsive => {
                            Some(ConnectError::new(Fault::NoAnswer, "no answer"))
                        }
                        ConnectionEnd::Failed(error) => Some(error.into()),
                        ConnectionEnd::Refused(error) => {
                            Some(self.explain_refusal(error.into(), &options).await)
                        }
                    }
                }
                Err(broken) => Some(broken),
            };
            // Queued calls and wake-ups belong to the connection that just ended; dropping a call
            // makes its caller retry.
            while calls.try_recv().is_ok() {}
            while wanted.try_recv().is_ok() {}
            before = broken.as_ref().map(|broken| broken.kind);
            let next = broken.map_or(LinkState::Idle, |broken| {
                self.record_failure(&broken, worked)
            });
            self.state.send_replace(next);
        }
    }

    /// Finds out whether a broker that closed the connection at the first request requires a login.
    async fn explain_refusal(&self, error: ConnectError, options: &WireOptions) -> ConnectError {
        if options.login.is_configured() || error.kind != Fault::Unreachable {
            return error;
        }
        // Callers wait for the answer, which explains more than the end of the connection.
        self.state.send_replace(LinkState::Connecting {
            since: Instant::now(),
            before: None,
        });
        self.shared.pace.wait().await;
        let deadline = Instant::now() + options.setup_timeout;
        let memory = &self.shared.memory;
        let required = handshake::find_required_login(&self.address, options, memory, deadline);
        required.await.unwrap_or(error)
    }

    /// Records a failed connection and returns the next state: a backoff, except after a connection
    /// that `worked` for a while, which is reopened on the next request.
    fn record_failure(&mut self, broken: &ConnectError, worked: bool) -> LinkState {
        let reason = format!("{}: {}", self.address, broken.reason);
        if broken.kind == Fault::HostNotAllowed
            && self.shared.refusals.is_due(std::time::Instant::now())
        {
            tracing::warn!(
                address = %self.address,
                "a broker advertises a host that is not in allowed_broker_hosts of its Kafka cluster; \
                 not connecting to it"
            );
        }
        tracing::debug!(reason, "cannot connect to the broker");
        let (health, now) = (&self.shared.health, std::time::Instant::now());
        if worked {
            health.report(broken.kind, &reason, now);
            return LinkState::Idle;
        }
        health.report_broker(&self.address.to_string(), broken.kind, &reason, now);
        let (least, most) = if broken.kind == Fault::Login {
            LOGIN_BACKOFF
        } else {
            self.shared.options().backoff
        };
        let pause = backoff(least, most, self.failures).mul_f64(0.8 + 0.4 * fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        LinkState::Down {
            fault: broken.kind,
            until: Instant::now() + pause,
        }
    }
}

impl ConnectionObserver for ConnectionTask {
    fn set_late(&self, late: bool) {
        self.state.send_if_modified(|link| match link {
            LinkState::Up { late: now, .. } if *now != late => {
                *now = late;
                true
            }
            _ => false,
        });
    }

    fn count_request(&self) {
        self.shared.traffic.count_request();
    }

    fn count_response(&self, bytes: usize) {
        self.shared.traffic.count_response(bytes);
    }

    fn count_throttle(&self, during: Duration) {
        self.shared.traffic.count_throttle(during);
        tracing::debug!(address = %self.address, millis = during.as_millis(), "throttled by the broker");
    }
}
