//! A TCP proxy that counts connections and can misbehave, with or without a broker behind it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::kafka::KafkaCluster;
use super::ports::free_port;

/// How long a thread waits for bytes before it checks whether the mode has changed.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Behaviour of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Forward,
    /// Accepts connections and reads requests, but does not respond. Existing connections stay open.
    Silent,
    /// Responds to every request with bytes that are not a Kafka response.
    Garbage,
    /// Answers with the header of a frame of 2 GiB less one byte.
    HugeFrame,
    /// Answers with a short frame, with the right correlation id, in which every count is 2^31 - 1.
    HugeCounts,
    /// Closes each connection at the first request.
    Hangup,
}

/// A proxy. When dropped, it closes all connections.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: Option<u16>,
    mode: Mutex<Mode>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    stopped: AtomicBool,
}

impl Shared {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// A proxy on `port` for what listens on `target`.
    pub(crate) fn start(port: u16, target: u16) -> Result<Self> {
        Self::listen(port, Some(target), Mode::Forward)
    }

    /// A proxy in front of a broker's listener that was set up as [`super::broker::Listener::proxied`].
    pub(crate) fn of_broker(kafka: &KafkaCluster, id: usize, listener: &str) -> Result<Self> {
        let port = kafka.port(id, listener)?;
        Self::start(port.advertised, port.listens)
    }

    /// A proxy that the broker does not advertise, so that only clients that bootstrap from it use it.
    pub(crate) fn in_front_of(kafka: &KafkaCluster, id: usize, listener: &str) -> Result<Self> {
        Self::start(free_port()?, kafka.port(id, listener)?.listens)
    }

    /// A fake broker that only behaves as the mode says.
    pub(crate) fn fake_broker(mode: Mode) -> Result<Self> {
        Self::listen(free_port()?, None, mode)
    }

    fn listen(port: u16, target: Option<u16>, mode: Mode) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let shared = Arc::new(Shared {
            target,
            mode: Mutex::new(mode),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                accepting.accepted.fetch_add(1, Ordering::AcqRel);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    shared.open.fetch_add(1, Ordering::AcqRel);
                    // Errors are ignored: the test causes them, or sees them on the other side.
                    let _ = serve(&client, &shared);
                    let _ = client.shutdown(Shutdown::Both);
                    shared.open.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Ok(Self { port, shared })
    }

    /// `host:port` of this proxy.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sets the behaviour. Closes connections that the broker may have closed.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode() = mode;
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes up the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One connection, until either side ends it or the proxy stops.
fn serve(client: &TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    client.set_read_timeout(Some(POLL_INTERVAL))?;
    client.set_nodelay(true)?;
    let mut broker: Option<TcpStream> = None;
    let mut pending = Vec::new();
    let mut was_silent = false;
    let mut buffer = vec![0; 64 * 1024];
    while !shared.stopped.load(Ordering::Acquire) {
        let mode = *shared.mode();
        if mode == Mode::Forward && was_silent {
            // Dropped bytes are lost, so this connection stays broken when the network works again.
            return Ok(());
        }
        was_silent |= mode == Mode::Silent;
        let read = match (&mut (&*client)).read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
        match (mode, shared.target) {
            (Mode::Forward, Some(target)) => {
                let to = match &mut broker {
                    Some(to) => to,
                    none => none.insert(answers_flow_back(client, target, shared)?),
                };
                to.write_all(&buffer[..read])?;
            }
            (Mode::Forward | Mode::Silent, _) => {}
            (Mode::Hangup, _) => return Ok(()),
            (Mode::Garbage, _) => (&*client).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?,
            (Mode::HugeFrame, _) => {
                (&*client).write_all(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0])?;
            }
            (Mode::HugeCounts, _) => {
                pending.extend_from_slice(&buffer[..read]);
                while let Some(correlation) = next_request(&mut pending) {
                    let mut answer = 28_u32.to_be_bytes().to_vec();
                    answer.extend(correlation);
                    answer.extend([0, 0]);
                    answer.extend([0x7f, 0xff, 0xff, 0xff].repeat(5));
                    answer.extend([0, 0]);
                    (&*client).write_all(&answer)?;
                }
            }
        }
    }
    Ok(())
}

/// Connects to the broker and forwards its responses, on a separate thread.
fn answers_flow_back(
    client: &TcpStream,
    target: u16,
    shared: &Arc<Shared>,
) -> std::io::Result<TcpStream> {
    let broker = TcpStream::connect(("127.0.0.1", target))?;
    broker.set_nodelay(true)?;
    let (mut from, mut to) = (broker.try_clone()?, client.try_clone()?);
    from.set_read_timeout(Some(POLL_INTERVAL))?;
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while !shared.stopped.load(Ordering::Acquire) {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) if *shared.mode() == Mode::Forward => {
                    if to.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                Err(_) => break,
            }
        }
        // Keep a half-open connection: the peer does not learn of its end.
        if *shared.mode() != Mode::Silent {
            let _ = to.shutdown(Shutdown::Both);
        }
    });
    Ok(broker)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Removes the next complete request from the front, and returns its correlation ID.
fn next_request(pending: &mut Vec<u8>) -> Option<[u8; 4]> {
    let length = usize::try_from(u32::from_be_bytes(*pending.first_chunk()?)).ok()?;
    let correlation: [u8; 4] = pending.get(8..12)?.try_into().ok()?;
    if pending.len() < length + 4 {
        return None;
    }
    pending.drain(..length + 4);
    Some(correlation)
}
