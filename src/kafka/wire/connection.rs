//! Serves requests on an open connection. Requests are pipelined; brokers answer them in order (a
//! guarantee of the protocol), so a queue of requests in flight is enough to match responses. No
//! caller's deadline affects another caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{self, FrameError, Request};
use super::handshake::{ConnectError, ReadyConnection, SetupExchange};
use super::options::WireOptions;
use super::sasl;
use crate::model::kafka::fault::Fault;

/// Maximum requests in flight. A broker processes one request of a connection at a time, so more
/// would only queue up there.
const MAX_IN_FLIGHT: usize = 16;

/// Maximum throttle time that is taken from a broker (KIP-219), so that a wrong value cannot silence the client.
const MAX_THROTTLE: Duration = Duration::from_secs(30);

/// A request queued for the connection.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) max_response: ResponseLimit,
    /// When its caller stops waiting.
    pub(super) deadline: Instant,
    /// Receives the response's body, or that it is longer than the budget. Dropped without a value if the connection
    /// ends first.
    pub(super) reply: oneshot::Sender<Result<Bytes, ResponseTooLong>>,
}

/// Maximum size of a response in bytes, at most that of all responses. A longer one is not read, so the connection
/// ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum ResponseLimit {
    /// A correct response to the request cannot be longer, so the broker is at fault.
    Expected(usize),
    /// The response is valid, but longer than its caller accepts.
    Budget(usize),
}

impl ResponseLimit {
    fn bytes(self) -> usize {
        match self {
            Self::Expected(bytes) | Self::Budget(bytes) => bytes,
        }
    }
}

/// A response is longer than its budget.
#[derive(Debug)]
pub(super) struct ResponseTooLong;

/// A request that was sent. It stays in the queue until it is answered, even if its caller gave up,
/// because its response still has to be read.
#[derive(Debug)]
struct InFlight {
    call: Call,
    correlation: i32,
    sent_at: Instant,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// The broker's handle was dropped.
    NoCallers,
    /// Idle for too long, logged in with outdated credentials, or expecting a response that no caller waits for any
    /// more. The next request opens a new connection.
    Retired,
    /// A response is overdue.
    Unresponsive,
    /// The stream failed or contained no valid response.
    Failed(FrameError),
    /// The stream failed, or contained no Kafka response, before the first response.
    Refused(FrameError),
}

/// Receives the events of a connection.
pub(super) trait ConnectionObserver {
    /// Whether the oldest request is past its caller's deadline.
    fn set_late(&self, late: bool);
    /// A request was written.
    fn count_request(&self);
    /// A response of this size was read.
    fn count_response(&self, bytes: usize);
    /// The throttle time that the broker requested.
    fn count_throttle(&self, during: Duration);
}

/// Serves calls until the connection ends. If the login's lifetime ends earlier, reauthenticates on
/// the same connection (KIP-368) once nothing is in flight.
pub(super) async fn serve(
    ready: ReadyConnection,
    calls: &mut mpsc::Receiver<Call>,
    options: &WireOptions,
    mut reloaded: watch::Receiver<Arc<WireOptions>>,
    observer: &impl ConnectionObserver,
) -> ConnectionEnd {
    let mut idle = IdleConnection {
        ready,
        used: Instant::now(),
        throttled_until: Instant::now(),
    };
    loop {
        idle = match serve_until_login_expires(idle, calls, options, &mut reloaded, observer).await
        {
            StopReason::Ended(ended) => return ended,
            StopReason::LoginExpires(idle) => match reauthenticate(idle, options).await {
                Ok(idle) => idle,
                Err(broken) => {
                    // A new connection will show whether the credentials are wrong.
                    tracing::debug!(
                        reason = broken.reason,
                        "reauthentication failed; closing the connection"
                    );
                    return ConnectionEnd::Retired;
                }
            },
        };
    }
}

/// A connection with nothing in flight, between two logins.
struct IdleConnection {
    ready: ReadyConnection,
    /// Time of the last request or response.
    used: Instant,
    /// No request is sent before this time, as the broker requested.
    throttled_until: Instant,
}

/// Why serving stopped.
enum StopReason {
    Ended(ConnectionEnd),
    /// Nothing is in flight and the login is about to expire.
    LoginExpires(IdleConnection),
}

/// Minimum time between two logins. Brokers ignore a reauthentication within a second of the previous login.
const MIN_LOGIN_INTERVAL: Duration = Duration::from_millis(1100);

/// Connections with outdated credentials are closed at random times within this period, so that a
/// cluster does not see all of them reconnect at once.
const RELOAD_SPREAD: Duration = Duration::from_secs(5);

/// Logs in again on the same connection.
async fn reauthenticate(
    idle: IdleConnection,
    options: &WireOptions,
) -> Result<IdleConnection, ConnectError> {
    let no_token = || ConnectError::new(Fault::Login, "no valid token is available");
    let credentials = options.login.available_credentials().ok_or_else(no_token)?;
    let mut ready = idle.ready;
    let mut exchange = SetupExchange::new(ready.stream, ready.responses, options);
    let logging_in = sasl::log_in(&credentials, &mut exchange, &ready.versions);
    let session_lifetime = match timeout(options.setup_timeout, logging_in).await {
        Ok(session_lifetime) => session_lifetime?,
        Err(_) => return Err(ConnectError::new(Fault::NoAnswer, "no answer")),
    };
    (ready.stream, ready.responses) = exchange.into_parts();
    ready.session_lifetime = session_lifetime;
    tracing::debug!(?session_lifetime, "logged in again");
    Ok(IdleConnection { ready, ..idle })
}

/// Serves calls until the connection ends or its login is about to expire.
async fn serve_until_login_expires(
    idle: IdleConnection,
    calls: &mut mpsc::Receiver<Call>,
    options: &WireOptions,
    reloaded: &mut watch::Receiver<Arc<WireOptions>>,
    observer: &impl ConnectionObserver,
) -> StopReason {
    let IdleConnection {
        ready,
        mut used,
        mut throttled_until,
    } = idle;
    let ReadyConnection {
        stream,
        mut responses,
        versions,
        session_lifetime,
        first_expiry,
    } = ready;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut out = Bytes::new();
    let mut flushed = true;
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    // Above the IDs that the handshake has used on this connection.
    let mut correlation = 1000_i32;
    let mut has_answered = false;
    // At 75..90 % of the lifetime, at random, so that connections do not reauthenticate all at once.
    let reauthenticate_after = |lifetime: Duration| {
        lifetime
            .mul_f64(0.75 + 0.15 * fastrand::f64())
            .max(MIN_LOGIN_INTERVAL)
    };
    // When to reauthenticate, or to close the connection if its credentials are outdated.
    let mut retire_at =
        session_lifetime.map(|lifetime| Instant::now() + reauthenticate_after(lifetime));
    let mut has_outdated_credentials = false;
    let mut was_late = false;
    loop {
        let now = Instant::now();
        let is_late = in_flight
            .front()
            .is_some_and(|oldest| oldest.call.deadline <= now);
        if is_late != was_late {
            observer.set_late(is_late);
            was_late = is_late;
        }
        // Retirement waits for the responses in flight; during that time `may_take` below admits no new calls.
        let is_retiring = retire_at.is_some_and(|retire_at| retire_at <= now);
        if is_retiring && in_flight.is_empty() {
            if has_outdated_credentials {
                let _ = writer.shutdown().await;
                return StopReason::Ended(ConnectionEnd::Retired);
            }
            let ready = ReadyConnection {
                stream: reader.unsplit(writer),
                responses,
                versions,
                session_lifetime: None,
                first_expiry,
            };
            return StopReason::LoginExpires(IdleConnection {
                ready,
                used,
                throttled_until,
            });
        }
        // The next time at which to act even if nothing arrives: the idle timeout or retirement
        // while nothing is in flight, otherwise the oldest request's deadline, then the time at
        // which it counts as lost.
        let wake = match in_flight.front() {
            None => retire_at.map_or(used + options.idle, |retire_at| {
                retire_at.min(used + options.idle)
            }),
            Some(oldest) if is_late => unresponsive_at(oldest, options),
            Some(oldest) => oldest.call.deadline,
        };
        // One request is written at a time: `out` must be empty, so that a call whose caller gave
        // up while it was queued is dropped instead of sent.
        let may_take = in_flight.len() < MAX_IN_FLIGHT && !is_retiring && out.is_empty();
        // Without a request in flight the limit is 0: any response ends the connection, and takes no memory.
        let limit = in_flight.front().map_or(0, |oldest| {
            let limit = oldest.call.max_response.bytes();
            limit.min(options.max_response_bytes)
        });
        // Every branch is cancel-safe: `responses` and `out` keep partial progress, `recv` loses
        // nothing. Branches must not wait inside `select!`, or a slow write would delay responses.
        tokio::select! {
            response = responses.next(&mut reader, limit) => {
                let response = match response {
                    Ok(response) => response,
                    // A valid response over its caller's budget is no fault of the broker; a negative length is. The
                    // other requests are sent again on a new connection.
                    Err(FrameError::TooLong { length, .. }) if length > 0 && has_budget(&in_flight) => {
                        if let Some(oldest) = in_flight.pop_front() {
                            let _ = oldest.call.reply.send(Err(ResponseTooLong));
                        }
                        return StopReason::Ended(ConnectionEnd::Retired);
                    }
                    Err(error) if has_answered => return StopReason::Ended(ConnectionEnd::Failed(error)),
                    Err(error) => return StopReason::Ended(ConnectionEnd::Refused(error)),
                };
                has_answered = true;
                used = Instant::now();
                observer.count_response(response.len());
                let Some(oldest) = in_flight.pop_front() else {
                    return StopReason::Ended(ConnectionEnd::Failed(FrameError::NotKafka("no request is in flight")));
                };
                let Call { request, reply, .. } = oldest.call;
                let (api, version) = (request.api(), request.version());
                let body = match frame::body(response, oldest.correlation, api, version) {
                    Ok(body) => body,
                    Err(error) => return StopReason::Ended(ConnectionEnd::Failed(error)),
                };
                if api.begins_with_throttle(version) {
                    let throttle = read_throttle(&body);
                    if !throttle.is_zero() {
                        throttled_until = Instant::now() + throttle;
                        observer.count_throttle(throttle);
                    }
                }
                // The caller may have given up.
                let _ = reply.send(Ok(body));
            }
            call = next_call(calls, throttled_until), if may_take => {
                let Some(mut call) = call else {
                    let _ = writer.shutdown().await;
                    return StopReason::Ended(ConnectionEnd::NoCallers);
                };
                let now = Instant::now();
                // Its caller has already timed out, so do not send it.
                if call.reply.is_closed() || call.deadline <= now {
                    continue;
                }
                correlation = correlation.checked_add(1).unwrap_or(1);
                out = call.request.take_frame(correlation);
                used = now;
                observer.count_request();
                in_flight.push_back(InFlight { call, correlation, sent_at: now });
            }
            written = write_some(&mut writer, &mut out, &mut flushed), if !(out.is_empty() && flushed) => {
                if let Err(error) = written {
                    return StopReason::Ended(ConnectionEnd::Failed(error.into()));
                }
            }
            Ok(()) = reloaded.changed() => {
                has_outdated_credentials = true;
                retire_at = Some(Instant::now() + RELOAD_SPREAD.mul_f64(fastrand::f64()));
            }
            () = sleep_until(wake) => match in_flight.front() {
                Some(oldest) if Instant::now() >= unresponsive_at(oldest, options) => return StopReason::Ended(ConnectionEnd::Unresponsive),
                None if used.elapsed() >= options.idle => {
                    let _ = writer.shutdown().await;
                    return StopReason::Ended(ConnectionEnd::Retired);
                }
                _ => {}
            },
        }
    }
}

/// Whether the response to the oldest request has a budget.
fn has_budget(in_flight: &VecDeque<InFlight>) -> bool {
    let limit = in_flight.front().map(|oldest| oldest.call.max_response);
    matches!(limit, Some(ResponseLimit::Budget(_)))
}

/// Writes some of the buffer, or flushes once it is empty. Cancel-safe: progress is kept in `out`
/// and `flushed`.
async fn write_some(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut Bytes,
    flushed: &mut bool,
) -> std::io::Result<()> {
    if out.is_empty() {
        writer.flush().await?;
        *flushed = true;
        return Ok(());
    }
    *flushed = false;
    if writer.write_buf(out).await? == 0 {
        return Err(std::io::ErrorKind::WriteZero.into());
    }
    if out.is_empty() {
        // Otherwise an idle connection would keep the memory of its last request.
        *out = Bytes::new();
    }
    Ok(())
}

/// When an unanswered request means that the connection is dead. Never before its caller's
/// deadline, and not before the request timeout either, which may be longer: closing the connection
/// would also lose the responses that other callers wait for.
fn unresponsive_at(oldest: &InFlight, options: &WireOptions) -> Instant {
    oldest
        .call
        .deadline
        .max(oldest.sent_at + options.request_timeout)
}

/// Receives the next call, not before the throttle time is over.
async fn next_call(calls: &mut mpsc::Receiver<Call>, throttled_until: Instant) -> Option<Call> {
    sleep_until(throttled_until).await;
    calls.recv().await
}

/// Throttle time at the beginning of a response; zero if it is missing or negative.
fn read_throttle(mut body: &[u8]) -> Duration {
    let millis = body.try_get_i32().unwrap_or(0);
    let requested = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    requested.min(MAX_THROTTLE)
}
