//! Threads for one part of the daemon, so that its tasks do not wait for tasks of other parts. If there are more
//! threads than processors, the operating system shares the processors fairly.

use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two beats of a [`Heartbeat`].
const BEAT: Duration = Duration::from_secs(1);

/// A separate runtime. Tasks that still run when it is dropped are cancelled.
#[derive(Debug)]
pub(crate) struct WorkerThreads {
    handle: Handle,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

impl WorkerThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(count).thread_name(name);
        let runtime = builder.enable_all().build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Spawns tasks on these threads.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Begins to show whether these threads still run tasks.
    pub(crate) fn heartbeat(&self, name: &'static str) -> Heartbeat {
        let (beats, last) = watch::channel(Instant::now());
        self.handle.spawn(async move {
            let mut interval = interval(BEAT);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while beats.send(Instant::now()).is_ok() {
                interval.tick().await;
            }
        });
        Heartbeat { name, last }
    }
}

/// When [`WorkerThreads`] last ran a task.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    /// What the threads do, for messages.
    pub(crate) name: &'static str,
    last: watch::Receiver<Instant>,
}

impl Heartbeat {
    /// A heartbeat whose last beat was at `last`.
    #[cfg(test)]
    pub(crate) fn with_last_beat(name: &'static str, last: Instant) -> Self {
        let (_, last) = watch::channel(last);
        Self { name, last }
    }

    /// Time since the last beat. About a second at most, unless the threads hang.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.last.borrow())
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        // A runtime dropped within a task would wait for its threads, at which it panics.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_tasks_on_its_threads_until_it_is_dropped() {
        let threads = WorkerThreads::start("answers", 1).unwrap();
        let name = async { std::thread::current().name().map(str::to_owned) };
        let named = threads.handle().spawn(name).await.unwrap();
        assert_eq!(named.as_deref(), Some("answers"));

        let endless = threads.handle().spawn(std::future::pending::<()>());
        drop(threads);
        assert!(endless.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_heartbeat_stops_while_all_threads_hang() {
        let threads = WorkerThreads::start("answers", 1).unwrap();
        let heartbeat = threads.heartbeat("answers");
        let mut beats = heartbeat.last.clone();
        for _ in 0..2 {
            beats.changed().await.unwrap();
        }

        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        threads.handle().spawn(async move {
            let _ = begin.send(());
            let _ = released.recv();
        });
        begun.await.unwrap();
        beats.mark_unchanged();
        let later = Instant::now() + Duration::from_secs(40);
        assert!(heartbeat.age(later) > Duration::from_secs(30));
        let silent = tokio::time::timeout(3 * BEAT, beats.changed()).await;
        assert!(silent.is_err());

        drop(release);
        beats.changed().await.unwrap();
        assert!(heartbeat.age(Instant::now()) < Duration::from_secs(30));
    }
}
