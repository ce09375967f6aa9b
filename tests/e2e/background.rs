//! Tasks that repeat something in the background, such as a flood of requests, while a test measures its effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use tokio::task::JoinSet;

/// Running tasks. They are aborted when this is dropped.
pub(crate) struct BackgroundTasks {
    control: TaskControl,
    tasks: JoinSet<Result<()>>,
}

/// State that all tasks share: whether they must end, and how often they have done their work.
#[derive(Clone, Default)]
pub(crate) struct TaskControl {
    is_stopped: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
}

impl TaskControl {
    /// Whether the task must end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Counts a round of any of the tasks. Returns the number of rounds before it.
    pub(crate) fn count_round(&self) -> usize {
        self.rounds.fetch_add(1, Ordering::SeqCst)
    }
}

impl BackgroundTasks {
    /// Spawns this number of tasks on the current runtime, each with its number from 0.
    pub(crate) fn start<F>(count: usize, mut task: impl FnMut(usize, TaskControl) -> F) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let control = TaskControl::default();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            tasks.spawn(task(number, control.clone()));
        }
        Self { control, tasks }
    }

    /// The rounds that are counted so far.
    pub(crate) fn rounds(&self) -> usize {
        self.control.rounds.load(Ordering::SeqCst)
    }

    /// Ends the tasks, each after its current round. Returns the number of rounds, or an error of a task.
    pub(crate) async fn stop(mut self) -> Result<usize> {
        self.control.is_stopped.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.rounds())
    }
}

/// Runs this on separate threads, so that the tasks of a flood do not delay the measured client.
pub(crate) fn apart<T>(measured: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::task::block_in_place(|| tokio::runtime::Runtime::new()?.block_on(measured))
}
