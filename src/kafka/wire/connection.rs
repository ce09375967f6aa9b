//! A connection at work: requests go out one after the other, answers come in in their order
//! (brokers keep it), and nobody's deadline holds up anybody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{self, Garbled, Request};
use super::handshake::{Broken, HandshakeExchange, Ready};
use super::options::WireOptions;
use super::sasl;
use crate::model::kafka::fault::Fault;

/// Requests that may be unanswered at once. A broker works on one of a connection's at a time, so
/// more would only wait there.
const IN_FLIGHT: usize = 16;

/// The longest that a broker's wish to be left alone is granted.
const MAX_THROTTLE: Duration = Duration::from_secs(30);

/// A request on its way to the connection.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request,
    /// When its caller stops waiting.
    pub(super) deadline: Instant,
    /// For the response's body. Dropped where the connection ends first.
    pub(super) reply: oneshot::Sender<Bytes>,
}

/// A request that was sent. It keeps its place until it is answered, whoever still waits for it.
#[derive(Debug)]
struct Sent {
    call: Call,
    correlation: i32,
    at: Instant,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody is left to ask.
    Unwanted,
    /// Unused for long, or made with a login that is over: the next request makes a new one.
    Retired,
    /// An answer stayed out for too long.
    Stuck,
    /// Its bytes ended or made no sense.
    Garbled(Garbled),
}

/// What the connection tells of itself while it works.
pub(super) trait Watcher {
    /// Whether the oldest request's caller has stopped waiting for it.
    fn late(&self, late: bool);
    /// A request is on its way.
    fn sent(&self);
    /// A response of so many bytes has come.
    fn received(&self, bytes: usize);
    /// The broker wants to be left alone for a while.
    fn throttled(&self, during: Duration);
}

/// Serves calls until the connection ends. Logs in again on the way where a login ends before that
/// (KIP-368), once all that was asked is answered.
pub(super) async fn serve(
    ready: Ready,
    calls: &mut mpsc::Receiver<Call>,
    options: &WireOptions,
    mut renewed: watch::Receiver<Arc<WireOptions>>,
    watcher: &impl Watcher,
) -> Ended {
    let mut line = Line {
        ready,
        used: Instant::now(),
        quiet_until: Instant::now(),
    };
    loop {
        line = match work(line, calls, options, &mut renewed, watcher).await {
            Stopped::Ended(ended) => return ended,
            Stopped::LoginEnds(line) => match log_in_again(line, options).await {
                Ok(line) => line,
                Err(broken) => {
                    // A new connection finds out whether it is the login that is wrong.
                    tracing::debug!(reason = broken.reason, "no login on the old connection");
                    return Ended::Retired;
                }
            },
        };
    }
}

/// A connection between two logins.
struct Line {
    ready: Ready,
    /// When something was last asked or answered.
    used: Instant,
    /// Until when the broker wants to be left alone.
    quiet_until: Instant,
}

/// Why the work stopped.
enum Stopped {
    Ended(Ended),
    /// Nothing is under way, and the login will not last for much longer.
    LoginEnds(Line),
}

/// Brokers pass over a login that follows another within a second.
const BETWEEN_LOGINS: Duration = Duration::from_millis(1100);

/// Within this time, connections that were made with old credentials end one by one.
const RENEWED_WITHIN: Duration = Duration::from_secs(5);

async fn log_in_again(line: Line, options: &WireOptions) -> Result<Line, Broken> {
    let none = || Broken::new(Fault::Login, "there is no valid token at hand");
    let proof = options.login.proof_now().ok_or_else(none)?;
    let mut ready = line.ready;
    let mut exchange = HandshakeExchange::new(ready.stream, ready.responses, &options.client_id);
    let logging_in = sasl::log_in(&proof, &mut exchange, &ready.versions);
    let lasts = match timeout(options.setup_timeout, logging_in).await {
        Ok(lasts) => lasts?,
        Err(_) => return Err(Broken::new(Fault::NoAnswer, "no answer")),
    };
    (ready.stream, ready.responses) = exchange.into_parts();
    ready.lasts = lasts;
    tracing::debug!(?lasts, "logged in again");
    Ok(Line { ready, ..line })
}

/// Serves calls until the connection or its login ends.
async fn work(
    line: Line,
    calls: &mut mpsc::Receiver<Call>,
    options: &WireOptions,
    renewed: &mut watch::Receiver<Arc<WireOptions>>,
    watcher: &impl Watcher,
) -> Stopped {
    let Line {
        ready,
        mut used,
        mut quiet_until,
    } = line;
    let Ready {
        stream,
        mut responses,
        versions,
        lasts,
    } = ready;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut out = BytesMut::new();
    let mut flushed = true;
    let mut sent: VecDeque<Sent> = VecDeque::new();
    let mut correlation = 1000_i32;
    // Not all connections at once.
    let due = |lasts: Duration| {
        lasts
            .mul_f64(0.75 + 0.15 * fastrand::f64())
            .max(BETWEEN_LOGINS)
    };
    let mut retire = lasts.map(|lasts| Instant::now() + due(lasts));
    let mut is_outdated = false;
    let mut told_late = false;
    loop {
        let now = Instant::now();
        let is_late = sent
            .front()
            .is_some_and(|oldest| oldest.call.deadline <= now);
        if is_late != told_late {
            watcher.late(is_late);
            told_late = is_late;
        }
        let retiring = retire.is_some_and(|retire| retire <= now);
        if retiring && sent.is_empty() {
            if is_outdated {
                let _ = writer.shutdown().await;
                return Stopped::Ended(Ended::Retired);
            }
            let ready = Ready {
                stream: reader.unsplit(writer),
                responses,
                versions,
                lasts: None,
            };
            return Stopped::LoginEnds(Line {
                ready,
                used,
                quiet_until,
            });
        }
        // The next moment at which something has to be done although nothing came in.
        let wake = match sent.front() {
            None => retire.map_or(used + options.idle, |retire| {
                retire.min(used + options.idle)
            }),
            Some(oldest) if is_late => stuck_at(oldest, options),
            Some(oldest) => oldest.call.deadline,
        };
        let may_take = sent.len() < IN_FLIGHT && !retiring && out.is_empty();
        tokio::select! {
            response = responses.next(&mut reader) => {
                let response = match response {
                    Ok(response) => response,
                    Err(error) => return Stopped::Ended(Ended::Garbled(error)),
                };
                used = Instant::now();
                watcher.received(response.len());
                let Some(oldest) = sent.pop_front() else {
                    return Stopped::Ended(Ended::Garbled(Garbled::NoKafka("it was not asked for")));
                };
                let Call { request, reply, .. } = oldest.call;
                let (api, version) = (request.api(), request.version());
                let body = match frame::body(response, oldest.correlation, api, version) {
                    Ok(body) => body,
                    Err(error) => return Stopped::Ended(Ended::Garbled(error)),
                };
                if api.begins_with_throttle(version) {
                    let throttle = throttle(&body);
                    if !throttle.is_zero() {
                        quiet_until = Instant::now() + throttle;
                        watcher.throttled(throttle);
                    }
                }
                // Whoever asked may be gone.
                let _ = reply.send(body);
            }
            call = next_call(calls, quiet_until), if may_take => {
                let Some(mut call) = call else {
                    let _ = writer.shutdown().await;
                    return Stopped::Ended(Ended::Unwanted);
                };
                let now = Instant::now();
                if call.reply.is_closed() || call.deadline <= now {
                    continue;
                }
                correlation = correlation.checked_add(1).unwrap_or(1);
                out.extend_from_slice(call.request.numbered(correlation));
                used = now;
                watcher.sent();
                sent.push_back(Sent { call, correlation, at: now });
            }
            written = write(&mut writer, &mut out, &mut flushed), if !(out.is_empty() && flushed) => {
                if let Err(error) = written {
                    return Stopped::Ended(Ended::Garbled(error.into()));
                }
            }
            Ok(()) = renewed.changed() => {
                is_outdated = true;
                retire = Some(Instant::now() + RENEWED_WITHIN.mul_f64(fastrand::f64()));
            }
            () = sleep_until(wake) => match sent.front() {
                Some(oldest) if Instant::now() >= stuck_at(oldest, options) => return Stopped::Ended(Ended::Stuck),
                None if used.elapsed() >= options.idle => {
                    let _ = writer.shutdown().await;
                    return Stopped::Ended(Ended::Retired);
                }
                _ => {}
            },
        }
    }
}

/// Writes some of what is to go out, or has it sent on where all is written. May be given up at any
/// point and called again.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    flushed: &mut bool,
) -> std::io::Result<()> {
    if out.is_empty() {
        writer.flush().await?;
        *flushed = true;
        return Ok(());
    }
    *flushed = false;
    match writer.write_buf(out).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        _ => Ok(()),
    }
}

/// When an unanswered request means that the connection is dead.
fn stuck_at(oldest: &Sent, options: &WireOptions) -> Instant {
    oldest
        .call
        .deadline
        .max(oldest.at + options.request_timeout)
}

/// The next call, not before the broker wants to be asked again.
async fn next_call(calls: &mut mpsc::Receiver<Call>, quiet_until: Instant) -> Option<Call> {
    sleep_until(quiet_until).await;
    calls.recv().await
}

fn throttle(mut body: &[u8]) -> Duration {
    let millis = body.try_get_i32().unwrap_or(0);
    let asked = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    asked.min(MAX_THROTTLE)
}
