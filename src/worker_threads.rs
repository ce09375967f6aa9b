//! Threads for one part of the daemon, so that its tasks do not wait for tasks of other parts. If there are more
//! threads than processors, the operating system shares the processors fairly.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

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
}
