//! Runs work on threads for blocking tasks that would block a thread of the async runtime for too long, such as work
//! that grows with the number and size of tenants' objects.

use std::future::pending;
use std::panic::resume_unwind;

use tokio::task::JoinError;

/// Runs `work` on a thread for blocking tasks, and returns its result.
///
/// # Errors
/// The work panicked, or the runtime is shutting down.
pub(crate) async fn try_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// Runs `work` on a thread for blocking tasks, and returns its result. If the runtime is shutting down, it waits until
/// its caller is dropped.
///
/// # Panics
/// If `work` panics: a panic is a defect that must be noticed, so it ends the caller, too.
pub(crate) async fn do_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match try_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_result() {
        assert_eq!(do_blocking(|| 7).await, 7);
    }

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn a_panic_is_propagated() {
        let () = do_blocking(|| panic!("a defect")).await;
    }
}
