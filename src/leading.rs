//! Whether this process is the one that decides and writes. Of several daemons on one Kubernetes
//! cluster exactly one does; [`k8s`](crate::k8s) finds out which.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A stretch of time in which this process leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its number: every later term of any process has a higher one.
    pub number: u64,
    /// When it ends unless it is renewed before, on this machine's monotonic clock; `None` = never.
    pub until: Option<Instant>,
}

impl Term {
    /// What is left of it at `now`: a write must be done by then, since another process may lead
    /// afterwards. `None` once it has ended.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        match self.until {
            None => Some(Duration::MAX),
            Some(until) => until
                .checked_duration_since(now)
                .filter(|left| !left.is_zero()),
        }
    }
}

/// Tells whether this process leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Term>>);

impl Leadership {
    /// What the channel's other end says. Should it be gone, the last term still ends by itself.
    #[must_use]
    pub fn new(terms: watch::Receiver<Option<Term>>) -> Self {
        Self(terms)
    }

    /// Of a process that has no other beside it.
    #[must_use]
    pub fn alone() -> Self {
        let only = Term {
            number: 0,
            until: None,
        };
        Self(watch::channel(Some(only)).1)
    }

    /// The term under way at `now`.
    #[must_use]
    pub fn term(&self, now: Instant) -> Option<Term> {
        (*self.0.borrow()).filter(|term| term.left(now).is_some())
    }

    /// Waits until the term is another one or has been renewed; for ever where that cannot be.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_by_itself() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let (terms, told) = watch::channel(None);
        let leadership = Leadership::new(told);
        assert_eq!(leadership.term(now), None);
        let term = Term {
            number: 3,
            until: Some(now + second),
        };
        terms.send_replace(Some(term));
        assert_eq!(leadership.term(now), Some(term));
        assert_eq!(term.left(now), Some(second));
        assert_eq!(leadership.term(now + second), None);
        assert_eq!(
            Leadership::alone().term(now + second).map(|t| t.number),
            Some(0)
        );
    }
}
