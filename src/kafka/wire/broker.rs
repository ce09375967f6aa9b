//! A broker and the one connection to it: made when needed, kept while used, made again with growing
//! pauses when it fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Address;
use super::connection::{self, Call, Ended, Watcher};
use super::frame::Request;
use super::handshake::{self, Broken};
use super::options::WireOptions;
use super::stats::Counters;
use super::versions::{ApiVersions, Versions};
use crate::kafka::health::Health;
use crate::model::kafka::fault::Fault;

/// Calls that may wait for their turn.
const WAITING: usize = 256;

/// How long a caller waits for a connection to a broker that failed the last time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pauses after a refused login, longer than others: somebody may count them.
const LOGIN_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What brokers of one cluster share.
pub(super) struct BrokerState {
    /// As of now: credentials may change.
    pub(super) options: watch::Sender<Arc<WireOptions>>,
    pub(super) health: Arc<Health>,
    pub(super) pace: Pace,
    pub(super) traffic: Counters,
}

impl BrokerState {
    pub(super) fn options(&self) -> Arc<WireOptions> {
        Arc::clone(&self.options.borrow())
    }
}

/// Limits how many connections are made in a second, over all brokers: some services allow few.
#[derive(Debug)]
pub(super) struct Pace {
    next: Mutex<Instant>,
}

impl Pace {
    const EVERY: Duration = Duration::from_millis(100);
    const AT_ONCE: u32 = 16;

    pub(super) fn new() -> Self {
        Self {
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until one more may be made.
    async fn wait(&self) {
        let turn = {
            let mut next = self.next.lock().await;
            let now = Instant::now();
            // Unused turns are kept, up to a number.
            let earliest = now.checked_sub(Self::EVERY * Self::AT_ONCE).unwrap_or(now);
            let turn = (*next).max(earliest);
            *next = turn + Self::EVERY;
            turn
        };
        sleep_until(turn).await;
    }
}

/// The state of the connection, as callers see it.
#[derive(Clone, Debug)]
enum Link {
    /// Not needed so far, or not lately.
    Idle,
    /// It failed; not tried again before that time.
    Down { fault: Fault, until: Instant },
    /// It is being made; how it failed before, if it did.
    Connecting {
        since: Instant,
        before: Option<Fault>,
    },
    /// It works.
    Up { versions: Arc<Versions>, late: bool },
}

/// A broker. Its connection lives for as long as this does.
#[derive(Debug)]
pub(super) struct Broker {
    link: watch::Receiver<Link>,
    calls: mpsc::Sender<Call>,
    wanted: mpsc::Sender<()>,
    client_id: String,
}

impl Broker {
    /// Starts the task that owns the connection; connects when first asked something.
    pub(super) fn start(address: Address, shared: Arc<BrokerState>) -> Self {
        let (state, link) = watch::channel(Link::Idle);
        let (calls, calls_in) = mpsc::channel(WAITING);
        let (wanted, wanted_in) = mpsc::channel(1);
        let client_id = shared.options().client_id.clone();
        let keeper = ConnectionMaintainer {
            address,
            shared,
            state,
            failures: 0,
        };
        tokio::spawn(keeper.run(calls_in, wanted_in));
        Self {
            link,
            calls,
            wanted,
            client_id,
        }
    }

    /// Whether it is likely to answer at once.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.link.borrow(), Link::Up { late: false, .. })
    }

    /// What the broker can do, once there is a connection. A broker that just failed, or that leaves
    /// others without an answer, is not waited for.
    pub(super) async fn versions(&self, deadline: Instant) -> Result<Arc<Versions>, Fault> {
        let mut link = self.link.clone();
        loop {
            let seen = link.borrow_and_update().clone();
            let (patience, fault) = match seen {
                Link::Up { late: true, .. } => return Err(Fault::NoAnswer),
                Link::Up { versions, .. } => return Ok(versions),
                Link::Down { fault, until } if Instant::now() < until => return Err(fault),
                Link::Idle | Link::Down { .. } => {
                    // A full channel means that it is known already.
                    let _ = self.wanted.try_send(());
                    (deadline, Fault::NoAnswer)
                }
                Link::Connecting { since, before } => match before {
                    Some(fault) => (deadline.min(since + PATIENCE), fault),
                    None => (deadline, Fault::NoAnswer),
                },
            };
            match timeout_at(patience, link.changed()).await {
                Err(_) => return Err(fault),
                Ok(Err(_)) => return Err(Fault::Client),
                Ok(Ok(())) => {}
            }
        }
    }

    /// Asks in this version, and gives the response's body. A connection that ends meanwhile is made
    /// again once: it may have been closed for its age just then.
    pub(super) async fn ask<R: Encodable + HeaderVersion>(
        &self,
        api: ApiVersions,
        version: i16,
        body: &R,
        deadline: Instant,
    ) -> Result<Bytes, Fault> {
        let mut again = true;
        loop {
            if self.versions(deadline).await?.of(api) != Ok(version) {
                // The broker is another one since: whoever asks finds out what it can do.
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
                    // It may have been sent to a connection that was already gone.
                    _ = link.wait_for(|link| !matches!(link, Link::Up { .. })) => None,
                }
            };
            match timeout_at(deadline, answered).await {
                Err(_) => return Err(Fault::NoAnswer),
                Ok(Some(body)) => return Ok(body),
                Ok(None) if again => again = false,
                Ok(None) => return Err(Fault::Unreachable),
            }
        }
    }
}

/// Owns the connection.
struct ConnectionMaintainer {
    address: Address,
    shared: Arc<BrokerState>,
    state: watch::Sender<Link>,
    failures: u32,
}

impl ConnectionMaintainer {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>, mut wanted: mpsc::Receiver<()>) {
        let mut before = None;
        // Ends when the broker is dropped.
        while wanted.recv().await.is_some() {
            let pause = match *self.state.borrow() {
                Link::Down { until, .. } => Some(until),
                _ => None,
            };
            if pause.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            self.state.send_replace(Link::Connecting {
                since: Instant::now(),
                before,
            });
            self.shared.pace.wait().await;
            // Those that come later are news to this connection.
            let mut renewed = self.shared.options.subscribe();
            let options = Arc::clone(&renewed.borrow_and_update());
            let deadline = Instant::now() + options.setup_timeout;
            let mut worked = false;
            let broken = match handshake::open(&self.address, &options, deadline).await {
                Ok(ready) => {
                    let versions = Arc::new(ready.versions.clone());
                    self.state.send_replace(Link::Up {
                        versions,
                        late: false,
                    });
                    let since = Instant::now();
                    let open = self.shared.traffic.connection();
                    let ended =
                        connection::serve(ready, &mut calls, &options, renewed, &self).await;
                    drop(open);
                    // One that worked for a while starts anew; one that is closed right after its
                    // login counts as failing.
                    worked = since.elapsed() > options.backoff.1;
                    if worked {
                        self.failures = 0;
                    }
                    tracing::debug!(address = %self.address, ?ended, "connection ended");
                    match ended {
                        Ended::Unwanted => return,
                        Ended::Retired => None,
                        Ended::Stuck => Some(Broken::new(Fault::NoAnswer, "no answer")),
                        Ended::Garbled(error) => Some(error.into()),
                    }
                }
                Err(broken) => Some(broken),
            };
            // What waits was meant for the connection that is no more.
            while calls.try_recv().is_ok() {}
            while wanted.try_recv().is_ok() {}
            before = broken.as_ref().map(|broken| broken.kind);
            let next = broken.map_or(Link::Idle, |broken| self.down(&broken, worked));
            self.state.send_replace(next);
        }
    }

    /// What follows a failure: a pause, unless the connection had `worked` for a while, so that one
    /// that was merely closed is back at once.
    fn down(&mut self, broken: &Broken, worked: bool) -> Link {
        let reason = format!("{}: {}", self.address, broken.reason);
        tracing::debug!(reason, "no connection");
        self.shared
            .health
            .report(broken.kind, &reason, std::time::Instant::now());
        if worked {
            return Link::Idle;
        }
        let (least, most) = if broken.kind == Fault::Login {
            LOGIN_BACKOFF
        } else {
            self.shared.options().backoff
        };
        let pause = backoff(least, most, self.failures).mul_f64(0.8 + 0.4 * fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        Link::Down {
            fault: broken.kind,
            until: Instant::now() + pause,
        }
    }
}

fn backoff(least: Duration, most: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
    least.saturating_mul(factor).min(most)
}

impl Watcher for ConnectionMaintainer {
    fn late(&self, late: bool) {
        self.state.send_if_modified(|link| match link {
            Link::Up { late: now, .. } if *now != late => {
                *now = late;
                true
            }
            _ => false,
        });
    }

    fn sent(&self) {
        self.shared.traffic.sent();
    }

    fn received(&self, bytes: usize) {
        self.shared.traffic.received(bytes);
    }

    fn throttled(&self, during: Duration) {
        self.shared.traffic.throttled(during);
        tracing::debug!(address = %self.address, millis = during.as_millis(), "the broker throttles us");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(2));
        let pauses: Vec<_> = (0..7)
            .map(|n| backoff(least, most, n).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff(least, most, u32::MAX), most);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_made_at_a_pace() {
        let pace = Pace::new();
        let start = Instant::now();
        for _ in 0..40 {
            pace.wait().await;
        }
        assert!(
            start.elapsed() >= Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(
            start.elapsed() <= Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
}
