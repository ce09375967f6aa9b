//! A bystander: a program that answers a request with some milliseconds of work and has nothing to do with lagwise. How
//! much later it answers during an attack is what the shared cores explain.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::latencies::Latencies;

/// Most work for an answer, so that it is no load of its own.
const MOST_WORK: Duration = Duration::from_millis(3);
/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(30);

/// It is asked as long as this lives.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Latencies>>,
    threads: Vec<JoinHandle<()>>,
}

impl Bystander {
    /// Starts one whose answers take this much work, or a little less.
    pub(crate) fn start(work: Duration) -> Result<Self> {
        let rounds = rounds_in(work.min(MOST_WORK));
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut asking = TcpStream::connect(listener.local_addr()?)?;
        let (mut answering, _) = listener.accept()?;
        asking.set_nodelay(true)?;
        answering.set_nodelay(true)?;
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let noted: Arc<Mutex<Latencies>> = Arc::clone(&answers);
        let stopped = Arc::clone(&stop);
        let answer = thread::spawn(move || {
            let mut byte = [0];
            while answering.read_exact(&mut byte).is_ok() {
                byte = [work_for(rounds)];
                if answering.write_all(&byte).is_err() {
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
            threads: vec![ask, answer],
        })
    }

    /// Its answers since the last call.
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
