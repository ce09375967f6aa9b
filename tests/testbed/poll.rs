//! Waits for a condition, always with a deadline and never with a fixed sleep.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two probes. Shorter pauses cost CPU time, since probes take most of the CPU time of a wait.
const PAUSE: Duration = Duration::from_millis(200);

/// Factor by which deadlines are extended: they are chosen for an idle machine, but several lanes of scenarios share
/// two cores.
pub(super) const DEADLINE_FACTOR: u32 = 3;

/// An error that waiting cannot resolve. A probe that returns it ends the wait at once.
#[derive(Debug)]
pub(crate) struct Hopeless(pub(crate) String);

impl fmt::Display for Hopeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// Repeats `probe` until it returns `Ok`, for at most [`DEADLINE_FACTOR`] times `timeout`. The error then quotes the
/// last error of `probe`. `what` names the awaited state, as in "waited 30s for the topic to have leaders: ...".
pub(crate) fn poll_until<T>(
    timeout: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let timeout = timeout * DEADLINE_FACTOR;
    let deadline = Instant::now() + timeout;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if error.is::<Hopeless>() => bail!("while waiting for {what}: {error:#}"),
            Err(error) if Instant::now() >= deadline => {
                bail!("waited {timeout:?} for {what}: {error:#}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// As [`poll_until`], for an asynchronous probe. A probe that hangs is cut off at the deadline.
pub(crate) async fn poll_until_async<T, F>(
    timeout: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let timeout = timeout * DEADLINE_FACTOR;
    let mut last = anyhow::anyhow!("the first probe did not answer");
    let polled = tokio::time::timeout(timeout, async {
        loop {
            match probe().await {
                Ok(value) => return Ok(value),
                Err(error) if error.is::<Hopeless>() => return Err(error),
                Err(error) => last = error,
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    match polled {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => bail!("while waiting for {what}: {error:#}"),
        Err(_) => bail!("waited {timeout:?} for {what}: {last:#}"),
    }
}

/// Runs the same for all items at once, on a thread each, and returns the first failure. For work that mainly waits.
pub(crate) fn at_once<T: Send>(
    each: impl IntoIterator<Item = T>,
    run: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    std::thread::scope(|scope| {
        let run = &run;
        let each = each.into_iter();
        let running: Vec<_> = each.map(|one| scope.spawn(move || run(one))).collect();
        let ended = running.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        // Wait for all, so that none is still running during the next test.
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}
