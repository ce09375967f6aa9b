//! A bystander: an unrelated program that answers requests with some milliseconds of work, as a control measurement.
//! Before it answers, it sends a request to another thread, as lagwise does to the API server, or the API server to
//! lagwise. Its own delay during an attack shows the effect of the shared cores alone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::latencies::Latencies;

/// Maximum work for an answer, so that the bystander causes no significant load.
const MAX_WORK: Duration = Duration::from_millis(3);
/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(30);

/// A running bystander. It gets requests until it is dropped.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Latencies>>,
    threads: Vec<JoinHandle<()>>,
}

impl Bystander {
    /// Starts one whose answers take this much work, or a little less.
    pub(crate) fn start(work: Duration) -> Result<Self> {
        // Work before its request, in the other thread, and after that.
        let rounds = rounds_in(work.min(MAX_WORK)) / 3;
        let ((mut asking, mut asked), (mut passing, mut last)) = (connection()?, connection()?);
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let noted: Arc<Mutex<Latencies>> = Arc::clone(&answers);
        let stopped = Arc::clone(&stop);
        let pass_on = thread::spawn(move || {
            let mut byte = [0];
            while asked.read_exact(&mut byte).is_ok() {
                byte = [work_for(rounds)];
                let passed = passing.write_all(&byte);
                if passed.and_then(|()| passing.read_exact(&mut byte)).is_err() {
                    break;
                }
                byte = [work_for(rounds)];
                if asked.write_all(&byte).is_err() {
                    break;
                }
            }
        });
        let answer = thread::spawn(move || {
            let mut byte = [0];
            while last.read_exact(&mut byte).is_ok() {
                byte = [work_for(rounds)];
                if last.write_all(&byte).is_err() {
                    break;
                }
            }
        });
        let ask = thread::spawn(move || {
            let mut byte = [0];
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let asked = asking.write_all(&byte);
                if asked.and_then(|()| asking.read_exact(&mut byte)).is_err() {
                    break;
                }
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.add(begun.elapsed());
                drop(noted);
                thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            stop,
            answers,
            threads: vec![ask, pass_on, answer],
        })
    }

    /// Response times since the last call.
    pub(crate) fn take(&self) -> Latencies {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *answers)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Both ends of a connection.
fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// How many rounds of work take this long, by the fastest of some tries.
fn rounds_in(work: Duration) -> u32 {
    const ROUNDS: u32 = 20_000;
    let tries = (0..20).map(|_| {
        let begun = Instant::now();
        std::hint::black_box(work_for(ROUNDS));
        begun.elapsed()
    });
    let fastest = tries.min().unwrap_or_default().max(Duration::from_nanos(1));
    let rounds = work.as_nanos() * u128::from(ROUNDS) / fastest.as_nanos();
    u32::try_from(rounds).unwrap_or(u32::MAX)
}

fn work_for(rounds: u32) -> u8 {
    let mut hasher = DefaultHasher::new();
    for round in 0..rounds {
        round.hash(&mut hasher);
    }
    hasher.finish().to_le_bytes()[0]
}
